package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/mcp"
	"github.com/writgate/writ/upstream"
)

// An old is a legacy server with sessions. It keeps what it was sent.
type old struct {
	*httptest.Server
	call  func(o *old, w http.ResponseWriter, r *http.Request, m *mcp.Message)
	quiet bool // it gives no session ids

	mu       sync.Mutex
	sessions int
	dead     map[string]bool
	log      []string                 // "session method", or "session DELETE"
	headers  []http.Header            // of the same
	answers  map[string]chan *answers // of our requests, by id
}

type answers struct{ m *mcp.Message }

func newOld(t testing.TB, call func(o *old, w http.ResponseWriter, r *http.Request, m *mcp.Message)) *old {
	o := &old{call: call, dead: map[string]bool{}, answers: map[string]chan *answers{}}
	o.Server = httptest.NewServer(o)
	t.Cleanup(func() {
		o.CloseClientConnections()
		o.Close()
	})
	return o
}

func (o *old) note(session, what string, h http.Header) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.log = append(o.log, strings.TrimSpace(session+" "+what))
	o.headers = append(o.headers, h)
}

func (o *old) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	session := r.Header.Get("Mcp-Session-Id")
	body, _ := io.ReadAll(r.Body)
	if r.Method != http.MethodPost {
		o.note(session, r.Method, r.Header)
		if r.Method == http.MethodGet {
			o.call(o, w, r, nil)
		}
		return
	}
	m, err := mcp.ParseMessage(body, canon.Limits{})
	if err != nil {
		http.Error(w, "bad", http.StatusBadRequest)
		return
	}
	what := m.Method
	if what == "" {
		what = "answer " + m.ID
	}
	if what == "notifications/cancelled" {
		what += " " + string(m.Params.Get("requestId").Raw())
	}
	o.note(session, what, r.Header)
	o.mu.Lock()
	gone := o.dead[session]
	o.mu.Unlock()
	switch {
	case r.Header.Get("Mcp-Protocol-Version") == mcp.Modern:
		http.Error(w, "Bad Request: Unsupported protocol version", http.StatusBadRequest)
	case gone:
		http.Error(w, "session not found", http.StatusNotFound)
	case m.Method == "initialize":
		o.mu.Lock()
		o.sessions++
		id := fmt.Sprint("s", o.sessions)
		o.mu.Unlock()
		if !o.quiet {
			w.Header().Set("Mcp-Session-Id", id)
		}
		reply(w, m.ID, `{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true}},"serverInfo":{"name":"old","version":"1"}}`)
	case m.Method == "":
		o.mu.Lock()
		ch := o.answers[m.ID]
		o.mu.Unlock()
		w.WriteHeader(http.StatusAccepted)
		if ch != nil {
			ch <- &answers{m}
		}
	case m.ID == "":
		w.WriteHeader(http.StatusAccepted)
	case m.Method == "tools/list":
		reply(w, m.ID, `{"tools":[`+plainTool+`]}`)
	default:
		o.call(o, w, r, m)
	}
}

// expect gives the channel on which the answer to a request of ours comes.
func (o *old) expect(id string) chan *answers {
	o.mu.Lock()
	defer o.mu.Unlock()
	ch := make(chan *answers, 100)
	o.answers[id] = ch
	return ch
}

func (o *old) config() upstream.Config { return upstream.Config{Name: "up", URL: o.URL + "/mcp"} }

func (o *old) logged() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.log)
}

// since gives what was logged after discovery, whose session was the first.
func (o *old) since(session string) (all []string) {
	for _, s := range o.logged() {
		if strings.HasPrefix(s, session+" ") {
			all = append(all, strings.TrimPrefix(s, session+" "))
		}
	}
	return all
}

func answer(text string) func(o *old, w http.ResponseWriter, r *http.Request, m *mcp.Message) {
	return func(o *old, w http.ResponseWriter, r *http.Request, m *mcp.Message) {
		if m == nil {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		reply(w, m.ID, ok(text))
	}
}

// TestLegacySessions: a session is of one task, and ends with it.
func TestLegacySessions(t *testing.T) {
	t.Parallel()
	o := newOld(t, answer("x"))
	w := newWorld(t, o.config())
	a := w.tool("up", "tool", `{}`)
	if got := o.since("s1"); !slices.Equal(got, []string{"notifications/initialized", "tools/list", "DELETE"}) {
		t.Errorf("discovery: %q", got)
	}
	one, two := newTask(), newTask()
	for _, task := range []writ.TaskID{one, one, two} {
		if _, err := w.callAs(t.Context(), "", upstream.Order{Task: task, Action: a}); err != nil {
			t.Fatal(err)
		}
	}
	w.CloseTask(one)
	w.CloseTask(newTask())
	for session, want := range map[string][]string{
		"s2": {"notifications/initialized", "tools/call", "tools/call", "DELETE"},
		"s3": {"notifications/initialized", "tools/call"},
	} {
		if got := o.since(session); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", session, got, want)
		}
	}
	for i, h := range o.headers {
		if o.log[i] != "initialize" && o.log[i] != "server/discover" && h.Get("Mcp-Protocol-Version") != "2025-06-18" {
			t.Errorf("%s says version %q", o.log[i], h.Get("Mcp-Protocol-Version"))
		}
	}
	w.Close()
	if got := o.since("s3"); got[len(got)-1] != "DELETE" {
		t.Errorf("after the end: %q", got)
	}
}

