package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	maxLean  = 64 << 10         // bytes of a body that a socket takes whole, whether its peer reads or not
	maxHead  = 64 << 10         // bytes of an answer's head
	maxConns = 256              // of one endpoint
	maxIdle  = 64               // of them, that nobody uses
	idleConn = 30 * time.Second // after which one of those is closed
	maxEarly = 5                // informational answers before the answer
)

// A lean sends small requests without TLS. It does what http.Transport does
// for those, on the goroutine of the call instead of on two of each connection,
// for half the CPU: most upstreams are a process next door.
type lean struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	url  *url.URL
	room chan struct{} // has an element for each connection in use

	mu   sync.Mutex
	idle []*leanConn // the newest last
}

// A leanConn is one connection, used by one call at a time.
type leanConn struct {
	net.Conn
	of   *lean
	in   *bufio.Reader
	left int64 // bytes that may be read
	out  []byte
	over *time.Timer // of being idle
}

// newLean gives nil for an address that is written in another way on the wire.
func newLean(g guard, u *url.URL) *lean {
	if u.Scheme != "http" || !isFieldValue(u.Host) || strings.ContainsFunc(u.Host, func(r rune) bool { return r == '%' || r > '~' }) {
		return nil
	}
	return &lean{dial: g.dialer().DialContext, url: u, room: make(chan struct{}, maxConns)}
}

var errHead = errors.New("the head of the answer is too large")

// Read implements io.Reader for in.
func (c *leanConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errHead
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

// post sends one request with its whole body. Connected says whether there was
// a connection to send it on.
func (l *lean) post(ctx context.Context, h http.Header, body []byte) (resp *http.Response, connected bool, err error) {
	select {
	case l.room <- struct{}{}:
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	}
	for {
		c, used, err := l.conn(ctx)
		if err == nil && ctx.Err() != nil {
			c.Close()
			err = ctx.Err()
		}
		if err != nil {
			<-l.room
			return nil, connected, cause(ctx, err)
		}
		connected = true
		if c.out, err = l.request(c.out[:0], h, body); err != nil {
			c.drop()
			return nil, false, err
		}
		stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
		n, err := c.Write(c.out)
		if err == nil {
			if resp, err = c.answer(); err == nil {
				resp.Body = &leanBody{ReadCloser: resp.Body, c: c, stop: stop, reuse: !resp.Close}
				return resp, true, nil
			}
		}
		stop()
		if n == 0 && used && ctx.Err() == nil { // its peer had closed it
			c.Close()
			continue
		}
		c.drop()
		return nil, true, cause(ctx, err)
	}
}

// cause is why a request was given up, if it was.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// conn gives a connection that nobody uses and its peer has not closed, or a
// new one.
func (l *lean) conn(ctx context.Context) (c *leanConn, used bool, err error) {
	for {
		l.mu.Lock()
		n := len(l.idle)
		if n == 0 {
			l.mu.Unlock()
			break
		}
		c, l.idle = l.idle[n-1], l.idle[:n-1]
		l.mu.Unlock()
		c.over.Stop()
		if c.in.Buffered() == 0 && quiet(c.Conn) {
			return c, true, nil
		}
		c.Close()
	}
	address := l.url.Host
	if l.url.Port() == "" {
		address = net.JoinHostPort(l.url.Hostname(), "80")
	}
	conn, err := l.dial(ctx, "tcp", address)
	if err != nil {
		return nil, false, err
	}
	c = &leanConn{Conn: conn, of: l}
	c.in = bufio.NewReader(c)
	c.over = time.AfterFunc(idleConn, c.expire)
	c.over.Stop()
	return c, false, nil
}

// request appends a whole request. No header that could end where it should
// not is sent.
func (l *lean) request(b []byte, h http.Header, body []byte) ([]byte, error) {
	b = append(append(append(b, "POST "...), l.url.RequestURI()...), " HTTP/1.1\r\nHost: "...)
	b = append(append(b, l.url.Host...), "\r\n"...)
	for name, values := range h {
		for _, v := range values {
			if !isToken(name) || !isFieldValue(v) {
				return b, fmt.Errorf("the header %.40q cannot be sent", name)
			}
			b = append(append(append(append(b, name...), ": "...), v...), "\r\n"...)
		}
	}
	b = strconv.AppendInt(append(b, "Content-Length: "...), int64(len(body)), 10)
	return append(append(b, "\r\n\r\n"...), body...), nil
}

// answer reads the head of the answer.
func (c *leanConn) answer() (*http.Response, error) {
	c.left = maxHead
	for range maxEarly {
		resp, err := http.ReadResponse(c.in, nil)
		switch {
		case err != nil:
			return nil, err
		case resp.StatusCode >= 200:
			c.left = math.MaxInt64
			return resp, nil
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return nil, errors.New("the answer changes the protocol")
		}
	}
	return nil, errors.New("too many answers before the answer")
}

// A leanBody is the body of an answer. Its connection is kept if it was read to
// its end.
type leanBody struct {
	io.ReadCloser
	c     *leanConn
	stop  func() bool // lets the connection be
	reuse bool
	once  sync.Once
}

// Read implements io.Reader.
func (b *leanBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.done(err == io.EOF && b.reuse)
	}
	return n, err
}

// Close implements io.Closer.
func (b *leanBody) Close() error {
	b.done(false)
	return nil
}

func (b *leanBody) done(reuse bool) {
	b.once.Do(func() {
		if b.stop() && reuse {
			b.c.keep()
		} else {
			b.c.drop()
		}
	})
}

// keep lets the next call use a connection.
func (c *leanConn) keep() {
	l := c.of
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.idle) < maxIdle {
		c.over.Reset(idleConn)
		l.idle = append(l.idle, c)
	} else {
		c.Close()
	}
	<-l.room
}

// drop ends a connection that somebody used.
func (c *leanConn) drop() {
	c.over.Stop()
	c.Close()
	<-c.of.room
}

// expire ends a connection that nobody used for long.
func (c *leanConn) expire() {
	l := c.of
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.idle, c); i >= 0 {
		l.idle = slices.Delete(l.idle, i, i+1)
		c.Close()
	}
}

// close ends the connections that nobody uses.
func (l *lean) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.idle {
		c.over.Stop()
		c.Close()
	}
	l.idle = nil
}

// isFieldValue says whether s can be sent as a field's value (RFC 9110, 5.5).
func isFieldValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// isToken says whether s is a token (RFC 9110, 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}
