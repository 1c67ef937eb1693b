package identity_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/identity"
)

// token is an access token in which the given header members and claims
// differ from what is right.
func (g *gateway) token(t testing.TB, key crypto.Signer, header, body claims) string {
	t.Helper()
	h := claims{"alg": "EdDSA", "typ": "at+jwt", "kid": thumbprint(t, g.signer)}
	c := claims{
		"iss": issuer, "sub": billing, "client_id": billing, "aud": audience, "jti": rand.Text(),
		"iat": g.now.Unix(), "exp": g.now.Add(5 * time.Minute).Unix(), "cnf": claims{"jkt": thumbprint(t, key)}, "writ": claims{},
	}
	maps.Copy(h, header)
	maps.Copy(c, body)
	return sign(t, g.signer, h, c)
}

// TestH02ForgedTokens is every way we know to make a verifier take a token it
// did not issue.
func TestH02ForgedTokens(t *testing.T) {
	g := newGateway(t)
	key, other := newEd25519(t), newEd25519(t)
	otherEC := newECDSA(t, elliptic.P256())
	good := g.token(t, key, nil, nil)
	g.accepts(t, "the good one", g.request(t, key, good, nil, nil))

	head, rest, _ := strings.Cut(good, ".")
	body, tail, _ := strings.Cut(rest, ".")
	hs256 := func(secret []byte) string {
		signed := b64([]byte(`{"alg":"HS256","typ":"at+jwt","kid":"`+string(thumbprint(t, g.signer))+`"}`)) + "." + body
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(signed))
		return signed + "." + b64(mac.Sum(nil))
	}
	public := g.signer.Public().(ed25519.PublicKey)
	resigned := func(key crypto.Signer, header claims) string {
		h := claims{"alg": algOf(key), "typ": "at+jwt", "kid": thumbprint(t, g.signer)}
		maps.Copy(h, header)
		signed := b64(marshal(t, h)) + "." + body
		return signed + "." + b64(signature(t, key, []byte(signed)))
	}
	jwks := string(g.tokens.JWKS())
	for name, token := range map[string]string{
		"alg none":                     b64([]byte(`{"alg":"none","typ":"at+jwt","kid":"`+string(thumbprint(t, g.signer))+`"}`)) + "." + body + ".",
		"alg None, old signature":      b64([]byte(`{"alg":"None","typ":"at+jwt","kid":"`+string(thumbprint(t, g.signer))+`"}`)) + "." + body + "." + tail,
		"no alg":                       g.token(t, key, claims{"alg": nil}, nil),
		"HS256 with the public key":    hs256(public),
		"HS256 with the JWKS":          hs256([]byte(jwks)),
		"HS256 with nothing":           hs256(nil),
		"ES256, our kid":               resigned(otherEC, nil),
		"another's signature":          resigned(other, nil),
		"alg Ed25519 on our token":     g.token(t, key, claims{"alg": "Ed25519"}, nil),
		"embedded jwk":                 resigned(other, claims{"jwk": jwkOf(t, other)}),
		"embedded jwk, our signature":  g.token(t, key, claims{"jwk": jwkOf(t, g.signer)}, nil),
		"jku":                          resigned(other, claims{"jku": "https://attacker.example/jwks"}),
		"jku, our signature":           g.token(t, key, claims{"jku": issuer + "/jwks"}, nil),
		"x5u":                          resigned(other, claims{"x5u": "https://attacker.example/cert"}),
		"x5c":                          g.token(t, key, claims{"x5c": []string{"MIIB"}}, nil),
		"x5t":                          g.token(t, key, claims{"x5t": "abc"}, nil),
		"crit unknown":                 g.token(t, key, claims{"crit": []string{"exp"}}, nil),
		"crit empty":                   g.token(t, key, claims{"crit": []string{}}, nil),
		"b64 false":                    g.token(t, key, claims{"b64": false}, nil),
		"zip":                          g.token(t, key, claims{"zip": "DEF"}, nil),
		"kid missing":                  g.token(t, key, claims{"kid": nil}, nil),
		"kid of nobody":                g.token(t, key, claims{"kid": "nobody"}, nil),
		"kid a path":                   resigned(other, claims{"kid": "../../../../dev/null"}),
		"kid SQL":                      resigned(other, claims{"kid": "x' UNION SELECT 'key' --"}),
		"kid a URL":                    resigned(other, claims{"kid": "https://attacker.example/key"}),
		"kid a number":                 g.token(t, key, claims{"kid": 1}, nil),
		"kid with a NUL":               g.token(t, key, claims{"kid": string(thumbprint(t, g.signer)) + "\x00"}, nil),
		"typ JWT":                      g.token(t, key, claims{"typ": "JWT"}, nil),
		"typ dpop+jwt":                 g.token(t, key, claims{"typ": "dpop+jwt"}, nil),
		"typ AT+JWT":                   g.token(t, key, claims{"typ": "AT+JWT"}, nil),
		"no typ":                       g.token(t, key, claims{"typ": nil}, nil),
		"no signature":                 head + "." + body + ".",
		"two parts":                    head + "." + body,
		"four parts":                   good + "." + tail,
		"JWE, five parts":              good + "..",
		"padding":                      good + "==",
		"a line end in it":             head + "." + body[:4] + "\n" + body[4:] + "." + tail,
		"a line end in its signature":  head + "." + body + "." + tail[:4] + "\n" + tail[4:],
		"base64, not base64url":        strings.ReplaceAll(good, "-", "+") + "+",
		"a second spelling of base64":  respell(good),
		"another issuer":               g.token(t, key, nil, claims{"iss": "https://other.example"}),
		"no issuer":                    g.token(t, key, nil, claims{"iss": nil}),
		"sub no SPIFFE ID":             g.token(t, key, nil, claims{"sub": "billing", "client_id": "billing"}),
		"sub and client_id differ":     g.token(t, key, nil, claims{"client_id": "spiffe://acme.example/agent/other"}),
		"no cnf: a bearer token":       g.token(t, key, nil, claims{"cnf": nil}),
		"cnf empty":                    g.token(t, key, nil, claims{"cnf": claims{}}),
		"cnf jkt empty":                g.token(t, key, nil, claims{"cnf": claims{"jkt": ""}}),
		"cnf by another name":          g.token(t, key, nil, claims{"cnf": claims{"x5t#S256": "x"}}),
		"expired":                      g.token(t, key, nil, claims{"exp": start.Unix(), "iat": start.Unix() - 60}),
		"no exp":                       g.token(t, key, nil, claims{"exp": nil}),
		"no iat":                       g.token(t, key, nil, claims{"iat": nil}),
		"exp a string":                 g.token(t, key, nil, claims{"exp": "9999999999"}),
		"exp beyond all time":          g.token(t, key, nil, claims{"exp": json.Number("9223372036854775807")}),
		"issued in an hour":            g.token(t, key, nil, claims{"iat": start.Unix() + 3600, "exp": start.Unix() + 3700}),
		"a life of an hour":            g.token(t, key, nil, claims{"exp": start.Unix() + 3600}),
		"a life of no time":            g.token(t, key, nil, claims{"iat": start.Unix() + 30, "exp": start.Unix() + 30}),
		"an unknown claim":             g.token(t, key, nil, claims{"scope": "admin"}),
		"a claim in upper case":        g.token(t, key, nil, claims{"Sub": "spiffe://acme.example/agent/root"}),
		"an unknown claim of ours":     g.token(t, key, nil, claims{"writ": claims{"role": "admin"}}),
		"task no task":                 g.token(t, key, nil, claims{"writ": claims{"task": "task_1"}}),
		"user empty":                   g.token(t, key, nil, claims{"writ": claims{"user": ""}}),
		"duplicate sub":                g.rawToken(t, `{"iss":"`+issuer+`","sub":"spiffe://acme.example/a","sub":"spiffe://acme.example/b"}`),
		"claims an array":              g.rawToken(t, `[]`),
		"claims no JSON":               g.rawToken(t, `{`),
		"of the development domain":    g.token(t, key, nil, claims{"sub": "spiffe://writ.localhost/a", "client_id": "spiffe://writ.localhost/a"}),
		"a megabyte":                   strings.Repeat("a", 1<<20),
		"nothing":                      "",
		"a DPoP proof":                 g.request(t, key, good, nil, nil).Proof[0],
		"an assertion of our own name": sign(t, g.signer, claims{"alg": "EdDSA", "typ": "JWT"}, claims{"iss": issuer, "aud": audience}),
	} {
		g.refuses(t, name, g.request(t, key, token, nil, nil), writ.BadToken)
	}
}

