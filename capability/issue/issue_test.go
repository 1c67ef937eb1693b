package issue_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/capability"
	"github.com/writgate/writ/capability/issue"
	"github.com/writgate/writ/policy"
)

var start = time.UnixMilli(1_764_032_400_123)

const (
	agent  = writ.AgentID("spiffe://acme.example/agent/clerk")
	target = "http://127.0.0.1:9000/mcp"
)

// question is a query that the bundle of permit permits.
func question() *writ.Query {
	tool := writ.Tool{Name: "payments.pay", Upstream: "payments", Definition: writ.Hash("definition", []byte("{}")), Tier: writ.BoundedWrite}
	return &writ.Query{
		Version: 1, Call: writ.NewID[writ.CallID](start), Time: start.UnixMilli(),
		Caller: writ.Caller{Agent: agent, Key: "clerk-key", Proof: writ.ProofDPoP, User: "ana@acme.example", Chain: []writ.Hop{
			{Agent: "spiffe://acme.example/agent/director", Key: "director-key", Task: "task_1"},
			{Agent: "spiffe://acme.example/agent/planner", Key: "planner-key", Task: "task_2"},
		}},
		Agent: writ.Agent{ID: agent, Owner: "ola", Environment: "production", State: writ.Active},
		Task: writ.Task{
			ID: writ.NewID[writ.TaskID](start), Agent: agent, Key: "clerk-key", Environment: "production", State: writ.Open,
			Grant: writ.Grant{{Tool: "payments.*"}}, Opened: start.UnixMilli(), Expires: start.Add(time.Hour).UnixMilli(),
		},
		Tool: tool, Label: writ.Clean,
		Action: writ.Action{Kind: writ.KindTool, Upstream: "payments", Name: "pay", Definition: tool.Definition, Arguments: `{"amount":"12.50"}`},
	}
}

// permit has q permitted by a real bundle.
func permit(t testing.TB, q *writ.Query) *policy.Permit {
	t.Helper()
	b, err := policy.Load(
		[]policy.File{{Name: "all.cedar", Text: []byte(`permit(principal, action, resource);`)}},
		[]policy.ToolSchema{{Tool: q.Tool, Kind: writ.KindTool, Input: []byte(`{"type":"object","additionalProperties":false,"properties":{"amount":{"type":"string"}}}`)}},
	)
	if err != nil {
		t.Fatal(err)
	}
	q.Bundle = b.Digest()
	p, d := b.Decide(q)
	if p == nil {
		t.Fatalf("not permitted: %+v", d)
	}
	return p
}

