package identity_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/writgate/writ"
	"github.com/writgate/writ/identity"
	"github.com/writgate/writ/identity/devca"
)

var acme = spiffeid.RequireTrustDomainFromString("acme.example")

// An authority signs certificates of a trust domain.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// san is a subject alternative name of URIs, letter for letter.
func san(t testing.TB, uris ...string) pkix.Extension {
	t.Helper()
	var names []asn1.RawValue
	for _, u := range uris {
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(u)})
	}
	value, err := asn1.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}
}

// newAuthority is self-signed if by is nil.
func newAuthority(t testing.TB, by *authority, from, to time.Time) *authority {
	t.Helper()
	a := &authority{key: newECDSA(t, elliptic.P256())}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: fmt.Sprintf("authority %p", a)},
		NotBefore: from, NotAfter: to, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	parent := by
	if by == nil {
		parent = &authority{cert: template, key: a.key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.cert, a.key.Public(), parent.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

// leaf gives a workload's certificate, and nil if package x509 refuses to
// parse it at all, as TLS then would.
func (a *authority) leaf(t testing.TB, pub crypto.PublicKey, id string, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: start.Add(-time.Minute), NotAfter: start.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		ExtraExtensions: []pkix.Extension{san(t, id)},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, pub, a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil
	}
	return cert
}

// trusting is a gateway that trusts an authority of acme.example.
func trusting(t testing.TB) (*gateway, *authority) {
	t.Helper()
	g, ca := newGateway(t), newAuthority(t, nil, start.Add(-time.Hour), start.Add(24*time.Hour))
	if err := g.Bundles.Set(acme, []*x509.Certificate{ca.cert}, start.Add(12*time.Hour)); err != nil {
		t.Fatal(err)
	}
	return g, ca
}

// spiffeIDs are vectors of the SPIFFE ID specification, section 2, and of
// what has been tried against it.
var spiffeIDs = []struct {
	id   string
	good bool
}{
	{"spiffe://acme.example/agent/billing", true},
	{"spiffe://acme.example/a", true},
	{"spiffe://acme.example/a.b_c-D/..e", true},
	{"spiffe://acme.example/...", true},
	{"spiffe://acme.example", false},
	{"spiffe://acme.example/", false},
	{"spiffe://acme.example/agent/", false},
	{"spiffe://acme.example//agent", false},
	{"spiffe://acme.example/agent//billing", false},
	{"spiffe://acme.example/agent/./billing", false},
	{"spiffe://acme.example/agent/../billing", false},
	{"spiffe://acme.example/..", false},
	{"spiffe://acme.example/agent%2fbilling", false},
	{"spiffe://acme.example/agent%2Fbilling", false},
	{"spiffe://acme.example/agent/b%69lling", false},
	{"spiffe://acme.example/agent/bïlling", false},
	{"spiffe://acme.example/agent/billing ", false},
	{"spiffe://acme.example/agent/billing\x00", false},
	{"spiffe://acme.example/agent\\billing", false},
	{"spiffe://acme.example/agent/billing?x=y", false},
	{"spiffe://acme.example/agent/billing?", false},
	{"spiffe://acme.example/agent/billing#f", false},
	{"spiffe://acme.example/agent/billing#", false},
	{"spiffe://ACME.example/agent/billing", false},
	{"spiffe://acme.example:443/agent/billing", false},
	{"spiffe://acme.example:/agent/billing", false},
	{"spiffe://root@acme.example/agent/billing", false},
	{"spiffe://@acme.example/agent/billing", false},
	{"spiffe://acme%2eexample/agent/billing", false},
	{"spiffe://äcme.example/agent/billing", false},
	{"spiffe:///agent/billing", false},
	{"spiffe:acme.example/agent/billing", false},
	{"SPIFFE://acme.example/agent/billing", false},
	{"Spiffe://acme.example/agent/billing", false},
	{"https://acme.example/agent/billing", false},
	{"//acme.example/agent/billing", false},
	{"acme.example/agent/billing", false},
	{" spiffe://acme.example/agent/billing", false},
	{"", false},
}

// TestH06SPIFFEID holds that an ID in a certificate is the one text it is.
func TestH06SPIFFEID(t *testing.T) {
	g, ca := trusting(t)
	key := newECDSA(t, elliptic.P256())
	for _, v := range spiffeIDs {
		if got, err := identity.ParseAgent(v.id); (err == nil) != v.good || err == nil && string(got) != v.id {
			t.Errorf("ParseAgent(%q) = %q, %v", v.id, got, err)
		}
		cert := ca.leaf(t, key.Public(), v.id, nil)
		if cert == nil {
			if v.good {
				t.Errorf("certificate of %q does not parse", v.id)
			}
			continue
		}
		e := identity.Evidence{Chain: []*x509.Certificate{cert}}
		if !v.good {
			g.refuses(t, v.id, e, writ.BadSVID)
		} else if p := g.accepts(t, v.id, e); string(p.Caller.Agent) != v.id {
			t.Errorf("certificate of %q is %q", v.id, p.Caller.Agent)
		}
	}
	for name, n := range map[string]int{"spiffe://acme.example/": 2048, "spiffe://": 255} {
		fits := name + strings.Repeat("a", n-len(name))
		if name == "spiffe://" {
			fits = name + strings.Repeat("a", n) + "/a"
		}
		if _, err := identity.ParseAgent(fits); err != nil {
			t.Errorf("an ID of %d bytes: %v", len(fits), err)
		}
		if _, err := identity.ParseAgent(strings.Replace(fits, "a", "aa", 1)); err == nil {
			t.Errorf("an ID of %d bytes, one too many, is taken", len(fits)+1)
		}
	}
}

// TestH06BadSVID is certificates that are no X.509-SVID of ours now.
func TestH06BadSVID(t *testing.T) {
	g, ca := trusting(t)
	key := newECDSA(t, elliptic.P256())
	other := newAuthority(t, nil, start.Add(-time.Hour), start.Add(24*time.Hour))
	inter := newAuthority(t, ca, start.Add(-time.Second), start.Add(time.Minute))
	expired := newAuthority(t, ca, start.Add(-time.Hour), start.Add(-time.Second))
	future := newAuthority(t, ca, start.Add(time.Minute), start.Add(time.Hour))
	small := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 1023, 1), E: 65537}
	leaf := func(by *authority, change func(*x509.Certificate)) *x509.Certificate {
		return by.leaf(t, key.Public(), string(billing), change)
	}
	with := func(change func(*x509.Certificate)) []*x509.Certificate {
		return []*x509.Certificate{leaf(ca, change)}
	}
	for name, chain := range map[string][]*x509.Certificate{
		"self-signed by another": {leaf(other, nil)},
		"with its own root":      {leaf(other, nil), other.cert},
		"expired":                with(func(c *x509.Certificate) { c.NotAfter = start.Add(-time.Second) }),
		"not yet valid":          with(func(c *x509.Certificate) { c.NotBefore = start.Add(time.Second) }),
		"expired intermediate":   {leaf(expired, nil), expired.cert},
		"intermediate to come":   {leaf(future, nil), future.cert},
		"intermediate left out":  {leaf(inter, nil)},
		"two URI names": with(func(c *x509.Certificate) {
			c.ExtraExtensions[0] = san(t, string(billing), "spiffe://acme.example/root")
		}),
		"the same URI name twice":   with(func(c *x509.Certificate) { c.ExtraExtensions[0] = san(t, string(billing), string(billing)) }),
		"an https URI too":          with(func(c *x509.Certificate) { c.ExtraExtensions[0] = san(t, string(billing), "https://acme.example") }),
		"no URI name":               with(func(c *x509.Certificate) { c.ExtraExtensions = nil; c.DNSNames = []string{"acme.example"} }),
		"only a common name":        with(func(c *x509.Certificate) { c.ExtraExtensions = nil; c.Subject.CommonName = string(billing) }),
		"a trust domain's":          {ca.leaf(t, key.Public(), "spiffe://acme.example", nil)},
		"another trust domain":      {ca.leaf(t, key.Public(), "spiffe://other.example/agent", nil)},
		"a subdomain":               {ca.leaf(t, key.Public(), "spiffe://a.acme.example/agent", nil)},
		"the authority itself":      {ca.cert},
		"an authority as a leaf":    with(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }),
		"may sign certificates":     with(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }),
		"may sign CRLs":             with(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }),
		"may not sign":              with(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }),
		"no key usage":              with(func(c *x509.Certificate) { c.KeyUsage = 0 }),
		"for servers only":          with(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
		"signed by a leaf":          {leaf(&authority{leaf(ca, nil), key}, nil), leaf(ca, nil)},
		"unknown critical":          with(func(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, critical) }),
		"RSA of 1024 bits":          {ca.leaf(t, small, string(billing), nil)},
		"P-521":                     {ca.leaf(t, newECDSA(t, elliptic.P521()).Public(), string(billing), nil)},
		"of the development domain": {ca.leaf(t, key.Public(), "spiffe://writ.localhost/agent/a", nil)},
	} {
		g.refuses(t, name, identity.Evidence{Chain: chain}, writ.BadSVID)
	}
	good := identity.Evidence{Chain: []*x509.Certificate{leaf(inter, nil), inter.cert}}
	p := g.accepts(t, "through an intermediate", good)
	if p.Caller.Agent != billing || p.Caller.Proof != writ.ProofTLS || p.Caller.Key != thumbprint(t, key) || !p.Bound || p.Once != nil {
		t.Errorf("proved %+v", p)
	}
	if p.Until != start.Add(time.Minute).UnixMilli() {
		t.Errorf("until %d, want the end of the intermediate", p.Until)
	}
	g.now = start.Add(time.Minute + time.Second)
	g.refuses(t, "after the intermediate expired, from the cache", good, writ.BadSVID)
	g.now = start.Add(-2 * time.Second)
	g.refuses(t, "before the intermediate, from the cache", good, writ.BadSVID)
}

