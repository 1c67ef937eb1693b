package admin_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/policy"
	"github.com/writgate/writ/registry"
	"github.com/writgate/writ/server/admin"
	"github.com/writgate/writ/server/admin/api"
	"github.com/writgate/writ/writtest"
)

// A desk is a gate with its admin socket.
type desk struct {
	*writtest.World
	*api.Client
	t      *testing.T
	server *admin.Server
	socket string
	policy []policy.File // on disk
}

var tools = []writtest.Tool{
	{Name: "mail.read", Tier: writ.ReadOnly, Result: writ.Label{Class: writ.Internal}},
	{Name: "mail.send", Tier: writ.BoundedWrite, Args: map[string]string{"to": "string"}},
	{Name: "bank.pay", Tier: writ.Privileged, Credential: "vault", Args: map[string]string{"eur": "integer", "to": "string"}},
}

// config has an operator who is also the owner of an agent.
func config() registry.Config {
	c := registry.Config{Agents: []registry.Agent{
		{ID: writtest.AgentID("billing"), Owner: "maya", Environment: writtest.Environment},
		{ID: writtest.AgentID("local"), Owner: "maya", Environment: "development"},
	}}
	for _, user := range []writ.UserID{"omar", "olga", "maya"} {
		c.Operators = append(c.Operators, registry.Operator{User: user, Key: writtest.OperatorKey(string(user))})
	}
	return c
}

func open(t *testing.T, with ...func(*desk)) *desk {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d := &desk{World: writtest.New(t, writtest.Setup{Tools: tools, Registry: config()}), t: t, socket: filepath.Join(dir, "s"), policy: policy.Starter()}
	d.server = &admin.Server{
		Gate: d.Gate, Now: d.Clock.Now, Version: "test",
		Policies: func() ([]policy.File, error) { return d.policy, nil },
		Facts: func() []api.Fact {
			return []api.Fact{{About: "config", Name: "listen", Value: "127.0.0.1:7442", Level: "ok"}}
		},
	}
	for _, change := range with {
		change(d)
	}
	ln, err := admin.Listen(d.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- d.server.Serve(ctx, ln) }()
	d.Client = &api.Client{Socket: d.socket}
	t.Cleanup(func() {
		d.Client.Close()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return d
}

// keyOf is the key whose thumbprint package writtest registers.
func keyOf(user string) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{user[1]}, ed25519.SeedSize))
}

// act is an operator's act. A proof is made by the world's clock.
func (d *desk) act(user, target string, in, out any) error {
	d.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		d.t.Fatal(err)
	}
	status, answer := d.raw("POST", target, body, map[string]string{api.ProofHeader: d.proof(user, target, body)})
	return decode(status, answer, out)
}

func (d *desk) proof(user, target string, body []byte) string {
	d.t.Helper()
	text, err := api.NewProof("test.example/writ", "POST", api.Prefix+target, body, d.Clock.Now()).Sign(keyOf(user))
	if err != nil {
		d.t.Fatal(err)
	}
	return text
}

func decode(status int, answer []byte, out any) error {
	if status == http.StatusOK {
		return json.Unmarshal(answer, out)
	}
	p := new(api.Problem)
	if err := json.Unmarshal(answer, p); err != nil {
		return fmt.Errorf("status %d: %s", status, answer)
	}
	return p
}

// raw makes any request.
func (d *desk) raw(method, target string, body []byte, header map[string]string) (int, []byte) {
	d.t.Helper()
	req, err := http.NewRequest(method, "http://writ"+api.Prefix+target, bytes.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	if method != http.MethodGet {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	var dialer net.Dialer
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "unix", d.socket)
	}}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.StatusCode, answer
}

// size is how many records there are.
func (d *desk) size() int64 {
	d.t.Helper()
	newest, err := d.Ledger.Records(d.t.Context(), ledger.Filter{Reverse: true, Limit: 1})
	if err != nil {
		d.t.Fatal(err)
	}
	return newest[0].Index + 1
}

func (d *desk) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// want checks that err is a problem with this code.
func (d *desk) want(err error, code writ.Code) *api.Problem {
	d.t.Helper()
	p, ok := errors.AsType[*api.Problem](err)
	if !ok || p.Code != code {
		d.t.Fatalf("got %v, want %s", err, code)
	}
	return p
}

// agent gives an agent whose task may use every tool.
func (d *desk) agent() *writtest.Agent {
	a := d.Agent("billing")
	a.Open(writ.Task{Purpose: writ.Purpose{Instructions: "pay the invoice of lena"}, Grant: writ.Grant{{Tool: "*"}}})
	return a
}

