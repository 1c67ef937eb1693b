package policy

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cedar-policy/cedar-go"
	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"pgregory.net/rapid"
)

// pool gives every policy that can be put together from these parts and that
// loads, many of which overlap.
var pool = sync.OnceValue(func() []string {
	principals := []string{"principal", `principal == Agent::"spiffe://acme.example/agent/a"`, `principal in Group::"support"`, `principal is Agent in Group::"others"`, `principal is Agent`}
	actions := []string{"action", `action == Action::"mail.send"`, `action in Action::"upstream:mail"`, `action in [Action::"mail.send", Action::"tier:read-only", Action::"upstream:mail"]`, `action in Action::"fetch"`}
	resources := []string{"resource", `resource == Tool::"mail.send"`, `resource in Upstream::"mail"`, `resource is Tool in Upstream::"web"`}
	conditions := []string{
		"", `when { context.label.secrecy >= 2 }`, `unless { context.label.trusted }`, `when { !context.origin.untrusted.isEmpty() }`,
		`when { action in Action::"tier:bounded-write" && context.task.attested }`, `when { context.caller has user && context.budget.percent < 90 }`,
		`when { context.args has count && context.args.count + 9223372036854775800 > 0 }`, `when { context.nulls.contains("/note") || context.origin.prompt.contains("/to") }`,
		`ASSURED { context.assurance.reviewers >= 1 }`, `ASSURED { context.assurance.level + 9223372036854775805 > 9223372036854775805 }`,
	}
	var all []string
	for _, effect := range []string{"permit", "forbid"} {
		assured := map[string]string{"permit": "when", "forbid": "unless"}[effect]
		for _, p := range principals {
			for _, a := range actions {
				for _, r := range resources {
					for _, c := range conditions {
						text := fmt.Sprintf("%s (%s, %s, %s) %s;\n", effect, p, a, r, strings.Replace(c, "ASSURED", assured, 1))
						if _, err := Load([]File{{"a.cedar", []byte(text)}}, testTools); err == nil {
							all = append(all, text)
						}
					}
				}
			}
		}
	}
	return all
})

var genPolicies = rapid.Custom(func(t *rapid.T) []string {
	return rapid.SliceOfN(rapid.SampledFrom(pool()), 0, 12).Draw(t, "policies")
})

func genQuery(t *rapid.T, b *Bundle) *writ.Query {
	s := rapid.SampledFrom(testTools).Draw(t, "tool")
	args := map[writ.ToolName][]string{
		"mail.send": {`{"to":"a"}`, `{"count":5,"note":null,"to":"a"}`, `{"count":9,"to":"b"}`, `{"cc":["x"],"note":"n","to":"a"}`},
		"web.get":   {`{"url":"https://acme.example/"}`},
		"mail.read": {`{}`, `{"folder":"inbox"}`},
		"db.drop":   {`{"table":"t"}`},
	}[s.Tool.Name]
	q := &writ.Query{
		Version: 1, Time: 1_800_000_000_000, Bundle: b.Digest(), Tool: s.Tool,
		Caller: writ.Caller{Agent: "spiffe://acme.example/agent/a", Key: "key", Proof: rapid.SampledFrom([]writ.Proof{writ.ProofTLS, writ.ProofDPoP, writ.ProofAsserted}).Draw(t, "proof"),
			User: rapid.SampledFrom([]writ.UserID{"", "maya"}).Draw(t, "user")},
		Agent: writ.Agent{ID: "spiffe://acme.example/agent/a", Groups: rapid.SliceOf(rapid.SampledFrom([]string{"support", "others", "support"})).Draw(t, "groups"), State: writ.Active},
		Task: writ.Task{Agent: "spiffe://acme.example/agent/a", Key: "key", State: writ.Open, Expires: 1_800_000_060_000, Grant: writ.Grant{{Tool: "*"}},
			Purpose: writ.Purpose{Origin: rapid.SampledFrom([]writ.PurposeOrigin{writ.OriginAgent, writ.OriginUser}).Draw(t, "origin")}},
		Action:    writ.Action{Kind: s.Kind, Upstream: s.Tool.Upstream, Definition: s.Tool.Definition, Arguments: writ.JSON(rapid.SampledFrom(args).Draw(t, "args"))},
		Label:     writ.Label{Integrity: writ.Integrity(rapid.IntRange(0, 1).Draw(t, "integrity")), Class: writ.Class(rapid.IntRange(0, 3).Draw(t, "class"))},
		Assurance: writ.Assurance(rapid.IntRange(0, 4).Draw(t, "assurance")),
	}
	if rapid.Bool().Draw(t, "budget") {
		q.Task.Budgets = []writ.Budget{{Name: "calls", Tool: "*", Limit: 100}}
		q.Spent = map[string]int64{"calls": int64(rapid.IntRange(0, 99).Draw(t, "spent"))}
	}
	v, err := canon.Parse([]byte(q.Action.Arguments), canon.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for pointer := range canon.Leaves(v) {
		if rapid.IntRange(0, 3).Draw(t, "traced") > 0 {
			q.Provenance = append(q.Provenance, writ.Provenance{Argument: pointer, Origin: writ.Origin(rapid.IntRange(0, 6).Draw(t, "from"))})
		}
	}
	return q
}

func loadAll(t *rapid.T, policies []string, tools []ToolSchema) *Bundle {
	b, err := Load([]File{{"a.cedar", []byte(strings.Join(policies, ""))}}, tools)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return b
}

func reversed(tools []ToolSchema) []ToolSchema {
	tools = slices.Clone(tools)
	slices.Reverse(tools)
	return tools
}

// everyRule offers Cedar all the policies of a bundle, as it does by itself.
type everyRule []*rule

func (s everyRule) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] { return slice(s).All() }