// TestLegacyCredential: with a credential the session is of one call, and
// every request in it carries it.
func TestLegacyCredential(t *testing.T) {
	t.Parallel()
	o := newOld(t, answer("x"))
	config := o.config()
	config.Capability = true
	w := newWorld(t, config)
	a := w.tool("up", "tool", `{}`)
	task := newTask()
	present := func(string, string) (http.Header, error) { return http.Header{"Writ-Capability": {"cap"}}, nil }
	for range 2 {
		if _, err := w.callAs(t.Context(), "header", upstream.Order{Task: task, Action: a, Present: present}); err != nil {
			t.Fatal(err)
		}
	}
	for _, session := range []string{"s2", "s3"} {
		if got := o.since(session); !slices.Equal(got, []string{"notifications/initialized", "tools/call", "DELETE"}) {
			t.Errorf("%s: %q", session, got)
		}
	}
	for i, h := range o.headers {
		own := strings.HasPrefix(o.log[i], "s2 ") || strings.HasPrefix(o.log[i], "s3 ")
		if (h.Get("Authorization") != "") != own && o.log[i] != "initialize" {
			t.Errorf("%s has credential %q", o.log[i], h.Get("Authorization"))
		}
		if call := strings.HasSuffix(o.log[i], "tools/call"); (h.Get("Writ-Capability") != "") != call {
			t.Errorf("%s shows capability %q", o.log[i], h.Get("Writ-Capability"))
		}
	}
}

// TestLegacyWithoutSessions initializes once, for all.
func TestLegacyWithoutSessions(t *testing.T) {
	t.Parallel()
	o := newOld(t, answer("x"))
	o.quiet = true
	w := newWorld(t, o.config())
	a := w.tool("up", "tool", `{}`)
	for range 3 {
		if _, err := w.callAs(t.Context(), "header", upstream.Order{Task: newTask(), Action: a}); err != nil {
			t.Fatal(err)
		}
	}
	if got := o.logged(); !slices.Equal(got, []string{"server/discover", "initialize", "notifications/initialized", "tools/list", "tools/call", "tools/call", "tools/call"}) {
		t.Errorf("%q", got)
	}
}

// TestLegacySessionForgotten: a server that has forgotten the session did
// nothing, and is asked again in a new one.
func TestLegacySessionForgotten(t *testing.T) {
	t.Parallel()
	o := newOld(t, answer("x"))
	w := newWorld(t, o.config())
	a := w.tool("up", "tool", `{}`)
	task := newTask()
	for _, forget := range []string{"", "s2"} {
		o.mu.Lock()
		o.dead[forget] = forget != ""
		o.mu.Unlock()
		if _, err := w.callAs(t.Context(), "", upstream.Order{Task: task, Action: a}); err != nil {
			t.Fatal(err)
		}
	}
	if got := o.since("s3"); !slices.Equal(got, []string{"notifications/initialized", "tools/call"}) {
		t.Errorf("the new session: %q", got)
	}
}

func TestF10LegacyCancel(t *testing.T) {
	t.Parallel()
	began := make(chan string, 1)
	o := newOld(t, func(o *old, w http.ResponseWriter, r *http.Request, m *mcp.Message) {
		began <- m.ID
		<-r.Context().Done()
	})
	w := newWorld(t, o.config())
	a := w.tool("up", "tool", `{}`)
	ctx, cancel := context.WithCancel(t.Context())
	var id string
	go func() {
		id = <-began
		cancel()
	}()
	if _, err := w.call(ctx, a); !errors.Is(err, context.Canceled) || errors.Is(err, upstream.ErrNotSent) {
		t.Errorf("%v, want an unknown outcome", err)
	}
	if got := o.since("s2"); !slices.Contains(got, "notifications/cancelled "+id) {
		t.Errorf("%q, want a cancellation of %s", got, id)
	}
}

