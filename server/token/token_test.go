package token_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/identity"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/ledger/ledgertest"
	"github.com/writgate/writ/ledger/sqlite"
	"github.com/writgate/writ/registry"
	"github.com/writgate/writ/server/token"
	"github.com/writgate/writ/task"
)

const (
	issuer   = "https://writ.example"
	audience = "https://writ.example/mcp"
	billing  = writ.AgentID("spiffe://acme.example/agent/billing")
	support  = writ.AgentID("spiffe://acme.example/agent/support")

	jwtBearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	exchange  = "urn:ietf:params:oauth:grant-type:token-exchange"
	typeJWT   = "urn:ietf:params:oauth:token-type:jwt"
	typeAT    = "urn:ietf:params:oauth:token-type:access_token"
)

const agents = `
agents:
  - {id: "spiffe://acme.example/agent/billing", owner: maya, environment: production, highest_tier: bounded-write}
  - {id: "spiffe://acme.example/agent/support", owner: omar, environment: production, highest_tier: read-only}
`

var start = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

type claims = map[string]any

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// sign makes a compact JWS, EdDSA whatever its header says.
func sign(t testing.TB, key ed25519.PrivateKey, header, body claims) string {
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
	return signed + "." + b64(ed25519.Sign(key, []byte(signed)))
}

func jwkOf(key ed25519.PrivateKey) claims {
	return claims{"kty": "OKP", "crv": "Ed25519", "x": b64(key.Public().(ed25519.PublicKey))}
}

func newKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
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

// A world is a token endpoint over a real ledger, and the agents around it.
type world struct {
	endpoint *token.Endpoint
	verifier *identity.Verifier // of the endpoint
	resource *identity.Verifier // of another process, which has seen nothing
	tokens   *identity.Tokens
	ledger   *ledger.Ledger
	tasks    *task.Book
	catalog  *registry.Catalog
	keys     map[writ.AgentID]ed25519.PrivateKey
	bound    ed25519.PrivateKey // the key that tokens are asked for
	handler  http.Handler

	mu      sync.Mutex
	now     time.Time
	counted map[writ.Code]int
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) set(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = now
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return openWorld(t, filepath.Join(t.TempDir(), "ledger.db"), nil)
}

// openWorld is another process over the ledger at path, with the keys of like
// if there is one.
func openWorld(t testing.TB, path string, like *world) *world {
	t.Helper()
	w := &world{now: start, counted: map[writ.Code]int{}}
	s, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	w.ledger = ledgertest.Open(t, s, ledger.Config{Now: w.clock})
	if like != nil {
		w.keys, w.bound, w.tokens = like.keys, like.bound, like.tokens
	} else {
		w.keys, w.bound = map[writ.AgentID]ed25519.PrivateKey{billing: newKey(t), support: newKey(t)}, newKey(t)
		if w.tokens, err = identity.NewTokens(issuer, newKey(t)); err != nil {
			t.Fatal(err)
		}
	}
	config, err := registry.ParseConfig([]byte(agents))
	if err != nil {
		t.Fatal(err)
	}
	w.catalog = registry.New(config, w.ledger, w.clock)
	w.tasks = &task.Book{Ledger: w.ledger, Now: w.clock}
	verifier := func() *identity.Verifier {
		return &identity.Verifier{Bundles: new(identity.Bundles), Tokens: w.tokens.Key, Issuer: issuer, Audience: audience, Now: w.clock}
	}
	w.verifier, w.resource = verifier(), verifier()
	w.endpoint, err = token.New(token.Config{
		Identity: w.verifier, Tokens: w.tokens, Catalog: w.catalog, Tasks: w.tasks, Ledger: w.ledger, Now: w.clock,
		Keys: func(_ context.Context, id writ.AgentID) ([]crypto.PublicKey, error) {
			if key, ok := w.keys[id]; ok {
				return []crypto.PublicKey{key.Public()}, nil
			}
			return nil, nil
		},
		Count: func(c writ.Code) { w.counted[c]++ },
	})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for pattern, h := range w.endpoint.Handlers() {
		mux.Handle(pattern, h)
	}
	w.handler = mux
	return w
}

// assertion is a JWT of an agent about itself, in which the given header
// members and claims differ from what is right.
func (w *world) assertion(t testing.TB, agent writ.AgentID, header, body claims) string {
	t.Helper()
	h := claims{"alg": "EdDSA"}
	c := claims{"iss": agent, "sub": agent, "aud": issuer, "jti": rand.Text(), "exp": w.clock().Unix() + 60}
	maps.Copy(h, header)
	maps.Copy(c, body)
	return sign(t, w.keys[agent], h, c)
}

func (w *world) proof(t testing.TB, key ed25519.PrivateKey, body claims) string {
	t.Helper()
	c := claims{"jti": rand.Text(), "htm": "POST", "htu": issuer + token.Path, "iat": w.clock().Unix()}
	maps.Copy(c, body)
	return sign(t, key, claims{"typ": "dpop+jwt", "alg": "EdDSA", "jwk": jwkOf(key)}, c)
}

