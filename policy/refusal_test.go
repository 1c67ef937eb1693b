package policy

import (
	"reflect"
	"strings"
	"testing"

	"github.com/writgate/writ"
)

func TestRefusal(t *testing.T) {
	const secret = `@id("four-eyes-on-secret-project") forbid (principal, action in Action::"tier:bounded-write", resource) when { !context.origin.untrusted.isEmpty() };
@id("ask-maya") forbid (principal, action == Action::"mail.send", resource) when { context.args has count && context.args.count > 100 } unless { context.assurance.reviewers >= 1 };
`
	limit := writ.Bound{Argument: "/amount", Min: "1", Max: "10"}
	tests := []struct {
		name   string
		args   string
		change func(*writ.Query)
		want   writ.Denial // Err aside
	}{
		{"forbidden", "", func(q *writ.Query) { from(q, "/to", writ.FromUntrusted) },
			writ.Denial{Code: writ.Forbidden, Reason: "policy does not permit this action; do not try it in another form", Remedy: writ.RemedyStop}},
		{"a person is needed", `{"count":101,"to":"a@acme.example"}`, nil,
			writ.Denial{Code: writ.ApprovalRequired, Reason: "a person has to approve this action first", Remedy: writ.RemedyWait}},
		{"not granted", "", func(q *writ.Query) { q.Task.Grant = nil },
			writ.Denial{Code: writ.OutsideTask, Reason: "the task was not granted this tool", Remedy: writ.RemedyDelegate}},
		{"beyond the task's own bounds", "", bounds(limit),
			writ.Denial{Code: writ.OutsideTask, Reason: "an argument is beyond the bounds of the task", Argument: "/amount", Bounds: []writ.Bound{limit}, Remedy: writ.RemedyFix}},
		{"the task is over", "", func(q *writ.Query) { q.Task.State = writ.Ended },
			writ.Denial{Code: writ.OutsideTask, Reason: "the task is not open", Remedy: writ.RemedyStop}},
		{"nobody opened the task", "", func(q *writ.Query) { q.Task.Unattended = true },
			writ.Denial{Code: writ.OutsideTask, Reason: "a task that nobody opened may only read", Remedy: writ.RemedyAskUser}},
		{"no room", "", budget("/count", 10, 8),
			writ.Denial{Code: writ.BudgetExceeded, Reason: `the budget "it" has no room for this call`, Argument: "/count", Remedy: writ.RemedyAskUser}},
		{"suspended", "", func(q *writ.Query) { q.Agent.State = writ.Suspended },
			writ.Denial{Code: writ.AgentNotActive, Reason: "the agent is not active", Remedy: writ.RemedyStop}},
		{"above its tier", "", func(q *writ.Query) { q.Agent.HighestTier = writ.ReadOnly },
			writ.Denial{Code: writ.Forbidden, Reason: "the agent may use no tool of this tier", Remedy: writ.RemedyStop}},
		{"not declared", `{"bcc":"x","to":"a@acme.example"}`, nil,
			writ.Denial{Code: writ.NotRepresentable, Reason: "an argument is missing, unknown, or not of the type that the tool declares", Argument: "/bcc", Remedy: writ.RemedyFix}},
		{"no JSON", "", func(q *writ.Query) { q.Action.Arguments = "{" },
			writ.Denial{Code: writ.NotRepresentable, Reason: "the arguments are not one exact JSON object", Remedy: writ.RemedyFix}},
		{"the tool changed", "", func(q *writ.Query) { q.Tool.Definition = "sha256:new" },
			writ.Denial{Code: writ.Quarantined, Reason: "this tool changed and waits for its review", Remedy: writ.RemedyStop}},
		{"the policies changed", "", func(q *writ.Query) { q.Bundle = "sha256:new" },
			writ.Denial{Code: writ.StateChanged, Reason: "what this decision depends on has changed; try again", Remedy: writ.RemedyWait}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := load(t, permitAll+secret)
			if tt.args == "" {
				tt.args = `{"amount":12.5,"count":7,"to":"a@acme.example"}`
			}
			q := ask(t, b, "mail.send", tt.args)
			if tt.change != nil {
				tt.change(q)
			}
			d := decide(t, b, q)
			got := *Refusal(q, d)
			if len(d.Reasons) > 0 && !strings.Contains(got.Error(), "test.cedar:") {
				t.Errorf("the operator is not told what determined it: %v", got.Err)
			}
			got.Err = nil
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("Refusal = %+v, want %+v", got, tt.want)
			}
			for _, leak := range []string{"four-eyes", "maya", "cedar", "acme", "12.5", "untrusted"} {
				if strings.Contains(got.Reason, leak) {
					t.Errorf("the agent is told of %q: %s", leak, got.Reason)
				}
			}
		})
	}
}

// A decision that says nothing is a refusal all the same.
func TestRefusalOfNothing(t *testing.T) {
	if d := Refusal(new(writ.Query), writ.Decision{}); d.Code == "" || d.Reason == "" || d.Remedy != writ.RemedyStop {
		t.Errorf("Refusal = %+v", d)
	}
	if d := Refusal(new(writ.Query), writ.Decision{Code: writ.Unavailable}); d.Remedy != writ.RemedyWait || d.Reason == "" {
		t.Errorf("Refusal = %+v", d)
	}
}
