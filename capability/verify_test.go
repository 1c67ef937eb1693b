package capability_test

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"math/big"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/capability"
)

func TestVerify(t *testing.T) {
	want := paying(t)
	got, err := verifier(t).Verify(t.Context(), request(t, mint(t, gateway, want), holder))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read\n%+v, want\n%+v", got, want)
	}
}

// TestVerifySpelling: the digest is over canonical bytes, so that a server
// whose framework re-encoded the arguments still recognises them.
func TestVerifySpelling(t *testing.T) {
	r := request(t, mint(t, gateway, paying(t)), holder)
	r.Arguments = []byte(` { "to":"acct-204", "amount":"12.5\u0030", "reference":"INV\u002d7" }`)
	if _, err := verifier(t).Verify(t.Context(), r); err != nil {
		t.Errorf("another spelling of the same arguments: %v", err)
	}
}

// TestNoArguments: a tool without arguments is called with none, and with an
// empty object, alike.
func TestNoArguments(t *testing.T) {
	v := verifier(t)
	for _, arguments := range []string{"", "{}", " { } "} {
		c := paying(t)
		c.Arguments = writ.Hash("arguments", []byte("{}"))
		r := request(t, mint(t, gateway, c), holder)
		r.Arguments = []byte(arguments)
		if _, err := v.Verify(t.Context(), r); err != nil {
			t.Errorf("arguments %q: %v", arguments, err)
		}
	}
}

// TestH44Scope presents a capability for anything but what it is for.
func TestH44Scope(t *testing.T) {
	tests := []struct {
		name   string
		change func(c *capability.Capability, r *capability.Request)
		want   writ.Code
	}{
		{"another tool", func(_ *capability.Capability, r *capability.Request) { r.Name = "refund" }, capability.WrongScope},
		{"no tool", func(_ *capability.Capability, r *capability.Request) { r.Name = "" }, capability.WrongScope},
		{"another kind", func(_ *capability.Capability, r *capability.Request) { r.Kind = writ.KindPrompt }, capability.WrongScope},
		{"a changed argument", func(_ *capability.Capability, r *capability.Request) {
			r.Arguments = []byte(strings.Replace(arguments, "12.50", "12.51", 1))
		}, capability.WrongScope},
		{"one more argument", func(_ *capability.Capability, r *capability.Request) {
			r.Arguments = []byte(strings.Replace(arguments, "{", `{"a":1,`, 1))
		}, capability.WrongScope},
		{"an argument twice", func(_ *capability.Capability, r *capability.Request) {
			r.Arguments = []byte(strings.Replace(arguments, "{", `{"to":"acct-666",`, 1))
		}, writ.InvalidArguments},
		{"no arguments", func(_ *capability.Capability, r *capability.Request) { r.Arguments = nil }, capability.WrongScope},
		{"input responses", func(_ *capability.Capability, r *capability.Request) { r.Inputs = []byte(`{"otp":"1"}`) }, capability.WrongScope},
		{"a request state", func(_ *capability.Capability, r *capability.Request) { r.State = "s" }, capability.WrongScope},
		{"preconditions", func(_ *capability.Capability, r *capability.Request) { r.Preconditions = []byte(`{"etag":"1"}`) }, capability.WrongScope},
		{"another server's", func(c *capability.Capability, _ *capability.Request) { c.Audience = "https://mail.acme.example" }, writ.WrongAudience},
		{"the same server with a slash", func(c *capability.Capability, _ *capability.Request) { c.Audience += "/" }, writ.WrongAudience},
		{"another environment's", func(c *capability.Capability, _ *capability.Request) { c.Environment = "staging" }, capability.WrongScope},
		{"another issuer's", func(c *capability.Capability, _ *capability.Request) { c.Issuer = "https://writ.evil.example" }, writ.BadToken},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := paying(t)
			r := request(t, "", holder)
			tt.change(c, &r)
			token := mint(t, gateway, c)
			r.Header.Set(capability.Header, token)
			r.Header.Set(capability.ProofHeader, prove(t, holder, token))
			v := verifier(t)
			if _, err := v.Verify(t.Context(), r); codeOf(t, err) != tt.want {
				t.Errorf("Verify: %v, want %s", err, tt.want)
			}
			// What was refused has taken nothing.
			good := paying(t)
			good.ID = c.ID
			if _, err := v.Verify(t.Context(), request(t, mint(t, gateway, good), holder)); err != nil {
				t.Errorf("the use was taken by a refusal: %v", err)
			}
		})
	}
}

