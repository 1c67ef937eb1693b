package server_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/gate"
	"github.com/writgate/writ/identity"
	"github.com/writgate/writ/mcp"
	"github.com/writgate/writ/server"
	"github.com/writgate/writ/writtest"
)

// A holder is an agent with a token bound to its key, and no certificate.
type holder struct {
	*peer
	key   ed25519.PrivateKey
	token string
}

// holder makes an agent that proves its key with DPoP (RFC 9449).
func (d *door) holder(grant ...writ.ToolName) *holder {
	d.t.Helper()
	signer := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	tokens, err := identity.NewTokens("https://issuer.test", signer)
	d.must(err)
	v := d.Gate.Identity
	v.Tokens, v.Issuer, v.Audience = tokens.Key, "https://issuer.test", "https://"+d.addr+"/mcp"
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	d.must(err)
	h := &holder{peer: d.stranger(), key: key}
	h.peer.key, err = identity.Thumbprint(pub)
	d.must(err)
	t := writ.Task{
		Agent: writtest.AgentID("billing"), Key: h.peer.key, Environment: writtest.Environment, User: "lena",
		Purpose: writ.Purpose{Instructions: "settle the invoices of ACME", Origin: writ.OriginUser},
	}
	for _, tool := range grant {
		t.Grant = append(t.Grant, writ.Permission{Tool: tool})
	}
	held, err := d.Gate.Tasks.Open(d.t.Context(), t)
	d.must(err)
	h.task = held.Task
	h.token, _, err = tokens.Issue(identity.Binding{
		Agent: writtest.AgentID("billing"), Key: h.peer.key, Audience: v.Audience, Task: h.task.ID, User: "lena", Until: d.Clock.Now().Add(time.Hour),
	}, d.Clock.Now())
	d.must(err)
	return h
}

// prove adds the token, and a proof for one request, to its headers.
func (h *holder) prove(header http.Header, method, path, body string) {
	b64 := base64.RawURLEncoding.EncodeToString
	pub := h.key.Public().(ed25519.PublicKey)
	ath, digest := sha256.Sum256([]byte(h.token)), sha256.Sum256([]byte(body))
	head := fmt.Sprintf(`{"alg":"EdDSA","jwk":{"crv":"Ed25519","kty":"OKP","x":%q},"typ":"dpop+jwt"}`, b64(pub))
	claims := fmt.Sprintf(`{"ath":%q,"body":%q,"htm":%q,"htu":%q,"iat":%d,"jti":%q}`,
		b64(ath[:]), b64(digest[:]), method, "https://"+h.d.addr+path, h.d.Clock.Now().Unix(), rand.Text())
	signed := b64([]byte(head)) + "." + b64([]byte(claims))
	header.Set("Authorization", "DPoP "+h.token)
	header.Set("Dpop", signed+"."+b64(ed25519.Sign(h.key, []byte(signed))))
}

// A proof is good for one request, however often the gate has to decide about
// it: while a call waits it is the same request. Sent again, it is a replay.
func TestH05ProofIsForOneRequest(t *testing.T) {
	d := open(t, writtest.Setup{}, func(c *server.Config) {
		c.Status, c.Limits.Patience = "https://people.example/waiting/", 5*time.Second
	})
	h := d.holder("files.*", "bank.*")
	body := modern("1", "tools/call", `"name":"files.read","arguments":{"path":"a"}`, "")
	head := headers("tools/call", "files.read")
	h.prove(head, "POST", "/mcp", body)
	if a := h.do("POST", "/mcp", head, body); a.text() != "the content" {
		t.Fatalf("a call: %d %s", a.status, a.body)
	}
	if a := h.do("POST", "/mcp", head, body); a.status != 401 || a.code() != "pop_replay" || !strings.Contains(a.header.Get("WWW-Authenticate"), `error="invalid_dpop_proof"`) {
		t.Errorf("the same proof: %d %s", a.status, a.body)
	}
	h.prove(head, "POST", "/mcp", body)
	if a := h.do("POST", "/mcp/files", head, body); a.status != 401 || a.code() != "pop_mismatch" {
		t.Errorf("at another address: %d %s", a.status, a.body)
	}
	h.prove(head, "POST", "/mcp", body)
	if a := h.do("POST", "/mcp", head, strings.Replace(body, `"a"`, `"b"`, 1)); a.status != 401 || a.code() != "pop_mismatch" {
		t.Errorf("with another body: %d %s", a.status, a.body)
	}
	list := headers("tools/list", "")
	h.prove(list, "POST", "/mcp", modern("1", "tools/list", "", ""))
	if a := h.do("POST", "/mcp", list, modern("1", "tools/list", "", "")); a.status != 200 || !strings.Contains(a.body, "bank.pay") {
		t.Errorf("a list: %d %s", a.status, a.body)
	}

	// A call that comes back and waits is decided after its proof was seen.
	pay := func(state string) answer {
		params := `"name":"bank.pay","arguments":{"amount":7}`
		if state != "" {
			params += `,"requestState":"` + state + `"`
		}
		body := modern("1", "tools/call", params, `{"elicitation":{"url":{}}}`)
		head := headers("tools/call", "bank.pay")
		h.prove(head, "POST", "/mcp", body)
		return h.do("POST", "/mcp", head, body)
	}
	state := pay("").str("/result/requestState")
	time.AfterFunc(100*time.Millisecond, func() { d.answer(true) })
	if a := pay(state); a.text() != "paid" {
		t.Errorf("after the approval: %d %s", a.status, a.body)
	}
}

