package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/registry"
	"github.com/writgate/writ/server/admin/api"
)

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// A callsExplainCmd explains one decision.
type callsExplainCmd struct {
	Call string `arg:"" help:"The call."`
}

// Help says where the explanation comes from.
func (callsExplainCmd) Help() string {
	return `The explanation is made from the record of the decision and the policies that made it, whatever is in force now. Each change under "would have been allowed if" was tried, one at a time, and did permit the call. None of it is told to the agent.

Arguments are shown, so that you read them is on record.`
}

// Run explains it.
func (c callsExplainCmd) Run(s *session) error {
	var e api.Explanation
	if err := s.client.Post(s.ctx, "/calls/"+url.PathEscape(c.Call)+"/explain", struct{}{}, &e); err != nil {
		return err
	}
	if s.wantsJSON() {
		return s.json(e)
	}
	var action writ.Action
	if err := json.Unmarshal(e.Action, &action); err != nil {
		return err
	}
	s.printf("%s  %s  %s\n", words[e.Call.Effect], cmp.Or(e.Call.Tool, asked(&action)), clock(e.Call.Time))
	if e.Call.Code != "" {
		s.printf("          %s: ", e.Call.Code)
	} else {
		s.printf("          ")
	}
	s.printf("%s\n", e.Why)
	s.printf("who       %s\n", who(&e))
	if e.Call.Task != "" {
		s.printf("task      %s  %s\n", e.Call.Task, purpose(&e.Purpose))
	}
	if e.Claim.Intent != "" {
		s.printf("says      %s  (the agent's own word)\n", e.Claim.Intent)
	}
	if e.Call.Approval != "" {
		s.printf("approval  %s    writ approvals show %s\n", e.Call.Approval, e.Call.Approval)
	}
	for _, r := range e.Decision.Reasons {
		s.printf("decided   %s:%d  %s\n", r.File, r.Line, r.Policy)
	}
	for _, bad := range e.Decision.Errors {
		s.printf("error     %s\n", bad)
	}
	switch {
	case e.Bundle == "": // none was asked, or there was none
	case e.InForce:
		s.printf("bundle    %s  still in force\n", e.Bundle)
	default:
		s.printf("bundle    %s  not in force any more\n", e.Bundle)
	}
	if len(e.Permits) > 0 {
		s.printf("would have been allowed if\n")
		for _, change := range e.Permits {
			s.printf("          %s\n", change.Text)
		}
	}
	s.arguments(&action, e.Provenance)
	s.printf("proof     record %d of %d    writ receipts prove %s\n", e.Call.Index, e.Size, e.Call.ID)
	return nil
}

// asked is what an action asks for, where nothing of that name was found.
func asked(a *writ.Action) writ.ToolName { return registry.NameOf(a.Kind, a.Upstream, a.Name) }

func who(e *api.Explanation) string {
	c, text := &e.Caller, string(e.Caller.Agent)
	if e.Owner != "" {
		text += " (owner " + string(e.Owner) + ")"
	}
	if e.User != "" {
		text += " for " + string(e.User)
	}
	for _, hop := range slices.Backward(c.Chain) {
		text += ", via " + string(hop.Agent)
	}
	return fmt.Sprintf("%s, by %s with key %s", text, c.Proof, c.Key)
}

func purpose(p *writ.Purpose) string {
	origin := string(p.Origin)
	if p.Origin == writ.OriginAgent {
		origin = "the agent itself"
	}
	if p.Instructions == "" {
		return "(no purpose on record)"
	}
	return fmt.Sprintf("%q, says %s", p.Instructions, origin)
}

// arguments prints every argument whole, with where it came from. What may
// steer an agent stands out.
func (s *session) arguments(a *writ.Action, origins []writ.Provenance) {
	args, err := canon.Parse([]byte(a.Arguments), canon.Limits{})
	if err != nil {
		s.printf("arguments %s  (as they were sent: %s)\n", a.Arguments, err)
		return
	}
	first := "arguments"
	for pointer, v := range canon.Leaves(args) {
		from := "where nobody looked: the call was refused before"
		for _, p := range origins {
			if p.Argument == pointer {
				from = provenance(p)
			}
		}
		s.printf("%-9s %s  %s\n          from %s\n", trusted(first), pointer, string(v.JSON()), from)
		first = ""
	}
	if first != "" {
		s.printf("arguments %s\n", a.Arguments)
	}
}

func provenance(p writ.Provenance) string {
	text := map[writ.Origin]string{
		writ.FromUntrusted: "an UNTRUSTED result", writ.FromAgent: "the agent: it is found nowhere", writ.FromTrusted: "a trusted result",
		writ.FromRoster: "a directory", writ.FromBound: "a record bound to the prompt", writ.FromUser: "the user's own identity", writ.FromPrompt: "the prompt",
	}[p.Origin]
	if p.Source != "" {
		text += " of " + string(p.Source)
	}
	if p.Field != "" {
		text += " at " + p.Field
	}
	if p.End > p.Start {
		text += fmt.Sprintf(", bytes %d to %d", p.Start, p.End)
	}
	return strings.TrimSpace(text)
}