// TestH45AnotherKey: a capability in the hands of another key is worth
// nothing, and so is one whose holder's key was changed since. H54: that is
// what keeps a sub-agent from using its parent's.
func TestH45AnotherKey(t *testing.T) {
	token := mint(t, gateway, paying(t))
	tests := []struct {
		name   string
		change func(r *capability.Request)
		want   writ.Code
	}{
		{"no proof", func(r *capability.Request) { r.Header.Del(capability.ProofHeader) }, writ.NoPossession},
		{"an empty proof", func(r *capability.Request) { r.Header.Set(capability.ProofHeader, "") }, writ.NoPossession},
		{"two proofs", func(r *capability.Request) { r.Header.Add(capability.ProofHeader, prove(t, holder, token)) }, writ.NoPossession},
		{"a thief's proof", func(r *capability.Request) { r.Header.Set(capability.ProofHeader, prove(t, thief, token)) }, writ.NoPossession},
		{"a thief's certificate", func(r *capability.Request) {
			r.Header.Del(capability.ProofHeader)
			r.Peer = certificate(t, thief)
		}, writ.NoPossession},
		{"a thief's proof and the holder's certificate", func(r *capability.Request) {
			r.Header.Set(capability.ProofHeader, prove(t, thief, token))
			r.Peer = certificate(t, holder)
		}, writ.NoPossession},
		{"the capability as its own proof", func(r *capability.Request) { r.Header.Set(capability.ProofHeader, token) }, writ.NoPossession},
		{"another method", func(r *capability.Request) { r.Method = http.MethodPut }, writ.ProofMismatch},
		{"another address", func(r *capability.Request) { r.URL = "https://payments.acme.example/admin" }, writ.ProofMismatch},
		{"another host", func(r *capability.Request) { r.URL = "https://mail.acme.example/mcp" }, writ.ProofMismatch},
		{"another scheme", func(r *capability.Request) { r.URL = "http://payments.acme.example/mcp" }, writ.ProofMismatch},
		{"no address", func(r *capability.Request) { r.URL = "/mcp" }, writ.ProofMismatch},
		{"a proof for another capability", func(r *capability.Request) {
			r.Header.Set(capability.ProofHeader, prove(t, holder, mint(t, gateway, paying(t))))
		}, writ.ProofMismatch},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := request(t, token, holder)
			tt.change(&r)
			if _, err := verifier(t).Verify(t.Context(), r); codeOf(t, err) != tt.want {
				t.Errorf("Verify: %v, want %s", err, tt.want)
			}
		})
	}
}

// TestH45HoldersOwnKeys: every kind of key that an agent may have proves, and
// so does the channel.
func TestH45HoldersOwnKeys(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]crypto.Signer{"Ed25519": holder, "P-256": ecdsaKey(t, elliptic.P256()), "P-384": ecdsaKey(t, elliptic.P384()), "RSA": rsaKey}
	for name, key := range keys {
		c := paying(t)
		c.Key = thumbprint(t, key.Public())
		v := verifier(t)
		if name != "RSA" {
			if _, err := v.Verify(t.Context(), request(t, mint(t, gateway, c), key)); err != nil {
				t.Errorf("%s, by proof: %v", name, err)
			}
		} else if _, err := capability.Prove(key, "x", "POST", target, start); err == nil {
			t.Error("an RSA key made a proof")
		}
		c.ID = writ.NewID[writ.CapabilityID](start)
		r := request(t, mint(t, gateway, c), holder)
		r.Header.Del(capability.ProofHeader)
		r.Peer = certificate(t, key)
		if _, err := v.Verify(t.Context(), r); err != nil {
			t.Errorf("%s, by mutual TLS: %v", name, err)
		}
	}
	if _, err := capability.Thumbprint(ecdsaKey(t, elliptic.P521()).Public()); err == nil {
		t.Error("P-521 has a thumbprint, and no proof")
	}
	for _, short := range []*rsa.PublicKey{{}, {N: new(big.Int).Lsh(big.NewInt(1), 1023), E: 65537}} {
		if _, err := capability.Thumbprint(short); err == nil {
			t.Errorf("an RSA key of %v has a thumbprint", short.N)
		}
	}
}

