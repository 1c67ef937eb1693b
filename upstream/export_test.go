package upstream

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/writgate/writ/mcp"
)

// CheckAddress asks the guard.
func CheckAddress(a netip.Addr, named bool, allow ...netip.Prefix) error {
	return (&guard{allow: allow, named: named}).check(a)
}

// ClientWithResolver is Client with another source of addresses.
func ClientWithResolver(r *net.Resolver, allow ...netip.Prefix) *http.Client {
	return &http.Client{Transport: newGuarded(guard{allow: allow, resolver: r})}
}

// SetSilent changes how long a stream may be silent.
func (s *Set) SetSilent(name string, d time.Duration) { s.peers[name].http.silent = d }

// Kept is how many sessions an upstream has that are kept.
func (s *Set) Kept(name string) int {
	p := s.peers[name]
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.kept)
}

// Read reads one answer as if b were its body.
func Read(contentType string, status int, b []byte) (answer *mcp.Message, seen int, err error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	x := &exchange{body: []byte{}, each: func(m *mcp.Message) bool {
		seen++
		if m.Method == "" && m.ID == "1" {
			answer = m
		}
		return answer != nil
	}}
	resp := &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(bytes.NewReader(b)), ContentLength: -1}
	err = x.read(ctx, cancel, resp, time.Minute)
	return answer, seen, err
}