// request is the form of a client_credentials request of billing, with what
// is set in change; an empty value takes a parameter away.
func (w *world) request(t testing.TB, change map[string]string) url.Values {
	t.Helper()
	f := url.Values{"grant_type": {"client_credentials"}, "client_assertion_type": {jwtBearer}, "client_assertion": {w.assertion(t, billing, nil, nil)}}
	for name, value := range change {
		f.Set(name, value)
		if value == "" {
			f.Del(name)
		}
	}
	return f
}

// An answer is what came back.
type answer struct {
	Status      int
	Header      http.Header
	AccessToken string `json:"access_token"`
	IssuedType  string `json:"issued_token_type"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int64  `json:"expires_in"`
	Error       string `json:"error"`
	Description string `json:"error_description"`
}

// post sends a form, with a good proof if h has none.
func (w *world) post(t testing.TB, form url.Values, h http.Header) answer {
	t.Helper()
	return w.send(t, "POST", token.Path, form.Encode(), h)
}

func (w *world) send(t testing.TB, method, target, body string, h http.Header) answer {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("DPoP", w.proof(t, w.bound, nil))
	for name, values := range h {
		r.Header[http.CanonicalHeaderKey(name)] = values
	}
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, r)
	a := answer{Status: rec.Code, Header: rec.Header()}
	text, err := io.ReadAll(rec.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &a); err != nil {
		t.Fatalf("answer %d is not JSON: %s", rec.Code, text)
	}
	if got := rec.Header().Get("Cache-Control"); got != "no-store" && strings.HasPrefix(target, token.Path) {
		t.Errorf("Cache-Control: %s", got)
	}
	return a
}

// records are the records of tokens issued and refused.
func (w *world) records(t testing.TB) []*ledger.Record {
	t.Helper()
	all, err := w.ledger.Records(context.Background(), ledger.Filter{To: 1 << 40, Type: ledger.TypeAgent})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// use presents a token to the resource, with a proof of key.
func (w *world) use(t testing.TB, accessToken string, key ed25519.PrivateKey) (identity.Proven, error) {
	t.Helper()
	sum := sha256.New()
	sum.Write([]byte(accessToken))
	proof := w.proof(t, key, claims{"htu": audience, "ath": b64(sum.Sum(nil))})
	return w.resource.Verify(context.Background(), identity.Evidence{
		Authorization: []string{"DPoP " + accessToken}, Proof: []string{proof}, Method: "POST", URL: audience,
	})
}

func TestClientCredentials(t *testing.T) {
	w := newWorld(t)
	a := w.post(t, w.request(t, map[string]string{"client_id": string(billing), "resource": audience}), nil)
	if a.Status != 200 || a.TokenType != "DPoP" || a.IssuedType != typeAT || a.ExpiresIn != 600 {
		t.Fatalf("%+v", a)
	}
	p, err := w.use(t, a.AccessToken, w.bound)
	if err != nil || p.Caller.Agent != billing || p.Caller.Key != thumbprint(t, w.bound) || p.Task != "" || p.Caller.User != "" {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := w.use(t, a.AccessToken, newKey(t)); writ.AsDenial(err).Code != writ.NoPossession {
		t.Errorf("the token with another key: %v", err)
	}
	all := w.records(t)
	if len(all) != 1 || all[0].Leaf.Agent != billing || all[0].Leaf.Key != thumbprint(t, w.bound) || all[0].Leaf.Effect != "permit" || all[0].Leaf.Note["act"] != "token" {
		t.Errorf("records: %+v", all)
	}
}

func TestTokenExchange(t *testing.T) {
	w := newWorld(t)
	form := func(change map[string]string) url.Values {
		f := w.request(t, map[string]string{"grant_type": exchange, "subject_token": w.assertion(t, billing, nil, claims{"exp": start.Unix() + 90}), "subject_token_type": typeJWT})
		for name, value := range change {
			f.Set(name, value)
		}
		return f
	}
	a := w.post(t, form(map[string]string{"requested_token_type": typeAT, "audience": audience}), nil)
	if a.Status != 200 || a.IssuedType != typeAT || a.TokenType != "DPoP" || a.ExpiresIn != 90 {
		t.Fatalf("want a token as long as its subject token: %+v", a)
	}
	if p, err := w.use(t, a.AccessToken, w.bound); err != nil || p.Caller.Agent != billing || p.Until != start.UnixMilli()+90_000 {
		t.Errorf("%+v, %v", p, err)
	}
	used := w.assertion(t, billing, nil, nil)
	if a := w.post(t, form(map[string]string{"subject_token": used}), nil); a.Status != 200 {
		t.Fatalf("%+v", a)
	}
	both := w.assertion(t, billing, nil, nil)
	if a := w.post(t, form(map[string]string{"client_assertion": both, "subject_token": both}), nil); a.Status != 400 || a.AccessToken != "" {
		t.Errorf("one JWT was taken for two: %+v", a)
	}
	for name, f := range map[string]url.Values{
		"a subject token used before":   form(map[string]string{"subject_token": used}),
		"another agent's subject token": form(map[string]string{"subject_token": w.assertion(t, support, nil, nil)}),
		"another audience":              form(map[string]string{"subject_token": w.assertion(t, billing, nil, claims{"aud": audience})}),
		"a forged subject token":        form(map[string]string{"subject_token": sign(t, newKey(t), claims{"alg": "EdDSA"}, claims{"iss": billing, "sub": billing, "aud": issuer, "jti": "1", "exp": start.Unix() + 60})}),
		"no JWT":                        form(map[string]string{"subject_token": "x"}),
		"an access token as a subject":  form(map[string]string{"subject_token": a.AccessToken}),
		"no subject token":              form(map[string]string{"subject_token": ""}),
		"no subject_token_type":         form(map[string]string{"subject_token_type": ""}),
		"a subject of another type":     form(map[string]string{"subject_token_type": typeAT}),
		"an actor token":                form(map[string]string{"actor_token": w.assertion(t, support, nil, nil), "actor_token_type": typeJWT}),
		"a refresh token asked for":     form(map[string]string{"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}),
		"an ID-JAG asked for":           form(map[string]string{"requested_token_type": "urn:ietf:params:oauth:token-type:id-jag"}),
	} {
		if a := w.post(t, f, nil); a.Status != 400 || a.Error != "invalid_request" || a.AccessToken != "" || a.Description == "" {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

// TestTask holds that a token names the task of its key, and lasts no longer.
func TestTask(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t)
	held, err := w.tasks.Open(ctx, writ.Task{
		Agent: billing, User: "maya", Key: thumbprint(t, w.bound), Environment: "production", Grant: writ.Grant{{Tool: "*"}},
		Expires: start.Add(4 * time.Minute).UnixMilli(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ask := func() (answer, identity.Proven) {
		a := w.post(t, w.request(t, nil), nil)
		if a.Status != 200 {
			t.Fatalf("%+v", a)
		}
		p, err := w.use(t, a.AccessToken, w.bound)
		if err != nil {
			t.Fatal(err)
		}
		return a, p
	}
	a, p := ask()
	if p.Task != held.Task.ID || p.Caller.User != "maya" || a.ExpiresIn != 240 {
		t.Errorf("token for %s of %s, %d seconds", p.Task, p.Caller.User, a.ExpiresIn)
	}
	if a := w.post(t, w.request(t, map[string]string{"client_assertion": w.assertion(t, support, nil, nil)}), nil); a.Error != "invalid_grant" {
		t.Errorf("another agent, with the key of the task: %+v", a)
	}
	if _, err := w.tasks.End(ctx, held.Task.ID, "done", ""); err != nil {
		t.Fatal(err)
	}
	if a, p := ask(); p.Task != "" || a.ExpiresIn != 600 {
		t.Errorf("an ended task is named, or shortens: %+v, %+v", a, p)
	}
	if _, err := w.tasks.Open(ctx, writ.Task{Agent: billing, Key: thumbprint(t, w.bound), Environment: "production", Expires: start.Add(4 * time.Minute).UnixMilli()}); err != nil {
		t.Fatal(err)
	}
	w.set(start.Add(4 * time.Minute))
	if _, p := ask(); p.Task != "" || p.Caller.User != "" {
		t.Errorf("after its end the task is still named: %+v", p)
	}
}

// TestH12NotActive is an agent with good keys that may not act.
func TestH12NotActive(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t)
	if err := w.catalog.SetState(ctx, registry.KindAgent, string(billing), writ.Suspended, "omar"); err != nil {
		t.Fatal(err)
	}
	a := w.post(t, w.request(t, nil), nil)
	if a.Status != 400 || a.Error != "unauthorized_client" || !strings.Contains(a.Description, "maya") {
		t.Errorf("suspended: %+v", a)
	}
	all := w.records(t)
	if last := all[len(all)-1].Leaf; last.Effect != "deny" || last.Code != writ.AgentNotActive || last.Agent != billing {
		t.Errorf("record %+v", last)
	}
	if len(w.counted) != 0 {
		t.Errorf("counted as a stranger: %v", w.counted)
	}
	stranger := writ.AgentID("spiffe://acme.example/agent/nobody")
	w.keys[stranger] = newKey(t)
	if a := w.post(t, w.request(t, map[string]string{"client_assertion": w.assertion(t, stranger, nil, nil)}), nil); a.Error != "unauthorized_client" {
		t.Errorf("not registered, but with a key: %+v", a)
	}
}
