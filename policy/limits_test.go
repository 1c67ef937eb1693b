package policy

import (
	"math"
	"testing"

	"github.com/writgate/writ"
)

// What policy cannot relax: a bundle that permits everything permits none of
// these.
func TestLimits(t *testing.T) {
	b := load(t, permitAll)
	tests := []struct {
		name     string
		change   func(q *writ.Query)
		code     writ.Code
		argument string
	}{
		{"query of another version", func(q *writ.Query) { q.Version = 2 }, writ.InvalidRequest, ""},
		{"label beyond the lattice", func(q *writ.Query) { q.Label.Class = writ.Public + 1 }, writ.InvalidRequest, ""},
		{"no proof", func(q *writ.Query) { q.Caller.Proof = "" }, writ.Unauthenticated, ""},
		{"unknown proof", func(q *writ.Query) { q.Caller.Proof = "trust-me" }, writ.Unauthenticated, ""},
		{"nobody", func(q *writ.Query) { q.Caller.Agent, q.Agent.ID, q.Task.Agent = "", "", "" }, writ.AgentNotActive, ""},
		{"another agent's row", func(q *writ.Query) { q.Agent.ID = "spiffe://acme.example/agent/b" }, writ.AgentNotActive, ""},
		{"suspended", func(q *writ.Query) { q.Agent.State = writ.Suspended }, writ.AgentNotActive, ""},
		{"no state", func(q *writ.Query) { q.Agent.State = "" }, writ.AgentNotActive, ""},
		{"expired now", func(q *writ.Query) { q.Agent.Expires = q.Time }, writ.AgentNotActive, ""},
		{"due for certification", func(q *writ.Query) { q.Agent.RecertifyBy = q.Time }, writ.AgentNotActive, ""},
		{"above the agent's highest tier", func(q *writ.Query) { q.Agent.HighestTier = writ.ReadOnly }, writ.Forbidden, ""},
		{"another agent's task", func(q *writ.Query) { q.Task.Agent = "spiffe://acme.example/agent/b" }, writ.OutsideTask, ""},
		{"another key's task", func(q *writ.Query) { q.Task.Key = "other" }, writ.OutsideTask, ""},
		{"paused", func(q *writ.Query) { q.Task.State = writ.Paused }, writ.OutsideTask, ""},
		{"ended", func(q *writ.Query) { q.Task.State = writ.Ended }, writ.OutsideTask, ""},
		{"no task", func(q *writ.Query) { q.Task = writ.Task{} }, writ.OutsideTask, ""},
		{"task over now", func(q *writ.Query) { q.Task.Expires = q.Time }, writ.OutsideTask, ""},
		{"unattended write", func(q *writ.Query) { q.Task.Unattended = true }, writ.OutsideTask, ""},
		{"no grant", func(q *writ.Query) { q.Task.Grant = nil }, writ.OutsideTask, ""},
		{"another tool granted", func(q *writ.Query) { q.Task.Grant = writ.Grant{{Tool: "mail.read"}, {Tool: "web.*"}} }, writ.OutsideTask, ""},
		{"over the maximum", bounds(writ.Bound{Argument: "/amount", Max: "12.49"}), writ.OutsideTask, "/amount"},
		{"under the minimum", bounds(writ.Bound{Argument: "/amount", Min: "12.51"}), writ.OutsideTask, "/amount"},
		{"not in the list", bounds(writ.Bound{Argument: "/to", In: []string{"b@acme.example"}}), writ.OutsideTask, "/to"},
		{"one of a list is not in the list", bounds(writ.Bound{Argument: "/cc", In: []string{"x@acme.example"}}), writ.OutsideTask, "/cc"},
		{"absent argument", bounds(writ.Bound{Argument: "/missing"}), writ.OutsideTask, "/missing"},
		{"a bound that is no number", bounds(writ.Bound{Argument: "/amount", Max: "a lot"}), writ.OutsideTask, "/amount"},
		{"text within numbers", bounds(writ.Bound{Argument: "/to", Min: "0"}), writ.OutsideTask, "/to"},
		{"a number in a list of texts", bounds(writ.Bound{Argument: "/amount", In: []string{"12.5"}}), writ.OutsideTask, "/amount"},
		{"calls spent", budget("", 3, 3), writ.BudgetExceeded, ""},
		{"sum spent", budget("/count", 10, 4), writ.BudgetExceeded, "/count"},
		{"sum of what is absent", budget("/missing", 10, 0), writ.BudgetExceeded, "/missing"},
		{"sum of a fraction", budget("/amount", 100, 0), writ.BudgetExceeded, "/amount"},
		{"sum of text", budget("/to", 100, 0), writ.BudgetExceeded, "/to"},
		{"a negative sum gives nothing back", func(q *writ.Query) {
			q.Action.Arguments = `{"count":-5,"to":"a@acme.example"}`
			budget("/count", 10, 10)(q)
		}, writ.BudgetExceeded, "/count"},
		{"sum that overflows", func(q *writ.Query) {
			q.Action.Arguments = `{"count":9223372036854775807,"to":"a@acme.example"}`
			budget("/count", math.MaxInt64, 1)(q)
		}, writ.BudgetExceeded, "/count"},
		{"spent less than nothing", budget("", 3, -1), writ.BudgetExceeded, ""},
		{"other policies", func(q *writ.Query) { q.Bundle = "sha256:other" }, writ.StateChanged, ""},
		{"a tool that the policies do not know", func(q *writ.Query) { q.Tool.Name = "mail.sent" }, writ.Quarantined, ""},
		{"another definition", func(q *writ.Query) { q.Tool.Definition, q.Action.Definition = "sha256:new", "sha256:new" }, writ.Quarantined, ""},
		{"an action of another definition", func(q *writ.Query) { q.Action.Definition = "sha256:new" }, writ.Quarantined, ""},
		{"reviewed with another tier", func(q *writ.Query) { q.Tool.Tier = writ.ReadOnly }, writ.StateChanged, ""},
		{"reviewed with another label", func(q *writ.Query) { q.Tool.Result = writ.Clean }, writ.StateChanged, ""},
		{"action of another kind", func(q *writ.Query) { q.Action.Kind = writ.KindCredential }, writ.StateChanged, ""},
		{"action of another upstream", func(q *writ.Query) { q.Action.Upstream = "web" }, writ.StateChanged, ""},
		{"no arguments at all", func(q *writ.Query) { q.Action.Arguments = "" }, writ.NotRepresentable, ""},
		{"arguments that are no object", func(q *writ.Query) { q.Action.Arguments = "[]" }, writ.NotRepresentable, ""},
		{"a name twice", func(q *writ.Query) { q.Action.Arguments = `{"to":"a","to":"b"}` }, writ.NotRepresentable, ""},
		{"undeclared", func(q *writ.Query) { q.Action.Arguments = `{"bcc":"e@evil.example","to":"a"}` }, writ.NotRepresentable, "/bcc"},
		{"required and missing", func(q *writ.Query) { q.Action.Arguments = `{"count":1}` }, writ.NotRepresentable, "/to"},
		{"undeclared inside", func(q *writ.Query) { q.Action.Arguments = `{"address":{"zip":"1"},"to":"a"}` }, writ.NotRepresentable, "/address/zip"},
		{"of another type", func(q *writ.Query) { q.Action.Arguments = `{"to":7}` }, writ.NotRepresentable, "/to"},
		{"null where none may be", func(q *writ.Query) { q.Action.Arguments = `{"to":null}` }, writ.NotRepresentable, "/to"},
		{"an integer beyond 64 bits", func(q *writ.Query) { q.Action.Arguments = `{"count":9223372036854775808,"to":"a"}` }, writ.NotRepresentable, "/count"},
		{"a fraction for an integer", func(q *writ.Query) { q.Action.Arguments = `{"count":1.5,"to":"a"}` }, writ.NotRepresentable, "/count"},
		{"a fifth fractional digit", func(q *writ.Query) { q.Action.Arguments = `{"amount":1.00001,"to":"a"}` }, writ.NotRepresentable, "/amount"},
		{"a number too large for a decimal", func(q *writ.Query) { q.Action.Arguments = `{"amount":922337203685478,"to":"a"}` }, writ.NotRepresentable, "/amount"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := ask(t, b, "mail.send", `{"amount":12.5,"cc":["x@acme.example","y@acme.example"],"count":7,"to":"a@acme.example"}`)
			if d := decide(t, b, q); d.Effect != writ.Permit {
				t.Fatalf("before the change: %+v, want a permit", d)
			}
			tt.change(q)
			d := decide(t, b, q)
			if d.Effect != writ.Deny || d.Code != tt.code || d.Argument != tt.argument {
				t.Errorf("Decide = %v %q %q, want deny %q %q", d.Effect, d.Code, d.Argument, tt.code, tt.argument)
			}
			for q.Assurance = 0; q.Assurance <= writ.TwoPasskeys; q.Assurance++ {
				if d := decide(t, b, q); d.Effect != writ.Deny {
					t.Errorf("with %v: %v, want deny", q.Assurance, d.Effect)
				}
			}
		})
	}
}

