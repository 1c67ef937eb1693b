package devca_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/writgate/writ/identity"
	"github.com/writgate/writ/identity/devca"
)

var now = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

func authority(t *testing.T) (*devca.CA, []byte) {
	t.Helper()
	file, err := devca.Generate(now)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := devca.Parse(file, devca.Environment)
	if err != nil {
		t.Fatal(err)
	}
	return ca, file
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestOneDomain(t *testing.T) {
	if devca.Environment != identity.Development {
		t.Errorf("the authority works in %q, tokens are for %q", devca.Environment, identity.Development)
	}
	if devca.TrustDomain != identity.DevelopmentDomain {
		t.Errorf("the authority issues for %q, verifiers fence off %q", devca.TrustDomain, identity.DevelopmentDomain)
	}
}

func TestRefusesOtherEnvironments(t *testing.T) {
	_, file := authority(t)
	for _, env := range []string{"", "production", "Development", "staging"} {
		if _, err := devca.Parse(file, env); err == nil {
			t.Errorf("Parse took environment %q", env)
		}
	}
}

func TestRefusesOtherFiles(t *testing.T) {
	_, file := authority(t)
	_, other := authority(t)
	key, cert := file[:bytes.Index(file, []byte("-----BEGIN CERT"))], file[bytes.Index(file, []byte("-----BEGIN CERT")):]
	otherCert := other[bytes.Index(other, []byte("-----BEGIN CERT")):]
	for name, bad := range map[string][]byte{
		"empty":          nil,
		"key alone":      key,
		"cert alone":     cert,
		"another's cert": append(bytes.Clone(key), otherCert...),
		"two certs":      append(bytes.Clone(file), cert...),
		"trailing":       append(bytes.Clone(file), "x"...),
	} {
		if _, err := devca.Parse(bad, devca.Environment); err == nil {
			t.Errorf("Parse took a file with %s", name)
		}
	}
}

func TestIssues(t *testing.T) {
	ca, _ := authority(t)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, pub := range []crypto.PublicKey{newKey(t).Public(), edKey.Public()} {
		der, err := ca.Issue("/agent/billing", pub, now)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.URIs[0].String(); got != "spiffe://writ.localhost/agent/billing" {
			t.Errorf("URI = %s", got)
		}
		if got := c.NotAfter.Sub(now); got != devca.Lifetime {
			t.Errorf("lifetime = %v", got)
		}
		if err := c.CheckSignatureFrom(ca.Authority()); err != nil {
			t.Error(err)
		}
	}
	for _, path := range []string{"", "agent", "/", "/a//b", "/a/../b", "/a/", "/a%2fb", "/a?x", "/é"} {
		if _, err := ca.Issue(path, newKey(t).Public(), now); err == nil {
			t.Errorf("Issue took path %q", path)
		}
	}
	if _, err := ca.Issue("/agent/x", newKey(t).Public(), now.Add(365*24*time.Hour)); err == nil {
		t.Error("Issue outlived its authority")
	}
	if _, err := new(devca.CA).Issue("/agent/x", newKey(t).Public(), now); err == nil {
		t.Error("the zero CA issued")
	}
}

// TestServes is a client that trusts the bundle alone, against a server with
// the gateway's certificate.
func TestServes(t *testing.T) {
	ca, _ := authority(t)
	key := newKey(t)
	der, err := ca.IssueServer("/gateway", key.Public(), now, []string{"localhost", "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca.Bundle()) {
		t.Fatal("bundle holds no certificate")
	}
	clock := func() time.Time { return now }
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, Time: clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for _, name := range []string{"localhost", "127.0.0.1", "elsewhere.example"} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			if conn, err := listener.Accept(); err == nil {
				conn.(*tls.Conn).Handshake() // the client judges it
				conn.Close()
			}
		}()
		conn, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{RootCAs: pool, ServerName: name, Time: clock})
		if err == nil {
			conn.Close()
		}
		<-done
		if (err == nil) != (name != "elsewhere.example") {
			t.Errorf("handshake with %s: %v", name, err)
		}
	}
	if _, err := ca.IssueServer("/gateway", key.Public(), now, nil); err == nil {
		t.Error("a serving certificate for no host")
	}
}

func TestErrorsHoldNoKey(t *testing.T) {
	_, file := authority(t)
	block, rest := pem.Decode(file)
	block.Bytes[3] ^= 1
	_, err := devca.Parse(append(pem.EncodeToMemory(block), rest...), devca.Environment)
	if err == nil {
		t.Fatal("Parse took a broken key")
	}
	if strings.Contains(err.Error(), "asn1") {
		t.Errorf("error quotes the parser: %v", err)
	}
}
