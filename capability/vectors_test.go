package capability_test

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/capability"
)

var update = flag.Bool("update", false, "write testdata/v1 anew")

// vectors are requests that a verifier in any language must judge alike. One
// verifier judges all of them, in order, so that a replay follows a use.
type vectors struct {
	About       []string        `json:"about"`
	Keys        json.RawMessage `json:"keys"`
	Issuer      string          `json:"issuer"`
	Audience    string          `json:"audience"`
	Environment string          `json:"environment"`
	Started     int64           `json:"started"`
	Cases       []vector        `json:"cases"`
}

type vector struct {
	Name       string    `json:"name"`
	Now        int64     `json:"now"`
	Capability []string  `json:"capability"`
	Proof      []string  `json:"proof"`
	Peer       []byte    `json:"peer,omitempty"`
	Method     string    `json:"method"`
	URL        string    `json:"url"`
	Kind       writ.Kind `json:"kind"`
	Tool       string    `json:"tool"`
	Arguments  string    `json:"arguments"`
	Inputs     string    `json:"inputs,omitempty"`
	State      string    `json:"state,omitempty"`
	Want       writ.Code `json:"want"`
}

const vectorsFile = "testdata/v1/verify.json"

func TestVectors(t *testing.T) {
	if *update {
		write(t)
	}
	text, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	var all vectors
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	keys, err := capability.ParseKeys(all.Keys)
	if err != nil {
		t.Fatal(err)
	}
	var now time.Time
	v := &capability.Verifier{
		Keys: keys, Issuer: all.Issuer, Audience: all.Audience, Environment: all.Environment, Now: func() time.Time { return now },
	}
	now = time.UnixMilli(all.Started)
	v.Uses = capability.NewOnce(v.Now)
	permitted := 0
	for _, c := range all.Cases {
		now = time.UnixMilli(c.Now)
		r := capability.Request{
			Header: http.Header{capability.Header: c.Capability, capability.ProofHeader: c.Proof}, Method: c.Method, URL: c.URL,
			Kind: c.Kind, Name: c.Tool, Arguments: []byte(c.Arguments), Inputs: []byte(c.Inputs), State: c.State,
		}
		if c.Peer != nil {
			if r.Peer, err = x509.ParseCertificate(c.Peer); err != nil {
				t.Fatal(err)
			}
		}
		_, err := v.Verify(t.Context(), r)
		if codeOf(t, err) != c.Want {
			t.Errorf("%s: %v, want %q", c.Name, err, c.Want)
		}
		if err == nil {
			permitted++
		}
	}
	if len(all.Cases) < 30 || permitted < 6 {
		t.Errorf("%d cases, %d of them permitted", len(all.Cases), permitted)
	}
}