// bounds grants the tool within one bound.
func bounds(b writ.Bound) func(*writ.Query) {
	return func(q *writ.Query) { q.Task.Grant = writ.Grant{{Tool: q.Tool.Name, Bounds: []writ.Bound{b}}} }
}

// budget adds one that counts calls, or a sum.
func budget(sum string, limit, spent int64) func(*writ.Query) {
	return func(q *writ.Query) {
		q.Task.Budgets = []writ.Budget{{Name: "other", Tool: "web.*", Limit: 0}, {Name: "it", Tool: "mail.*", Sum: sum, Limit: limit}}
		q.Spent = map[string]int64{"it": spent}
	}
}

func TestWithinLimits(t *testing.T) {
	b := load(t, permitAll)
	tests := []struct {
		name   string
		change func(q *writ.Query)
	}{
		{"an agent that never expires", func(q *writ.Query) { q.Agent.Expires, q.Agent.RecertifyBy = 0, 0 }},
		{"the last millisecond of an agent", func(q *writ.Query) { q.Agent.Expires = q.Time + 1 }},
		{"exactly the highest tier", func(q *writ.Query) { q.Agent.HighestTier = writ.BoundedWrite }},
		{"the tool by its upstream", func(q *writ.Query) { q.Task.Grant = writ.Grant{{Tool: "mail.*"}} }},
		{"the second line of the grant", func(q *writ.Query) {
			q.Task.Grant = writ.Grant{{Tool: "mail.send", Bounds: []writ.Bound{{Argument: "/amount", Max: "1"}}}, {Tool: "mail.send", Bounds: []writ.Bound{{Argument: "/amount", Max: "100"}}}}
		}},
		{"exactly the maximum, written otherwise", bounds(writ.Bound{Argument: "/amount", Min: "1.25e1", Max: "12.500"})},
		{"every one of a list", bounds(writ.Bound{Argument: "/cc", In: []string{"y@acme.example", "x@acme.example"}})},
		{"present, and no more asked", bounds(writ.Bound{Argument: "/count"})},
		{"the last call of a budget", budget("", 3, 2)},
		{"the last of a sum", budget("/count", 10, 3)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := ask(t, b, "mail.send", `{"amount":12.5,"cc":["x@acme.example","y@acme.example"],"count":7,"to":"a@acme.example"}`)
			tt.change(q)
			if d := decide(t, b, q); d.Effect != writ.Permit {
				t.Errorf("Decide = %+v, want a permit", d)
			}
		})
	}
}

