package capability_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/writgate/writ"
	"github.com/writgate/writ/capability"
)

// TestProofForged: every way in which a token is not quite a proof.
func TestProofForged(t *testing.T) {
	token := mint(t, gateway, paying(t))
	b64 := base64.RawURLEncoding
	sum := sha256.Sum256([]byte(token))
	public := b64.EncodeToString(holder.Public().(ed25519.PublicKey))
	head := `{"alg":"EdDSA","jwk":{"crv":"Ed25519","kty":"OKP","x":"` + public + `"},"typ":"writ-proof+jwt"}`
	claims := fmt.Sprintf(`{"cth":%q,"htm":"POST","htu":%q,"iat":%d,"jti":"a"}`, b64.EncodeToString(sum[:]), target, start.Unix())
	edit := func(text, old, new string) string {
		if !strings.Contains(text, old) {
			t.Fatalf("%q is not in %s", old, text)
		}
		return strings.Replace(text, old, new, 1)
	}
	tests := []struct {
		name, header, claims string
		want                 writ.Code
	}{
		{"genuine", head, claims, ""},
		{"typ of a DPoP proof", edit(head, "writ-proof+jwt", "dpop+jwt"), claims, writ.NoPossession},
		{"typ of a capability", edit(head, "writ-proof+jwt", "writ-cap+jwt"), claims, writ.NoPossession},
		{"alg none", edit(head, "EdDSA", "none"), claims, writ.NoPossession},
		{"alg of another kind of key", edit(head, "EdDSA", "ES256"), claims, writ.NoPossession},
		{"alg HS256", edit(head, "EdDSA", "HS256"), claims, writ.NoPossession},
		{"kid beside the key", edit(head, `{"alg"`, `{"kid":"x","alg"`), claims, writ.NoPossession},
		{"crit", edit(head, `{"alg"`, `{"crit":["b64"],"b64":false,"alg"`), claims, writ.NoPossession},
		{"no key", edit(head, `"jwk":{"crv":"Ed25519","kty":"OKP","x":"`+public+`"},`, ""), claims, writ.NoPossession},
		{"a private key", edit(head, `{"crv"`, `{"d":"AAAA","crv"`), claims, writ.NoPossession},
		{"a secret key", edit(head, `{"crv":"Ed25519","kty":"OKP","x":"`+public+`"}`, `{"k":"AAAA","kty":"oct"}`), claims, writ.NoPossession},
		{"a key of another size", edit(head, public, public[:40]), claims, writ.NoPossession},
		{"a key in another spelling", edit(head, public, public+"="), claims, writ.NoPossession},
		{"no jti", head, edit(claims, `,"jti":"a"`, ""), writ.ProofMismatch},
		{"an empty jti", head, edit(claims, `"jti":"a"`, `"jti":""`), writ.ProofMismatch},
		{"no iat", head, edit(claims, fmt.Sprintf(`"iat":%d,`, start.Unix()), ""), writ.ProofMismatch},
		{"no cth", head, edit(claims, `"cth":"`+b64.EncodeToString(sum[:])+`",`, ""), writ.ProofMismatch},
		{"ath instead of cth", head, edit(claims, `"cth"`, `"ath"`), writ.ProofMismatch},
		{"a claim that is not known", head, edit(claims, `"htm"`, `"nonce":"x","htm"`), writ.ProofMismatch},
		{"a method in lower case", head, edit(claims, "POST", "post"), writ.ProofMismatch},
		{"htu that is no address", head, edit(claims, target, "/mcp"), writ.ProofMismatch},
		{"htu with a user", head, edit(claims, "https://", "https://payments.acme.example@"), writ.ProofMismatch},
		{"a payload that is no JSON", head, "x", writ.NoPossession},
	}
	for _, tt := range tests {
		r := request(t, token, holder)
		r.Header.Set(capability.ProofHeader, signJWS(holder, tt.header, tt.claims))
		if _, err := verifier(t).Verify(t.Context(), r); codeOf(t, err) != tt.want {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestProofSignature: an ECDSA signature is the two numbers, each of its full
// length, and of a point on the curve.
func TestProofSignature(t *testing.T) {
	key := ecdsaKey(t, elliptic.P256())
	c := paying(t)
	c.Key = thumbprint(t, key.Public())
	token := mint(t, gateway, c)
	parts := strings.Split(prove(t, key, token), ".")
	b64 := base64.RawURLEncoding
	signature, err := b64.DecodeString(parts[2])
	if err != nil || len(signature) != 64 {
		t.Fatalf("signature of %d bytes, %v", len(signature), err)
	}
	header, err := b64.DecodeString(parts[0])
	if err != nil {
		t.Fatal(err)
	}
	more := strings.Replace(string(header), `"kty"`, `"kid":"x","kty"`, 1)
	i := strings.Index(string(header), `"x":"`) + 5
	off := string(header[:i]) + b64.EncodeToString(make([]byte, 32)) + string(header[i+43:])
	for name, proof := range map[string]string{
		"zeros":            parts[0] + "." + parts[1] + "." + b64.EncodeToString(make([]byte, 64)),
		"a byte short":     parts[0] + "." + parts[1] + "." + b64.EncodeToString(signature[:63]),
		"a byte long":      parts[0] + "." + parts[1] + "." + b64.EncodeToString(append(signature, 0)),
		"none":             parts[0] + "." + parts[1] + ".",
		"one more member":  b64.EncodeToString([]byte(more)) + "." + parts[1] + "." + signed(t, key, b64.EncodeToString([]byte(more))+"."+parts[1]),
		"off the curve":    b64.EncodeToString([]byte(off)) + "." + parts[1] + "." + parts[2],
		"another's claims": parts[0] + "." + strings.Split(prove(t, key, token), ".")[1] + "." + parts[2],
	} {
		r := request(t, token, key)
		r.Header.Set(capability.ProofHeader, proof)
		if _, err := verifier(t).Verify(t.Context(), r); codeOf(t, err) != writ.NoPossession {
			t.Errorf("%s: %v, want %s", name, err, writ.NoPossession)
		}
	}
}

// signed is the ES256 signature of text.
func signed(t *testing.T, key *ecdsa.PrivateKey, text string) string {
	t.Helper()
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

// A brokenSigner has a key and signs nothing with it.
type brokenSigner struct{ *ecdsa.PrivateKey }

func (brokenSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return []byte("x"), nil
}

// TestBrokenSigner: what a signer gives is looked at.
func TestBrokenSigner(t *testing.T) {
	if p, err := capability.Prove(brokenSigner{ecdsaKey(t, elliptic.P256())}, "x", http.MethodPost, target, start); err == nil {
		t.Errorf("made %s", p)
	}
}

// TestAddress: two spellings of one address are one, and nothing else is.
func TestAddress(t *testing.T) {
	tests := []struct {
		proven, served string
		same           bool
	}{
		{"https://a.example/mcp", "https://a.example/mcp?x=1#y", true},
		{"https://a.example/mcp?x=1", "https://a.example/mcp", true},
		{"HTTPS://A.Example:443/mcp", "https://a.example/mcp", true},
		{"http://a.example:80", "http://a.example/", true},
		{"http://[::1]:80/", "http://[::1]/", true},
		{"https://a.example:80/", "https://a.example/", false},
		{"https://a.example:8443/", "https://a.example/", false},
		{"https://a.example/mcp", "https://a.example/mcp/", false},
		{"https://a.example/mcp", "https://a.example/MCP", false},
		{"https://a.example/a%2fb", "https://a.example/a/b", false},
		{"https://a.example/mcp", "https://a.example.evil.example/mcp", false},
	}
	for _, tt := range tests {
		token := mint(t, gateway, paying(t))
		proof, err := capability.Prove(holder, token, http.MethodPost, tt.proven, start)
		if err != nil {
			t.Fatal(err)
		}
		r := request(t, token, holder)
		r.URL = tt.served
		r.Header.Set(capability.ProofHeader, proof)
		want := writ.Code("")
		if !tt.same {
			want = writ.ProofMismatch
		}
		if _, err := verifier(t).Verify(t.Context(), r); codeOf(t, err) != want {
			t.Errorf("proven for %s, served at %s: %v, want %q", tt.proven, tt.served, err, want)
		}
	}
	for _, target := range []string{"", "/mcp", "a.example/mcp", "https://user@a.example/", "http://", "://"} {
		if _, err := capability.Prove(holder, "x", http.MethodPost, target, start); err == nil {
			t.Errorf("a proof for %q was made", target)
		}
	}
}
