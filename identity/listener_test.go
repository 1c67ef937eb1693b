package identity_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/identity"
)

// A listener is a TLS server that does what a listener of the gateway does
// about identity, and answers with whom it proved.
func listener(t *testing.T, g *gateway) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		p, err := g.Verify(r.Context(), identity.Evidence{
			Chain: r.TLS.PeerCertificates, Authorization: r.Header.Values("Authorization"), Proof: r.Header.Values("DPoP"),
			Method: r.Method, URL: "https://writ.example" + r.URL.EscapedPath(), Body: body,
		})
		if err != nil {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, writ.AsDenial(err).Code)
			return
		}
		fmt.Fprint(w, p.Caller.Agent, " ", p.Caller.Proof)
	}))
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS13}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// client connects with a certificate, or without one.
func client(t *testing.T, s *httptest.Server, key crypto.PrivateKey, chain ...*x509.Certificate) *http.Client {
	t.Helper()
	config := &tls.Config{RootCAs: s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
	if len(chain) > 0 {
		own := tls.Certificate{PrivateKey: key}
		for _, c := range chain {
			own.Certificate = append(own.Certificate, c.Raw)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }
	}
	transport := &http.Transport{TLSClientConfig: config}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func answer(t *testing.T, c *http.Client, s *httptest.Server, header http.Header, body string) string {
	t.Helper()
	req, err := http.NewRequest("POST", s.URL+"/mcp", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestH04TwoCertificates is a real listener and two agents. One steals the
// other's token, certificate and proof, and has everything but the keys.
func TestH04TwoCertificates(t *testing.T) {
	g, ca := trusting(t)
	s := listener(t, g)
	type agent struct {
		id  writ.AgentID
		key *ecdsa.PrivateKey
		crt *x509.Certificate
	}
	enrol := func(id writ.AgentID) agent {
		key := newECDSA(t, elliptic.P256())
		return agent{id, key, ca.leaf(t, key.Public(), string(id), nil)}
	}
	owner, thief := enrol(billing), enrol("spiffe://acme.example/agent/thief")
	for _, a := range []agent{owner, thief} {
		if got, want := answer(t, client(t, s, a.key, a.crt), s, http.Header{}, "{}"), string(a.id)+" mtls"; got != want {
			t.Errorf("over its own channel: %s, want %s", got, want)
		}
	}
	bound := newEd25519(t)
	token := g.issue(t, bound)
	dpop := func(key crypto.Signer) http.Header {
		return http.Header{"Authorization": {"DPoP " + token}, "Dpop": g.request(t, key, token, nil, nil).Proof}
	}
	if got, want := answer(t, client(t, s, nil), s, dpop(bound), "{}"), string(billing)+" dpop"; got != want {
		t.Errorf("with its token and proof: %s, want %s", got, want)
	}
	for name, h := range map[string]http.Header{
		"the token as a bearer token":     {"Authorization": {"Bearer " + token}},
		"the token without a proof":       {"Authorization": {"DPoP " + token}},
		"the token with another proof":    dpop(thief.key),
		"the token, two proofs":           {"Authorization": {"DPoP " + token}, "Dpop": append(dpop(thief.key)["Dpop"], dpop(bound)["Dpop"]...)},
		"the token and a proof, unproven": dpop(bound), // over the thief's channel: another agent's
	} {
		if got := answer(t, client(t, s, thief.key, thief.crt), s, h, "{}"); got != string(writ.NoPossession) {
			t.Errorf("%s: %s, want %s", name, got, writ.NoPossession)
		}
	}
	stolen := client(t, s, thief.key, owner.crt) // the certificate, with another key
	if resp, err := stolen.Post(s.URL+"/mcp", "", nil); err == nil {
		resp.Body.Close()
		t.Errorf("a certificate was believed without its key: %s", resp.Status)
	}
}

// TestH08IdentityHeaders sends every identity header we know, in every
// spelling that some server takes for another. None changes who is calling,
// and none is an identity.
func TestH08IdentityHeaders(t *testing.T) {
	g, ca := trusting(t)
	s := listener(t, g)
	key := newECDSA(t, elliptic.P256())
	nobody, somebody := client(t, s, nil), client(t, s, key, ca.leaf(t, key.Public(), string(billing), nil))
	const root = "spiffe://acme.example/agent/root"
	values := []string{root, "By=spiffe://acme.example/gateway;Hash=0;URI=" + root, "true"}
	names := []string{
		"X-Forwarded-Client-Cert", "X-Writ-Agent", "X-Writ-Identity", "X-Forwarded-User", "X-Forwarded-For", "Forwarded", "X-Real-Ip",
		"X-Remote-User", "Remote-User", "X-Client-Cert", "X-Ssl-Client-Cert", "Ssl-Client-Verify", "X-Client-Verify", "Client-Cert",
		"Client-Cert-Chain", "X-Auth-Request-User", "X-Goog-Authenticated-User-Email", "X-Amzn-Mtls-Clientcert-Subject",
		"X-Arr-Clientcert", "X-Spiffe-Id", "X-User", "X-Api-Key", "Proxy-Authorization", "Cookie", "X-Original-Authorization",
		"X-Forwarded-Authorization", "X-Forwarded-Access-Token", "Workload-Identity-Token", "Workload-Proof-Token", "Txn-Token",
	}
	for _, name := range names {
		for _, spelling := range []string{name, strings.ToLower(name), strings.ToUpper(name), strings.ReplaceAll(name, "-", "_"), strings.ReplaceAll(name, "-", ".")} {
			for _, value := range values {
				h := http.Header{spelling: {value, value}}
				if got := answer(t, nobody, s, h, "{}"); got != string(writ.Unauthenticated) {
					t.Fatalf("%s: %s makes nobody somebody: %s", spelling, value, got)
				}
				if got, want := answer(t, somebody, s, h, "{}"), string(billing)+" mtls"; got != want {
					t.Fatalf("%s: %s changes who is calling: %s", spelling, value, got)
				}
			}
		}
	}
}

// TestH09Connection names the credentials in Connection, to have a hop drop
// them. What proves identity is not there for a client to take away.
func TestH09Connection(t *testing.T) {
	g, ca := trusting(t)
	s := listener(t, g)
	key := newECDSA(t, elliptic.P256())
	somebody := client(t, s, key, ca.leaf(t, key.Public(), string(billing), nil))
	bound := newEd25519(t)
	for _, drop := range []string{"X-Writ-Identity", "Authorization", "DPoP", "close, X-Forwarded-Client-Cert", "Authorization, DPoP"} {
		if got, want := answer(t, somebody, s, http.Header{"Connection": {drop}}, "{}"), string(billing)+" mtls"; got != want {
			t.Errorf("Connection: %s, over mTLS: %s", drop, got)
		}
		e := g.request(t, bound, g.issue(t, bound), nil, nil)
		h := http.Header{"Connection": {drop}, "Authorization": e.Authorization, "Dpop": e.Proof}
		if got, want := answer(t, client(t, s, nil), s, h, "{}"), string(billing)+" dpop"; got != want {
			t.Errorf("Connection: %s, by DPoP: %s", drop, got)
		}
	}
}

// TestH10Unavailable breaks what identity rests on. The answer is a refusal
// that says so, and never an identity.
func TestH10Unavailable(t *testing.T) {
	key := newEd25519(t)
	for name, tokens := range map[string]func(context.Context, string) (ed25519.PublicKey, error){
		"panics": func(context.Context, string) (ed25519.PublicKey, error) { panic("key source") },
		"panics with nil": func(context.Context, string) (ed25519.PublicKey, error) {
			var m map[string]int
			m["x"]++ //lint:ignore SA5000 it is to panic
			return nil, nil
		},
		"fails": func(context.Context, string) (ed25519.PublicKey, error) { return nil, errors.New("500") },
		"fails with a key": func(context.Context, string) (ed25519.PublicKey, error) {
			return newEd25519(t).Public().(ed25519.PublicKey), errors.New("500")
		},
		"times out": func(context.Context, string) (ed25519.PublicKey, error) { return nil, context.DeadlineExceeded },
	} {
		g := newGateway(t)
		right := g.Verifier.Tokens
		token := g.issue(t, key)
		g.Tokens = tokens
		g.refuses(t, "the key source "+name, g.request(t, key, token, nil, nil), writ.IdentityUnavailable)
		g.Tokens = right
		g.accepts(t, "the key source is back", g.request(t, key, token, nil, nil))
		g.Tokens = tokens
		g.refuses(t, "a token that was verified before; the key source "+name, g.request(t, key, token, nil, nil), writ.IdentityUnavailable)
	}
	g, ca := trusting(t)
	cert := ca.leaf(t, key.Public(), string(billing), nil)
	for name, e := range map[string]identity.Evidence{
		"a nil certificate":   {Chain: []*x509.Certificate{nil}},
		"an empty one":        {Chain: []*x509.Certificate{{}}},
		"a nil intermediate":  {Chain: []*x509.Certificate{cert, nil}},
		"our address unknown": func() identity.Evidence { e := g.request(t, key, g.issue(t, key), nil, nil); e.URL = ""; return e }(),
	} {
		p, err := g.Verify(context.Background(), e)
		if d, ok := errors.AsType[*writ.Denial](err); !ok || p.Caller.Agent != "" {
			t.Errorf("%s: %v, %v", name, p.Caller, err)
		} else if d.Code != writ.IdentityUnavailable && d.Code != writ.BadSVID {
			t.Errorf("%s: %v", name, err)
		}
	}
	g.Now = func() (zero time.Time) { return zero }
	g.refuses(t, "a clock that stands at the beginning", identity.Evidence{Chain: []*x509.Certificate{cert}}, writ.BadSVID)
	g.Now = func() time.Time { panic("s3cr3t") }
	if _, err := g.Verify(context.Background(), identity.Evidence{Chain: []*x509.Certificate{cert}}); strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("H63: what was panicked with is told: %v", err)
	}
	g.refuses(t, "a clock that panics", identity.Evidence{Chain: []*x509.Certificate{cert}}, writ.IdentityUnavailable)
}
