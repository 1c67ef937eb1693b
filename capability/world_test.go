package capability_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"math/big"
	"net/http"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/capability"
)

const (
	issuer      = "https://writ.acme.example"
	audience    = "https://payments.acme.example/mcp"
	environment = "production"
	target      = "https://payments.acme.example/mcp"
	arguments   = `{"amount":"12.50","reference":"INV-7","to":"acct-204"}`
)

// start is when the tests' calls are decided.
var start = time.UnixMilli(1_764_032_400_123)

// keyOf is a key that is the same in every run.
func keyOf(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("capability/" + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

var (
	gateway = keyOf("gateway")   // signs capabilities
	former  = keyOf("former")    // did before
	holder  = keyOf("presenter") // presents them
	thief   = keyOf("thief")
)

func thumbprint(t testing.TB, key crypto.PublicKey) writ.Thumbprint {
	t.Helper()
	name, err := capability.Thumbprint(key)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// paying is a capability for one payment, held by holder.
func paying(t testing.TB) *capability.Capability {
	t.Helper()
	scope := capability.ScopeOf(&writ.Action{
		Kind: writ.KindTool, Upstream: "payments", Name: "pay",
		Definition: writ.Hash("definition", []byte(`{"name":"pay"}`)), Arguments: arguments,
	})
	scope.Call, scope.Task = writ.NewID[writ.CallID](start), writ.NewID[writ.TaskID](start)
	scope.Environment, scope.Tool, scope.Tier = environment, "payments.pay", writ.Privileged
	scope.Action, scope.Bundle = writ.Hash("action", []byte("x")), writ.Hash("bundle", []byte("x"))
	scope.Approval = writ.NewID[writ.ApprovalID](start)
	return &capability.Capability{
		ID: writ.NewID[writ.CapabilityID](start), Issuer: issuer, Audience: audience,
		Key: thumbprint(t, holder.Public()), User: "ana@acme.example",
		Actors: []capability.Actor{
			{Agent: "spiffe://acme.example/agent/clerk", Key: "clerk-key"},
			{Agent: "spiffe://acme.example/agent/planner", Key: "planner-key"},
		},
		Issued: start, Expires: start.Add(time.Minute).Truncate(time.Second), Scope: scope,
	}
}

// verifier is the payment server's.
func verifier(t testing.TB) *capability.Verifier {
	t.Helper()
	keys, err := capability.KeySet(gateway.Public().(ed25519.PublicKey), former.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	now := func() time.Time { return start.Add(time.Second) }
	return &capability.Verifier{
		Keys: keys, Issuer: issuer, Audience: audience, Environment: environment,
		Uses: capability.NewOnce(func() time.Time { return start.Add(-time.Hour) }), Now: now,
	}
}

// signJWS signs any header and payload, well formed or not.
func signJWS(key crypto.Signer, header, payload string) string {
	b64 := base64.RawURLEncoding
	text := b64.EncodeToString([]byte(header)) + "." + b64.EncodeToString([]byte(payload))
	signature, err := key.Sign(rand.Reader, []byte(text), crypto.Hash(0))
	if err != nil {
		panic(err)
	}
	return text + "." + b64.EncodeToString(signature)
}

func header(t testing.TB, key ed25519.PrivateKey) string {
	t.Helper()
	return `{"alg":"EdDSA","kid":"` + string(thumbprint(t, key.Public())) + `","typ":"writ-cap+jwt"}`
}

func mint(t testing.TB, key ed25519.PrivateKey, c *capability.Capability) string {
	t.Helper()
	claims, err := c.Claims()
	if err != nil {
		t.Fatal(err)
	}
	return signJWS(key, header(t, key), string(claims))
}

func prove(t testing.TB, key crypto.Signer, token string) string {
	t.Helper()
	p, err := capability.Prove(key, token, http.MethodPost, target, start)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// request presents a token with a proof of key.
func request(t testing.TB, token string, key crypto.Signer) capability.Request {
	t.Helper()
	h := http.Header{}
	h.Set(capability.Header, token)
	h.Set(capability.ProofHeader, prove(t, key, token))
	return capability.Request{Header: h, Method: http.MethodPost, URL: target, Name: "pay", Arguments: []byte(arguments)}
}

// certificate is a self-signed one: what is checked of a peer is its key.
func certificate(t testing.TB, key crypto.Signer) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: start.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var p256 = elliptic.P256()

func ecdsaKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// codeOf is the code of a refusal; empty if there is none.
func codeOf(t testing.TB, err error) writ.Code {
	t.Helper()
	if err == nil {
		return ""
	}
	d, ok := errors.AsType[*writ.Denial](err)
	if !ok {
		t.Fatalf("error %v is no denial", err)
	}
	return d.Code
}