var critical = pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}

// TestH06OneKeyOneName holds that a key has one name, however it is proven.
func TestH06OneKeyOneName(t *testing.T) {
	g, ca := trusting(t)
	key := newECDSA(t, elliptic.P384())
	overTLS := g.accepts(t, "mTLS", identity.Evidence{Chain: []*x509.Certificate{ca.leaf(t, key.Public(), string(billing), nil)}})
	overDPoP := g.accepts(t, "DPoP", g.request(t, key, g.issue(t, key), nil, nil))
	if overTLS.Caller.Key != overDPoP.Caller.Key || overTLS.Caller.Key == "" {
		t.Errorf("key is %q over mTLS and %q by DPoP", overTLS.Caller.Key, overDPoP.Caller.Key)
	}
}

// TestDevelopmentDomain holds the development authority's agents out of every
// other gateway.
func TestDevelopmentDomain(t *testing.T) {
	file, err := devca.Generate(start)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := devca.Parse(file, devca.Environment)
	if err != nil {
		t.Fatal(err)
	}
	g := newGateway(t)
	td := spiffeid.RequireTrustDomainFromString(identity.DevelopmentDomain)
	if err := g.Bundles.Set(td, []*x509.Certificate{ca.Authority()}, start.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	key := newECDSA(t, elliptic.P256())
	der, err := ca.Issue("/agent/a", key.Public(), start)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	e := identity.Evidence{Chain: []*x509.Certificate{cert}}
	g.refuses(t, "in production, though its bundle is there", e, writ.BadSVID)
	g.Development = true
	g.accepts(t, "in development", e)
	g.Development = false
	g.refuses(t, "in production, from the cache", e, writ.BadSVID)
}

// TestH07Bundle is a bundle endpoint that fails in every way. The last good
// bundle stays until its time is over, and then nobody is accepted.
func TestH07Bundle(t *testing.T) {
	g, ca := newGateway(t), newAuthority(t, nil, start.Add(-time.Hour), start.Add(24*time.Hour))
	evil := newAuthority(t, nil, start.Add(-time.Hour), start.Add(24*time.Hour))
	document := func(a *authority, sequence uint64) string {
		b := spiffebundle.FromX509Authorities(acme, []*x509.Certificate{a.cert})
		b.SetSequenceNumber(sequence)
		text, err := b.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	var answer atomic.Pointer[string]
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		text := *answer.Load()
		if text == "500" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		io.WriteString(w, text)
	}))
	defer endpoint.Close()
	refresh := func(text string, until time.Time) error {
		answer.Store(&text)
		resp, err := http.Get(endpoint.URL)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		return g.Bundles.Read(acme, body, until)
	}
	key := newECDSA(t, elliptic.P256())
	e := identity.Evidence{Chain: []*x509.Certificate{ca.leaf(t, key.Public(), string(billing), nil)}}
	forged := identity.Evidence{Chain: []*x509.Certificate{evil.leaf(t, key.Public(), string(billing), nil)}}
	g.refuses(t, "before there is a bundle", e, writ.BadSVID)
	end := start.Add(10 * time.Minute)
	if err := refresh(document(ca, 7), end); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"an older bundle":     document(evil, 6),
		"empty":               `{"keys":[],"spiffe_sequence":8}`,
		"keys null":           `{"keys":null,"spiffe_sequence":8}`,
		"no keys":             `{"spiffe_sequence":8}`,
		"nothing":             "",
		"an error":            "500",
		"an array":            "[]",
		"an error page":       "<html>",
		"a duplicate":         `{"keys":[],` + document(evil, 8)[1:],
		"the last number":     strings.Replace(document(evil, 9), `"spiffe_sequence":9`, `"spiffe_sequence":18446744073709551615`, 1),
		"no sequence":         strings.Replace(document(evil, 9), `"spiffe_sequence":9`, `"spiffe_refresh_hint":9`, 1),
		"a leaf as authority": document(&authority{cert: e.Chain[0]}, 8),
	} {
		if name == "the last number" || name == "no sequence" {
			if err := json.Unmarshal([]byte(text), new(any)); err != nil || text == document(evil, 9) {
				t.Fatalf("%s: the vector is not what it says", name)
			}
		}
		if err := refresh(text, start.Add(24*time.Hour)); err == nil {
			t.Errorf("a bundle was taken: %s", name)
		}
		g.accepts(t, "the last good bundle, after "+name, e)
		g.refuses(t, "another authority, after "+name, forged, writ.BadSVID)
	}
	g.now = end
	g.refuses(t, "at the end of the last good bundle", e, writ.BadSVID)
	if err := refresh(document(ca, 7), end.Add(time.Minute)); err != nil {
		t.Errorf("the same bundle, renewed: %v", err)
	}
	g.accepts(t, "renewed", e)
	if err := refresh(document(evil, 8), end.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	g.refuses(t, "of an authority that was replaced, from the cache", e, writ.BadSVID)
	if err := g.Bundles.Set(acme, nil, end.Add(time.Hour)); err == nil {
		t.Error("an empty set of authorities was taken")
	}
}

