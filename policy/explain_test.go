package policy

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/writgate/writ"
)

func TestExplain(t *testing.T) {
	const guard = permitAll + `@id("untrusted") forbid (principal, action in Action::"tier:bounded-write", resource) when { !context.origin.untrusted.isEmpty() };
`
	const call = `{"amount":12.5,"count":7,"to":"a@acme.example"}`
	tests := []struct {
		name, policies string
		tool           writ.ToolName
		args           string
		change         func(*writ.Query)
		why            string
		want           []string
	}{
		{name: "a permit needs no change", policies: permitAll, why: "permitted by all (test.cedar:1)"},
		{name: "nothing that is tried helps", policies: permitAll + `@id("no") forbid (principal, action, resource);`, why: "forbidden by no (test.cedar:2)"},
		{name: "no policy at all permits", policies: `permit (principal in Group::"others", action, resource);`, why: "no policy permits it"},
		{name: "one untrusted argument", policies: guard, change: func(q *writ.Query) { from(q, "/to", writ.FromUntrusted) },
			why: "forbidden by untrusted (test.cedar:2)", want: []string{"/to comes from agent"}},
		{name: "two untrusted arguments", policies: guard, change: func(q *writ.Query) { from(q, "/to", writ.FromUntrusted); from(q, "/count", writ.FromUntrusted) },
			why: "forbidden by untrusted (test.cedar:2)", want: []string{"every argument comes from agent"}},
		{name: "the prompt alone will do", policies: `permit (principal, action == Action::"mail.send", resource) when { context.origin.prompt.contains("/to") };`,
			why: "no policy permits it", want: []string{"/to comes from prompt"}},
		{name: "an integer down to what is compared with", policies: permitAll + `forbid (principal, action == Action::"mail.send", resource) when { context.args has count && context.args.count > 5 };`,
			why: "forbidden by policy1 (test.cedar:2)", want: []string{"/count is 5"}},
		{name: "an integer below what is compared with", policies: permitAll + `forbid (principal, action == Action::"mail.send", resource) when { context.args has count && context.args.count >= 5 };`,
			why: "forbidden by policy1 (test.cedar:2)", want: []string{"/count is 4"}},
		{name: "a decimal to the last of its places", policies: `permit (principal, action == Action::"mail.send", resource) when { context.args has amount && context.args.amount.lessThan(decimal("10.5")) };`,
			why: "no policy permits it", want: []string{"/amount is 10.4999"}},
		{name: "the nearest of several", policies: permitAll + `forbid (principal, action == Action::"mail.send", resource) when { context.args has count && (context.args.count > 5 && context.args.count < 100) };`,
			why: "forbidden by policy1 (test.cedar:2)", want: []string{"/count is 5"}},
		{name: "a reviewer, or the smaller number", policies: permitAll + `@id("big") forbid (principal, action == Action::"mail.send", resource) when { context.args has count && context.args.count > 5 } unless { context.assurance.reviewers >= 1 };`,
			why: "waits until a reviewer approves, because of big (test.cedar:2)", want: []string{"a reviewer approves", "/count is 5"}},
		{name: "a weaker word would do", policies: permitAll + `forbid (principal, action == Action::"mail.send", resource) when { !context.origin.untrusted.isEmpty() } unless { context.assurance.reviewers >= 1 };
forbid (principal, action, resource) unless { context.assurance.userConfirmed };`, change: func(q *writ.Query) { from(q, "/to", writ.FromUntrusted) },
			why: "waits until a reviewer approves, because of policy1 (test.cedar:2), policy2 (test.cedar:3)", want: []string{"a reviewer approves", "/to comes from agent, and the user confirms"}},
		{name: "the grant", policies: permitAll, change: func(q *writ.Query) { q.Task.Grant = writ.Grant{{Tool: "mail.read"}} },
			why: "the task was not granted this tool", want: []string{"the task is granted mail.send"}},
		{name: "the grant, and a person", policies: `permit (principal, action, resource) when { context.assurance.reviewers >= 1 };`, change: func(q *writ.Query) { q.Task.Grant = nil },
			why: "the task was not granted this tool", want: []string{"the task is granted mail.send, and a reviewer approves"}},
		{name: "a bound", policies: permitAll, change: bounds(writ.Bound{Argument: "/amount", Min: "1", Max: "10"}),
			why: "an argument is beyond the bounds of the task: /amount", want: []string{"/amount is 10", "the task's bound on /amount admits 12.5"}},
		{name: "a bound with an exponent no machine can write out", policies: permitAll, change: bounds(writ.Bound{Argument: "/amount", Min: "1e999999999"}),
			why: "an argument is beyond the bounds of the task: /amount", want: []string{"the task's bound on /amount admits 12.5"}},
		{name: "a budget of calls", policies: permitAll, change: budget("", 3, 3),
			why: `the budget "it" has no room for this call`, want: []string{`the budget "it" has a limit of 4`}},
		{name: "a budget of a sum", policies: permitAll, change: budget("/count", 10, 8),
			why: `the budget "it" has no room for this call: /count`, want: []string{"/count is 2", `the budget "it" has a limit of 15`}},
		{name: "an agent that is suspended", policies: permitAll, change: func(q *writ.Query) { q.Agent.State = writ.Suspended }, why: "the agent is not active"},
		{name: "a task that is over", policies: permitAll, change: func(q *writ.Query) { q.Task.State = writ.Ended }, why: "the task is not open"},
		{name: "a tool that changed", policies: permitAll, change: func(q *writ.Query) { q.Tool.Tier = writ.ReadOnly }, why: "the tool was reviewed anew"},
		{name: "an argument that is not declared", policies: permitAll, args: `{"bcc":"x","to":"a"}`, why: "an argument is missing, undeclared, or does not fit its type: /bcc"},
		{name: "an argument too exact", policies: permitAll + `forbid (principal, action == Action::"mail.send", resource) when { context.args has amount && context.args.amount.greaterThan(decimal("3.0")) };`,
			args: `{"amount":12.50001,"to":"a"}`, why: "an argument is missing, undeclared, or does not fit its type: /amount", want: []string{"/amount is 3"}},
		{name: "an error is no place to look further", policies: permitAll + `forbid (principal, action == Action::"mail.send", resource) when { context.args has count && context.args.count + 9223372036854775807 > 0 };`,
			why: "test.cedar:2: its numbers are too large to compute with"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := load(t, tt.policies)
			if tt.args == "" {
				tt.args = call
			}
			q := ask(t, b, "mail.send", tt.args)
			if tt.change != nil {
				tt.change(q)
			}
			before, _ := json.Marshal(q)
			e := b.Explain(q)
			if after, _ := json.Marshal(q); string(after) != string(before) {
				t.Error("explaining changed the query")
			}
			if e.Why != tt.why {
				t.Errorf("why: %s\nwant: %s", e.Why, tt.why)
			}
			var got []string
			for _, c := range e.Changes {
				got = append(got, c.String())
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("changes: %s\nwant: %s", strings.Join(got, " | "), strings.Join(tt.want, " | "))
			}
		})
	}
}

func TestExplainWithoutPolicies(t *testing.T) {
	b, err := Load(nil, testTools)
	if err != nil {
		t.Fatal(err)
	}
	if e := b.Explain(ask(t, b, "mail.read", `{}`)); e.Why != "there is no policy: everything is denied" || e.Changes != nil {
		t.Errorf("Explain = %+v", e)
	}
	if e := new(Bundle).Explain(ask(t, b, "mail.read", `{}`)); e.Decision.Effect != writ.Deny || e.Why != "no policies are in force" {
		t.Errorf("Explain of the zero bundle = %+v", e)
	}
}

// An explanation costs a bounded number of decisions, whatever is asked.
func TestExplainIsBounded(t *testing.T) {
	b := load(t, permitAll+`forbid (principal, action == Action::"mail.send", resource) when { context.args has cc && context.args.cc.contains("x") };`)
	many := `{"cc":["x"` + strings.Repeat(`,"y"`, 900) + `],"to":"a"}`
	q := ask(t, b, "mail.send", many)
	tr := trial{bundle: b, query: q, left: maxTrials}
	if tr.origins(); tr.left < 0 {
		t.Errorf("%d decisions beyond the limit", -tr.left)
	}
}