func TestTime(t *testing.T) {
	tests := []struct {
		name            string
		after           time.Duration // the server's clock, after the decision
		proven, expires time.Duration // after the decision
		want            writ.Code
	}{
		{"at once", 0, 0, time.Minute, ""},
		{"just before it expires", 59*time.Second + 876*time.Millisecond, 30 * time.Second, time.Minute, ""},
		{"as it expires", 59*time.Second + 877*time.Millisecond, 30 * time.Second, time.Minute, capability.Expired},
		{"from a clock ahead", -30 * time.Second, -30 * time.Second, time.Minute, ""},
		{"from the future", -31 * time.Second, -31 * time.Second, time.Minute, writ.BadToken},
		{"an old proof", 90 * time.Second, 20 * time.Second, 2 * time.Minute, writ.ProofMismatch},
		{"a proof from the future", 0, 31 * time.Second, time.Minute, writ.ProofMismatch},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := paying(t)
			c.Expires = start.Add(tt.expires).Truncate(time.Second)
			token := mint(t, gateway, c)
			r := request(t, token, holder)
			proof, err := capability.Prove(holder, token, r.Method, r.URL, start.Add(tt.proven))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set(capability.ProofHeader, proof)
			v := verifier(t)
			v.Now = func() time.Time { return start.Add(tt.after) }
			if _, err := v.Verify(t.Context(), r); codeOf(t, err) != tt.want {
				t.Errorf("Verify: %v, want %q", err, tt.want)
			}
		})
	}
}

// TestRotation: what was signed with the former key verifies for as long as
// that key is published, and not with a key that never was.
func TestRotation(t *testing.T) {
	keys, err := capability.ParseKeys(verifier(t).Keys.JWKS())
	if err != nil || len(keys) != 2 {
		t.Fatalf("%d keys read back, %v", len(keys), err)
	}
	for _, tt := range []struct {
		name string
		drop bool
		want writ.Code
	}{{"published", false, ""}, {"withdrawn", true, writ.BadToken}} {
		v := verifier(t)
		v.Keys = keys
		if tt.drop {
			delete(v.Keys, thumbprint(t, former.Public()))
		}
		if _, err := v.Verify(t.Context(), request(t, mint(t, former, paying(t)), holder)); codeOf(t, err) != tt.want {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestHeaderTwice: of two capabilities none is taken.
func TestHeaderTwice(t *testing.T) {
	r := request(t, mint(t, gateway, paying(t)), holder)
	r.Header.Add(capability.Header, mint(t, gateway, paying(t)))
	if _, err := verifier(t).Verify(t.Context(), r); codeOf(t, err) != writ.Unauthenticated {
		t.Errorf("two capabilities: %v", err)
	}
	r.Header.Del(capability.Header)
	if _, err := verifier(t).Verify(t.Context(), r); codeOf(t, err) != writ.Unauthenticated {
		t.Errorf("no capability: %v", err)
	}
}

// TestUnsetVerifierRefuses: a Verifier that lacks anything verifies nothing.
func TestUnsetVerifierRefuses(t *testing.T) {
	full := *verifier(t)
	fields := reflect.TypeOf(full)
	for i := range fields.NumField() {
		v := full
		reflect.ValueOf(&v).Elem().Field(i).SetZero()
		if _, err := v.Verify(t.Context(), request(t, mint(t, gateway, paying(t)), holder)); codeOf(t, err) != writ.InternalError {
			t.Errorf("without %s: %v", fields.Field(i).Name, err)
		}
	}
}

// TestNothingLeaks: no refusal holds the capability, a proof or an argument.
func TestNothingLeaks(t *testing.T) {
	token := mint(t, gateway, paying(t))
	for _, change := range []func(*capability.Request){
		func(r *capability.Request) { r.Arguments = []byte(`{"canary":1,"canary":2}`) },
		func(r *capability.Request) { r.Arguments = []byte(`{"amount":"canary"}`) },
		func(r *capability.Request) { r.Header.Set(capability.ProofHeader, "canary.canary.canary") },
		func(r *capability.Request) { r.Header.Set(capability.Header, "canary") },
		func(r *capability.Request) { r.Header.Set(capability.ProofHeader, prove(t, thief, token)) },
	} {
		r := request(t, token, holder)
		change(&r)
		_, err := verifier(t).Verify(t.Context(), r)
		if err == nil {
			t.Fatal("nothing was refused")
		}
		text := err.Error()
		for _, secret := range append(strings.Split(token, "."), r.Header.Get(capability.ProofHeader)) {
			if strings.Contains(text, secret) {
				t.Errorf("%q holds what was presented", text)
			}
		}
	}
}

type broken struct{}

func (broken) Use(_ context.Context, _ *capability.Capability) error {
	return errors.New("store is down")
}

// TestUsesUnavailable: a store that cannot answer refuses.
func TestUsesUnavailable(t *testing.T) {
	v := verifier(t)
	v.Uses = broken{}
	if _, err := v.Verify(t.Context(), request(t, mint(t, gateway, paying(t)), holder)); codeOf(t, err) != writ.Unavailable {
		t.Errorf("with a broken store: %v", err)
	}
}