// The gate may be asked about a request again, as when it depended on another
// call: the proof was used up by its own first decision, and is no replay.
func TestH05RequestIsDecidedAgain(t *testing.T) {
	d := open(t, writtest.Setup{}, nil)
	h := d.holder("bank.*")
	header := http.Header{}
	h.prove(header, "POST", "/mcp", "body")
	evidence := identity.Evidence{
		Authorization: header["Authorization"], Proof: header["Dpop"], Method: "POST", URL: "https://" + d.addr + "/mcp", Body: []byte("body"),
	}
	r := &gate.Request{
		Call: writ.NewID[writ.CallID](d.Clock.Now()), Evidence: evidence,
		Action: writ.Action{Kind: writ.KindTool, Upstream: "bank", Name: "pay", Arguments: `{"amount":7}`},
	}
	for i := range 3 {
		if _, err := d.Gate.Do(t.Context(), r); err == nil || writ.AsDenial(err).Code != writ.ApprovalRequired {
			t.Fatalf("decision %d: %v", i, err)
		}
	}
	d.answer(true)
	if _, err := d.Gate.Do(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	another := &gate.Request{Call: writ.NewID[writ.CallID](d.Clock.Now()), Evidence: evidence, Action: r.Action}
	if _, err := d.Gate.Do(t.Context(), another); err == nil || writ.AsDenial(err).Code != writ.ProofReplayed {
		t.Errorf("another request with the same proof: %v", err)
	}
	d.Clock.Advance(time.Hour)
	r.Call = writ.NewID[writ.CallID](d.Clock.Now())
	if _, err := d.Gate.Do(t.Context(), r); err == nil || writ.AsDenial(err).Code != writ.Unauthenticated {
		t.Errorf("the same request when its proof has expired: %v", err)
	}
}

// A legacy client that is asked for input, and answers, made one request with
// one proof; its call went up twice.
func TestH05ProofCoversTheBridge(t *testing.T) {
	d := open(t, asking, nil)
	d.Tools.Do = play
	h := d.holder("ask.*")
	with := func(header http.Header, body string) http.Header {
		h.prove(header, "POST", "/mcp", body)
		return header
	}
	head := http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"}}
	begin := `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"elicitation":{}},"clientInfo":{"name":"x","version":"1"}}}`
	a := h.do("POST", "/mcp", with(head.Clone(), begin), begin)
	head.Set(mcp.HeaderSession, a.header.Get(mcp.HeaderSession))
	head.Set(mcp.HeaderVersion, mcp.Legacy)
	call := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"ask.name"}}`
	s := h.stream("POST", with(head.Clone(), call), call)
	id := str(s.next(), "/id")
	response := `{"jsonrpc":"2.0","id":"` + id + `","result":{"action":"accept","content":{"name":"Ada"}}}`
	if a := h.do("POST", "/mcp", with(head.Clone(), response), response); a.status != http.StatusAccepted {
		t.Fatalf("the answer: %d %s", a.status, a.body)
	}
	if n := s.next(); !strings.Contains(str(n, "/result/content/0/text"), "Ada") {
		t.Errorf("the result: %s", n.Raw())
	}
}