// TestChannelAndToken shows a certificate and a token in one request.
func TestChannelAndToken(t *testing.T) {
	g, ca := trusting(t)
	key, tls := newEd25519(t), newECDSA(t, elliptic.P256())
	own := ca.leaf(t, tls.Public(), string(billing), func(c *x509.Certificate) { c.NotAfter = start.Add(time.Minute) })
	others := ca.leaf(t, tls.Public(), "spiffe://acme.example/agent/other", nil)
	with := func(chain ...*x509.Certificate) identity.Evidence {
		e := g.request(t, key, g.issue(t, key), nil, nil)
		e.Chain = chain
		return e
	}
	p := g.accepts(t, "of one agent", with(own))
	if p.Caller.Key != thumbprint(t, key) || p.Caller.Proof != writ.ProofDPoP || p.Until != start.Add(time.Minute).UnixMilli() {
		t.Errorf("proved %+v", p)
	}
	g.refuses(t, "of two agents", with(others), writ.NoPossession)
	rogue := newAuthority(t, nil, start, start.Add(time.Hour))
	g.refuses(t, "a certificate of nobody's", with(rogue.leaf(t, tls.Public(), string(billing), nil)), writ.BadSVID)
	e := with(own)
	e.Authorization = append(e.Authorization, e.Authorization...)
	g.refuses(t, "two tokens", e, writ.Unauthenticated)
	e.Proof = nil
	g.refuses(t, "two tokens over a good channel, without proofs", e, writ.Unauthenticated)
	e = with(own)
	e.Proof = nil
	g.refuses(t, "H04: a token over its agent's own channel, without its key", e, writ.NoPossession)
	g.refuses(t, "a proof without a token", identity.Evidence{Chain: e.Chain, Proof: with().Proof}, writ.Unauthenticated)
}

// TestThumbprint is the vectors of RFC 8037, A.3 and RFC 7638, 3.1.
func TestThumbprint(t *testing.T) {
	x, err := base64.RawURLEncoding.DecodeString("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
	if err != nil {
		t.Fatal(err)
	}
	got, err := identity.Thumbprint(ed25519.PublicKey(x))
	if want := writ.Thumbprint("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"); err != nil || got != want {
		t.Errorf("Thumbprint = %s, %v, want %s", got, err, want)
	}
	n, err := base64.RawURLEncoding.DecodeString("0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw")
	if err != nil {
		t.Fatal(err)
	}
	got, err = identity.Thumbprint(&rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537})
	if want := writ.Thumbprint("NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"); err != nil || got != want {
		t.Errorf("Thumbprint = %s, %v, want %s", got, err, want)
	}
	for _, pub := range []crypto.PublicKey{nil, "key", ed25519.PublicKey(nil), &ecdsa.PublicKey{}, &rsa.PublicKey{}, newECDSA(t, elliptic.P224()).Public()} {
		if got, err := identity.Thumbprint(pub); err == nil {
			t.Errorf("Thumbprint(%T) = %s", pub, got)
		}
	}
}
