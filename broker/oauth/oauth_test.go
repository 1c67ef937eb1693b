package oauth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/broker/oauth"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/ledger/ledgertest"
	"github.com/writgate/writ/ledger/sqlite"
	"go.yaml.in/yaml/v4"
)

func newRow() broker.Row {
	id := writ.NewID[writ.LeaseID](time.Now())
	return broker.Row{Lease: id, Handle: string(id), Task: "task_1", Agent: "spiffe://acme.example/agent/billing", Tool: "shop.refund"}
}

func mint(t testing.TB, d *oauth.Driver) (broker.Minted, string) {
	t.Helper()
	m, err := d.Mint(t.Context(), newRow())
	if err != nil {
		t.Fatal(err)
	}
	value, err := m.Secret.Expose()
	if err != nil {
		t.Fatal(err)
	}
	return m, value
}

func TestClientCredentials(t *testing.T) {
	is, byKey := newIssuer(t)
	bySecret := byKey
	bySecret.Key, bySecret.Secret = broker.Reference{}, file(t, password+"\n")
	for name, c := range map[string]oauth.Config{"private_key_jwt": byKey, "client_secret_basic": bySecret} {
		t.Run(name, func(t *testing.T) {
			d := is.driver(c)
			before := time.Now().UnixMilli()
			m, value := mint(t, d)
			if is.scopes[value] != "orders.read orders.write" {
				t.Errorf("scopes %q", is.scopes[value])
			}
			if life := m.Until - before; life < 300_000 || life > 305_000 {
				t.Errorf("lives %d ms, want 300 s", life)
			}
			if strings.Contains(m.Handle, value) || m.Handle == "" {
				t.Errorf("the handle is %q", m.Handle)
			}
			ev, err := d.Revoke(t.Context(), m.Handle)
			if err != nil || ev.Outcome != broker.RevokedAtIssuer || ev.Until != m.Until || is.alive() != 0 {
				t.Errorf("Revoke: %+v, %v; %d alive", ev, err, is.alive())
			}
			if _, err := d.Revoke(t.Context(), m.Handle); err != nil {
				t.Errorf("revoking again: %v", err)
			}
			ev, err = d.Revoke(t.Context(), newRow().Handle)
			if err != nil || ev.Outcome != broker.Expires {
				t.Errorf("revoking what nobody received: %+v, %v", ev, err)
			}
		})
	}
}

func TestExchange(t *testing.T) {
	is, c := newIssuer(t)
	c.Exchange = &oauth.Exchange{Audience: "shop"}
	mint(t, is.driver(c))
	c.Exchange = &oauth.Exchange{Subject: file(t, "platform-token"), SubjectType: "urn:ietf:params:oauth:token-type:access_token"}
	mint(t, is.driver(c))
	want := "spiffe://acme.example/agent/billing map[task:task_1 tool:shop.refund] urn:ietf:params:oauth:token-type:jwt shop" + "|" +
		"platform-token urn:ietf:params:oauth:token-type:access_token "
	if got := strings.Join(is.subjects, "|"); got != want {
		t.Errorf("exchanged %s\nwant      %s", got, want)
	}
	c.Exchange.Subject = file(t, "another-token")
	if _, err := is.driver(c).Mint(t.Context(), newRow()); err == nil || !strings.Contains(err.Error(), "invalid_grant") || strings.Contains(err.Error(), "another-token") {
		t.Errorf("Mint: %v", err)
	}
}

// The server reads what each of the kinds of key signs.
func TestKeys(t *testing.T) {
	is, c := newIssuer(t)
	p256, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	large, _ := rsa.GenerateKey(rand.Reader, 2048)
	pkcs8 := func(key any) string {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	sealer, _ := broker.NewSealer(make([]byte, 32))
	for name, k := range map[string]struct {
		text string
		good bool
	}{
		"P-256": {pkcs8(p256), true}, "RSA": {pkcs8(large), true}, "P-384": {pkcs8(p384), false},
		"PKCS #1": {string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(large)})), false},
		"no key":  {"s3cret-but-no-key", false}, "spoiled": {strings.Replace(pkcs8(p256), "M", "N", 2), false},
	} {
		c.Key = file(t, k.text)
		_, err := oauth.New(c, is.Client(), sealer, time.Now)
		if (err == nil) != k.good {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: the error tells it: %v", name, err)
		}
	}
}