func key(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func issuer(t testing.TB) *issue.Issuer {
	t.Helper()
	i, err := issue.New(key(t), "https://writ.acme.example", nil, func() time.Time { return start })
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func verifier(i *issue.Issuer) *capability.Verifier {
	return &capability.Verifier{
		Keys: i.Keys(), Issuer: "https://writ.acme.example", Audience: "payments", Environment: "production",
		Uses: capability.NewOnce(func() time.Time { return start }), Now: func() time.Time { return start },
	}
}

func TestIssued(t *testing.T) {
	q, i := question(), issuer(t)
	token, err := i.Issue(permit(t, q), "payments", 0)
	if err != nil {
		t.Fatal(err)
	}
	token.UnderApproval("appr_1")
	h, err := token.Present(http.MethodPost, target)
	if err != nil {
		t.Fatal(err)
	}
	r := capability.Request{Header: h, Method: http.MethodPost, URL: target, Name: "pay", Arguments: []byte(q.Action.Arguments)}
	c, err := verifier(i).Verify(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	want := capability.Scope{
		Call: q.Call, Task: q.Task.ID, Environment: "production", Kind: writ.KindTool, Tool: "payments.pay", Name: "pay",
		Definition: q.Tool.Definition, Arguments: writ.Hash("arguments", []byte(q.Action.Arguments)), Action: q.Action.Digest(),
		Bundle: q.Bundle, Tier: writ.BoundedWrite, Approval: "appr_1",
	}
	if c.Scope != want {
		t.Errorf("scope\n%+v, want\n%+v", c.Scope, want)
	}
	if c.ID != token.ID() || token.Action() != want.Action || c.User != "ana@acme.example" {
		t.Errorf("read %+v of token %v", c, token)
	}
	if got := fmt.Sprint(c.Actors); got != "[{spiffe://acme.example/agent/clerk clerk-key} {spiffe://acme.example/agent/planner planner-key} {spiffe://acme.example/agent/director director-key}]" {
		t.Errorf("actors %s", got)
	}
	if life := c.Expires.Sub(start); life > time.Minute || life < 59*time.Second {
		t.Errorf("it lives for %v, want a minute", life)
	}
}

// TestNoPermitNoCapability: only a permitting decision is something to issue
// from, and only about an action that is complete.
func TestNoPermitNoCapability(t *testing.T) {
	i := issuer(t)
	refuse := func(name string, p *policy.Permit, audience string, life time.Duration) {
		t.Helper()
		if token, err := i.Issue(p, audience, life); err == nil || token != nil {
			t.Errorf("%s: issued %v", name, token)
		}
		if token, err := i.IssueToCaller(p, audience, life); err == nil || token != nil {
			t.Errorf("%s, to the caller: issued %v", name, token)
		}
	}
	refuse("no permit", nil, "payments", 0)
	refuse("the zero permit", &policy.Permit{}, "payments", 0)
	good := permit(t, question())
	refuse("nobody to receive it", good, "", 0)
	refuse("a negative life", good, "payments", -time.Second)
	refuse("a long life", good, "payments", capability.MaxLife+time.Second)
	for name, change := range map[string]func(*writ.Query){
		"a call":     func(q *writ.Query) { q.Call = "" },
		"a task":     func(q *writ.Query) { q.Task.ID = "" },
		"arguments":  func(q *writ.Query) { q.Action.Arguments, q.Caller.Proof = "", writ.ProofAsserted },
		"a place":    func(q *writ.Query) { q.Task.Environment = "" },
		"any time":   func(q *writ.Query) { q.Task.Expires = q.Time + 100 },
		"few actors": func(q *writ.Query) { q.Caller.Chain = make([]writ.Hop, 5) },
	} {
		q := question()
		change(q)
		refuse("without "+name, permit(t, q), "payments", 0)
	}
}

// TestUserOfTheTask: over mutual TLS nobody names a user but the task.
func TestUserOfTheTask(t *testing.T) {
	q, i := question(), issuer(t)
	q.Caller.User, q.Task.User = "", "ola@acme.example"
	token, err := i.Issue(permit(t, q), "payments", 0)
	if err != nil {
		t.Fatal(err)
	}
	h, err := token.Present(http.MethodPost, target)
	if err != nil {
		t.Fatal(err)
	}
	r := capability.Request{Header: h, Method: http.MethodPost, URL: target, Name: "pay", Arguments: []byte(q.Action.Arguments)}
	if c, err := verifier(i).Verify(t.Context(), r); err != nil || c.User != "ola@acme.example" {
		t.Errorf("read %+v, %v", c, err)
	}
}

// TestEndsWithItsTask: no capability outlives the task it is for.
func TestEndsWithItsTask(t *testing.T) {
	q, i := question(), issuer(t)
	q.Task.Expires = start.Add(20 * time.Second).UnixMilli()
	token, err := i.Issue(permit(t, q), "payments", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	h, err := token.Present(http.MethodPost, target)
	if err != nil {
		t.Fatal(err)
	}
	v := verifier(i)
	v.Now = func() time.Time { return start.Add(20 * time.Second) }
	r := capability.Request{Header: h, Method: http.MethodPost, URL: target, Name: "pay", Arguments: []byte(q.Action.Arguments)}
	if _, err := v.Verify(t.Context(), r); err == nil || !strings.Contains(err.Error(), string(capability.Expired)) {
		t.Errorf("as its task expires: %v", err)
	}
}

// TestToCaller: what is the caller's is proven by the caller and by nobody
// else, the gateway included.
func TestToCaller(t *testing.T) {
	q, i := question(), issuer(t)
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	name, err := capability.Thumbprint(own.Public())
	if err != nil {
		t.Fatal(err)
	}
	q.Caller.Key, q.Task.Key = name, name
	p := permit(t, q)
	token, err := i.IssueToCaller(p, "payments", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.Present(http.MethodPost, target); err == nil {
		t.Error("the gateway presented what is its caller's")
	}
	text, err := token.Give()
	if err != nil {
		t.Fatal(err)
	}
	proof, err := capability.Prove(own, text, http.MethodPost, target, start)
	if err != nil {
		t.Fatal(err)
	}
	r := capability.Request{
		Header: http.Header{capability.Header: {text}, capability.ProofHeader: {proof}},
		Method: http.MethodPost, URL: target, Name: "pay", Arguments: []byte(q.Action.Arguments),
	}
	if _, err := verifier(i).Verify(t.Context(), r); err != nil {
		t.Errorf("its caller: %v", err)
	}
	ours, err := i.Issue(p, "payments", 0)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := ours.Give(); err == nil || text != "" {
		t.Error("the gateway gave away its own")
	}
	q.Caller.Proof = writ.ProofAsserted
	if _, err := i.IssueToCaller(permit(t, q), "payments", 0); err == nil {
		t.Error("issued to a key that somebody vouched for")
	}
}

// TestRotation: servers that know the old key and the new one, in whichever
// order they learn, verify both.
func TestRotation(t *testing.T) {
	before, after := key(t), key(t)
	now := func() time.Time { return start }
	first, err := issue.New(before, "https://writ.acme.example", nil, now, after.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	second, err := issue.New(after, "https://writ.acme.example", nil, now, before.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	if a, b := string(first.Keys().JWKS()), string(second.Keys().JWKS()); a != b {
		t.Errorf("published\n%s, then\n%s", a, b)
	}
	for _, signs := range []*issue.Issuer{first, second} {
		for _, publishes := range []*issue.Issuer{first, second} {
			q := question()
			token, err := signs.Issue(permit(t, q), "payments", 0)
			if err != nil {
				t.Fatal(err)
			}
			h, err := token.Present(http.MethodPost, target)
			if err != nil {
				t.Fatal(err)
			}
			r := capability.Request{Header: h, Method: http.MethodPost, URL: target, Name: "pay", Arguments: []byte(q.Action.Arguments)}
			if _, err := verifier(publishes).Verify(t.Context(), r); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestPresentedAgain: one token, signed once, with a proof for each request.
func TestPresentedAgain(t *testing.T) {
	token, err := issuer(t).Issue(permit(t, question()), "payments", 0)
	if err != nil {
		t.Fatal(err)
	}
	headers := make([]http.Header, 8)
	var all sync.WaitGroup
	for n := range headers {
		all.Go(func() {
			h, err := token.Present(http.MethodPost, target)
			if err != nil {
				t.Error(err)
			}
			headers[n] = h
		})
	}
	all.Wait()
	proofs := map[string]bool{}
	for _, h := range headers {
		if h.Get(capability.Header) != headers[0].Get(capability.Header) {
			t.Error("two tokens of one name")
		}
		proofs[h.Get(capability.ProofHeader)] = true
	}
	if len(proofs) != len(headers) {
		t.Errorf("%d proofs for %d requests", len(proofs), len(headers))
	}
}

// TestTokenPrintsItsName: a token that is logged is not given away.
func TestTokenPrintsItsName(t *testing.T) {
	token, err := issuer(t).Issue(permit(t, question()), "payments", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.Present(http.MethodPost, target); err != nil {
		t.Fatal(err)
	}
	want := "[capability " + string(token.ID()) + "]"
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if got := fmt.Sprintf(verb, token); got != want {
			t.Errorf("%s prints %q", verb, got)
		}
	}
}

// TestZeroTokenPresentsNothing, nor does an Issuer begin without a key.
func TestZeroTokenPresentsNothing(t *testing.T) {
	var zero issue.Token
	if h, err := zero.Present(http.MethodPost, target); err == nil || h != nil {
		t.Errorf("presented %v", h)
	}
	if text, err := zero.Give(); err == nil || text != "" {
		t.Errorf("gave %q", text)
	}
	now := func() time.Time { return start }
	for name, make := range map[string]func() (*issue.Issuer, error){
		"key":   func() (*issue.Issuer, error) { return issue.New(nil, "x", nil, now) },
		"name":  func() (*issue.Issuer, error) { return issue.New(key(t), "", nil, now) },
		"clock": func() (*issue.Issuer, error) { return issue.New(key(t), "x", nil, nil) },
	} {
		if i, err := make(); err == nil || i != nil {
			t.Errorf("an issuer without a %s", name)
		}
	}
}

func BenchmarkIssue(b *testing.B) {
	i, p := issuer(b), permit(b, question())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := i.Issue(p, "payments", 0); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPresent(b *testing.B) {
	i, p := issuer(b), permit(b, question())
	b.ReportAllocs()
	for b.Loop() {
		token, err := i.Issue(p, "payments", 0)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := token.Present(http.MethodPost, target); err != nil {
			b.Fatal(err)
		}
	}
}