// TestH75LegacyRequests: what a legacy upstream asks is refused where it is
// not admitted, and no flood of questions makes a flood of answers.
func TestH75LegacyRequests(t *testing.T) {
	t.Parallel()
	ask := func(id, method string) string {
		return event(`{"jsonrpc":"2.0","id":` + id + `,"method":"` + method + `","params":{"message":"type YES"}}`)
	}
	var refusal, pong *mcp.Message
	o := newOld(t, func(o *old, w http.ResponseWriter, r *http.Request, m *mcp.Message) {
		send := events(w)
		refused, ponged := o.expect("901"), o.expect("902")
		send(ask("901", "elicitation/create"))
		refusal = (<-refused).m
		send(ask("902", "ping"))
		pong = (<-ponged).m
		for i := range 500 {
			send(ask(fmt.Sprint(1000+i), "sampling/createMessage"))
		}
		send(event(response(m.ID, ok("x"))))
	})
	w := newWorld(t, o.config())
	a := w.tool("up", "tool", `{}`)
	got, err := w.callAs(t.Context(), "", upstream.Order{Task: newTask(), Action: a, Meta: mcp.Meta{Capabilities: `{"elicitation":{}}`}})
	if err != nil || text(t, got) != "x" {
		t.Fatalf("%+v, %v", got, err)
	}
	if refusal.Err == nil || pong.Result.Kind() != canon.Object {
		t.Errorf("answered %+v and %+v", refusal, pong)
	}
	n := 0
	for _, s := range o.since("s2") {
		if strings.HasPrefix(s, "answer ") {
			n++
		}
	}
	if n > 64 {
		t.Errorf("%d answers to a flood", n)
	}
}

// TestBridge holds the call of a legacy upstream that asks, twice, and in two
// ways: on the stream of the call, and on the session's own.
func TestBridge(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"", "header"} {
		t.Run("credential/"+backend, func(t *testing.T) { bridge(t, backend) })
	}
}