// waiting makes a call that waits for an approval.
func (d *desk) waiting(a *writtest.Agent) *writ.Denial {
	d.t.Helper()
	_, err := a.Call("bank.pay", `{"eur":10,"to":"lena"}`)
	denial, ok := errors.AsType[*writ.Denial](err)
	if !ok || denial.Code != writ.ApprovalRequired {
		d.t.Fatalf("the call is answered with %v", err)
	}
	return denial
}

func (d *desk) show(id writ.ApprovalID) *api.Approval {
	d.t.Helper()
	var a api.Approval
	d.must(d.Post(d.t.Context(), "/approvals/"+string(id)+"/show", struct{}{}, &a))
	return &a
}

type answer struct {
	Shown  writ.Digest `json:"shown,omitempty"`
	Reason string      `json:"reason,omitempty"`
}

func (d *desk) approve(user string, id writ.ApprovalID, shown writ.Digest) (*api.Approval, error) {
	var a api.Approval
	err := d.act(user, "/approvals/"+string(id)+"/approve", answer{Shown: shown}, &a)
	return &a, err
}

func TestApprovedIsWhatWasShown(t *testing.T) {
	d := open(t)
	a := d.agent()
	id := d.waiting(a).Approval

	shown := d.show(id).Shown
	if got := writ.Hash("action", shown.Action); got != shown.Digest {
		t.Errorf("the bytes that were shown have digest %s, not %s", got, shown.Digest)
	}
	var action writ.Action
	d.must(json.Unmarshal(shown.Action, &action))
	if action.Arguments != `{"eur":10,"to":"lena"}` {
		t.Errorf("shown: %s", action.Arguments)
	}
	if shown.Purpose.Instructions != "pay the invoice of lena" {
		t.Errorf("the purpose is %q", shown.Purpose.Instructions)
	}
	got, err := d.approve("omar", id, shown.Digest)
	d.must(err)
	if got.State != "approved" || len(got.Answers) != 1 || got.Answers[0].By != "omar" {
		t.Errorf("approved: %+v", got)
	}
	if _, err := a.Call("bank.pay", `{"eur":10,"to":"lena"}`); err != nil {
		t.Errorf("the approved call: %v", err)
	}
	if seen := d.Tools.Seen(); len(seen) != 1 || seen[0].Digest() != shown.Digest {
		t.Errorf("the tool got %v", seen)
	}
}

func TestH30AnotherActionIsNotApproved(t *testing.T) {
	d := open(t)
	id := d.waiting(d.agent()).Approval
	_, err := d.approve("omar", id, writ.Hash("action", []byte("{}")))
	d.want(err, writ.ApprovalMismatch)
	if got := d.show(id); got.State != "pending" {
		t.Errorf("it is %s", got.State)
	}
}

func TestH36SelfApproval(t *testing.T) {
	d := open(t)
	a := d.agent()
	id := d.waiting(a).Approval
	digest := d.show(id).Shown.Digest

	// The agent's owner is an operator, and may not review what it asks for.
	_, err := d.approve("maya", id, digest)
	d.want(err, writ.SelfApproval)

	// An operator who is suspended has no say, nor did have.
	_, err = d.approve("omar", id, digest)
	d.must(err)
	d.must(d.Gate.Catalog.SetState(t.Context(), "operator", "omar", writ.Suspended, "olga"))
	_, err = d.approve("omar", id, digest)
	d.want(err, writ.NotEntitled)
	if _, err := a.Call("bank.pay", `{"eur":10,"to":"lena"}`); err == nil {
		t.Error("the approval of a suspended operator is used")
	}
}

func TestH38ApprovedOnce(t *testing.T) {
	d := open(t)
	id := d.waiting(d.agent()).Approval
	digest := d.show(id).Shown.Digest
	target := "/approvals/" + string(id) + "/approve"
	body, err := json.Marshal(answer{Shown: digest})
	d.must(err)
	proof := map[string]string{api.ProofHeader: d.proof("omar", target, body)}

	var first api.Approval
	status, text := d.raw("POST", target, body, proof)
	d.must(decode(status, text, &first))

	// The same request again.
	status, text = d.raw("POST", target, body, proof)
	d.want(decode(status, text, &first), writ.ProofReplayed)

	// The same person again, and another: both see what was decided.
	for _, user := range []string{"omar", "olga"} {
		_, err := d.approve(user, id, digest)
		p := d.want(err, writ.AlreadyDecided)
		if p.Status != http.StatusConflict || p.Approval == nil || p.Approval.State != "approved" || p.Approval.Answers[0].By != "omar" {
			t.Errorf("%s is told %+v", user, p)
		}
	}
}

