package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/writgate/writ/identity"
)

// A benchLine is one kept-alive connection to a target, and who calls on it.
type benchLine struct {
	conn  net.Conn
	in    *bufio.Reader
	place *benchPlace
	agent *benchAgent // nil: nobody asks who calls
	proof bool        // whether every call is proven anew, or the channel proves it
	calls int
	stock [][]byte // requests whose proofs are made
	last  time.Time
}

// benchIdle is how long a connection may have been quiet: servers close those
// that are longer, and another target's turn may take that long.
const benchIdle = 5 * time.Second

// dial opens a connection. Over mutual TLS the agent's certificate is shown in
// the handshake.
func (l *benchLine) dial() error {
	conn, err := net.DialTimeout("tcp", l.place.Addr, 10*time.Second)
	if err != nil {
		return err
	}
	if l.agent != nil {
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(l.place.CA) {
			return errors.New("the gateway's authority is no certificate")
		}
		c := &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS13}
		if !l.proof {
			c.Certificates = []tls.Certificate{{Certificate: [][]byte{l.agent.SVID}, PrivateKey: l.agent.Key}}
		}
		over := tls.Client(conn, c)
		if err := over.Handshake(); err != nil {
			return err
		}
		conn = over
	}
	l.conn, l.in, l.last = conn, bufio.NewReader(conn), time.Now()
	return nil
}

// request writes the next request, with a proof of exactly it.
func (l *benchLine) request() ([]byte, error) {
	l.calls++
	u, err := url.Parse(l.place.URL)
	if err != nil {
		return nil, err
	}
	body := fmt.Appendf(make([]byte, 0, 1536), `{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"_meta":{`+
		`"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"},`+
		`"io.modelcontextprotocol/clientCapabilities":{}},"name":"%s","arguments":%s}}`, l.calls, benchCalled, benchArguments(l.calls))
	head := fmt.Appendf(make([]byte, 0, 3072), "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"+
		"Mcp-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: %s\r\nContent-Length: %d\r\n", u.Path, u.Host, benchCalled, len(body))
	if l.proof {
		proof, err := identity.Prove(l.agent.Key, &identity.Evidence{Method: "POST", URL: l.place.URL, Body: body}, l.agent.Token, time.Now())
		if err != nil {
			return nil, err
		}
		head = fmt.Appendf(head, "Authorization: DPoP %s\r\nDpop: %s\r\n", l.agent.Token, proof)
	}
	return append(append(head, "\r\n"...), body...), nil
}

// benchArguments are 1 KiB, and never the same twice.
func benchArguments(call int) string {
	front := `{"limit":20,"notes":true,"order":"8812","question":"` + fmt.Sprintf("%08d ", call)
	text := strings.Repeat("Where is the parcel of this order, and when does it arrive? ", 20)
	return front + text[:1024-len(front)-2] + `"}`
}

// prepare makes so many requests before the clock runs: agents sign on their
// own machines.
func (l *benchLine) prepare(n int) error {
	l.stock = l.stock[:0] // proofs of a minute ago are worth nothing
	for range n {
		r, err := l.request()
		if err != nil {
			return err
		}
		l.stock = append(l.stock, r)
	}
	return nil
}

// call makes one call, and says how long it took.
func (l *benchLine) call() (time.Duration, error) {
	if len(l.stock) == 0 {
		if err := l.prepare(1); err != nil {
			return 0, err
		}
	}
	r := l.stock[len(l.stock)-1]
	l.stock = l.stock[:len(l.stock)-1]
	if time.Since(l.last) > benchIdle {
		l.conn.Close()
		if err := l.dial(); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	defer func() { l.last = time.Now() }()
	if _, err := l.conn.Write(r); err != nil {
		return 0, err
	}
	body, err := l.answer()
	took := time.Since(began)
	switch {
	case err != nil:
		return 0, err
	case !bytes.Contains(body, []byte("was shipped on Monday")),
		l.agent != nil && !bytes.Contains(body, []byte(`"effect":"permit"`)):
		return 0, fmt.Errorf("answered with %.300q", body)
	}
	return took, nil
}

// answer reads one response, as far as our targets make use of HTTP.
func (l *benchLine) answer() ([]byte, error) {
	length := -1
	for first := true; ; first = false {
		line, err := l.in.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		line = bytes.TrimRight(line, "\r\n")
		name, value, _ := bytes.Cut(line, []byte(": "))
		switch {
		case first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")):
			rest, _ := l.in.Peek(l.in.Buffered())
			return nil, fmt.Errorf("%s: %.600s", line, rest)
		case len(line) == 0 && length < 0:
			return nil, errors.New("an answer of unknown length")
		case len(line) == 0:
			body := make([]byte, length)
			_, err := io.ReadFull(l.in, body)
			return body, err
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return nil, err
			}
		}
	}
}

// A benchRun is one target under load for a moment.
type benchRun struct {
	calls int
	took  time.Duration
	each  []time.Duration // how long each call took, sorted
}

func (r *benchRun) quantile(q float64) time.Duration {
	if len(r.each) == 0 {
		return 0
	}
	return r.each[min(len(r.each)-1, int(q*float64(len(r.each))))]
}

// benchLoad lets so many callers call on lines, each on its own ones in turn
// and one call at a time, until stop says that it is enough.
func benchLoad(lines []*benchLine, callers int, stop func(calls int, since time.Duration) bool) (*benchRun, error) {
	var wg sync.WaitGroup
	errs := make([]error, callers)
	each := make([][]time.Duration, callers)
	began := time.Now()
	for i := range callers {
		wg.Go(func() {
			for at := i; !stop(len(each[i]), time.Since(began)); {
				took, err := lines[at].call()
				if err != nil {
					errs[i] = err
					return
				}
				each[i] = append(each[i], took)
				if at += callers; at >= len(lines) {
					at = i
				}
			}
		})
	}
	wg.Wait()
	r := &benchRun{took: time.Since(began), each: slices.Concat(each...)}
	r.calls = len(r.each)
	slices.Sort(r.each)
	return r, errors.Join(errs...)
}