// H64: what the server grants beyond what was asked is not used, and ended.
func TestH64ServerIsNotBelieved(t *testing.T) {
	for name, extra := range map[string]map[string]any{
		"a long life":        {"expires_in": 3601},
		"no life":            {"expires_in": nil},
		"a life of words":    {"expires_in": "long"},
		"a life backwards":   {"expires_in": -1},
		"a life without end": {"expires_in": 1e300},
		"another scope":      {"scope": "orders.read admin"},
		"a refresh token":    {"refresh_token": "s3cret-refresh-1"},
		"a bound token":      {"token_type": "DPoP"},
		"no type":            {"token_type": nil},
	} {
		t.Run(name, func(t *testing.T) {
			is, c := newIssuer(t)
			is.extra = extra
			d := is.driver(c)
			m, err := d.Mint(t.Context(), newRow())
			if err == nil || strings.Contains(err.Error(), "s3cret") {
				t.Fatalf("Mint: %v", err)
			}
			if is.alive() == 0 || m.Handle == "" {
				t.Fatalf("%d alive, handle %q", is.alive(), m.Handle)
			}
			if ev, err := d.Revoke(t.Context(), m.Handle); err != nil || is.alive() != 0 {
				t.Errorf("Revoke: %+v, %v; %d alive", ev, err, is.alive())
			}
		})
	}
	is, c := newIssuer(t)
	is.extra = map[string]any{"expires_in": "300", "scope": "orders.read"}
	mint(t, is.driver(c)) // less than what was asked, and a number as text
}

// H64: a server that cannot revoke is said to be one.
func TestH64RevocationUnsupported(t *testing.T) {
	is, c := newIssuer(t)
	m, _ := mint(t, is.driver(c))
	is.misbehave(nil, func(w http.ResponseWriter, _ *http.Request) { fail(w, 400, "unsupported_token_type") })
	unsupported, err := is.driver(c).Revoke(t.Context(), m.Handle)
	c.RevocationEndpoint = ""
	absent, err2 := is.driver(c).Revoke(t.Context(), m.Handle)
	for _, ev := range []broker.Evidence{unsupported, absent} {
		if ev.Outcome != broker.Expires || ev.Until != m.Until || !strings.HasPrefix(strings.Join(ev.Steps, ""), "revocation_unsupported") {
			t.Errorf("%+v", ev)
		}
	}
	if err != nil || err2 != nil {
		t.Error(err, err2)
	}
}

// F13: a server that is down, hangs, or talks nonsense is an error that tells
// no secret; so is one at revocation, and then the token still counts as
// alive.
func TestF13ServerFails(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("a redirect was followed to %s", r.URL) }))
	t.Cleanup(elsewhere.Close)
	is, c := newIssuer(t)
	d := is.driver(c)
	good, value := mint(t, d)
	for name, answer := range map[string]http.HandlerFunc{
		"500": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"503": func(w http.ResponseWriter, _ *http.Request) { fail(w, 503, "temporarily_unavailable") },
		"400": func(w http.ResponseWriter, _ *http.Request) { fail(w, 400, "invalid_request") },
		"echo": func(w http.ResponseWriter, r *http.Request) {
			fail(w, 400, "s3cret-echo "+r.PostFormValue("client_assertion"))
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		},
		"hangs":    func(_ http.ResponseWriter, r *http.Request) { _ = r.ParseForm(); <-r.Context().Done() },
		"hangs up": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"too much": func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 1<<20)) },
		"201":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201) },
	} {
		is.misbehave(answer, answer)
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		m, err := d.Mint(ctx, newRow())
		if err == nil || m.Handle != "" {
			t.Errorf("%s: minted %v", name, m)
		}
		_, rerr := d.Revoke(ctx, good.Handle)
		if rerr == nil {
			t.Errorf("%s: revoked", name)
		}
		if text := fmt.Sprintf("%+v %+v %v", err, rerr, errors.Unwrap(err)); strings.Contains(text, "s3cret") || strings.Contains(text, value) || strings.Contains(text, "eyJ") {
			t.Errorf("%s: the error tells a secret: %s", name, text)
		}
		cancel()
	}
	for name, body := range map[string]string{
		"html": "<html>s3cret-echo", "nothing": "", "no token": `{"token_type":"Bearer"}`, "twice": `{"access_token":"s3cret-one","access_token":"s3cret-two"}`,
		"another case": `{"Access_Token":"s3cret-one"}`, "not an object": `"s3cret-one"`, "cut": `{"access_token":"s3cret-one`,
	} {
		is.misbehave(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, body)
		}, nil)
		if _, err := d.Mint(t.Context(), newRow()); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	is.misbehave(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"access_token":"s3cret-plain-text","token_type":"Bearer","expires_in":1}`)
	}, nil)
	if _, err := d.Mint(t.Context(), newRow()); err == nil {
		t.Error("plain text is a token response")
	}
	is.misbehave(nil, nil)
	for _, handle := range []string{"", "x", "lease_x", good.Handle + "A", good.Handle[:40], strings.Repeat("A", 200)} {
		if _, err := d.Revoke(t.Context(), handle); err == nil {
			t.Errorf("the handle %q revokes", handle)
		}
	}
	is.secret = "another"
	c.Key, c.Secret = broker.Reference{}, file(t, password)
	if _, err := is.driver(c).Mint(t.Context(), newRow()); err == nil || !strings.Contains(err.Error(), "401 invalid_client") {
		t.Errorf("a wrong secret: %v", err)
	}
}

// F18: the handle that brings a token's end over a restart is in the ledger,
// and the token is not.
func TestF18SealedHandleOutlivesTheProcess(t *testing.T) {
	is, c := newIssuer(t)
	s, err := sqlite.Open(filepath.Join(t.TempDir(), "writ.db"))
	if err != nil {
		t.Fatal(err)
	}
	l := ledgertest.Open(t, s, ledger.Config{})
	m, value := mint(t, is.driver(c))
	row := newRow()
	row.Backend, row.Handle, row.Process = "shop", m.Handle, broker.Process{Gateway: "gw", Run: "the one before"}
	row.Expires, row.Until = time.Now().Add(time.Minute).UnixMilli(), m.Until
	if _, err := l.Commit(t.Context(), &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeLease}, Changes: []ledger.Change{row.Change()}}); err != nil {
		t.Fatal(err)
	}
	if change := row.Change(); strings.Contains(string(change.Value), value) {
		t.Errorf("the row tells the token: %s", change.Value)
	}
	b := &broker.Broker{Gateway: "gw", Queue: &broker.Journal{Ledger: l}, Now: time.Now, Backends: map[string]broker.Backend{
		"shop": {Driver: is.driver(c), Place: broker.Placement{Header: "Authorization", Scheme: "Bearer"}},
	}}
	if left, err := b.Sweep(t.Context()); err != nil || left.Ended != 1 || is.alive() != 0 {
		t.Errorf("Sweep: %+v, %v; %d alive", left, err, is.alive())
	}
}

func TestConfig(t *testing.T) {
	t.Setenv("WRIT_TEST_SECRET", password)
	const good = `