func bridge(t *testing.T, backend string) {
	own := make(chan func(string) bool, 1) // the session's stream
	ask := func(id, message string) string {
		return event(`{"jsonrpc":"2.0","id":` + id + `,"method":"elicitation/create","params":{"message":"` + message + `","requestedSchema":{"big":9007199254740993}}}`)
	}
	o := newOld(t, func(o *old, w http.ResponseWriter, r *http.Request, m *mcp.Message) {
		send := events(w)
		if m == nil {
			send(":\n\n")
			own <- send
			<-r.Context().Done()
			return
		}
		first, second := o.expect(`"a"`), o.expect(`7`)
		send(ask(`"a"`, "one"))
		one := string((<-first).m.Result.Raw())
		(<-own)(ask(`7`, "two"))
		two := string((<-second).m.Result.Raw())
		send(event(response(m.ID, `{"content":[],"got":[`+one+`,`+two+`]}`)))
	})
	config := o.config()
	config.Continuations = true
	w := newWorld(t, config)
	a := w.tool("up", "tool", `{"n":1}`)
	task, meta := newTask(), mcp.Meta{Capabilities: `{"elicitation":{"form":{}}}`}
	call := func(task writ.TaskID, a *writ.Action) (string, error) {
		got, err := w.callAs(t.Context(), backend, upstream.Order{Task: task, Action: a, Meta: meta})
		if err != nil {
			return "", err
		}
		return string(got.Body), nil
	}
	state := func(body string) string {
		v, err := canon.Parse([]byte(body), canon.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		s, _ := v.Get("requestState").Str()
		return s
	}
	body, err := call(task, a)
	if want := `"inputRequests":{"1":{"method":"elicitation/create","params":{"message":"one","requestedSchema":{"big":9007199254740993}}}}`; err != nil || !strings.Contains(body, want) {
		t.Fatalf("%s, %v", body, err)
	}
	next := *a
	next.State, next.Inputs = state(body), `{"1":{"action":"accept","content":{"n":9007199254740993}}}`

	// Nobody else goes on with it, and nobody with something else.
	other := next
	other.Arguments = `{"n":2}`
	for name, try := range map[string]func() (string, error){
		"another task":   func() (string, error) { return call(newTask(), &next) },
		"another action": func() (string, error) { return call(task, &other) },
	} {
		if got, err := try(); !errors.Is(err, upstream.ErrNotSent) {
			t.Errorf("%s goes on: %s, %v", name, got, err)
		}
	}
	body, err = call(task, &next)
	if err != nil || !strings.Contains(body, `"message":"two"`) {
		t.Fatalf("%s, %v", body, err)
	}
	if _, err := call(task, &next); !errors.Is(err, upstream.ErrNotSent) {
		t.Errorf("the same state twice: %v", err)
	}
	next.State, next.Inputs = state(body), `{"1":{"action":"decline"}}`
	body, err = call(task, &next)
	if want := `{"content":[],"got":[{"action":"accept","content":{"n":9007199254740993}},{"action":"decline"}]}`; err != nil || body != want {
		t.Errorf("%s, %v, want %s", body, err, want)
	}
}

// TestBridgeEndsWithTask drops a held call when its task ends. With the
// credential gone there is no way to say so but to hang up.
func TestBridgeEndsWithTask(t *testing.T) {
	t.Parallel()
	began, hungUp := make(chan string, 1), make(chan string, 2)
	o := newOld(t, func(o *old, w http.ResponseWriter, r *http.Request, m *mcp.Message) {
		if m == nil {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		began <- m.ID
		events(w)(event(`{"jsonrpc":"2.0","id":5,"method":"elicitation/create","params":{"message":"m"}}`))
		<-r.Context().Done()
		hungUp <- m.ID
	})
	config := o.config()
	config.Continuations = true
	w := newWorld(t, config)
	a := w.tool("up", "tool", `{}`)
	for _, backend := range []string{"", "header"} {
		task := newTask()
		got, err := w.callAs(t.Context(), backend, upstream.Order{Task: task, Action: a, Meta: mcp.Meta{Capabilities: `{"elicitation":{}}`}})
		if err != nil || !strings.Contains(string(got.Body), "input_required") {
			t.Fatalf("%+v, %v", got, err)
		}
		id := <-began
		w.CloseTask(task)
		select {
		case gone := <-hungUp:
			if gone != id {
				t.Errorf("call %s was dropped, not %s", gone, id)
			}
		case <-time.After(5 * time.Second):
			t.Error("the call goes on")
		}
		told := slices.ContainsFunc(o.logged(), func(s string) bool { return strings.HasSuffix(s, "notifications/cancelled "+id) })
		if told != (backend == "") {
			t.Errorf("with credential %q the upstream was told: %v", backend, told)
		}
		next := *a
		next.State = string(got.Body[strings.Index(string(got.Body), "held_") : len(got.Body)-2])
		if _, err := w.callAs(t.Context(), "", upstream.Order{Task: task, Action: &next}); !errors.Is(err, upstream.ErrNotSent) {
			t.Errorf("it goes on after the end: %v", err)
		}
	}
}

// TestResumedStream goes on with a stream that the server broke off, and does
// not call the tool again.
func TestResumedStream(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var id string
	var resumed []string
	o := newOld(t, func(o *old, w http.ResponseWriter, r *http.Request, m *mcp.Message) {
		mu.Lock()
		defer mu.Unlock()
		send := events(w)
		if m != nil {
			id = m.ID
			send("id: e1\nretry: 10\ndata:\n\n")
			return
		}
		resumed = append(resumed, r.Header.Get("Last-Event-Id"))
		if len(resumed) < 3 {
			send(fmt.Sprintf("id: e%d\ndata:\n\n", len(resumed)+1))
			return
		}
		send(event(response(id, ok("late"))))
	})
	w := newWorld(t, o.config())
	a := w.tool("up", "tool", `{}`)
	got, err := w.call(t.Context(), a)
	if err != nil || text(t, got) != "late" || !slices.Equal(resumed, []string{"e1", "e2", "e3"}) {
		t.Errorf("%+v, %v, resumed after %q", got, err, resumed)
	}
	if calls := o.since("s2"); slices.Index(calls, "tools/call") < 0 || strings.Count(strings.Join(calls, " "), "tools/call") != 1 {
		t.Errorf("%q", calls)
	}
}

// TestWatching hears of changed lists from servers of both eras.
func TestWatching(t *testing.T) {
	t.Parallel()
	modern := newFake(t, nil)
	modern.call = func(w http.ResponseWriter, r *http.Request, m *mcp.Message) {
		if m.Method == "subscriptions/listen" {
			send := events(w)
			send(event(`{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"notifications":{"toolsListChanged":true}}}`))
			for send(event(`{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{}}`)) {
				time.Sleep(time.Millisecond)
			}
		}
	}
	legacy := newOld(t, func(o *old, w http.ResponseWriter, r *http.Request, m *mcp.Message) {
		events(w)(event(`{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}`))
		<-r.Context().Done()
	})
	brittle := newFake(t, func(w http.ResponseWriter, r *http.Request, m *mcp.Message) { events(w)(":\n\n") })
	modern.watched, brittle.watched = true, true
	m, l, b := modern.config(), legacy.config(), brittle.config()
	m.Name, l.Name, b.Name = "modern", "legacy", "brittle" // whose stream breaks: it may have changed
	w := newWorld(t, m, l, b)
	got := map[string]int{}
	timeout := time.After(2500 * time.Millisecond)
	for done := false; !done; {
		select {
		case name := <-w.Changed():
			got[name]++
		case <-timeout:
			done = true
		}
	}
	if got["legacy"] != 1 || got["brittle"] != 1 {
		t.Errorf("told %v, want once of each", got)
	}
	if n := got["modern"]; n < 2 || n > 5 { // which never stops saying so
		t.Errorf("told %d times of the one that changes all the time, want what it may have saved up", n)
	}
}
