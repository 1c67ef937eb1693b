package admin_test

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/writgate/writ"
	"github.com/writgate/writ/identity"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/policy"
	"github.com/writgate/writ/registry"
	"github.com/writgate/writ/server/admin/api"
	"github.com/writgate/writ/writtest"
	"go.yaml.in/yaml/v4"
)

// A contract is openapi.yaml, as a client reads it.
type contract struct {
	paths    map[string]map[string]any
	compiler *jsonschema.Compiler
	answered map[string]bool
}

func readContract(t *testing.T) *contract {
	t.Helper()
	b, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := yaml.Load(b, &doc); err != nil {
		t.Fatal(err)
	}
	c := &contract{paths: map[string]map[string]any{}, compiler: jsonschema.NewCompiler(), answered: map[string]bool{}}
	for path, item := range doc["paths"].(map[string]any) {
		c.paths[path] = item.(map[string]any)
	}
	if err := c.compiler.AddResource("openapi.yaml", doc); err != nil {
		t.Fatal(err)
	}
	return c
}

// routes are all of "METHOD /path".
func (c *contract) routes() (all []string) {
	for path, item := range c.paths {
		for method := range item {
			all = append(all, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(all)
	return all
}

var placeholder = regexp.MustCompile(`\{[^}]+\}`)

// check holds an answer against what the contract says of it.
func (c *contract) check(t *testing.T, method, target string, status int, answer []byte) {
	t.Helper()
	path, _, _ := strings.Cut(target, "?")
	found := ""
	for p, item := range c.paths {
		pattern := "^" + placeholder.ReplaceAllString(p, "[^/]+") + "$"
		if item[strings.ToLower(method)] != nil && regexp.MustCompile(pattern).MatchString(path) && (found == "" || !strings.Contains(p, "{")) {
			found = p
		}
	}
	if found == "" {
		t.Errorf("openapi.yaml has no %s %s", method, target)
		return
	}
	where := "/paths/" + strings.ReplaceAll(strings.ReplaceAll(found, "~", "~0"), "/", "~1") + "/" + strings.ToLower(method) + "/responses/200/content/application~1json/schema"
	if status != http.StatusOK {
		where = "/components/responses/Problem/content/application~1problem+json/schema"
	} else {
		c.answered[method+" "+found] = true
	}
	schema, err := c.compiler.Compile("openapi.yaml#" + where)
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(string(answer)))
	if err != nil {
		t.Fatalf("%s %s answers %q", method, target, answer)
	}
	if err := schema.Validate(v); err != nil {
		t.Errorf("%s %s answers %s\n%v", method, target, answer, err)
	}
}

func newTokens(t *testing.T) *identity.Tokens {
	t.Helper()
	tokens, err := identity.NewTokens("https://writ.test", keyOf("xT"))
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

// TestAnswersFitOpenAPI asks every route there is, and holds each answer
// against openapi.yaml.
func TestAnswersFitOpenAPI(t *testing.T) {
	tokens := newTokens(t)
	d := open(t, func(d *desk) { d.server.Tokens, d.server.Audience = tokens, "https://localhost:7442/mcp" })
	c := readContract(t)
	ask := func(method, target string, in any, operator string) map[string]any {
		t.Helper()
		var body []byte
		header := map[string]string{}
		if method == "POST" {
			if in == nil {
				in = struct{}{}
			}
			var err error
			if body, err = json.Marshal(in); err != nil {
				t.Fatal(err)
			}
			if operator != "" {
				header[api.ProofHeader] = d.proof(operator, target, body)
			}
		}
		status, answer := d.raw(method, target, body, header)
		c.check(t, method, target, status, answer)
		var out map[string]any
		d.must(json.Unmarshal(answer, &out))
		if status != http.StatusOK {
			t.Logf("%s %s: %s", method, target, answer)
		}
		return out
	}

	a := d.agent()
	task := "/tasks/" + string(a.Task.ID)
	_, err := a.Call("mail.read", `{}`)
	d.must(err)
	waits := d.waiting(a)
	appr := "/approvals/" + string(waits.Approval)

	for _, target := range []string{"/status", "/doctor", "/calls", "/tasks", task, "/approvals", appr, "/agents", "/tools", "/tools/bank.pay", "/policy", "/records?after=0&limit=500"} {
		ask("GET", target, nil, "")
	}
	shown := ask("POST", appr+"/show", nil, "")["shown"].(map[string]any)
	ask("POST", appr+"/approve", answer{Shown: writ.Digest(shown["digest"].(string)), Reason: "ok"}, "omar")
	ask("POST", appr+"/approve", answer{Shown: writ.Digest(shown["digest"].(string))}, "olga") // a problem with an approval in it
	_, err = a.Call("bank.pay", `{"eur":10,"to":"lena"}`)
	d.must(err)
	var calls api.Page[api.Call]
	d.must(d.Get(t.Context(), "/calls", &calls))
	for _, call := range calls.Items {
		target := "/calls/" + string(call.ID)
		ask("GET", target, nil, "")
		ask("GET", target+"/replay", nil, "")
		ask("GET", "/receipts/"+string(call.ID), nil, "")
		ask("POST", target+"/show", nil, "")
		ask("POST", target+"/explain", nil, "")
	}
	_, err = a.Call("bank.pay", `{"eur":11,"to":"lena"}`)
	ask("POST", "/approvals/"+string(writ.AsDenial(err).Approval)+"/deny", answer{Reason: "no"}, "")
	ask("GET", "/approvals/appr_0", nil, "")

	run := map[string]any{"agent": writtest.AgentID("local"), "key": "a-fresh-key", "for": "answer the mail"}
	opened := ask("POST", "/runs", run, "omar")
	run["key"] = "another-key"
	ask("POST", "/tasks", run, "olga")
	ask("POST", "/runs/"+opened["task"].(string)+"/token", nil, "")
	ask("POST", task+"/show", nil, "")
	ask("POST", task+"/end", answer{Reason: "done"}, "")
	d.Change("mail.send", `{"type":"object","properties":{"cc":{"type":"string"}},"additionalProperties":false}`)
	ask("GET", "/tools?quarantine=any", nil, "")
	var tool api.Tool
	d.must(d.Get(t.Context(), "/tools/mail.send", &tool))
	ask("POST", "/tools/review", map[string]any{"reviews": map[writ.ToolName]registry.Review{"mail.send": {Definition: tool.Definition, Tier: writ.BoundedWrite}}}, "olga")
	d.policy = []policy.File{{Name: "mine.cedar", Text: []byte(`permit (principal, action, resource);`)}}
	offered := ask("GET", "/policy", nil, "")["offered"]
	ask("POST", "/policy/apply", map[string]any{"bundle": offered}, "omar")
	ask("POST", "/revoke", map[string]any{"kind": "agent", "of": writtest.AgentID("billing"), "reason": "lost"}, "")
	ask("POST", "/agents/reinstate", map[string]any{"agent": writtest.AgentID("billing")}, "omar")
	ask("POST", "/halt", answer{Reason: "drill"}, "")
	ask("GET", "/doctor", nil, "")
	ask("POST", "/lift", answer{}, "omar")

	for _, r := range c.routes() {
		if !c.answered[r] {
			t.Errorf("%s was never answered", r)
		}
	}
}

// TestH39GetChangesNothing asks every GET there is, as a link's preview
// would, and every one that there might be.
func TestH39GetChangesNothing(t *testing.T) {
	d := open(t)
	a := d.agent()
	_, err := a.Call("mail.read", `{}`)
	d.must(err)
	waits := d.waiting(a)
	var calls api.Page[api.Call]
	d.must(d.Get(t.Context(), "/calls", &calls))
	known := strings.NewReplacer("{call}", string(calls.Items[0].ID), "{task}", string(a.Task.ID), "{approval}", string(waits.Approval), "{tool}", "bank.pay", "{of}", "0")
	checkpoint, err := d.Ledger.Checkpoint(t.Context())
	d.must(err)
	for path, item := range readContract(t).paths {
		status, text := d.raw("GET", known.Replace(path), nil, map[string]string{api.ProofHeader: d.proof("omar", path, nil)})
		if item["get"] != nil && status != http.StatusOK {
			t.Errorf("GET %s: %d %s", path, status, text)
		}
		if item["get"] == nil && status == http.StatusOK {
			t.Errorf("GET %s is answered", path)
		}
	}
	after, err := d.Ledger.Checkpoint(t.Context())
	d.must(err)
	if string(after) != string(checkpoint) {
		t.Errorf("the log was\n%s\nand is\n%s", checkpoint, after)
	}
}

// TestWhatAddsAuthorityNeedsAProof asks everything that openapi.yaml marks so,
// and everything that it does not, without one.
func TestWhatAddsAuthorityNeedsAProof(t *testing.T) {
	d := open(t)
	needs := []string{}
	for path, item := range readContract(t).paths {
		post, ok := item["post"].(map[string]any)
		if !ok {
			continue
		}
		fill := strings.NewReplacer("{call}", "call_0", "{task}", "task_0", "{approval}", "appr_0")
		status, text := d.raw("POST", fill.Replace(path), []byte(`{}`), nil)
		p := new(api.Problem)
		if status != http.StatusOK {
			d.must(json.Unmarshal(text, p))
		}
		security, marked := post["security"].([]any)
		marked = marked && len(security) == 1
		if refused := p.Code == writ.NoPossession; refused != marked {
			t.Errorf("%s: marked %v, answered %s", path, marked, text)
		}
		if marked {
			needs = append(needs, path)
		}
	}
	slices.Sort(needs)
	want := []string{"/agents/reinstate", "/approvals/{approval}/approve", "/lift", "/policy/apply", "/tasks", "/tools/review"}
	if !slices.Equal(needs, want) {
		t.Errorf("a proof is needed for %v, want %v", needs, want)
	}
}

// TestReadingContentIsOnRecord: who reads what agents sent is on record once,
// before they see it; who reads the rest is not.
func TestReadingContentIsOnRecord(t *testing.T) {
	d := open(t)
	a := d.agent()
	_, err := a.Call("mail.send", `{"to":"lena@secret.example"}`)
	d.must(err)
	var calls api.Page[api.Call]
	d.must(d.Get(t.Context(), "/calls", &calls))
	call := "/calls/" + string(calls.Items[0].ID)

	_, text := d.raw("GET", call, nil, nil)
	if strings.Contains(string(text), "secret.example") {
		t.Errorf("a GET shows content: %s", text)
	}
	before := d.size()
	for range 2 {
		if _, text = d.raw("POST", call+"/show", []byte(`{}`), nil); !strings.Contains(string(text), "lena@secret.example") {
			t.Errorf("not shown: %s", text)
		}
		if _, text = d.raw("POST", call+"/explain", []byte(`{}`), nil); !strings.Contains(string(text), "lena@secret.example") {
			t.Errorf("not shown: %s", text)
		}
	}
	records, err := d.Ledger.Records(t.Context(), ledger.Filter{From: before})
	d.must(err)
	if len(records) != 1 || records[0].Leaf.Type != ledger.TypeAdmin || records[0].Leaf.Note["act"] != "payload_read" || records[0].Leaf.Call != calls.Items[0].ID {
		t.Errorf("four readings by one user left %d records, want one", len(records))
	}
	if got := records[0].Leaf.Note["uid"]; got != fmt.Sprint(os.Getuid()) {
		t.Errorf("the reader is %q", got)
	}
}

// TestActsAreOnRecordWithTheirProof: an auditor sees that the operator's key
// signed the act, without trusting the gateway.
func TestActsAreOnRecordWithTheirProof(t *testing.T) {
	d := open(t)
	id := d.waiting(d.agent()).Approval
	digest := d.show(id).Shown.Digest
	before := d.size()
	_, err := d.approve("omar", id, digest)
	d.must(err)
	records, err := d.Ledger.Records(t.Context(), ledger.Filter{From: before})
	d.must(err)
	if len(records) != 2 || records[1].Leaf.Type != ledger.TypeApproval {
		t.Fatalf("%d records", len(records))
	}
	leaf := records[0].Leaf
	if leaf.Type != ledger.TypeAdmin || leaf.Note["act"] != "approve" || leaf.Key != writtest.OperatorKey("omar") || leaf.User != d.Ledger.Pseudonym("omar") {
		t.Errorf("the act's leaf is %+v", leaf)
	}
	text, _ := records[0].Part("proof")
	request, _ := records[0].Part("request")
	proof, key, err := api.ParseProof(string(text))
	d.must(err)
	if !key.Equal(keyOf("omar").Public().(ed25519.PublicKey)) || !proof.Covers("POST", api.Prefix+"/approvals/"+string(id)+"/approve", request) || !strings.Contains(string(request), string(digest)) {
		t.Errorf("the proof on record is %+v of %s", proof, request)
	}
}
