package policy

import (
	"fmt"
	"slices"
	"testing"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/writgate/writ"
)

// What the schema says that policies may read, and what a decision makes for
// them, are the same.
func TestFactsAreThoseOfTheSchema(t *testing.T) {
	b := load(t, permitAll)
	declared := map[string]bool{}
	for member, attr := range b.schema.Actions[actionUID("mail.send")].AppliesTo.Context {
		rec, ok := attr.Type.(resolved.RecordType)
		whole := slices.ContainsFunc(facts, func(f fact) bool { return f.member == cedar.String(member) && f.attr == "" })
		if !ok || whole {
			declared[string(member)+"."] = true
			continue
		}
		for name := range rec {
			declared[string(member)+"."+string(name)] = true
		}
	}
	for _, f := range facts {
		name := string(f.member + "." + f.attr)
		if !declared[name] {
			t.Errorf("%s is made, and the schema does not have it", name)
		}
		delete(declared, name)
	}
	for name := range declared {
		t.Errorf("%s is in the schema, and is never made", name)
	}
	if len(facts) > 32 {
		t.Errorf("%d facts do not fit into a factSet", len(facts))
	}
}

// Everything a policy can read, by conditions that hold.
func TestPolicySees(t *testing.T) {
	conditions := []string{
		`principal == Agent::"spiffe://acme.example/agent/a"`,
		`principal in Group::"support"`,
		`!(principal in Group::"others")`,
		`principal.environment == "prod"`,
		`principal.owner == User::"olga"`,
		`resource == Tool::"mail.send"`,
		`resource in Upstream::"mail"`,
		`resource.tier == Tier::"bounded-write"`,
		`resource.harm == 1`,
		`!resource.fetch`,
		`resource.result.class == Class::"internal"`,
		`!resource.result.trusted`,
		`action in Action::"class:internal" && action in Action::"kind:tool" && action in Action::"all"`,
		`!(action in Action::"fetch")`,
		`context.args.to == "a@acme.example"`,
		`context.args.cc.containsAll(["x", "y"]) && !context.args.cc.contains("z")`,
		`context.args.amount == decimal("12.5")`,
		`context.args.amount.lessThan(decimal("12.5001"))`,
		`context.args.count == 7`,
		`context.args.urgent`,
		`!(context.args has note)`,
		`context.nulls.contains("/note")`,
		`context.args.level == "high"`,
		`context.args.address.city == "Bern"`,
		`context.args.address["a/b~c"] == "odd"`,
		`context.args.extra == "{\"a\":[1,2],\"b\":9007199254740993}"`,
		`context.origin.prompt.containsAll(["/to", "/address/city"])`,
		`context.origin.untrusted.contains("/address/a~1b~0c") && context.origin.untrusted.contains("/address")`,
		`context.origin.untrusted.contains("/extra")`,
		`context.origin.agent.containsAll(["/urgent", "/note"])`,
		`context.origin.trusted.contains("/count")`,
		`context.origin.roster.contains("/cc")`,
		`context.origin.bound.contains("/amount")`,
		`context.origin.user.contains("/level")`,
		`context.label.class == Class::"confidential" && context.label.secrecy == 2 && !context.label.trusted`,
		`context.caller.proof == Proof::"dpop"`,
		`context.caller has user && context.caller.user == User::"maya"`,
		`context.caller.depth == 2`,
		`context.caller.chain.contains(Agent::"spiffe://acme.example/agent/parent")`,
		`context.task.id == "task_1"`,
		`context.task.age == duration("10s")`,
		`context.task.left == duration("1m")`,
		`context.task.attested`,
		`context.task.delegated`,
		`context.task.environment == "prod"`,
		`context.task.isolation == Isolation::"sandbox"`,
		`context.task.origin == PurposeOrigin::"operator"`,
		`context.task.purpose like "*invoice*"`,
		`!context.task.unattended`,
		`context.task has user && context.task.user == User::"uli"`,
		`context.budget.governed && context.budget.percent == 34`,
		`context.time == datetime("2027-01-15T08:00:00Z")`,
		`context.assurance.level >= 0 && context.assurance.reviewers >= 0`,
	}
	for _, c := range conditions {
		b, err := Load([]File{{"test.cedar", fmt.Appendf(nil, "permit (principal, action == Action::\"mail.send\", resource) when { %s };", guarded(c))}}, testTools)
		if err != nil {
			t.Errorf("%s: %v", c, err)
			continue
		}
		if d := decide(t, b, everything(t, b)); d.Effect != writ.Permit {
			t.Errorf("%s: %+v, want it to hold", c, d)
		}
	}
}

// guarded is a condition that first asks for the optional arguments.
func guarded(c string) string {
	const all = `context.args has cc && context.args has amount && context.args has count && context.args has urgent && context.args has level && context.args has address && context.args.address has city && context.args.address has "a/b~c" && context.args has extra`
	return all + " && " + c
}