func TestH37NoProofNoAuthority(t *testing.T) {
	d := open(t)
	id := d.waiting(d.agent()).Approval
	target := "/approvals/" + string(id) + "/approve"
	body, err := json.Marshal(answer{Shown: d.show(id).Shown.Digest})
	d.must(err)
	other, err := json.Marshal(answer{Shown: d.show(id).Shown.Digest, Reason: "x"})
	d.must(err)
	old, err := api.NewProof("test.example/writ", "POST", api.Prefix+target, body, d.Clock.Now().Add(-61e9)).Sign(keyOf("omar"))
	d.must(err)
	early, err := api.NewProof("test.example/writ", "POST", api.Prefix+target, body, d.Clock.Now().Add(62e9)).Sign(keyOf("omar"))
	d.must(err)
	elsewhere, err := api.NewProof("other.example/writ", "POST", api.Prefix+target, body, d.Clock.Now()).Sign(keyOf("omar"))
	d.must(err)
	before := d.size()
	for name, c := range map[string]struct {
		proof string
		code  writ.Code
	}{
		"none":               {"", writ.NoPossession},
		"of a stranger":      {d.proof("xX", target, body), writ.NotEntitled},
		"of another body":    {d.proof("omar", target, other), writ.ProofMismatch},
		"of another act":     {d.proof("omar", "/lift", body), writ.ProofMismatch},
		"a minute old":       {old, writ.ProofMismatch},
		"of the next minute": {early, writ.ProofMismatch},
		"of another gateway": {elsewhere, writ.WrongAudience},
		"no proof at all":    {"Bearer x", writ.BadToken},
	} {
		t.Run(name, func(t *testing.T) {
			header := map[string]string{}
			if c.proof != "" {
				header[api.ProofHeader] = c.proof
			}
			status, text := d.raw("POST", target, body, header)
			d.want(decode(status, text, nil), c.code)
		})
	}
	if got := d.show(id); got.State != "pending" {
		t.Errorf("it is %s", got.State)
	}
	if after := d.size(); after != before {
		t.Errorf("%d records more", after-before)
	}
}

func TestSayingNoNeedsNoKey(t *testing.T) {
	d := open(t)
	a := d.agent()
	id := d.waiting(a).Approval
	var got api.Approval
	d.must(d.Post(t.Context(), "/approvals/"+string(id)+"/deny", answer{Reason: "wrong payee"}, &got))
	if want := fmt.Sprintf("uid:%d", os.Getuid()); got.State != "denied" || string(got.Answers[0].By) != want {
		t.Errorf("denied: %+v", got)
	}
	_, err := a.Call("bank.pay", `{"eur":10,"to":"lena"}`)
	if d := writ.AsDenial(err); d.Code != writ.ApprovalDenied || !strings.Contains(d.Reason, "wrong payee") {
		t.Errorf("the call is answered with %v", err)
	}
}

func TestTwoOperators(t *testing.T) {
	d := open(t, func(d *desk) { d.server.Lifters = 2 })
	var st api.Status
	d.must(d.Post(t.Context(), "/halt", answer{Reason: "drill"}, &st))
	if !st.Halted || st.LiftNeeds != 2 {
		t.Fatalf("halted: %+v", st)
	}
	a := d.agent()
	if _, err := a.Call("mail.read", `{}`); writ.AsDenial(err).Code != writ.Halted {
		t.Errorf("a call during a halt: %v", err)
	}
	d.want(d.Post(t.Context(), "/lift", answer{}, &st), writ.NoPossession)
	d.must(d.act("omar", "/lift", answer{}, &st))
	if !st.Halted || st.LiftNeeds != 1 {
		t.Fatalf("one has lifted: %+v", st)
	}
	d.want(d.act("omar", "/lift", answer{}, &st), writ.AlreadyDecided)
	if _, err := a.Call("mail.read", `{}`); writ.AsDenial(err).Code != writ.Halted {
		t.Errorf("a call after one has lifted: %v", err)
	}
	d.must(d.act("olga", "/lift", answer{}, &st))
	if st.Halted {
		t.Fatalf("both have lifted: %+v", st)
	}
	if _, err := a.Call("mail.read", `{}`); err != nil {
		t.Errorf("a call after both have lifted: %v", err)
	}
}
