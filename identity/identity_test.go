package identity_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/identity"
)

const (
	issuer   = "https://writ.example"
	audience = "https://writ.example/mcp"
	billing  = writ.AgentID("spiffe://acme.example/agent/billing")
)

var start = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

// claims are the claims of a JWS in the making. A nil value leaves one out.
type claims = map[string]any

// sign makes a compact JWS by the algorithm alg, which the key need not have.
func sign(t testing.TB, key crypto.Signer, header, body claims) string {
	t.Helper()
	encode := func(c claims) string {
		c = maps.Clone(c)
		maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
		text, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		return b64(text)
	}
	signed := encode(header) + "." + encode(body)
	return signed + "." + b64(signature(t, key, []byte(signed)))
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func signature(t testing.TB, key crypto.Signer, signed []byte) []byte {
	t.Helper()
	switch k := key.(type) {
	case ed25519.PrivateKey:
		return ed25519.Sign(k, signed)
	case *ecdsa.PrivateKey:
		n := (k.Curve.Params().BitSize + 7) / 8
		sum := sha256.Sum256(signed)
		digest := sum[:]
		if k.Curve == elliptic.P384() {
			long := sha512.Sum384(signed)
			digest = long[:]
		}
		r, s, err := ecdsa.Sign(rand.Reader, k, digest)
		if err != nil {
			t.Fatal(err)
		}
		out := make([]byte, 2*n)
		r.FillBytes(out[:n])
		s.FillBytes(out[n:])
		return out
	}
	t.Fatalf("key of type %T", key)
	return nil
}

func jwkOf(t testing.TB, key crypto.Signer) claims {
	t.Helper()
	switch k := key.Public().(type) {
	case ed25519.PublicKey:
		return claims{"kty": "OKP", "crv": "Ed25519", "x": b64(k)}
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		half := len(point) / 2
		return claims{"kty": "EC", "crv": k.Curve.Params().Name, "x": b64(point[1 : 1+half]), "y": b64(point[1+half:])}
	}
	t.Fatalf("key of type %T", key)
	return nil
}

func algOf(key crypto.Signer) string {
	if k, ok := key.(*ecdsa.PrivateKey); ok {
		return map[string]string{"P-256": "ES256", "P-384": "ES384"}[k.Curve.Params().Name]
	}
	return "EdDSA"
}

func newEd25519(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// fixed is the same key in every process, as fuzzing needs.
func fixed(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func newECDSA(t testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func thumbprint(t testing.TB, key crypto.Signer) writ.Thumbprint {
	t.Helper()
	p, err := identity.Thumbprint(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A gateway is a verifier with a token endpoint's keys and a clock.
type gateway struct {
	*identity.Verifier
	tokens *identity.Tokens
	signer ed25519.PrivateKey
	now    time.Time
}

func newGateway(t testing.TB) *gateway {
	t.Helper()
	g := &gateway{signer: fixed(0), now: start}
	tokens, err := identity.NewTokens(issuer, g.signer)
	if err != nil {
		t.Fatal(err)
	}
	g.tokens = tokens
	g.Verifier = &identity.Verifier{
		Bundles: new(identity.Bundles), Tokens: tokens.Key,
		Issuer: issuer, Audience: audience, Now: func() time.Time { return g.now },
	}
	return g
}

// issue gives an access token bound to key.
func (g *gateway) issue(t testing.TB, key crypto.Signer) string {
	t.Helper()
	token, _, err := g.tokens.Issue(identity.Binding{
		Agent: billing, Key: thumbprint(t, key), Audience: audience, Until: g.now.Add(time.Hour),
	}, g.now)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// request is Evidence of a POST with a token, and a proof in which the given
// claims and header members differ from what is right.
func (g *gateway) request(t testing.TB, key crypto.Signer, token string, header, body claims) identity.Evidence {
	t.Helper()
	ath := sha256.Sum256([]byte(token))
	h := claims{"typ": "dpop+jwt", "alg": algOf(key), "jwk": jwkOf(t, key)}
	c := claims{"jti": rand.Text(), "htm": "POST", "htu": audience, "iat": g.now.Unix(), "ath": b64(ath[:])}
	maps.Copy(h, header)
	maps.Copy(c, body)
	return identity.Evidence{
		Authorization: []string{"DPoP " + token}, Proof: []string{sign(t, key, h, c)},
		Method: "POST", URL: audience, Body: []byte(`{"jsonrpc":"2.0"}`),
	}
}

func (g *gateway) accepts(t *testing.T, name string, e identity.Evidence) identity.Proven {
	t.Helper()
	p, err := g.Verify(context.Background(), e)
	if err != nil {
		t.Errorf("%s: refused: %v", name, err)
	}
	return p
}

func (g *gateway) refuses(t *testing.T, name string, e identity.Evidence, want writ.Code) {
	t.Helper()
	p, err := g.Verify(context.Background(), e)
	if err == nil {
		t.Errorf("%s: accepted as %v, want %s", name, p.Caller, want)
		return
	}
	if d, ok := errors.AsType[*writ.Denial](err); !ok || d.Code != want {
		t.Errorf("%s: %v, want %s", name, err, want)
	} else if d.Reason == "" {
		t.Errorf("%s: a refusal without a reason", name)
	}
	if p.Caller.Agent != "" || p.Once != nil || p.Until != 0 {
		t.Errorf("%s: refused, and yet %v was proven", name, p)
	}
}

func TestDPoP(t *testing.T) {
	g := newGateway(t)
	for _, key := range []crypto.Signer{newEd25519(t), newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P384())} {
		token := g.issue(t, key)
		p := g.accepts(t, algOf(key), g.request(t, key, token, nil, nil))
		if p.Caller.Agent != billing || p.Caller.Key != thumbprint(t, key) || p.Caller.Proof != writ.ProofDPoP {
			t.Errorf("%s: proved %v", algOf(key), p.Caller)
		}
		if p.Bound || len(p.Once) != 1 || p.Until != start.Add(identity.MaxToken).UnixMilli() {
			t.Errorf("%s: %+v", algOf(key), p)
		}
		sum := sha256.Sum256([]byte(`{"jsonrpc":"2.0"}`))
		if p := g.accepts(t, "body", g.request(t, key, token, nil, claims{"body": b64(sum[:])})); !p.Bound {
			t.Errorf("%s: a proof with the body's digest does not cover it", algOf(key))
		}
		g.refuses(t, "wrong body", g.request(t, key, token, nil, claims{"body": b64(sum[1:])}), writ.ProofMismatch)
	}
}

// TestH01NoIdentity is every way to show nothing.
func TestH01NoIdentity(t *testing.T) {
	g := newGateway(t)
	key := newEd25519(t)
	good := g.request(t, key, g.issue(t, key), nil, nil)
	for name, e := range map[string]identity.Evidence{
		"nothing":                   {Method: "POST", URL: audience},
		"empty Authorization":       {Method: "POST", URL: audience, Authorization: []string{""}},
		"blank Authorization":       {Method: "POST", URL: audience, Authorization: []string{" "}},
		"another scheme":            {Method: "POST", URL: audience, Authorization: []string{"Basic YWdlbnQ6c2VjcmV0"}},
		"two Authorization headers": {Method: "POST", URL: audience, Authorization: append(good.Authorization, good.Authorization...), Proof: good.Proof},
		"a proof alone":             {Method: "POST", URL: audience, Proof: good.Proof},
	} {
		g.refuses(t, name, e, writ.Unauthenticated)
	}
	g.accepts(t, "the same, once", good)
	var zero identity.Verifier
	for name, e := range map[string]identity.Evidence{"nothing": {}, "token": good} {
		if p, err := zero.Verify(context.Background(), e); err == nil {
			t.Errorf("the zero Verifier accepts %s as %v", name, p.Caller)
		}
	}
}
