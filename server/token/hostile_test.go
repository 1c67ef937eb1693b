package token_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/writgate/writ"
	"github.com/writgate/writ/identity"
	"github.com/writgate/writ/identity/devca"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/registry"
	"github.com/writgate/writ/server/token"
	"github.com/writgate/writ/task"
)

// TestH02ForgedAssertions is every way we know to be an agent without its
// key. The addresses in them are of a listener that nobody may connect to.
func TestH02ForgedAssertions(t *testing.T) {
	sentinel, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer sentinel.Close()
	var dials atomic.Int32
	go func() {
		for {
			conn, err := sentinel.Accept()
			if err != nil {
				return
			}
			dials.Add(1)
			conn.Close()
		}
	}()
	away := "http://" + sentinel.Addr().String() + "/keys"

	w := newWorld(t)
	thief := newKey(t)
	public := w.keys[billing].Public().(ed25519.PublicKey)
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	good := claims{"iss": billing, "sub": billing, "aud": issuer, "jti": "1", "exp": start.Unix() + 60}
	forged := func(header claims) string { return sign(t, thief, header, good) }
	mac := func(secret []byte) string {
		body, err := json.Marshal(good)
		if err != nil {
			t.Fatal(err)
		}
		signed := b64([]byte(`{"alg":"HS256"}`)) + "." + b64(body)
		h := hmac.New(sha256.New, secret)
		h.Write([]byte(signed))
		return signed + "." + b64(h.Sum(nil))
	}
	none := strings.Split(forged(claims{"alg": "none"}), ".")
	for name, jwt := range map[string]string{
		"alg none, no signature":    none[0] + "." + none[1] + ".",
		"alg none":                  strings.Join(none, "."),
		"HS256, public key":         mac(public),
		"HS256, public key in DER":  mac(der),
		"HS256, public key as JWK":  mac([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + b64(public) + `"}`)),
		"another key":               forged(claims{"alg": "EdDSA"}),
		"embedded jwk":              forged(claims{"alg": "EdDSA", "jwk": jwkOf(thief)}),
		"jku":                       forged(claims{"alg": "EdDSA", "jku": away}),
		"x5u":                       forged(claims{"alg": "EdDSA", "x5u": away}),
		"kid a path":                forged(claims{"alg": "EdDSA", "kid": "../../../../dev/null"}),
		"kid SQL":                   forged(claims{"alg": "EdDSA", "kid": "x' OR '1'='1"}),
		"kid an address":            forged(claims{"alg": "EdDSA", "kid": away}),
		"kid of the agent":          forged(claims{"alg": "EdDSA", "kid": thumbprint(t, w.keys[billing])}),
		"crit":                      forged(claims{"alg": "EdDSA", "crit": []string{"http://example.com/x"}, "http://example.com/x": true}),
		"its own key, jku":          w.assertion(t, billing, claims{"jku": away}, nil),
		"its own key, jwk":          w.assertion(t, billing, claims{"jwk": jwkOf(thief)}, nil),
		"another agent's key":       sign(t, w.keys[support], claims{"alg": "EdDSA"}, good),
		"issuer an address":         w.assertion(t, billing, nil, claims{"iss": away, "sub": away}),
		"aud the token endpoint":    w.assertion(t, billing, nil, claims{"aud": issuer + token.Path}),
		"aud the resource":          w.assertion(t, billing, nil, claims{"aud": audience}),
		"aud two":                   w.assertion(t, billing, nil, claims{"aud": []string{issuer, "https://other.example"}}),
		"no jti":                    w.assertion(t, billing, nil, claims{"jti": nil}),
		"expired":                   w.assertion(t, billing, nil, claims{"exp": start.Unix() - 1}),
		"for ever":                  w.assertion(t, billing, nil, claims{"exp": start.Unix() + 1<<30}),
		"no exp":                    w.assertion(t, billing, nil, claims{"exp": nil}),
		"an agent nobody knows":     sign(t, thief, claims{"alg": "EdDSA"}, claims{"iss": "spiffe://acme.example/x", "sub": "spiffe://acme.example/x", "aud": issuer, "jti": "1", "exp": start.Unix() + 60}),
		"of the development domain": sign(t, thief, claims{"alg": "EdDSA"}, claims{"iss": "spiffe://writ.localhost/x", "sub": "spiffe://writ.localhost/x", "aud": issuer, "jti": "1", "exp": start.Unix() + 60}),
	} {
		a := w.post(t, w.request(t, map[string]string{"client_assertion": jwt}), nil)
		if a.Status != 400 || a.Error != "invalid_client" || a.AccessToken != "" {
			t.Errorf("%s: %+v", name, a)
		}
	}
	time.Sleep(10 * time.Millisecond)
	if n := dials.Load(); n != 0 {
		t.Errorf("an address inside a token was called %d times", n)
	}
	if len(w.records(t)) != 0 || w.counted[writ.BadToken] == 0 || w.counted[writ.WrongAudience] != 3 {
		t.Errorf("strangers left %d records, and were counted as %v", len(w.records(t)), w.counted)
	}
}

