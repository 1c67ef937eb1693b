package upstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// leanAt gives a lean for a server that answers each request on a connection
// with the next of the answers, and closes it after the last. Conns counts the
// connections, and sent holds what came in.
func leanAt(t *testing.T, answers ...string) (l *lean, conns *atomic.Int32, sent chan string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	conns, sent = new(atomic.Int32), make(chan string, 16)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Add(1)
			go func() {
				defer c.Close()
				in := bufio.NewReader(c)
				for _, answer := range answers {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					b, _ := io.ReadAll(r.Body)
					sent <- string(b)
					io.WriteString(c, answer)
				}
			}()
		}
	}()
	l = newLean(guard{allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, &url.URL{Scheme: "http", Host: ln.Addr().String(), Path: "/mcp"})
	t.Cleanup(l.close)
	return l, conns, sent
}

func post(t *testing.T, l *lean, body string) (string, error) {
	t.Helper()
	resp, connected, err := l.post(t.Context(), http.Header{"Accept": {"*/*"}}, []byte(body))
	if err != nil {
		if !connected {
			t.Errorf("%v, and no connection", err)
		}
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

const fine = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func TestConnectionsAreKept(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers []string
		conns   int32 // that three requests take
	}{
		{"length", []string{fine, fine, fine}, 1},
		{"chunks", []string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n", fine, fine}, 1},
		{"early answers", []string{"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + fine, fine, fine}, 1},
		{"closed after each", []string{fine}, 3},
		{"said to be closed", []string{"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", fine}, 3},
		{"until the end", []string{"HTTP/1.1 200 OK\r\n\r\nok"}, 3},
		{"old", []string{"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", fine}, 3},
		{"more than was announced", []string{fine + "x", fine}, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, conns, sent := leanAt(t, c.answers...)
			for _, body := range []string{"one", "two", "three"} {
				got, err := post(t, l, body)
				if err != nil || got != "ok" {
					t.Fatalf("%s: answer %q, %v", body, got, err)
				}
				if b := <-sent; b != body {
					t.Errorf("the server got %q, want %q", b, body)
				}
				time.Sleep(20 * time.Millisecond) // a closing arrives
			}
			if n := conns.Load(); n != c.conns {
				t.Errorf("%d connections, want %d", n, c.conns)
			}
			if len(l.room) != 0 {
				t.Errorf("%d connections count as used", len(l.room))
			}
		})
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	for name, answer := range map[string]string{
		"nothing":               "",
		"half a head":           "HTTP/1.1 200 OK\r\nContent-Le",
		"no HTTP":               "SSH-2.0-x\r\n\r\n",
		"a head that is large":  "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxHead) + "\r\n\r\n",
		"a head without an end": "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", maxHead),
		"early answers only":    strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 2*maxEarly),
		"another protocol":      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
		"half a body":           "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
	} {
		t.Run(name, func(t *testing.T) {
			l, conns, _ := leanAt(t, answer)
			if got, err := post(t, l, "one"); err == nil {
				t.Errorf("an answer: %q", got)
			}
			if n := conns.Load(); n != 1 || len(l.room) != 0 || len(l.idle) != 0 {
				t.Errorf("%d connections, %d of them used and %d kept: a request must not be made twice", n, len(l.room), len(l.idle))
			}
		})
	}
}

func TestGivingUpFreesTheConnection(t *testing.T) {
	l, _, sent := leanAt(t, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun", fine)
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	resp, _, err := l.post(ctx, nil, []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	<-sent
	time.AfterFunc(20*time.Millisecond, func() { cancel(why) })
	if b, err := io.ReadAll(resp.Body); err == nil || string(b) != "begun" {
		t.Errorf("read %q, %v", b, err)
	}
	resp.Body.Close()
	if len(l.room) != 0 || len(l.idle) != 0 {
		t.Errorf("%d connections used, %d kept", len(l.room), len(l.idle))
	}
	if _, connected, err := l.post(ctx, nil, []byte("two")); !errors.Is(err, why) || connected {
		t.Errorf("a request that was given up before it began: %v, connected %v", err, connected)
	}
}

func TestHeadersEndWhereTheyShould(t *testing.T) {
	l, conns, _ := leanAt(t, fine)
	for _, h := range []http.Header{{"A": {"b\r\nC: d"}}, {"A": {"b\nC"}}, {"A": {"\x00"}}, {"A\r\nB": {"c"}}, {"A:": {"c"}}, {"": {"c"}}, {"A B": {"c"}}} {
		_, connected, err := l.post(t.Context(), h, []byte("one"))
		if err == nil || connected || strings.Contains(err.Error(), "d") && strings.Contains(err.Error(), "b\r") {
			t.Errorf("header %q: %v, connected %v", h, err, connected)
		}
	}
	if len(l.room) != 0 {
		t.Errorf("%d of %d connections count as used", len(l.room), conns.Load())
	}
}
