package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"

	"github.com/writgate/writ"
	"github.com/writgate/writ/server/admin/api"
)

// An approvalsLsCmd lists what waits.
type approvalsLsCmd struct{}

// Run lists it.
func (approvalsLsCmd) Run(s *session) error {
	var page api.Page[api.Approval]
	if err := s.client.Get(s.ctx, "/approvals", &page); err != nil {
		return err
	}
	return list(s, page.Items, "Nothing waits for an answer.", func(a api.Approval) []any {
		return []any{a.ID, short(a.Agent), a.Tool, a.Tier, "needs " + a.Requires.String(), fmt.Sprintf("%d said yes", yes(&a)), trusted("until " + clock(a.Expires))}
	})
}

func yes(a *api.Approval) int {
	n := 0
	for _, answer := range a.Answers {
		if answer.Yes {
			n++
		}
	}
	return n
}

// An approvalsShowCmd shows one request.
type approvalsShowCmd struct {
	Approval string `arg:"" help:"The approval."`
}

// Help says what is shown.
func (approvalsShowCmd) Help() string {
	return `Facts come first, every argument whole, each with where it came from; what the agent says comes last, and is only its word. The digest is made here, of the bytes that are shown: an approval names it, and is good for nothing else.

That you read it is on record.`
}

// Run shows it.
func (c approvalsShowCmd) Run(s *session) error {
	a, digest, err := s.approval(c.Approval)
	if err != nil {
		return err
	}
	if s.wantsJSON() {
		return s.json(a)
	}
	return s.printApproval(a, digest)
}

// approval gets a request with its action, and makes the digest of the very
// bytes that came.
func (s *session) approval(id string) (*api.Approval, writ.Digest, error) {
	a := new(api.Approval)
	if err := s.client.Post(s.ctx, "/approvals/"+url.PathEscape(id)+"/show", struct{}{}, a); err != nil {
		return nil, "", err
	}
	if a.Shown == nil {
		return nil, "", refuse("the gateway does not show what %s is about", id)
	}
	digest := writ.Hash("action", a.Shown.Action)
	if digest != a.Shown.Digest {
		return nil, "", refuse("the gateway shows an action with digest %s and calls it %s", digest, a.Shown.Digest)
	}
	return a, digest, nil
}

func (s *session) printApproval(a *api.Approval, digest writ.Digest) error {
	var action writ.Action
	d := json.NewDecoder(bytes.NewReader(a.Shown.Action))
	d.DisallowUnknownFields() // nothing is approved that is not shown
	if err := d.Decode(&action); err != nil {
		return fmt.Errorf("an action that this version cannot show whole: %w", err)
	}
	s.printf("%s  %s  %s\n", a.Tool, a.Tier, a.State)
	s.printf("digest    %s\n", digest)
	s.printf("asked     %s, until %s; needs %s\n", clock(a.Asked), clock(a.Expires), a.Requires)
	s.arguments(&action, a.Shown.Provenance)
	for _, more := range []struct{ name, value string }{
		{"kind", string(action.Kind)}, {"upstream", action.Upstream}, {"name", action.Name}, {"definition", string(action.Definition)},
		{"inputs", string(action.Inputs)}, {"state", action.State}, {"only if", string(action.Preconditions)},
	} {
		if more.value != "" {
			s.printf("%-9s %s\n", trusted(more.name), more.value)
		}
	}
	s.printf("who       %s (owner %s)\n", a.Agent, a.Owner)
	if a.User != "" {
		s.printf("for       %s\n", a.User)
	}
	s.printf("task      %s  %s\n", a.Task, purpose(&a.Shown.Purpose))
	s.printf("has read  at worst %s, at most %s\n", a.Shown.Label.Integrity, a.Shown.Label.Class)
	for _, answer := range a.Answers {
		said := "no"
		if answer.Yes {
			said = "yes"
		}
		s.printf("%-9s %s at %s  %s\n", trusted(said), answer.By, clock(answer.Time), answer.Reason)
	}
	if claim := a.Shown.Claim; claim != (writ.Claim{}) {
		s.printf("--- the agent says, and nobody has checked\n%s\n%s\n", claim.Intent, claim.Prompt)
	}
	return nil
}

// An approvalsApproveCmd says yes.
type approvalsApproveCmd struct {
	Approval string `arg:"" help:"The approval."`
	Digest   string `help:"Approve only if the action has this digest. It is needed where nobody can be asked for the passphrase."`
	Reason   string `help:"Why, for the record."`
}

// Help says how consent is given.
func (approvalsApproveCmd) Help() string {
	return `The action is shown, and then the passphrase of your key is asked for: typing it is the consent. What is signed names the digest of what was shown.`
}

// Run shows, asks and signs.
func (c approvalsApproveCmd) Run(s *session) error {
	a, digest, err := s.approval(c.Approval)
	if err != nil {
		return err
	}
	if c.Digest == "" && unattended() {
		return &usageError{"--digest: the passphrase is in a file, so nobody sees what is approved; say what was seen"}
	}
	if c.Digest != "" && c.Digest != string(digest) {
		return refuse("the action has digest %s, not %s", digest, c.Digest)
	}
	if !s.wantsJSON() {
		if err := s.printApproval(a, digest); err != nil {
			return err
		}
	}
	var answered api.Approval
	err = s.act("/approvals/"+url.PathEscape(c.Approval)+"/approve", map[string]any{"shown": digest, "reason": c.Reason}, &answered)
	if err != nil {
		return err
	}
	return s.answered(&answered)
}

// An approvalsDenyCmd says no.
type approvalsDenyCmd struct {
	Approval string `arg:"" help:"The approval."`
	Reason   string `help:"Why. The agent is told."`
}

// Run says no. It needs no key.
func (c approvalsDenyCmd) Run(s *session) error {
	var answered api.Approval
	err := s.client.Post(s.ctx, "/approvals/"+url.PathEscape(c.Approval)+"/deny", map[string]string{"reason": c.Reason}, &answered)
	if err != nil {
		return err
	}
	return s.answered(&answered)
}

func (s *session) answered(a *api.Approval) error {
	if s.wantsJSON() {
		return s.json(a)
	}
	if a.State == "pending" {
		s.printf("%s  waits for %s\n", a.ID, a.Requires)
		return nil
	}
	s.printf("%s  %s\n", a.ID, a.State)
	return nil
}
