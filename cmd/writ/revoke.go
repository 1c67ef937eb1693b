package main

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/writgate/writ/server/admin/api"
)

// A revokeCmd takes authority away.
type revokeCmd struct {
	Kind   string `arg:"" enum:"task,agent,owner,capability,tool,upstream" help:"What: task, agent, owner, capability, tool or upstream."`
	Of     string `arg:"" help:"Which one."`
	Reason string `help:"Why, for the record."`
	Yes    bool   `short:"y" help:"Do not ask."`
}

// Help says what each kind does.
func (revokeCmd) Help() string {
	return `A task is ended. An agent is suspended, as are all agents of an owner, and their tasks are ended. A capability is used up; if its call is under way, the task is ended. A tool is put into quarantine, as are all tools of an upstream: what is under way at it goes on to its end.

When this returns, no gateway dispatches anything more for it. It needs no key: whoever can open the admin socket can take authority away.`
}

// Run asks, revokes and says what that did.
func (c revokeCmd) Run(s *session) error {
	if !c.Yes {
		if err := s.confirm("Revoke "+c.Kind+" "+c.Of, c.Of); err != nil {
			return err
		}
	}
	var r api.Revocation
	if err := s.client.Post(s.ctx, "/revoke", map[string]string{"kind": c.Kind, "of": c.Of, "reason": c.Reason}, &r); err != nil {
		return err
	}
	if s.wantsJSON() {
		return s.json(r)
	}
	s.printf("since     %s  nothing is dispatched for this any more, on any gateway\n", r.Fenced)
	for _, a := range r.Agents {
		s.printf("agent     %s suspended\n", a)
	}
	for _, t := range r.Tools {
		s.printf("tool      %s in quarantine\n", t)
	}
	for _, t := range r.Tasks {
		s.printf("task      %s ended\n", t)
	}
	if len(r.Tasks) > 0 {
		s.printf("in flight %d cancelled here, results withheld\n", r.Cancelled)
	}
	for _, cred := range r.Credentials {
		s.printf("creds     %s for %s: %s\n", cred.Backend, cred.Tool, ending(&cred))
	}
	for _, what := range r.Remains {
		s.printf("remains   %s\n", what)
	}
	return nil
}

func ending(c *api.Credential) string {
	switch c.Outcome {
	case "revoked":
		return "revoked"
	case "revoked_at_issuer":
		return "revoked at the issuer; a resource may accept it until " + c.Until.String()
	case "expires":
		return "cannot be revoked, expires at " + c.Until.String()
	case "cannot_be_revoked":
		return "cannot be revoked, and does not expire"
	}
	return "not revoked yet; it is tried again"
}

// confirm has the end of a name typed, so that a slip revokes nothing.
func (s *session) confirm(what, name string) error {
	want := name[max(0, len(name)-4):]
	fprintf(s.errs, "%s? type %s: ", what, want)
	line, err := bufio.NewReader(s.in).ReadString('\n')
	if strings.TrimSpace(line) == want {
		return nil
	}
	if err != nil {
		fprintf(s.errs, "\n")
	}
	return refuse("nothing was done")
}

// A haltCmd lets nothing begin.
type haltCmd struct {
	Reason string `help:"Why, for the record."`
}

// Help says what it does not do.
func (haltCmd) Help() string {
	return `It asks nothing, and needs no key. What is under way goes on to its end: writ revoke stops that.`
}

// Run halts.
func (c haltCmd) Run(s *session) error {
	var st api.Status
	if err := s.client.Post(s.ctx, "/halt", map[string]string{"reason": c.Reason}, &st); err != nil {
		return err
	}
	return s.halted(&st)
}

// A liftCmd ends a halt.
type liftCmd struct {
	Reason string `help:"Why, for the record."`
}

// Help says who can.
func (liftCmd) Help() string {
	return `Outside development it takes two operators, each with their own key.`
}

// Run lets calls go on.
func (c liftCmd) Run(s *session) error {
	var st api.Status
	if err := s.act("/lift", map[string]string{"reason": c.Reason}, &st); err != nil {
		return err
	}
	return s.halted(&st)
}

func (s *session) halted(st *api.Status) error {
	if s.wantsJSON() {
		return s.json(st)
	}
	if !st.Halted {
		s.printf("calls go on\n")
		return nil
	}
	s.printf("no call begins, on any gateway; to let calls go on, writ lift needs %s\n", operators(st.LiftNeeds))
	return nil
}

func operators(n int) string {
	if n == 1 {
		return "1 more operator"
	}
	return fmt.Sprintf("%d more operators", n)
}