// write makes the vectors.
func write(t *testing.T) {
	v := verifier(t)
	all := vectors{
		About: []string{
			"Requests that a tool server must permit (want is empty) or refuse with the code in want.",
			"One verifier, started at the time in started, judges them in order. Times are Unix milliseconds.",
			"keys is a JWK Set; peer is the DER of the client's certificate, base64, if the request came over mutual TLS.",
			"arguments, inputs and state are what the server received beside the two headers.",
		},
		Keys: v.Keys.JWKS(), Issuer: issuer, Audience: audience, Environment: environment, Started: start.Add(-time.Second).UnixMilli(),
	}
	p256, p384 := crypto.Signer(ecdsaKey(t, elliptic.P256())), crypto.Signer(ecdsaKey(t, elliptic.P384()))
	// add makes a case of a capability, after change had its way with it.
	add := func(name string, want writ.Code, key crypto.Signer, change func(*capability.Capability, *vector)) {
		c := paying(t)
		c.Key = thumbprint(t, key.Public())
		one := vector{Name: name, Now: start.Add(time.Second).UnixMilli(), Method: http.MethodPost, URL: target, Kind: writ.KindTool, Tool: "pay", Arguments: arguments, Want: want}
		if change != nil {
			change(c, &one)
		}
		if one.Capability == nil {
			one.Capability = []string{mint(t, gateway, c)}
		}
		if one.Proof == nil && len(one.Capability) > 0 {
			one.Proof = []string{prove(t, key, one.Capability[0])}
		}
		all.Cases = append(all.Cases, one)
	}
	add("permitted", "", holder, nil)
	first := all.Cases[0]
	again := first
	again.Name, again.Want, again.Proof = "the same, used again with a new proof", writ.AlreadyUsed, []string{prove(t, holder, first.Capability[0])}
	all.Cases = append(all.Cases, again)
	add("proof by an ECDSA key on P-256", "", p256, nil)
	add("proof by an ECDSA key on P-384", "", p384, nil)
	add("mutual TLS instead of a proof", "", p256, func(_ *capability.Capability, v *vector) {
		v.Proof, v.Peer = []string{}, certificate(t, p256).Raw
	})
	add("signed with the former key", "", holder, func(c *capability.Capability, v *vector) { v.Capability = []string{mint(t, former, c)} })
	add("arguments spelled otherwise", "", holder, func(_ *capability.Capability, v *vector) {
		v.Arguments = `{ "to": "acct-204", "reference": "INV\u002d7", "amount": "12.50" }`
	})
	add("a continuation", "", holder, func(c *capability.Capability, v *vector) {
		c.Inputs, c.State = writ.Hash("inputs", []byte(`{"otp":"1"}`)), writ.Hash("state", []byte("s"))
		v.Inputs, v.State = `{"otp":"1"}`, "s"
	})
	writeRefused(t, add)
	writeForged(t, add)
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(vectorsFile), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(vectorsFile, append(bytes.TrimSpace(text), '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

type adder func(name string, want writ.Code, key crypto.Signer, change func(*capability.Capability, *vector))

// writeRefused adds genuine capabilities for something else, for somebody else
// or from another time.
func writeRefused(t *testing.T, add adder) {
	request := func(change func(*vector)) func(*capability.Capability, *vector) {
		return func(_ *capability.Capability, v *vector) { change(v) }
	}
	issued := func(change func(*capability.Capability)) func(*capability.Capability, *vector) {
		return func(c *capability.Capability, _ *vector) { change(c) }
	}
	add("no capability", writ.Unauthenticated, holder, request(func(v *vector) { v.Capability, v.Proof = []string{}, []string{} }))
	add("two capabilities", writ.Unauthenticated, holder, func(c *capability.Capability, v *vector) {
		v.Capability = []string{mint(t, gateway, c), mint(t, gateway, c)}
	})
	add("another tool", capability.WrongScope, holder, request(func(v *vector) { v.Tool = "refund" }))
	add("another kind", capability.WrongScope, holder, request(func(v *vector) { v.Kind = writ.KindPrompt }))
	add("another amount", capability.WrongScope, holder, request(func(v *vector) { v.Arguments = `{"amount":"12.51","reference":"INV-7","to":"acct-204"}` }))
	add("another spelling of a number", capability.WrongScope, holder, func(c *capability.Capability, v *vector) {
		c.Arguments, v.Arguments = writ.Hash("arguments", []byte(`{"amount":12.5}`)), `{"amount":12.50}`
	})
	add("an integer beyond 2^53, one off", capability.WrongScope, holder, func(c *capability.Capability, v *vector) {
		c.Arguments, v.Arguments = writ.Hash("arguments", []byte(`{"id":9007199254740993}`)), `{"id":9007199254740992}`
	})
	add("an argument twice", writ.InvalidArguments, holder, request(func(v *vector) { v.Arguments = `{"amount":"99",` + arguments[1:] }))
	add("a request state nobody approved", capability.WrongScope, holder, request(func(v *vector) { v.State = "s" }))
	add("another server's", writ.WrongAudience, holder, issued(func(c *capability.Capability) { c.Audience = "https://mail.acme.example/mcp" }))
	add("another environment's", capability.WrongScope, holder, issued(func(c *capability.Capability) { c.Environment = "staging" }))
	add("another issuer's", writ.BadToken, holder, issued(func(c *capability.Capability) { c.Issuer = "https://writ.evil.example" }))
	add("expired", capability.Expired, holder, func(c *capability.Capability, v *vector) { v.Now = c.Expires.UnixMilli() })
	add("from the future", writ.BadToken, holder, request(func(v *vector) { v.Now = start.Add(-31 * time.Second).UnixMilli() }))
	add("from before the server began", writ.AlreadyUsed, holder, issued(func(c *capability.Capability) { c.Issued = start.Add(-2 * time.Second) }))
	add("no proof", writ.NoPossession, holder, request(func(v *vector) { v.Proof = []string{} }))
	add("a thief's proof", writ.NoPossession, holder, func(c *capability.Capability, v *vector) {
		v.Capability = []string{mint(t, gateway, c)}
		v.Proof = []string{prove(t, thief, v.Capability[0])}
	})
	add("a thief's certificate", writ.NoPossession, holder, request(func(v *vector) { v.Proof, v.Peer = []string{}, certificate(t, thief).Raw }))
	add("a proof for another capability", writ.ProofMismatch, holder, request(func(v *vector) { v.Proof = []string{prove(t, holder, "x")} }))
	add("a proof for another method", writ.ProofMismatch, holder, request(func(v *vector) { v.Method = http.MethodPut }))
	add("a proof for another address", writ.ProofMismatch, holder, request(func(v *vector) { v.URL = "https://payments.acme.example/admin" }))
	add("an old proof", writ.ProofMismatch, holder, func(c *capability.Capability, v *vector) {
		c.Expires = start.Add(4 * time.Minute).Truncate(time.Second)
		v.Now = start.Add(2 * time.Minute).UnixMilli()
	})
}

// writeForged adds tokens that are not quite capabilities.
func writeForged(t *testing.T, add adder) {
	kid := string(thumbprint(t, gateway.Public()))
	forge := func(name, header string, key crypto.Signer, edit func(claims string) string) {
		add(name, writ.BadToken, holder, func(c *capability.Capability, v *vector) {
			claims, err := c.Claims()
			if err != nil {
				t.Fatal(err)
			}
			v.Capability = []string{signJWS(key, header, edit(string(claims)))}
		})
	}
	same := func(claims string) string { return claims }
	genuine := header(t, gateway)
	forge("signed by nobody known", genuine, thief, same)
	forge("alg none", `{"alg":"none","kid":"`+kid+`","typ":"writ-cap+jwt"}`, gateway, same)
	forge("alg HS256", `{"alg":"HS256","kid":"`+kid+`","typ":"writ-cap+jwt"}`, gateway, same)
	forge("typ of an access token", `{"alg":"EdDSA","kid":"`+kid+`","typ":"at+jwt"}`, gateway, same)
	forge("a header that is not known", `{"alg":"EdDSA","crit":["x"],"kid":"`+kid+`","typ":"writ-cap+jwt"}`, gateway, same)
	forge("an address to fetch keys from", `{"alg":"EdDSA","jku":"https://evil.example","kid":"`+kid+`","typ":"writ-cap+jwt"}`, gateway, same)
	forge("a claim that is not known", genuine, gateway, func(s string) string { return `{"a":1,` + s[1:] })
	forge("a claim twice", genuine, gateway, func(s string) string { return `{"aud":"x",` + s[1:] })
	forge("no JSON", genuine, gateway, func(string) string { return "x" })
}