// An empty list is within no bound: there is nobody in it to be allowed.
func TestListInAListIsWithinNoBound(t *testing.T) {
	b := load(t, permitAll)
	for list, want := range map[string]writ.Code{`["x"]`: "", `[["x"]]`: writ.OutsideTask, `["x",["x"]]`: writ.OutsideTask} {
		q := ask(t, b, "mail.send", `{"extra":{"l":`+list+`},"to":"a"}`)
		bounds(writ.Bound{Argument: "/extra/l", In: []string{"x"}})(q)
		if d := decide(t, b, q); d.Code != want {
			t.Errorf("%s: %+v, want %q", list, d, want)
		}
	}
}

func TestEmptyListIsWithinNoBound(t *testing.T) {
	b := load(t, permitAll)
	q := ask(t, b, "mail.send", `{"cc":[],"to":"a"}`)
	bounds(writ.Bound{Argument: "/cc", In: []string{"x"}})(q)
	if d := decide(t, b, q); d.Code != writ.OutsideTask {
		t.Errorf("Decide = %+v, want outside_task", d)
	}
}

func TestUnattendedReadsAndFetchesNothing(t *testing.T) {
	b := load(t, permitAll)
	for tool, want := range map[writ.ToolName]writ.Effect{"mail.read": writ.Permit, "web.get": writ.Deny, "mail.send": writ.Deny, "db.drop": writ.Deny} {
		q := ask(t, b, tool, `{}`)
		if tool == "web.get" {
			q = ask(t, b, tool, `{"url":"https://acme.example/"}`)
		}
		q.Task.Unattended = true
		if d := decide(t, b, q); d.Effect != want {
			t.Errorf("unattended %s: %v, want %v", tool, d.Effect, want)
		}
	}
}
