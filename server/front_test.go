package server_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/approval"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/gate"
	"github.com/writgate/writ/server"
	"github.com/writgate/writ/upstream"
	"github.com/writgate/writ/writtest"
)

func TestNewRefuses(t *testing.T) {
	whole := server.Config{Gate: new(gate.Gate), State: [32]byte{1}, URL: "https://writ.example/agents", Now: time.Now}
	if _, err := server.New(whole); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*server.Config){
		"no gate":          func(c *server.Config) { c.Gate = nil },
		"no clock":         func(c *server.Config) { c.Now = nil },
		"no key":           func(c *server.Config) { c.State = [32]byte{} },
		"no URL":           func(c *server.Config) { c.URL = "" },
		"no host":          func(c *server.Config) { c.URL = "https:///x" },
		"another scheme":   func(c *server.Config) { c.URL = "ftp://writ.example" },
		"a query":          func(c *server.Config) { c.URL = "https://writ.example/?x=1" },
		"a user":           func(c *server.Config) { c.URL = "https://u@writ.example" },
		"an old revision":  func(c *server.Config) { c.Versions = []string{"2024-11-05"} },
		"no such revision": func(c *server.Config) { c.Versions = []string{"2026-07-28", "draft"} },
	} {
		c := whole
		change(&c)
		if _, err := server.New(c); err == nil {
			t.Errorf("%s: made a handler", name)
		}
	}
}

// A panic refuses like any other error, and the process lives (case F20).
func TestF20Panic(t *testing.T) {
	var told *writ.Denial
	d := open(t, writtest.Setup{}, func(c *server.Config) {
		c.Refused = func(_ writ.CallID, d *writ.Denial) { told = d }
		c.Lists = func(context.Context, string, string) ([]writ.JSON, error) { panic("password hunter2") }
	})
	d.offerOthers()
	p := d.agent("files.*")
	a := p.ask("resources/list", "", "")
	if a.status != 200 || a.code() != "internal_error" || strings.Contains(a.body, "hunter2") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if told == nil || told.Code != writ.InternalError || strings.Contains(told.Error(), "hunter2") || !strings.Contains(told.Error(), "lists.go") {
		t.Errorf("the operator was told %v", told)
	}
	if a := p.call("files.read", `{"path":"a"}`); a.text() != "the content" {
		t.Errorf("afterwards: %d %s", a.status, a.body)
	}
}

// When the listener stops, calls under way end by themselves; nothing new
// begins.
func TestServeStops(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	begun, release := make(chan struct{}), make(chan struct{})
	stopped := false
	front := &server.Front{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(begun)
			<-release
			if r.Context().Err() != nil {
				t.Error("the call was cancelled")
			}
			w.Write([]byte("done"))
		}),
		Stop: func() { stopped = true; time.AfterFunc(50*time.Millisecond, func() { close(release) }) },
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- front.Serve(ctx, l) }()
	answered := make(chan string)
	go func() {
		r, err := http.Get("http://" + l.Addr().String() + "/")
		if err != nil {
			answered <- err.Error()
			return
		}
		defer r.Body.Close()
		b := make([]byte, 4)
		r.Body.Read(b)
		answered <- string(b)
	}()
	<-begun
	stop()
	if got := <-answered; got != "done" {
		t.Errorf("the call under way: %q", got)
	}
	if err := <-served; err != nil || !stopped {
		t.Errorf("Serve = %v, stopped %v", err, stopped)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("it still listens")
	}
}

// A connection too many waits for one to end.
func TestConnectionsAreBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	front := &server.Front{Conns: 2, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- front.Serve(ctx, l) }()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	idle, other := dial(), dial()
	third := dial()
	third.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
	third.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	b := make([]byte, 12)
	if n, _ := third.Read(b); n != 0 {
		t.Errorf("the third was answered: %q", b[:n])
	}
	idle.Close()
	third.SetReadDeadline(time.Now().Add(2 * time.Second))
	if n, _ := third.Read(b); string(b[:n]) != "HTTP/1.1 418" {
		t.Errorf("the third, with room: %q", b[:n])
	}
	third.Close()
	other.Close()
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// The page shows how a request stands, and nothing that was asked.
func TestStatusPage(t *testing.T) {
	d := open(t, writtest.Setup{}, nil)
	p := d.agent("bank.*")
	p.call("bank.pay", `{"amount":77}`)
	waiting, err := d.Gate.Approvals.List(t.Context())
	d.must(err)
	id := string(waiting[0].ID)
	page := server.Status(d.Gate.Approvals.Get)
	get := func(method, path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		page.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		return w
	}
	shows := func(path string, status int, title string) {
		t.Helper()
		w := get("GET", path)
		body := w.Body.String()
		if w.Code != status || !strings.Contains(body, "<h1>"+title+"</h1>") {
			t.Errorf("%s: %d %s, want %d %s", path, w.Code, body, status, title)
		}
		for _, secret := range []string{"77", "bank", "pay", "lena", "billing", "omar", "form ", "<script", "href"} {
			if strings.Contains(body, secret) {
				t.Errorf("%s shows %q", path, secret)
			}
		}
		csp := w.Header().Get("Content-Security-Policy")
		if !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") || !strings.Contains(csp, "form-action 'none'") ||
			w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", path, w.Header())
		}
	}
	shows("/"+id, 200, "Waiting")
	if got := get("GET", "/"+id).Header().Get("Refresh"); got != "5" {
		t.Errorf("Refresh = %q", got)
	}
	d.answer(true)
	shows("/"+id, 200, "Approved")
	p.call("bank.pay", `{"amount":77}`)
	shows("/"+id, 200, "Done")
	p.call("bank.pay", `{"amount":78}`)
	waiting, err = d.Gate.Approvals.List(t.Context())
	d.must(err)
	denied := string(waiting[0].ID)
	d.answer(false)
	shows("/"+denied, 200, "Denied")
	p.call("bank.pay", `{"amount":79}`)
	waiting, err = d.Gate.Approvals.List(t.Context())
	d.must(err)
	d.Clock.Advance(20 * time.Minute)
	shows("/"+string(waiting[0].ID), 200, "Expired")
	shows("/"+string(writ.NewID[writ.ApprovalID](time.Now())), 404, "Not found")
	shows("/%3Cscript%3E", 404, "Not found")
	for _, method := range []string{"POST", "PUT", "DELETE"} { // case H39
		if w := get(method, "/"+id); w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
	broken := server.Status(func(context.Context, writ.ApprovalID) (*approval.Request, error) {
		return nil, errors.New("the disk is full")
	})
	w := httptest.NewRecorder()
	broken.ServeHTTP(w, httptest.NewRequest("GET", "/"+id, nil))
	if w.Code != 503 || strings.Contains(w.Body.String(), "disk") {
		t.Errorf("broken: %d %s", w.Code, w.Body)
	}
}

// An error that is not on record as one call's is not on the wire either.
func TestErrorsKeepTheirSecrets(t *testing.T) {
	d := open(t, writtest.Setup{}, nil)
	d.Tools.Do = func(context.Context, *broker.Lease, upstream.Order) (*upstream.Answer, error) {
		return nil, errors.New("dial tcp 10.0.0.7: password hunter2")
	}
	p := d.agent("files.*")
	a := p.call("files.read", `{"path":"a"}`)
	if a.code() != "outcome_unknown" || strings.Contains(a.body, "hunter2") || strings.Contains(a.body, "10.0.0.7") {
		t.Errorf("%d %s", a.status, a.body)
	}
}
