package identity_test

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/identity"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/ledger/ledgertest"
	"github.com/writgate/writ/ledger/sqlite"
)

// TestH04StolenToken presents a token without its key.
func TestH04StolenToken(t *testing.T) {
	g := newGateway(t)
	key, thief := newEd25519(t), newEd25519(t)
	token := g.issue(t, key)
	good := g.request(t, key, token, nil, nil)
	with := func(change func(*identity.Evidence)) identity.Evidence {
		e := good
		change(&e)
		return e
	}
	for name, e := range map[string]identity.Evidence{
		"as a bearer token":            with(func(e *identity.Evidence) { e.Authorization = []string{"Bearer " + token} }),
		"as a bearer token, no proof":  with(func(e *identity.Evidence) { e.Authorization, e.Proof = []string{"bearer " + token}, nil }),
		"without a proof":              with(func(e *identity.Evidence) { e.Proof = nil }),
		"with an empty proof":          with(func(e *identity.Evidence) { e.Proof = []string{""} }),
		"with two proofs":              with(func(e *identity.Evidence) { e.Proof = append(e.Proof, e.Proof...) }),
		"two proofs in one header":     with(func(e *identity.Evidence) { e.Proof = []string{e.Proof[0] + ", " + e.Proof[0]} }),
		"with the thief's own proof":   g.request(t, thief, token, nil, nil),
		"the thief signs for the key":  g.request(t, thief, token, claims{"jwk": jwkOf(t, key)}, nil),
		"the thief's key, our key too": g.request(t, thief, token, claims{"kid": thumbprint(t, key)}, nil),
		"the token as its own proof":   with(func(e *identity.Evidence) { e.Proof = []string{token} }),
	} {
		g.refuses(t, name, e, writ.NoPossession)
	}
	_, err := g.Verify(context.Background(), with(func(e *identity.Evidence) { e.Authorization = []string{"Bearer " + token} }))
	if d := writ.AsDenial(err); !strings.Contains(d.Reason, "Authorization: DPoP <token>") {
		t.Errorf("the refusal of a bearer token does not say what to do: %s", d.Reason)
	}
	g.accepts(t, "with its key's proof", good)
}

// TestH54ParentsToken is a sub-agent with the token of its parent, and
// TestH45RotatedKey an agent whose key was changed: cnf decides.
func TestH54ParentsToken(t *testing.T) {
	g := newGateway(t)
	parent, child := newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P256())
	g.refuses(t, "the parent's token, the child's proof", g.request(t, child, g.issue(t, parent), nil, nil), writ.NoPossession)
}

func TestH45RotatedKey(t *testing.T) {
	g := newGateway(t)
	before, after := newEd25519(t), newEd25519(t)
	token := g.issue(t, before)
	g.accepts(t, "before", g.request(t, before, token, nil, nil))
	g.refuses(t, "the old token, the new key", g.request(t, after, token, nil, nil), writ.NoPossession)
	g.refuses(t, "a new token, the old key", g.request(t, before, g.issue(t, after), nil, nil), writ.NoPossession)
}