issuer: https://as.example
token_endpoint: https://as.example/token
revocation_endpoint: https://as.example/revoke
client_id: writ
client_secret: {env: WRIT_TEST_SECRET}
scopes: [orders.read]
resource: https://tool.example/mcp
exchange: {subject: {file: /run/token}, audience: shop}
longest: 10m
`
	sealer, _ := broker.NewSealer(make([]byte, 32))
	build := func(text string) error {
		var c oauth.Config
		if err := yaml.Load([]byte(text), &c, yaml.WithKnownFields(), yaml.WithUniqueKeys()); err != nil {
			return err
		}
		d, err := oauth.New(c, http.DefaultClient, sealer, time.Now)
		if err == nil && d.Lifetime(time.Minute) != 10*time.Minute {
			t.Errorf("Lifetime is %v", d.Lifetime(time.Minute))
		}
		return err
	}
	if err := build(good); err != nil {
		t.Error(err)
	}
	for name, change := range map[string][2]string{
		"an unknown key":       {"longest", "secret: hunter2\nlongest"},
		"plain HTTP":           {"https://as.example/token", "http://as.example/token"},
		"plain HTTP to revoke": {"https://as.example/revoke", "http://as.example/revoke"},
		"a password in a URL":  {"https://as.example/token", "https://u:p@as.example/token"},
		"no endpoint":          {"https://as.example/token", "''"},
		"no client":            {"client_id: writ", "client_id: ''"},
		"no secret":            {"{env: WRIT_TEST_SECRET}", "{}"},
		"an unset secret":      {"WRIT_TEST_SECRET", "WRIT_TEST_UNSET"},
		"a secret in place":    {"{env: WRIT_TEST_SECRET}", "hunter2"},
		"two proofs":           {"scopes", "key: {env: WRIT_TEST_SECRET}\nscopes"},
		"a scope of two":       {"[orders.read]", "['orders.read admin']"},
		"a fragment":           {"/mcp", "/mcp#x"},
		"no URI":               {"https://tool.example/mcp", "tool"},
		"nothing to sign with": {"{file: /run/token}", "{}"},
		"a life backwards":     {"10m", "-10m"},
	} {
		if err := build(strings.Replace(good, change[0], change[1], 1)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
