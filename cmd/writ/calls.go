package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/server/admin/api"
)

// words are how people read an effect.
var words = map[string]trusted{"permit": "ALLOW", "deny": "DENY", "step-up": "ASK", "defer": "LATER"}

// A callsLsCmd lists calls.
type callsLsCmd struct {
	Agent string        `help:"Of this agent, by its SPIFFE ID."`
	Tool  string        `help:"Of this tool."`
	Task  string        `help:"Of this task."`
	Only  string        `enum:"all,allow,ask,deny,later" default:"all" placeholder:"all" help:"Only those that were answered so: allow, ask, deny or later."`
	Since time.Duration `help:"Not older than this, such as 2h."`
	Limit int64         `default:"50" help:"At most so many."`
}

// Run lists them.
func (c callsLsCmd) Run(s *session) error {
	q := url.Values{}
	for name, value := range map[string]string{"agent": c.Agent, "tool": c.Tool, "task": c.Task, "effect": effects[c.Only]} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if c.Since > 0 {
		q.Set("since", api.Time(time.Now().Add(-c.Since).UnixMilli()).String())
	}
	var calls []api.Call
	for int64(len(calls)) < c.Limit {
		q.Set("limit", strconv.FormatInt(c.Limit-int64(len(calls)), 10))
		var page api.Page[api.Call]
		if err := s.client.Get(s.ctx, "/calls?"+q.Encode(), &page); err != nil {
			return err
		}
		calls = append(calls, page.Items...)
		if page.Next == "" {
			break
		}
		q.Set("after", page.Next)
	}
	return list(s, calls, "No calls yet.", func(c api.Call) []any {
		return []any{clock(c.Time), c.ID, short(c.Agent), c.Tool, words[c.Effect], outcome(c), reasons(c)}
	})
}

var effects = map[string]string{"allow": "permit", "ask": "step-up", "deny": "deny", "later": "defer"}

// short is the end of a SPIFFE ID: a name that people know.
func short(id writ.AgentID) string {
	_, path, ok := strings.Cut(strings.TrimPrefix(string(id), "spiffe://"), "/")
	if !ok {
		return cmp.Or(string(id), "-")
	}
	return strings.TrimPrefix(path, "agent/")
}

// outcome is what came of a call, or why not.
func outcome(c api.Call) string {
	switch {
	case c.Outcome == "result":
		return "done"
	case c.Outcome == "error":
		return "the tool says it failed"
	case c.Effect == "step-up":
		return strings.TrimSpace("asked " + string(c.Approval))
	}
	return cmp.Or(c.Outcome, string(c.Code), "-")
}

func reasons(c api.Call) string { return strings.Join(c.Reasons, " ") }

// A callsTailCmd follows the log.
type callsTailCmd struct {
	Task   string `help:"Only of this task."`
	Denied bool   `help:"Only what was not allowed."`
	From   int64  `default:"-1" placeholder:"N" help:"Begin with this record; with the next one if it is left out."`
	Count  int    `placeholder:"N" help:"Stop after so many lines."`
}

// Run prints until it is interrupted.
func (c callsTailCmd) Run(s *session) error {
	next := c.From
	if next < 0 {
		var st api.Status
		if err := s.client.Get(s.ctx, "/status", &st); err != nil {
			return err
		}
		next = st.Size
	}
	q := url.Values{"wait": {"25"}}
	if c.Task != "" {
		q.Set("task", c.Task)
	}
	for printed := 0; ; {
		q.Set("after", strconv.FormatInt(next, 10))
		var page api.Page[api.Record]
		if err := s.client.Get(s.ctx, "/records?"+q.Encode(), &page); err != nil {
			if s.ctx.Err() != nil {
				return nil
			}
			return err
		}
		for _, r := range page.Items {
			next = r.Index + 1
			var leaf ledger.Leaf
			if err := json.Unmarshal(r.Leaf, &leaf); err != nil {
				return err
			}
			what, ok := happened(&leaf)
			if c.Denied && leaf.Type != ledger.TypeDecision || !ok && !s.wantsJSON() {
				continue
			}
			if s.wantsJSON() {
				if err := s.json(r); err != nil {
					return err
				}
			} else {
				s.printf("%s  %s  %s ▸ %s  %s\n", clock(r.Time), leaf.Call, short(leaf.Agent), leaf.Tool, what)
			}
			if printed++; printed == c.Count {
				return nil
			}
		}
	}
}

// happened says in a line what a record about a call says.
func happened(l *ledger.Leaf) (string, bool) {
	by := strings.Join(l.Reasons, " ")
	switch l.Type {
	case ledger.TypeDecision:
		return strings.TrimSpace(fmt.Sprintf("%s  %s  %s", words[l.Effect], l.Code, by)), true
	case ledger.TypeIntent:
		return strings.TrimSpace("ALLOW  " + by), true
	case ledger.TypeWaiting:
		return fmt.Sprintf("waits for %s  %s", l.Note["requires"], l.Approval), true
	case ledger.TypeApproval:
		return fmt.Sprintf("%s  %s", l.Note["state"], l.Approval), true
	case ledger.TypeOutcome:
		return cmp.Or(string(l.Code), "done"), true
	}
	return "", false
}

// A callsShowCmd shows one call.
type callsShowCmd struct {
	Call    string `arg:"" help:"The call."`
	Content bool   `help:"With what was asked and answered. That you read it is on record."`
}

// Run shows it.
func (c callsShowCmd) Run(s *session) error {
	var call api.Call
	var err error
	if c.Content {
		err = s.client.Post(s.ctx, "/calls/"+url.PathEscape(c.Call)+"/show", struct{}{}, &call)
	} else {
		err = s.client.Get(s.ctx, "/calls/"+url.PathEscape(c.Call), &call)
	}
	if err != nil {
		return err
	}
	if s.wantsJSON() {
		return s.json(call)
	}
	s.printf("%s  %s  %s\n", words[call.Effect], call.Tool, outcome(call))
	for _, r := range call.Records {
		s.printf("\n#%d  %s\n  %s\n", r.Index, clock(r.Time), r.Leaf)
		if r.Erased {
			s.printf("  its content has been erased\n")
		}
		for _, name := range sorted(r.Content) {
			s.printf("  %s  %s\n", name, r.Content[name])
		}
	}
	return nil
}
