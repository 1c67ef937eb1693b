package identity_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/identity"
)

// TestProveIsWhatVerifyWants makes proofs with Prove and shows each of them
// once, and one with another body.
func TestProveIsWhatVerifyWants(t *testing.T) {
	_, signer, _ := ed25519.GenerateKey(rand.Reader)
	tokens, err := identity.NewTokens("https://issuer.test", signer)
	if err != nil {
		t.Fatal(err)
	}
	pub, key, _ := ed25519.GenerateKey(rand.Reader)
	thumbprint, err := identity.Thumbprint(pub)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now().Add(-time.Hour)
	now := began
	v := &identity.Verifier{Tokens: tokens.Key, Issuer: "https://issuer.test", Audience: "https://writ.test/mcp", Development: true, Now: func() time.Time { return now }}
	v.Verify(t.Context(), identity.Evidence{}) // it begins to remember
	now = began.Add(10 * time.Minute)
	token, _, err := tokens.Issue(identity.Binding{
		Agent: "spiffe://writ.localhost/agent/a", Key: thumbprint, Audience: "https://writ.test/mcp", Until: now.Add(time.Minute),
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	show := func(proof, body string) error {
		p, err := v.Verify(t.Context(), identity.Evidence{
			Authorization: []string{"DPoP " + token}, Proof: []string{proof}, Method: "POST", URL: "https://writ.test/mcp", Body: []byte(body),
		})
		if err == nil && (p.Caller.Key != thumbprint || !p.Bound) {
			t.Errorf("proven %+v", p)
		}
		return err
	}
	for _, body := range []string{"", "{}", "two"} {
		proof, err := identity.Prove(key, &identity.Evidence{Method: "POST", URL: "https://writ.test/mcp", Body: []byte(body)}, token, now)
		if err != nil {
			t.Fatal(err)
		}
		if err := show(proof, body+"!"); writ.AsDenial(err).Code != writ.ProofMismatch {
			t.Errorf("a proof of %q with another body = %v", body, err)
		}
		proof, _ = identity.Prove(key, &identity.Evidence{Method: "POST", URL: "https://writ.test/mcp", Body: []byte(body)}, token, now)
		if err := show(proof, body); err != nil {
			t.Errorf("a proof of %q = %v", body, err)
		}
		if err := show(proof, body); writ.AsDenial(err).Code != writ.ProofReplayed {
			t.Errorf("the same proof again = %v", err)
		}
	}
}