// TestRequests is requests that are none, by the errors of RFC 6749, 5.2, RFC
// 8693, RFC 8707, RFC 9396 and RFC 9449.
func TestRequests(t *testing.T) {
	w := newWorld(t)
	type c struct {
		form   func(url.Values)
		header http.Header
		status int
		code   string
	}
	set := func(name string, values ...string) func(url.Values) {
		return func(f url.Values) {
			f[name] = values
			if len(values) == 0 {
				delete(f, name)
			}
		}
	}
	same := func(url.Values) {}
	for name, c := range map[string]c{
		"no grant_type":         {set("grant_type"), nil, 400, "invalid_request"},
		"an empty grant_type":   {set("grant_type", ""), nil, 400, "invalid_request"},
		"password":              {set("grant_type", "password"), nil, 400, "unsupported_grant_type"},
		"authorization_code":    {set("grant_type", "authorization_code"), nil, 400, "unsupported_grant_type"},
		"refresh_token":         {set("grant_type", "refresh_token"), nil, 400, "unsupported_grant_type"},
		"jwt-bearer":            {set("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), nil, 400, "unsupported_grant_type"},
		"another case":          {set("grant_type", "Client_Credentials"), nil, 400, "unsupported_grant_type"},
		"grant_type twice":      {set("grant_type", "client_credentials", "client_credentials"), nil, 400, "invalid_request"},
		"two resources":         {set("resource", audience, audience), nil, 400, "invalid_request"},
		"an assertion twice":    {set("client_assertion", "a", "b"), nil, 400, "invalid_request"},
		"an unknown twice":      {set("x", "a", "b"), nil, 400, "invalid_request"},
		"not UTF-8":             {set("x", "\xff"), nil, 400, "invalid_request"},
		"another resource":      {set("resource", "https://other.example"), nil, 400, "invalid_target"},
		"another audience":      {set("audience", issuer), nil, 400, "invalid_target"},
		"a scope":               {set("scope", "admin"), nil, 400, "invalid_scope"},
		"details":               {set("authorization_details", "[]"), nil, 400, "invalid_authorization_details"},
		"no client":             {set("client_assertion"), nil, 400, "invalid_client"},
		"no assertion type":     {set("client_assertion_type"), nil, 400, "invalid_client"},
		"JWT-SVID":              {set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"), nil, 400, "invalid_client"},
		"another client_id":     {set("client_id", string(support)), nil, 400, "invalid_client"},
		"client_secret":         {set("client_secret", "hunter2"), nil, 400, "invalid_client"},
		"Basic":                 {same, http.Header{"Authorization": {"Basic YTpi"}}, 401, "invalid_client"},
		"Bearer":                {same, http.Header{"Authorization": {"Bearer x"}}, 401, "invalid_client"},
		"an odd scheme":         {same, http.Header{"Authorization": {"\"x\" y"}}, 400, "invalid_client"},
		"no proof":              {same, http.Header{"Dpop": nil}, 400, "invalid_dpop_proof"},
		"two proofs":            {same, http.Header{"Dpop": {w.proof(t, w.bound, nil), w.proof(t, w.bound, nil)}}, 400, "invalid_dpop_proof"},
		"no JWT":                {same, http.Header{"Dpop": {"x"}}, 400, "invalid_dpop_proof"},
		"a proof for GET":       {same, http.Header{"Dpop": {w.proof(t, w.bound, claims{"htm": "GET"})}}, 400, "invalid_dpop_proof"},
		"a proof for elsewhere": {same, http.Header{"Dpop": {w.proof(t, w.bound, claims{"htu": audience})}}, 400, "invalid_dpop_proof"},
		"an old proof":          {same, http.Header{"Dpop": {w.proof(t, w.bound, claims{"iat": start.Unix() - 600})}}, 400, "invalid_dpop_proof"},
		"a proof of another":    {same, http.Header{"Dpop": {w.proof(t, w.bound, claims{"ath": "x"})}}, 400, "invalid_dpop_proof"},
		"another body":          {same, http.Header{"Dpop": {w.proof(t, w.bound, claims{"body": "x"})}}, 400, "invalid_dpop_proof"},
		"JSON":                  {same, http.Header{"Content-Type": {"application/json"}}, 400, "invalid_request"},
		"multipart":             {same, http.Header{"Content-Type": {"multipart/form-data; boundary=x"}}, 400, "invalid_request"},
		"no type":               {same, http.Header{"Content-Type": nil}, 400, "invalid_request"},
		"two types":             {same, http.Header{"Content-Type": {"application/x-www-form-urlencoded", "application/json"}}, 400, "invalid_request"},
		"UTF-16":                {same, http.Header{"Content-Type": {"application/x-www-form-urlencoded; charset=utf-16"}}, 400, "invalid_request"},
		"compressed":            {same, http.Header{"Content-Encoding": {"gzip"}}, 400, "invalid_request"},
	} {
		f := w.request(t, nil)
		c.form(f)
		a := w.post(t, f, c.header)
		if a.Status != c.status || a.Error != c.code || a.AccessToken != "" || a.Description == "" {
			t.Errorf("%s: %+v", name, a)
		}
		if strings.ContainsAny(a.Description, "\"\\") {
			t.Errorf("%s: description %s", name, a.Description)
		}
		if challenge := a.Header.Get("WWW-Authenticate"); (challenge != "") != (a.Status == 401) {
			t.Errorf("%s: %d and WWW-Authenticate %q", name, a.Status, challenge)
		}
	}
	f := w.request(t, nil).Encode()
	for name, c := range map[string]struct {
		method, target, body string
		status               int
	}{
		"GET":                   {"GET", token.Path, "", 405},
		"parameters in a query": {"POST", token.Path + "?" + f, "", 400},
		"a query":               {"POST", token.Path + "?", f, 400},
		"semicolons":            {"POST", token.Path, strings.ReplaceAll(f, "&", ";"), 400},
		"a bad escape":          {"POST", token.Path, f + "&x=%zz", 400},
		"a megabyte":            {"POST", token.Path, f + "&x=" + strings.Repeat("x", 1<<20), 413},
	} {
		if a := w.send(t, c.method, c.target, c.body, nil); a.Status != c.status || a.Error != "invalid_request" {
			t.Errorf("%s: %+v", name, a)
		}
	}
	if a := w.post(t, w.request(t, map[string]string{"unknown": "ignored", "scope": ""}), http.Header{"Content-Type": {"application/x-www-form-urlencoded; charset=UTF-8"}}); a.Status != 200 {
		t.Errorf("an unknown parameter is not ignored (RFC 6749, 3.2): %+v", a)
	}
}

// TestH05AcrossGateways replays assertion and proof at a second endpoint over
// the same ledger, and after a restart.
func TestH05AcrossGateways(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	first := openWorld(t, path, nil)
	second := openWorld(t, path, first)
	form, proof := first.request(t, nil), http.Header{"Dpop": {first.proof(t, first.bound, nil)}}
	if a := first.post(t, form, proof); a.Status != 200 {
		t.Fatalf("%+v", a)
	}
	for name, w := range map[string]*world{"the same": first, "a second": second, "a restarted": openWorld(t, path, first)} {
		if a := w.post(t, form, nil); a.Error != "invalid_client" || a.AccessToken != "" {
			t.Errorf("%s endpoint takes the assertion again: %+v", name, a)
		}
		if a := w.post(t, w.request(t, nil), proof); a.Error != "invalid_dpop_proof" || a.AccessToken != "" {
			t.Errorf("%s endpoint takes the proof again: %+v", name, a)
		}
	}
	// What was refused for another reason is used up all the same.
	form = first.request(t, map[string]string{"scope": "admin"})
	if a := first.post(t, form, nil); a.Error != "invalid_scope" {
		t.Fatalf("%+v", a)
	}
	form.Del("scope")
	if a := second.post(t, form, nil); a.Error != "invalid_client" {
		t.Errorf("an assertion of a refused request is taken: %+v", a)
	}
	denied := 0
	for _, r := range first.records(t) {
		if r.Leaf.Effect == "deny" {
			denied++
		}
	}
	if denied != 8 {
		t.Errorf("%d refusals are on record, want 8", denied)
	}
}

// TestMutualTLS authenticates by an X.509-SVID over a real connection.
func TestMutualTLS(t *testing.T) {
	w := newWorld(t)
	now := time.Now().Truncate(time.Second)
	w.set(now)
	w.verifier.Development = true
	file, err := devca.Generate(now)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := devca.Parse(file, devca.Environment)
	if err != nil {
		t.Fatal(err)
	}
	td := spiffeid.RequireTrustDomainFromString(identity.DevelopmentDomain)
	if err := w.verifier.Bundles.Set(td, []*x509.Certificate{ca.Authority()}, now.Add(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	config, err := registry.ParseConfig([]byte(agents + `  - {id: "spiffe://writ.localhost/agent/a", owner: maya, environment: development, highest_tier: read-only}` + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	endpoint := *w.endpoint
	endpoint.Catalog = registry.New(config, w.ledger, w.clock)
	s := httptest.NewUnstartedServer(&endpoint)
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	s.StartTLS()
	defer s.Close()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(der []byte, form url.Values) answer {
		config := &tls.Config{RootCAs: s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
		if der != nil {
			own := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }
		}
		transport := &http.Transport{TLSClientConfig: config}
		defer transport.CloseIdleConnections()
		req, err := http.NewRequest("POST", s.URL+token.Path, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("DPoP", w.proof(t, w.bound, nil))
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		a := answer{Status: resp.StatusCode}
		if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
			t.Fatal(err)
		}
		return a
	}
	issue := func(at time.Time) []byte {
		der, err := ca.Issue("/agent/a", key.Public(), at)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	grant := url.Values{"grant_type": {"client_credentials"}}
	a := ask(issue(now), grant)
	w.resource.Development = true
	if p, err := w.use(t, a.AccessToken, w.bound); err != nil || p.Caller.Agent != "spiffe://writ.localhost/agent/a" || a.ExpiresIn != 600 {
		t.Errorf("%+v, %+v, %v", a, p, err)
	}
	w.set(now.Add(devca.Lifetime - time.Minute))
	if a := ask(issue(now), grant); a.ExpiresIn != 60 {
		t.Errorf("a token outlives the SVID it was issued on: %+v", a)
	}
	if a := ask(nil, grant); a.Error != "invalid_client" {
		t.Errorf("no certificate: %+v", a)
	}
	fresh := issue(w.clock())
	both := w.request(t, nil)
	if a := ask(fresh, both); a.Error != "invalid_client" {
		t.Errorf("a certificate and an assertion of two agents: %+v", a)
	}
	named := url.Values{"grant_type": {"client_credentials"}, "client_id": {string(billing)}}
	if a := ask(fresh, named); a.Error != "invalid_client" {
		t.Errorf("client_id of another: %+v", a)
	}
	w.verifier.Development = false
	if a := ask(fresh, grant); a.Error != "invalid_client" {
		t.Errorf("production takes the development domain: %+v", a)
	}
}

// TestH10Unavailable breaks what the endpoint rests on.
func TestH10Unavailable(t *testing.T) {
	for name, breaks := range map[string]func(*token.Endpoint, *world){
		"keys fail": func(e *token.Endpoint, _ *world) {
			e.Keys = func(context.Context, writ.AgentID) ([]crypto.PublicKey, error) { return nil, errors.New("500") }
		},
		"keys panic": func(e *token.Endpoint, _ *world) {
			e.Keys = func(context.Context, writ.AgentID) ([]crypto.PublicKey, error) { panic("keys") }
		},
		"the registry panics":  func(e *token.Endpoint, _ *world) { e.Catalog = nil },
		"the tasks panic":      func(e *token.Endpoint, w *world) { e.Tasks = &task.Book{}; w.bind() },
		"the ledger is closed": func(_ *token.Endpoint, w *world) { w.ledger.Close() },
	} {
		w := newWorld(t)
		form := w.request(t, nil)
		endpoint := *w.endpoint
		breaks(&endpoint, w)
		w.handler = &endpoint
		a := w.post(t, form, nil)
		if a.Status != 503 || a.Error != "temporarily_unavailable" || a.AccessToken != "" || a.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

// TestStateChanges changes the agent between what a token depends on being
// read, and the token being recorded.
func TestStateChanges(t *testing.T) {
	w := newWorld(t)
	issued := 0
	changing := func(times int, to writ.State) *token.Endpoint {
		endpoint, asked := *w.endpoint, 0
		endpoint.Now = func() time.Time {
			if asked++; asked > 1 && asked <= 1+times { // the first is before anything is read
				if err := w.catalog.SetState(context.Background(), registry.KindAgent, string(billing), to, "omar"); err != nil {
					t.Error(err)
				}
			}
			return w.clock()
		}
		return &endpoint
	}
	for _, c := range []struct {
		times  int
		to     writ.State
		status int
		code   string
	}{
		{1, writ.Active, 200, ""},
		{2, writ.Active, 200, ""},
		{99, writ.Active, 503, "temporarily_unavailable"},
		{1, writ.Suspended, 400, "unauthorized_client"},
	} {
		form := w.request(t, nil)
		w.handler = changing(c.times, c.to)
		a := w.post(t, form, nil)
		if a.Status != c.status || a.Error != c.code {
			t.Errorf("%s, %d times: %+v", c.to, c.times, a)
		}
		if a.Status == 200 {
			issued++
		}
	}
	permits := 0
	for _, r := range w.records(t) {
		if r.Leaf.Effect == "permit" {
			permits++
		}
	}
	if permits != issued {
		t.Errorf("%d tokens were issued, %d are on record", issued, permits)
	}
}

// bind binds the key to a task, so that there is one to read.
func (w *world) bind() {
	w.ledger.Commit(context.Background(), &ledger.Entry{
		Leaf:    ledger.Leaf{Type: ledger.TypeAdmin},
		Changes: []ledger.Change{{Op: ledger.Put, Kind: task.KindKey, Key: string(mustThumbprint(w.bound)), Value: []byte("task_x")}},
	})
}

func mustThumbprint(key ed25519.PrivateKey) writ.Thumbprint {
	p, err := identity.Thumbprint(key.Public())
	if err != nil {
		panic(err)
	}
	return p
}