// TestH05Malformed is proofs that are none (RFC 9449, 4.3, items 2 to 7).
func TestH05Malformed(t *testing.T) {
	g := newGateway(t)
	ed, ec, ec384 := newEd25519(t), newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P384())
	private := jwkOf(t, ed)
	private["d"] = b64(ed.Seed())
	coordinates := func(change func(claims)) claims {
		c := jwkOf(t, ec)
		change(c)
		return claims{"jwk": c}
	}
	for name, c := range map[string]struct {
		key    crypto.Signer
		header claims
		body   claims
	}{
		"alg none":                {ed, claims{"alg": "none"}, nil},
		"no alg":                  {ed, claims{"alg": nil}, nil},
		"alg HS256":               {ed, claims{"alg": "HS256"}, nil},
		"alg ES256, Ed25519 key":  {ed, claims{"alg": "ES256"}, nil},
		"alg EdDSA, P-256 key":    {ec, claims{"alg": "EdDSA"}, nil},
		"alg ES384, P-256 key":    {ec, claims{"alg": "ES384"}, nil},
		"alg ES256, P-384 key":    {ec384, claims{"alg": "ES256"}, nil},
		"alg es256":               {ec, claims{"alg": "es256"}, nil},
		"alg a list":              {ed, claims{"alg": []string{"EdDSA"}}, nil},
		"typ JWT":                 {ed, claims{"typ": "JWT"}, nil},
		"typ at+jwt":              {ed, claims{"typ": "at+jwt"}, nil},
		"no typ":                  {ed, claims{"typ": nil}, nil},
		"no jwk":                  {ed, claims{"jwk": nil}, nil},
		"jwk a string":            {ed, claims{"jwk": "key"}, nil},
		"jwk private":             {ed, claims{"jwk": private}, nil},
		"jwk symmetric":           {ed, claims{"jwk": claims{"kty": "oct", "k": "AAAA"}}, nil},
		"jwk RSA":                 {ed, claims{"jwk": claims{"kty": "RSA", "n": "AQAB", "e": "AQAB"}}, nil},
		"jwk X25519":              {ed, claims{"jwk": claims{"kty": "OKP", "crv": "X25519", "x": jwkOf(t, ed)["x"]}}, nil},
		"jwk with x5u":            {ed, coordinates(func(c claims) { c["x5u"] = "https://attacker.example" }), nil},
		"jwk of another case":     {ed, claims{"jwk": claims{"kty": "OKP", "crv": "Ed25519", "X": jwkOf(t, ed)["x"]}}, nil},
		"jwk short":               {ed, claims{"jwk": claims{"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}}, nil},
		"jwk OKP with y":          {ed, claims{"jwk": claims{"kty": "OKP", "crv": "Ed25519", "x": jwkOf(t, ed)["x"], "y": "AA"}}, nil},
		"jwk off its curve":       {ec, coordinates(func(c claims) { c["y"] = c["x"] }), nil},
		"jwk at infinity":         {ec, coordinates(func(c claims) { c["x"], c["y"] = b64(make([]byte, 32)), b64(make([]byte, 32)) }), nil},
		"jwk without y":           {ec, coordinates(func(c claims) { delete(c, "y") }), nil},
		"jwk with a leading zero": {ec, coordinates(func(c claims) { c["x"] = "AA" + c["x"].(string) }), nil},
		"jwk P-521":               {ec, coordinates(func(c claims) { c["crv"] = "P-521" }), nil},
		"jwk padded":              {ed, claims{"jwk": claims{"kty": "OKP", "crv": "Ed25519", "x": jwkOf(t, ed)["x"].(string) + "="}}, nil},
		"jku":                     {ed, claims{"jku": "https://attacker.example/jwks"}, nil},
		"x5c":                     {ed, claims{"x5c": []string{"MIIB"}}, nil},
		"crit":                    {ed, claims{"crit": []string{"b64"}, "b64": false}, nil},
		"no jti":                  {ed, nil, claims{"jti": nil}},
		"empty jti":               {ed, nil, claims{"jti": ""}},
		"jti a number":            {ed, nil, claims{"jti": 7}},
		"jti of 257 bytes":        {ed, nil, claims{"jti": strings.Repeat("a", 257)}},
		"no iat":                  {ed, nil, claims{"iat": nil}},
		"iat a string":            {ed, nil, claims{"iat": "1"}},
		"iat negative":            {ed, nil, claims{"iat": -1}},
		"iat beyond all time":     {ed, nil, claims{"iat": int64(1) << 60}},
	} {
		g.refuses(t, name, g.request(t, c.key, g.issue(t, c.key), c.header, c.body), writ.NoPossession)
	}
	e := g.request(t, ed, g.issue(t, ed), nil, nil)
	e.Proof[0] = respell(e.Proof[0])
	g.refuses(t, "a second spelling", e, writ.NoPossession)
	g.accepts(t, "the name of RFC 9864", g.request(t, ed, g.issue(t, ed), claims{"alg": "Ed25519"}, nil))
	g.accepts(t, "with a kid", g.request(t, ed, g.issue(t, ed), claims{"kid": "my key"}, nil))
	g.accepts(t, "jti of 256 bytes", g.request(t, ed, g.issue(t, ed), nil, claims{"jti": strings.Repeat("a", 256)}))
}

// TestH05Mismatch is good proofs for something else (RFC 9449, 4.3, items 8
// to 12).
func TestH05Mismatch(t *testing.T) {
	g := newGateway(t)
	key := newEd25519(t)
	token := g.issue(t, key)
	g.now = start.Add(5 * time.Minute)
	other := sha256.Sum256([]byte("another token"))
	for name, body := range map[string]claims{
		"htm another":        {"htm": "GET"},
		"htm lower case":     {"htm": "post"},
		"no htm":             {"htm": nil},
		"htu another path":   {"htu": "https://writ.example/other"},
		"htu another host":   {"htu": "https://other.example/mcp"},
		"htu http":           {"htu": "http://writ.example/mcp"},
		"htu another port":   {"htu": "https://writ.example:8443/mcp"},
		"htu trailing slash": {"htu": "https://writ.example/mcp/"},
		"htu two slashes":    {"htu": "https://writ.example//mcp"},
		"htu a path":         {"htu": "/mcp"},
		"htu with a user":    {"htu": "https://writ.example@other.example/mcp"},
		"htu upper path":     {"htu": "https://writ.example/MCP"},
		"htu %2F":            {"htu": "https://writ.example%2Fmcp"},
		"no htu":             {"htu": nil},
		"ath of another":     {"ath": b64(other[:])},
		"no ath":             {"ath": nil},
		"ath empty":          {"ath": ""},
		"ath in hex":         {"ath": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"},
		"iat 10 min ahead":   {"iat": g.now.Unix() + 600},
		"iat 10 min ago":     {"iat": g.now.Unix() - 600},
		"iat 61 s ahead":     {"iat": g.now.Unix() + 61},
		"iat 61 s ago":       {"iat": g.now.Unix() - 61},
		"expired":            {"exp": g.now.Unix()},
		"not yet":            {"nbf": g.now.Unix() + 61},
		"exp a string":       {"exp": "never"},
		"body another":       {"body": b64(other[:])},
		"body null":          {"body": []any{}},
	} {
		g.refuses(t, name, g.request(t, key, token, nil, body), writ.ProofMismatch)
	}
	for name, body := range map[string]claims{
		"iat 60 s ahead":       {"iat": g.now.Unix() + 60},
		"iat 60 s ago":         {"iat": g.now.Unix() - 60},
		"htu in upper case":    {"htu": "HTTPS://WRIT.Example/mcp"},
		"htu with its port":    {"htu": "https://writ.example:443/mcp"},
		"htu with a query":     {"htu": "https://writ.example/mcp?a=b#c"},
		"htu with an escape":   {"htu": "https://writ.example/%6dcp"},
		"htu with dots":        {"htu": "https://writ.example/a/../mcp"},
		"with an end":          {"exp": g.now.Unix() + 1, "nbf": g.now.Unix()},
		"with an unknown word": {"nonce": "x"},
	} {
		g.accepts(t, name, g.request(t, key, token, nil, body))
	}
}

// TestH05ProofReplayed presents one proof twice to one gateway.
func TestH05ProofReplayed(t *testing.T) {
	g := newGateway(t)
	key := newEd25519(t)
	token := g.issue(t, key)
	e := g.request(t, key, token, nil, nil)
	g.accepts(t, "once", e)
	g.refuses(t, "twice", e, writ.ProofReplayed)
	g.now = start.Add(59 * time.Second)
	g.refuses(t, "within the minute", e, writ.ProofReplayed)
	g.now = start.Add(61 * time.Second)
	g.refuses(t, "after it", e, writ.ProofMismatch)
	g.now = start.Add(2 * time.Minute)
	g.accepts(t, "another", g.request(t, key, token, nil, nil))
	g.now = start.Add(time.Second)
	g.refuses(t, "after the clock was set back", e, writ.ProofMismatch)

	g.now = start.Add(3 * time.Minute)
	jti := claims{"jti": "same"}
	g.accepts(t, "a jti", g.request(t, key, token, nil, jti))
	g.refuses(t, "a jti in another proof of its second", g.request(t, key, token, nil, jti), writ.ProofReplayed)
	other := newEd25519(t)
	g.accepts(t, "another key's jti", g.request(t, other, g.issue(t, other), nil, jti))
}

// TestH05OneOfMany races one proof against itself.
func TestH05OneOfMany(t *testing.T) {
	g := newGateway(t)
	key := newEd25519(t)
	token := g.issue(t, key)
	for range 200 {
		e := g.request(t, key, token, nil, nil)
		var accepted, ready atomic.Int32
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() {
				for ready.Add(1); ready.Load() < 2; {
					runtime.Gosched()
				}
				if _, err := g.Verify(context.Background(), e); err == nil {
					accepted.Add(1)
				}
			})
		}
		all.Wait()
		if n := accepted.Load(); n != 1 {
			t.Fatalf("one proof was accepted %d times", n)
		}
	}
}

// TestH05SecondGateway replays a proof to a gateway that has not seen it, and
// to one that was restarted: the transaction refuses it.
func TestH05SecondGateway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	first := newGateway(t)
	open := func() *ledger.Ledger {
		s, err := sqlite.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return ledgertest.Open(t, s, ledger.Config{Now: func() time.Time { return first.now }})
	}
	l, second := open(), open()
	key := newEd25519(t)
	e := first.request(t, key, first.issue(t, key), nil, nil)
	decide := func(l *ledger.Ledger, p identity.Proven) error {
		_, err := l.Commit(context.Background(), &ledger.Entry{
			Leaf: ledger.Leaf{Type: ledger.TypeDecision, Agent: p.Caller.Agent, Key: p.Caller.Key}, Changes: p.Once,
		})
		return err
	}
	anew := func() *gateway {
		return &gateway{Verifier: &identity.Verifier{
			Tokens: first.tokens.Key, Issuer: issuer, Audience: audience, Now: func() time.Time { return first.now },
		}}
	}
	p := first.accepts(t, "at the first gateway", e)
	if err := decide(l, p); err != nil {
		t.Fatal(err)
	}
	for name, l := range map[string]*ledger.Ledger{"a second gateway": second, "a restarted gateway": open()} {
		p := anew().accepts(t, "by memory alone, at "+name, e)
		if err := decide(l, p); !errors.Is(err, ledger.ErrUsed) {
			t.Errorf("%s: %v, want that the proof was used", name, err)
		}
	}
	first.now = start.Add(61 * time.Second)
	anew().refuses(t, "a proof from before the start, less the window", e, writ.ProofMismatch)
	if got := p.Once[0]; got.Op != ledger.Once || got.Kind != identity.KindJTI || len(got.Key) != 80 || got.Until != start.Add(2*time.Minute).UnixMilli() {
		t.Errorf("row %+v", got)
	}
	if want := fmt.Sprintf("%016x", start.UnixMilli()); !strings.HasPrefix(p.Once[0].Key, want) {
		t.Errorf("key %s does not begin with its time, %s", p.Once[0].Key, want)
	}
}

// TestPossession is a proof without a token, as for the token endpoint.
func TestPossession(t *testing.T) {
	g := newGateway(t)
	key := newECDSA(t, elliptic.P256())
	e := g.request(t, key, "", nil, claims{"ath": nil})
	e.Authorization = nil
	got, row, err := g.Possession(e)
	if err != nil || got != thumbprint(t, key) || row.Kind != identity.KindJTI {
		t.Errorf("Possession = %v, %v, %v", got, row, err)
	}
	if _, _, err := g.Possession(e); writ.AsDenial(err).Code != writ.ProofReplayed {
		t.Errorf("a second time: %v", err)
	}
	bound := g.request(t, key, "token", nil, claims{"jti": rand.Text()})
	if _, _, err := g.Possession(bound); writ.AsDenial(err).Code != writ.ProofMismatch {
		t.Errorf("a proof over a token: %v", err)
	}
}