// respell changes the last character of the signature to another that many
// decoders read as the same bytes.
func respell(token string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	i := strings.IndexByte(alphabet, token[len(token)-1])
	return token[:len(token)-1] + string(alphabet[i|1])
}

func (g *gateway) rawToken(t testing.TB, body string) string {
	t.Helper()
	signed := b64([]byte(`{"alg":"EdDSA","typ":"at+jwt","kid":"`+string(thumbprint(t, g.signer))+`"}`)) + "." + b64([]byte(body))
	return signed + "." + b64(ed25519.Sign(g.signer, []byte(signed)))
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestH03WrongAudience presents tokens that are good elsewhere.
func TestH03WrongAudience(t *testing.T) {
	g := newGateway(t)
	key := newEd25519(t)
	for name, aud := range map[string]any{
		"another resource":     "https://other.example/mcp",
		"the issuer":           issuer,
		"a longer path":        audience + "/",
		"another spelling":     "https://WRIT.example/mcp",
		"several":              []string{audience, "https://other.example"},
		"one, but as an array": []string{audience},
		"none":                 nil,
		"empty":                "",
	} {
		g.refuses(t, name, g.request(t, key, g.token(t, key, nil, claims{"aud": aud}), nil, nil), writ.WrongAudience)
	}
}

// TestTokenCache holds that what was verified once is still looked at.
func TestTokenCache(t *testing.T) {
	g := newGateway(t)
	key := newEd25519(t)
	token := g.issue(t, key)
	g.accepts(t, "first", g.request(t, key, token, nil, nil))
	g.accepts(t, "again", g.request(t, key, token, nil, nil))
	g.now = start.Add(identity.MaxToken - time.Second)
	g.accepts(t, "in its last second", g.request(t, key, token, nil, nil))
	g.now = start.Add(identity.MaxToken)
	g.refuses(t, "after it", g.request(t, key, token, nil, nil), writ.BadToken)
}

func TestTokenRotation(t *testing.T) {
	g := newGateway(t)
	key := newEd25519(t)
	old := g.issue(t, key)
	oldKid := string(thumbprint(t, g.signer))
	g.accepts(t, "of the first key", g.request(t, key, old, nil, nil))
	if err := g.tokens.Retire(oldKid); err == nil {
		t.Error("the key that signs was retired")
	}
	if err := g.tokens.Rotate(newEd25519(t)); err != nil {
		t.Fatal(err)
	}
	renewed := g.issue(t, key)
	g.accepts(t, "of the new key", g.request(t, key, renewed, nil, nil))
	g.accepts(t, "of the old key", g.request(t, key, old, nil, nil))
	var set struct {
		Keys []struct{ Kid, Alg, X, D string }
	}
	if err := json.Unmarshal([]byte(g.tokens.JWKS()), &set); err != nil {
		t.Fatal(err)
	}
	if len(set.Keys) != 2 || set.Keys[1].Kid != oldKid || set.Keys[0].Alg != "EdDSA" || set.Keys[0].D != "" {
		t.Errorf("JWKS = %s", g.tokens.JWKS())
	}
	if err := g.tokens.Retire(oldKid); err != nil {
		t.Fatal(err)
	}
	g.refuses(t, "of a key that was retired, from the cache", g.request(t, key, old, nil, nil), writ.BadToken)
	g.accepts(t, "of the new key still", g.request(t, key, renewed, nil, nil))

	g.Tokens = func(context.Context, string) (ed25519.PublicKey, error) {
		return fixed(9).Public().(ed25519.PublicKey), nil
	}
	g.refuses(t, "of a name that now is another key's, from the cache", g.request(t, key, renewed, nil, nil), writ.BadToken)

	again, err := identity.NewTokens(issuer, newEd25519(t), g.signer.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := identity.NewTokens(issuer, fixed(1), nil); err == nil {
		t.Error("an older key of no length was taken")
	}
	if _, err := identity.NewTokens(issuer, nil); err == nil {
		t.Error("no key signs")
	}
	if _, err := identity.NewTokens("", fixed(1)); err == nil {
		t.Error("nobody issues")
	}
	if pub, err := again.Key(context.Background(), oldKid); err != nil || pub == nil {
		t.Errorf("an older key is not known: %v, %v", pub, err)
	}
}

func TestIssueEnds(t *testing.T) {
	g := newGateway(t)
	key := newEd25519(t)
	good := identity.Binding{Agent: billing, Key: thumbprint(t, key), Audience: audience, Until: start.Add(time.Hour)}
	for _, c := range []struct {
		until time.Duration
		want  time.Duration
	}{{time.Hour, identity.MaxToken}, {time.Minute, time.Minute}, {1900 * time.Millisecond, time.Second}} {
		b := good
		b.Until = start.Add(c.until)
		if _, ends, err := g.tokens.Issue(b, start); err != nil || !ends.Equal(start.Add(c.want)) {
			t.Errorf("issued on something that lasts %v: until %v, %v", c.until, ends.Sub(start), err)
		}
	}
	for name, change := range map[string]func(*identity.Binding){
		"no end":        func(b *identity.Binding) { b.Until = time.Time{} },
		"an end now":    func(b *identity.Binding) { b.Until = start },
		"no key":        func(b *identity.Binding) { b.Key = "" },
		"no audience":   func(b *identity.Binding) { b.Audience = "" },
		"no agent":      func(b *identity.Binding) { b.Agent = "" },
		"a mere domain": func(b *identity.Binding) { b.Agent = "spiffe://acme.example" },
	} {
		b := good
		change(&b)
		if token, _, err := g.tokens.Issue(b, start); err == nil {
			t.Errorf("issued with %s: %s", name, token)
		}
	}
	// Within a second of its issue a token is not older than its life allows.
	g.now = start.Add(999 * time.Millisecond)
	g.accepts(t, "issued late in a second", g.request(t, key, g.issue(t, key), nil, nil))
}

// TestProven holds that task and user come from the token alone.
func TestProven(t *testing.T) {
	g := newGateway(t)
	key := newEd25519(t)
	task := writ.NewID[writ.TaskID](start)
	token, _, err := g.tokens.Issue(identity.Binding{
		Agent: billing, Key: thumbprint(t, key), Audience: audience, Task: task, User: "maya@acme.example", Until: start.Add(90 * time.Second),
	}, start)
	if err != nil {
		t.Fatal(err)
	}
	p := g.accepts(t, "token", g.request(t, key, token, nil, nil))
	if p.Task != task || p.Caller.User != "maya@acme.example" || p.Until != start.Add(90*time.Second).UnixMilli() {
		t.Errorf("proved %+v", p)
	}
}

// TestIssueDevelopment holds that a run gets no identity but a run's.
func TestIssueDevelopment(t *testing.T) {
	g := newGateway(t)
	g.Development = true
	key := newEd25519(t)
	const id = writ.AgentID("spiffe://writ.localhost/agent/a")
	b := identity.Binding{Agent: id, Key: thumbprint(t, key), Audience: audience, Until: start.Add(time.Hour)}
	token, _, err := g.tokens.IssueDevelopment(writ.Agent{ID: id, Environment: identity.Development}, b, start)
	if err != nil {
		t.Fatal(err)
	}
	e := g.request(t, key, token, nil, nil)
	g.accepts(t, "in development", e)
	g.Development = false
	g.refuses(t, "in production", g.request(t, key, token, nil, nil), writ.BadToken)
	for _, c := range []struct {
		agent, of writ.AgentID
		env       string
	}{
		{id, id, "production"},
		{id, id, ""},
		{id, "spiffe://writ.localhost/agent/b", identity.Development},
		{billing, billing, identity.Development},
		{"spiffe://writ.localhost.acme.example/a", "spiffe://writ.localhost.acme.example/a", identity.Development},
		{"spiffe://writ.localhost", "spiffe://writ.localhost", identity.Development},
	} {
		b.Agent = c.agent
		if _, _, err := g.tokens.IssueDevelopment(writ.Agent{ID: c.of, Environment: c.env}, b, start); err == nil {
			t.Errorf("%s registered as %s in %q was given a token", c.agent, c.of, c.env)
		}
	}
}
