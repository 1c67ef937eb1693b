package capability_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/writgate/writ/capability"
)

// TestSelfCheckingServerTLS is the same server over mutual TLS, where the
// channel is the proof: many send the same writ at once, one is served.
func TestSelfCheckingServerTLS(t *testing.T) {
	var paid atomic.Int64
	server := httptest.NewUnstartedServer(payments(verifier(t), "", func(*capability.Capability, []byte) { paid.Add(1) }))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert} // the key counts, not who vouches for it
	server.StartTLS()
	defer server.Close()
	client := func(key ed25519.PrivateKey) *http.Client {
		c := certificate(t, key)
		roots := x509.NewCertPool()
		roots.AddCert(server.Certificate())
		return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
			RootCAs: roots, Certificates: []tls.Certificate{{Certificate: [][]byte{c.Raw}, PrivateKey: key}},
		}}}
	}
	token := mint(t, gateway, paying(t))
	send := func(c *http.Client) (int, error) {
		r, err := http.NewRequest(http.MethodPost, server.URL+"/pay", bytes.NewReader([]byte(arguments)))
		if err != nil {
			return 0, err
		}
		r.Header.Set(capability.Header, token)
		answer, err := c.Do(r)
		if err != nil {
			return 0, err
		}
		defer answer.Body.Close()
		_, err = io.Copy(io.Discard, answer.Body)
		return answer.StatusCode, err
	}
	if status, err := send(client(thief)); status != http.StatusForbidden || err != nil {
		t.Errorf("a thief: %d, %v", status, err)
	}
	var all sync.WaitGroup
	var served atomic.Int64
	ours := client(holder)
	for range 16 {
		all.Go(func() {
			status, err := send(ours)
			switch {
			case err != nil:
				t.Error(err)
			case status == http.StatusOK:
				served.Add(1)
			case status != http.StatusForbidden:
				t.Errorf("status %d", status)
			}
		})
	}
	all.Wait()
	if served.Load() != 1 || paid.Load() != 1 {
		t.Errorf("%d served, %d paid, want one", served.Load(), paid.Load())
	}
}
