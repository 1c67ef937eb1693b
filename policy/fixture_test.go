package policy

import (
	"strings"
	"testing"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
)

const inputOfSend = `{
  "type": "object",
  "properties": {
    "to": {"type": "string"},
    "cc": {"type": "array", "items": {"type": "string"}},
    "count": {"type": "integer"},
    "amount": {"type": "number"},
    "urgent": {"type": "boolean"},
    "note": {"type": ["string", "null"]},
    "level": {"enum": ["low", "high"]},
    "address": {"type": "object", "additionalProperties": false, "properties": {"city": {"type": "string"}, "a/b~c": {"type": "string"}}},
    "extra": {"type": "object"}
  },
  "required": ["to"]
}`

func toolSchema(name string, tier writ.Tier, fetch bool, input string) ToolSchema {
	upstream, _, _ := strings.Cut(name, ".")
	return ToolSchema{
		Tool: writ.Tool{Name: writ.ToolName(name), Upstream: upstream, Definition: writ.Hash("test", []byte(name)), Tier: tier, Fetch: fetch, Result: writ.Label{Integrity: writ.Untrusted, Class: writ.Internal}},
		Kind: writ.KindTool, Input: []byte(input),
	}
}

var testTools = []ToolSchema{
	toolSchema("mail.send", writ.BoundedWrite, false, inputOfSend),
	toolSchema("mail.read", writ.ReadOnly, false, `{"type":"object","properties":{"folder":{"type":"string"}}}`),
	toolSchema("web.get", writ.ReadOnly, true, `{"type":"object","properties":{"url":{"type":"string"}},"required":["url"]}`),
	toolSchema("db.drop", writ.Privileged, false, `{"type":"object","properties":{"table":{"type":"string"}}}`),
}

// load makes a bundle of one file of policies and the tools of the tests.
func load(t testing.TB, policies string) *Bundle {
	t.Helper()
	b, err := Load([]File{{"test.cedar", []byte(policies)}}, testTools)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return b
}

// ask is a query that nothing but policy could refuse: a caller with
// everything in order, who calls a tool with arguments that the agent made.
func ask(t testing.TB, b *Bundle, tool writ.ToolName, arguments string) *writ.Query {
	t.Helper()
	q := &writ.Query{
		Version: 1, Call: "call_1", Time: 1_800_000_000_000, Bundle: b.Digest(),
		Caller: writ.Caller{Agent: "spiffe://acme.example/agent/a", Key: "key", Proof: writ.ProofDPoP},
		Agent:  writ.Agent{ID: "spiffe://acme.example/agent/a", Owner: "olga", Environment: "prod", Groups: []string{"support"}, State: writ.Active},
		Task: writ.Task{ID: "task_1", Agent: "spiffe://acme.example/agent/a", Key: "key", Environment: "prod", Grant: writ.Grant{{Tool: "*"}},
			State: writ.Open, Opened: 1_799_999_990_000, Expires: 1_800_000_060_000},
		Action: writ.Action{Arguments: writ.JSON(arguments)},
		Label:  writ.Clean,
	}
	for _, s := range testTools {
		if s.Tool.Name == tool {
			q.Tool = s.Tool
		}
	}
	_, name, _ := strings.Cut(string(tool), ".")
	q.Action.Kind, q.Action.Upstream, q.Action.Name, q.Action.Definition = writ.KindTool, q.Tool.Upstream, name, q.Tool.Definition
	args, err := canon.Parse([]byte(arguments), canon.Limits{})
	if err != nil {
		t.Fatalf("arguments of the test: %v", err)
	}
	for pointer := range canon.Leaves(args) {
		q.Provenance = append(q.Provenance, writ.Provenance{Argument: pointer, Origin: writ.FromAgent})
	}
	return q
}

// from sets where an argument came from.
func from(q *writ.Query, argument string, o writ.Origin) {
	for i := range q.Provenance {
		if q.Provenance[i].Argument == argument {
			q.Provenance[i].Origin = o
		}
	}
}

func decide(t testing.TB, b *Bundle, q *writ.Query) writ.Decision {
	t.Helper()
	p, d := b.Decide(q)
	if (p != nil) != (d.Effect == writ.Permit) {
		t.Fatalf("Decide gave permit %v with effect %v", p != nil, d.Effect)
	}
	return d
}

// ids are the policies that determined a decision.
func ids(d writ.Decision) string {
	var all []string
	for _, r := range d.Reasons {
		all = append(all, r.Policy)
	}
	return strings.Join(all, " ")
}

const permitAll = "@id(\"all\") permit (principal, action, resource);\n"
