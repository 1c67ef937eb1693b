package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/identity"
	"github.com/writgate/writ/server/admin/api"
)

// A sidecar holds an agent's key, so that the agent does not. What the agent
// sends to it goes on to the gateway with the run's token and a fresh proof of
// the key over exactly that request, body included.
type sidecar struct {
	key    ed25519.PrivateKey
	name   writ.Thumbprint // of the key
	admin  *api.Client
	client *http.Client

	mu  sync.Mutex
	run api.Run // with the token that is good now
}

// newSidecar makes a key, opens the run that ask describes for it, and gives
// the sidecar of the run. Ask gets the thumbprint of the key.
func newSidecar(dir string, admin *api.Client, ask func(*api.Client, writ.Thumbprint) (*api.Run, error)) (*sidecar, error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	thumbprint, err := identity.Thumbprint(pub)
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, refuse("%s is not the data directory of a gateway for development; an agent with an identity of its own gets a task by writ tasks open", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("reading who vouches for the gateway: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("ca.pem holds no certificate")
	}
	s := &sidecar{key: key, name: thumbprint, admin: admin}
	s.client = &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13},
			MaxIdleConnsPerHost: 64,
			IdleConnTimeout:     time.Minute,
			DisableCompression:  true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	run, err := ask(s.admin, thumbprint)
	if err != nil {
		return nil, err
	}
	s.run = *run
	return s, nil
}

// token gives the token that is good now, and a new one shortly before it
// ends. A run without a task is as good as its one token.
func (s *sidecar) token(ctx context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := time.Until(time.UnixMilli(int64(s.run.Expires)))
	if left > time.Minute || s.run.Task == "" && left > 0 {
		return s.run.Token, nil
	}
	if s.run.Task == "" {
		return "", errors.New("this run has no task, and its token has ended: start it with --task")
	}
	var next api.Run
	if err := s.admin.Post(ctx, "/runs/"+string(s.run.Task)+"/token", struct{}{}, &next); err != nil {
		return "", err
	}
	s.run.Token, s.run.Expires = next.Token, next.Expires
	return s.run.Token, nil
}

// task is the open task of the run's key: the one that was opened for it, or
// the one that its first call made, if nobody did and there was a call.
func (s *sidecar) task(ctx context.Context) (writ.TaskID, error) {
	if s.run.Task != "" {
		return s.run.Task, nil
	}
	for after := ""; ; {
		var page api.Page[api.Task]
		if err := s.admin.Get(ctx, "/tasks?state=open&limit=1000&after="+after, &page); err != nil {
			return "", err
		}
		for _, t := range page.Items {
			if t.Key == s.name {
				return t.ID, nil
			}
		}
		if after = page.Next; after == "" {
			return "", nil
		}
	}
}

// passed are the headers that go on to the gateway, and those that come back.
var (
	passedUp   = []string{"Accept", "Content-Type", "Mcp-Session-Id", "Mcp-Protocol-Version", "Mcp-Method", "Mcp-Name", "Last-Event-Id"}
	passedDown = []string{"Content-Type", "Cache-Control", "Mcp-Session-Id", "X-Accel-Buffering", "Retry-After", "Allow"}
)

// send carries one request to the gateway: below names an upstream, or is
// empty for all of them.
func (s *sidecar) send(ctx context.Context, method, below string, from http.Header, body []byte) (*http.Response, error) {
	token, err := s.token(ctx)
	if err != nil {
		return nil, err
	}
	target := s.run.Audience + below
	proof, err := identity.Prove(s.key, &identity.Evidence{Method: method, URL: target, Body: body}, token, time.Now())
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for _, name := range passedUp {
		if v := from.Values(name); v != nil {
			req.Header[http.CanonicalHeaderKey(name)] = v
		}
	}
	for name, v := range from {
		if strings.HasPrefix(name, "Mcp-Param-") {
			req.Header[name] = v
		}
	}
	req.Header.Set("Authorization", "DPoP "+token)
	req.Header.Set("DPoP", proof)
	req.Header.Set("User-Agent", "writ-run")
	return s.client.Do(req)
}

// A door lets one agent in to its sidecar by HTTP on loopback. The secret in
// the path is the run's own: whoever does not know it is told nothing.
type door struct {
	*sidecar
	host    string            // its own address, and localhost with its port, are the values of Host that it takes
	secret  [sha256.Size]byte // the digest of the path's first segment
	allowed func(r *http.Request) error
}

// local refuses what a page in a browser could have sent: a name that was
// bound to this address, or another origin (hostile case H66).
func (d *door) local(r *http.Request) error {
	_, port, _ := strings.Cut(d.host, ":")
	hosts := []string{d.host, "localhost:" + port}
	if !slices.Contains(hosts, r.Host) {
		return errors.New("this endpoint has another name")
	}
	for _, origin := range r.Header.Values("Origin") {
		if !slices.Contains(hosts, strings.TrimPrefix(origin, "http://")) {
			return errors.New("this endpoint serves no other origin")
		}
	}
	return nil
}

const maxMessage = 1 << 20

// ServeHTTP passes one request on.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	first, below, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	given := sha256.Sum256([]byte(first))
	if subtle.ConstantTimeCompare(given[:], d.secret[:]) != 1 {
		http.NotFound(w, r)
		return
	}
	if err := errors.Join(d.local(r), d.allowed(r)); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	if below != "" {
		below = "/" + below
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxMessage))
	if err != nil {
		http.Error(w, "the message is too large", http.StatusRequestEntityTooLarge)
		return
	}
	resp, err := d.send(r.Context(), r.Method, below, r.Header, body)
	if err != nil {
		http.Error(w, "the gateway could not be reached: "+err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	for _, name := range passedDown {
		if v := resp.Header.Values(name); v != nil {
			w.Header()[name] = v
		}
	}
	w.WriteHeader(resp.StatusCode)
	stream(w, resp.Body)
}

// stream copies what comes, as it comes.
func stream(w http.ResponseWriter, from io.Reader) {
	out := http.NewResponseController(w)
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil || out.Flush() != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