func everything(t *testing.T, b *Bundle) *writ.Query {
	q := ask(t, b, "mail.send", `{"address":{"a/b~c":"odd","city":"Bern"},"amount":12.5,"cc":["x","y"],"count":7,"extra":{"a":[1,2],"b":9007199254740993},"level":"high","note":null,"to":"a@acme.example","urgent":true}`)
	q.Provenance = []writ.Provenance{
		{Argument: "/to", Origin: writ.FromPrompt},
		{Argument: "/address/city", Origin: writ.FromPrompt},
		{Argument: "/address/a~1b~0c", Origin: writ.FromUntrusted},
		{Argument: "/cc/0", Origin: writ.FromRoster},
		{Argument: "/cc/1", Origin: writ.FromPrompt},
		{Argument: "/count", Origin: writ.FromPrompt},
		{Argument: "/count", Origin: writ.FromTrusted}, // traced twice: the worse counts
		{Argument: "/amount", Origin: writ.FromBound},
		{Argument: "/level", Origin: writ.FromUser},
		{Argument: "/extra/a/0", Origin: writ.FromPrompt}, // the rest of /extra was not traced
	}
	q.Label = writ.Label{Integrity: writ.Untrusted, Class: writ.Confidential}
	q.Caller.User = "maya"
	q.Caller.Chain = []writ.Hop{{Agent: "spiffe://acme.example/agent/root"}, {Agent: "spiffe://acme.example/agent/parent"}}
	q.Task.Parent, q.Task.User, q.Task.Isolation = "task_0", "uli", writ.IsolationSandbox
	q.Task.Purpose = writ.Purpose{Instructions: "pay the invoice", Origin: writ.OriginOperator}
	q.Task.Budgets = []writ.Budget{{Name: "calls", Tool: "*", Limit: 100}, {Name: "sends", Tool: "mail.send", Sum: "/count", Limit: 33}, {Name: "web", Tool: "web.*", Limit: 1}}
	q.Spent = map[string]int64{"calls": 3, "sends": 4, "web": 1}
	return q
}

// An agent's own word for its purpose is not shown as one, and what has no
// name counts as the weakest.
func TestPolicySeesTheWeakest(t *testing.T) {
	b := load(t, `permit (principal, action, resource) when {
  !context.task.attested && context.task.purpose == "" && context.task.origin == PurposeOrigin::"agent" &&
  context.task.isolation == Isolation::"none" && !(context.task has user) && !(context.caller has user) &&
  !context.budget.governed && context.task.age == duration("0s") };`)
	q := ask(t, b, "mail.read", `{}`)
	q.Task.Opened = q.Time + 5 // a clock that was ahead
	for _, origin := range []writ.PurposeOrigin{writ.OriginAgent, "notary"} {
		q.Task.Purpose = writ.Purpose{Instructions: "pay the invoice", Origin: origin}
		q.Task.Isolation = "magic"
		if d := decide(t, b, q); d.Effect != writ.Permit {
			t.Errorf("origin %q: %+v, want a permit", origin, d)
		}
	}
}

// Whatever was not traced is untrusted; only what has no text is the agent's.
func TestUntracedIsUntrusted(t *testing.T) {
	b := load(t, `permit (principal, action == Action::"mail.send", resource) when { context.origin.untrusted.contains("/to") && context.origin.untrusted.contains("/count") && context.origin.agent.containsAll(["/urgent", "/note", "/cc"]) };`)
	q := ask(t, b, "mail.send", `{"cc":[],"count":0,"note":"","to":"a","urgent":false}`)
	q.Provenance = nil
	if d := decide(t, b, q); d.Effect != writ.Permit {
		t.Errorf("Decide = %+v, want a permit", d)
	}
	q.Provenance = []writ.Provenance{{Argument: "/to", Origin: writ.FromPrompt + 1}, {Argument: "/urgent", Origin: writ.FromAgent}}
	if d := decide(t, b, q); d.Effect != writ.Permit {
		t.Errorf("an origin without a name: %+v, want it to count as untrusted", d)
	}
}

func TestPercentOfBudget(t *testing.T) {
	const most = 1<<63 - 1
	for _, tt := range []struct{ spent, limit, want int64 }{
		{0, 100, 1}, {98, 100, 99}, {99, 100, 100}, {0, 1000, 1}, {10, 1000, 2}, {0, 1, 100}, {most - 1, most, 100}, {most / 2, most, 51}, {0, most, 1},
	} {
		q := &writ.Query{Tool: writ.Tool{Name: "a.b"}, Spent: map[string]int64{"x": tt.spent}}
		q.Task.Budgets = []writ.Budget{{Name: "x", Tool: "a.b", Limit: tt.limit}}
		if got, _ := budgetRecord(q, nil).Get("percent"); got != cedar.Long(tt.want) {
			t.Errorf("%d of %d: %v percent, want %d", tt.spent+1, tt.limit, got, tt.want)
		}
	}
}