// indexProperty: what the index leaves out, and the facts that are not made,
// change nothing that Cedar says.
func indexProperty(t *rapid.T) {
	b := loadAll(t, genPolicies.Draw(t, "policies"), testTools)
	q := genQuery(t, b)
	args, no := parseArguments(q)
	if no != nil {
		t.Fatal(no.why)
	}
	op := b.ops[q.Tool.Name]
	r, err := see(q, args, op.args)
	if err != nil {
		t.Fatal(err)
	}
	agent, principals := agentEntity(&q.Agent)
	s := op.slice(principals, q.Action.Answers())
	ask := func(p cedar.PolicyIterator, reads factSet) (cedar.Decision, cedar.Diagnostic) {
		context := r.context(reads)
		context["assurance"] = assurances[q.Assurance]
		effect, said := cedar.Authorize(p, &world{static: b.static, agent: agent}, cedar.Request{Principal: agent.UID, Action: op.uid, Resource: op.resource, Context: cedar.NewRecord(context)})
		slices.SortFunc(said.Reasons, func(a, b cedar.DiagnosticReason) int { return strings.Compare(string(a.PolicyID), string(b.PolicyID)) })
		slices.SortFunc(said.Errors, func(a, b cedar.DiagnosticError) int { return strings.Compare(string(a.PolicyID), string(b.PolicyID)) })
		return effect, said
	}
	plain, said := ask(everyRule(b.policies), allFacts)
	indexed, saidIndexed := ask(s, s.reads())
	if plain != indexed || !reflect.DeepEqual(said, saidIndexed) {
		t.Fatalf("plain Cedar says %v %+v, through the index %v %+v", plain, said, indexed, saidIndexed)
	}
	d := b.decide(q)
	if permits := plain == cedar.Allow && len(said.Errors) == 0; permits != (d.Effect == writ.Permit) && !b.Empty() {
		t.Fatalf("Decide = %+v, plain Cedar says %v with %d errors", d, plain, len(said.Errors))
	}
}

func TestIndex(t *testing.T) { rapid.Check(t, indexProperty) }

func FuzzIndex(f *testing.F) { f.Fuzz(rapid.MakeFuzz(indexProperty)) }

// Deciding is a function of the query and the set of policies: not of their
// order, nor of when it is done.
func TestOrderDoesNotDecide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policies := genPolicies.Draw(t, "policies")
		for i := range policies {
			policies[i] = fmt.Sprintf("@id(\"p%d\") %s", i, policies[i])
		}
		shuffled := slices.Clone(policies)
		rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		a, b := loadAll(t, policies, testTools), loadAll(t, shuffled, reversed(testTools))
		q := genQuery(t, a)
		x, again := a.decide(q), a.decide(q)
		if !reflect.DeepEqual(x, again) {
			t.Fatalf("the same query, twice: %+v, then %+v", x, again)
		}
		q.Bundle = b.Digest()
		y := b.decide(q)
		if x.Effect != y.Effect || x.Code != y.Code || x.Requires != y.Requires || len(x.Errors) != len(y.Errors) || !same(strings.Fields(ids(x)), strings.Fields(ids(y))) {
			t.Fatalf("in order %+v, shuffled %+v", x, y)
		}
	})
}

// A forbid that is added never permits, nor makes it easier.
func TestForbidOnlyForbids(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policies := genPolicies.Draw(t, "policies")
		forbid := rapid.SampledFrom(pool()).Filter(func(p string) bool { return strings.HasPrefix(p, "forbid") }).Draw(t, "forbid")
		a, b := loadAll(t, policies, testTools), loadAll(t, append(policies, forbid), testTools)
		q := genQuery(t, a)
		before := a.decide(q)
		q.Bundle = b.Digest()
		after := b.decide(q)
		if after.Effect > before.Effect || before.Effect == writ.StepUp && after.Effect == writ.StepUp && after.Requires < before.Requires {
			t.Fatalf("%+v before, %+v after one more forbid", before, after)
		}
	})
}

// Up the ladder, what is permitted stays permitted, as long as every policy
// can be evaluated; and a step-up names the first rung that permits.
func TestLadder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := loadAll(t, genPolicies.Draw(t, "policies"), testTools)
		q := genQuery(t, b)
		start := b.decide(q)
		permitted := false
		for q.Assurance <= writ.TwoPasskeys {
			d := b.decide(q)
			if permitted && d.Effect != writ.Permit && len(d.Errors) == 0 {
				t.Fatalf("%v permits less than a weaker assurance: %+v", q.Assurance, d)
			}
			permitted = permitted || d.Effect == writ.Permit
			if start.Effect == writ.StepUp && (d.Effect == writ.Permit) != (q.Assurance >= start.Requires) && len(d.Errors) == 0 {
				t.Fatalf("%v is required, and %v gives %v", start.Requires, q.Assurance, d.Effect)
			}
			if start.Effect == writ.Deny && d.Effect == writ.Permit && len(start.Errors) == 0 {
				t.Fatalf("denied for good, and %v permits", q.Assurance)
			}
			q.Assurance++
		}
	})
}
