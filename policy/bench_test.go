package policy

import (
	"fmt"
	"testing"

	"github.com/writgate/writ"
)

// manyPolicies makes a bundle of n policies, most of one tool each.
func manyPolicies(tb testing.TB, n int) (*Bundle, *writ.Query) {
	tb.Helper()
	var text []byte
	var tools []ToolSchema
	for i := range 100 {
		name := fmt.Sprintf("pay.refund%d", i)
		tools = append(tools, ToolSchema{
			Tool: writ.Tool{Name: writ.ToolName(name), Upstream: "pay", Definition: "sha256:pay", Tier: writ.BoundedWrite, Result: writ.Label{Integrity: writ.Trusted, Class: writ.Internal}},
			Kind: writ.KindTool, Input: []byte(`{"type":"object","properties":{"amount":{"type":"number"},"order":{"type":"string"},"note":{"type":"string"}},"required":["amount","order"]}`),
		})
	}
	for i := range n {
		text = fmt.Appendf(text, "permit (principal in Group::\"team%d\", action == Action::\"pay.refund%d\", resource)\nwhen { context.args.amount.lessThan(decimal(\"%d.0\")) && context.origin.untrusted.isEmpty() && context.label.secrecy < 3 && context.task.attested };\n", i/len(tools), i%len(tools), 100+i%50)
	}
	b, err := Load([]File{{"many.cedar", text}}, tools)
	if err != nil {
		tb.Fatal(err)
	}
	q := &writ.Query{Version: 1, Bundle: b.Digest(), Time: 1_800_000_000_000,
		Caller: writ.Caller{Agent: "spiffe://acme.example/agent/billing", Key: "key", Proof: writ.ProofDPoP, User: "maya"},
		Agent:  writ.Agent{ID: "spiffe://acme.example/agent/billing", Owner: "maya", Environment: "prod", Groups: []string{"team0", "billing"}, State: writ.Active},
		Task: writ.Task{ID: "task_1", Agent: "spiffe://acme.example/agent/billing", Key: "key", User: "maya", Environment: "prod", State: writ.Open, Opened: 1_799_999_000_000, Expires: 1_800_001_000_000,
			Purpose: writ.Purpose{Instructions: "refund order 8812", Origin: writ.OriginUser},
			Grant:   writ.Grant{{Tool: "pay.*", Bounds: []writ.Bound{{Argument: "/amount", Max: "500"}}}},
			Budgets: []writ.Budget{{Name: "calls", Tool: "*", Limit: 100}}},
		Tool:       tools[7].Tool,
		Action:     writ.Action{Kind: writ.KindTool, Upstream: "pay", Name: "refund7", Definition: "sha256:pay", Arguments: `{"amount":12.5,"note":"as asked","order":"8812"}`},
		Label:      writ.Label{Integrity: writ.Untrusted, Class: writ.Internal},
		Provenance: []writ.Provenance{{Argument: "/amount", Origin: writ.FromAgent}, {Argument: "/note", Origin: writ.FromAgent}, {Argument: "/order", Origin: writ.FromPrompt}},
		Spent:      map[string]int64{"calls": 3},
	}
	if _, d := b.Decide(q); d.Effect != writ.Permit {
		tb.Fatalf("Decide = %+v, want a permit to measure", d)
	}
	return b, q
}

// What a decision costs does not depend on how many policies there are: as
// many are asked, and as much is allocated. That is all that a test may say on
// a machine it shares; the benchmark says how long it takes.
func TestDecisionDoesNotGrow(t *testing.T) {
	few, q := manyPolicies(t, 10)
	small := testing.AllocsPerRun(100, func() { few.Decide(q) })
	if small >= 100 {
		t.Errorf("%v allocations, want fewer than 100", small)
	}
	many, q := manyPolicies(t, 10_000)
	if large := testing.AllocsPerRun(100, func() { many.Decide(q) }); large != small {
		t.Errorf("%v allocations with 10,000 policies, %v with 10", large, small)
	}
	_, principals := agentEntity(&q.Agent)
	if got := len(many.ops[q.Tool.Name].slice(principals, false)); got != 1 {
		t.Errorf("%d policies are asked of 10,000, want the one that may apply", got)
	}
}

func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{10, 100, 1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			bundle, q := manyPolicies(b, n)
			b.ReportAllocs()
			for b.Loop() {
				bundle.Decide(q)
			}
		})
	}
}

func BenchmarkStepUp(b *testing.B) {
	bundle, err := Load(Starter(), testTools)
	if err != nil {
		b.Fatal(err)
	}
	q := ask(b, bundle, "mail.send", `{"to":"a@acme.example"}`)
	from(q, "/to", writ.FromUntrusted)
	b.ReportAllocs()
	for b.Loop() {
		if _, d := bundle.Decide(q); d.Effect != writ.StepUp {
			b.Fatalf("Decide = %+v, want a step-up", d)
		}
	}
}

func BenchmarkStarterRead(b *testing.B) {
	bundle, err := Load(Starter(), testTools)
	if err != nil {
		b.Fatal(err)
	}
	q := ask(b, bundle, "mail.read", `{"folder":"inbox"}`)
	b.ReportAllocs()
	for b.Loop() {
		bundle.Decide(q)
	}
}

func BenchmarkLoad(b *testing.B) {
	bundle, _ := manyPolicies(b, 1_000)
	files := bundle.Files()
	for b.Loop() {
		if _, err := Restore(files); err != nil {
			b.Fatal(err)
		}
	}
}
