package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/writgate/writ"
)

const (
	maxHead = 16 << 10 // bytes of a request's line and fields
	slop    = 4 << 10  // what net/http reads beyond MaxHeaderBytes before it answers 431
)

// A strictConn lets through only requests that no two parsers of HTTP/1.1
// could take for something else (RFC 9112, section 11.2): the framing of
// every head is checked, byte for byte, before net/http sees any of it.
//
// There is one way to write a body, Content-Length. Transfer-Encoding is
// refused, as section 6.3 allows, and with it every quarrel between the two.
type strictConn struct {
	net.Conn
	refused func(writ.Code) // told of every head that was refused; may be nil
	closed  func()          // once, at Close

	in   []byte // read and not handed on
	room []byte // what in begins in, empty
	pass int    // bytes that may be handed on: a checked head and its body
	err  error
}

// A strictTLSConn is a strictConn over TLS.
type strictTLSConn struct {
	*strictConn
	tls *tls.Conn
}

// handshakeTimeout bounds what a stranger may hold open before there is a
// channel.
const handshakeTimeout = 10 * time.Second

// ConnectionState makes the handshake if it is not made. net/http asks for it
// before it reads, and makes it itself only over a bare *tls.Conn; a failed
// one shows at the first Read.
func (c *strictTLSConn) ConnectionState() tls.ConnectionState {
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	if err := c.tls.HandshakeContext(ctx); err != nil {
		c.err = errHandshake
	}
	return c.tls.ConnectionState()
}

// errHandshake ends a connection without an answer: there is no channel to
// give one on.
var errHandshake error = &net.OpError{Op: "read", Err: errors.New("no TLS connection")}

// Read hands on what was checked. net/http answers its errors about a head
// with 400 and closes the connection.
func (c *strictConn) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	for c.pass == 0 {
		n, err := checkHead(c.in)
		switch {
		case err != nil:
			if c.refused != nil {
				c.refused(writ.InvalidRequest)
			}
			c.err = err
			return 0, err
		case n > 0:
			c.pass = n
		case len(c.in) >= maxHead+slop:
			c.pass = len(c.in) // net/http has stopped reading before this: 431
		default:
			if err := c.more(); err != nil {
				return 0, err
			}
		}
	}
	p = p[:min(len(p), c.pass)]
	if len(c.in) == 0 {
		n, err := c.Conn.Read(p)
		c.pass -= n
		return n, err
	}
	n := copy(p, c.in)
	c.in, c.pass = c.in[n:], c.pass-n
	return n, nil
}

// more reads what there is. Its error is passed on but not kept: a deadline
// may be lifted again.
func (c *strictConn) more() error {
	if len(c.in) == 0 {
		c.in = c.room
	}
	if cap(c.in)-len(c.in) < 2<<10 {
		c.in = append(make([]byte, 0, len(c.in)+slop), c.in...)
		c.room = c.in[:0]
	}
	n, err := c.Conn.Read(c.in[len(c.in):min(cap(c.in), maxHead+slop)])
	c.in = c.in[:len(c.in)+n]
	if n > 0 {
		return nil
	}
	return err
}

// Close closes the connection, and says so once.
func (c *strictConn) Close() error {
	if c.closed != nil {
		c.closed()
	}
	return c.Conn.Close()
}

var (
	errLine    = errors.New("the request line is malformed")
	errField   = errors.New("a header field is malformed")
	errFraming = errors.New("the request is framed ambiguously")
)

// checkHead gives the length of the first request in b with its body, 0 if
// its head is not complete. It takes less than RFC 9112 lets a recipient take:
// no bare LF or CR, no folded field, no space around a field's name, one Host,
// at most one Content-Length, no Transfer-Encoding, nothing but HTTP/1.1.
func checkHead(b []byte) (int, error) {
	for i, c := range b { // bodies do not get here before their head has passed
		switch {
		case c == '\n' && (i == 0 || b[i-1] != '\r'):
			return 0, errFraming
		case c == '\n' && i >= 3 && b[i-3] == '\r' && b[i-2] == '\n':
			return checkLines(b[:i-3], i+1)
		case i > 0 && b[i-1] == '\r' && c != '\n', c == 0:
			return 0, errFraming
		}
	}
	return 0, nil
}

// checkLines checks the lines of a head, whose length is n.
func checkLines(head []byte, n int) (int, error) {
	line, rest, _ := bytes.Cut(head, []byte("\r\n"))
	if !isRequestLine(string(line)) {
		return 0, errLine
	}
	hosts, lengths, body := 0, 0, 0
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, ok := strings.Cut(string(line), ":")
		if !ok || !isToken(name) || !isFieldValue(value) {
			return 0, errField
		}
		switch strings.ToLower(name) {
		case "host":
			hosts++
		case "transfer-encoding":
			return 0, errFraming
		case "content-length":
			lengths++
			length, err := strconv.ParseUint(strings.Trim(value, " \t"), 10, 31)
			if err != nil {
				return 0, errFraming
			}
			body = int(length)
		}
	}
	if hosts != 1 || lengths > 1 {
		return 0, errFraming
	}
	return n + body, nil
}

// isRequestLine says whether s is a method, a target and HTTP/1.1, with one
// space between each.
func isRequestLine(s string) bool {
	method, s, ok := strings.Cut(s, " ")
	target, version, ok2 := strings.Cut(s, " ")
	if !ok || !ok2 || !isToken(method) || target == "" || version != "HTTP/1.1" {
		return false
	}
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

// isFieldValue says whether s holds no control character but a tab (RFC 9110,
// section 5.5).
func isFieldValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// isToken says whether s is a token (RFC 9110, section 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		alnum := c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
		if !alnum && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}
