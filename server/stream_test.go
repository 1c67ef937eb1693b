package server_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/mcp"
	"github.com/writgate/writ/registry"
	"github.com/writgate/writ/server"
	"github.com/writgate/writ/upstream"
	"github.com/writgate/writ/writtest"
)

// A stream is an answer that is read event by event.
type stream struct {
	p      *peer
	res    *http.Response
	events mcp.EventReader
	cancel context.CancelFunc
	err    error // why next gave nothing
}

// stream sends a request and reads its answer as events.
func (p *peer) stream(method string, header http.Header, body string) *stream {
	p.d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	p.d.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, "https://"+p.d.addr+"/mcp", strings.NewReader(body))
	p.d.must(err)
	if body == "" {
		req.Body = nil
		req.ContentLength = 0
	}
	req.Header = header
	res, err := p.http.Do(req)
	p.d.must(err)
	p.d.t.Cleanup(func() { res.Body.Close() })
	return &stream{p: p, res: res, events: mcp.EventReader{R: bufio.NewReader(res.Body), Event: 1 << 20, Events: 1000}, cancel: cancel}
}

// next is the next event; nil at the end.
func (s *stream) next() *canon.Value {
	s.p.d.t.Helper()
	b, err := s.events.Next()
	if err != nil {
		s.err = err
		return nil
	}
	v, err := canon.Parse(b, canon.Limits{})
	s.p.d.must(err)
	return v
}

func str(v *canon.Value, pointer string) string {
	s, _ := v.Pointer(pointer).Str()
	return s
}

const listening = `"notifications":{"toolsListChanged":true,"promptsListChanged":true,"resourceSubscriptions":["file:///a"]}`

// A subscription is acknowledged first, with what was agreed to; then it says
// what changed, with its own id in every message; and when we end it, it is
// cancelled and completed.
func TestListen(t *testing.T) {
	d := open(t, writtest.Setup{}, nil)
	p := d.agent("files.*")
	s := p.stream("POST", headers("subscriptions/listen", ""), modern(`"s1"`, "subscriptions/listen", listening, ""))
	const id = "/params/_meta/io.modelcontextprotocol~1subscriptionId"
	ack := s.next()
	if str(ack, "/method") != "notifications/subscriptions/acknowledged" || str(ack, id) != "s1" || ack.Pointer("/params/notifications").JSON() != `{"toolsListChanged":true}` {
		t.Fatalf("first: %s", ack.Raw())
	}
	if got := s.res.Header.Get("X-Accel-Buffering"); got != "no" {
		t.Errorf("X-Accel-Buffering = %q", got)
	}
	d.mcp.Changed()
	if n := s.next(); str(n, "/method") != "notifications/tools/list_changed" || str(n, id) != "s1" {
		t.Errorf("then: %s", n.Raw())
	}
	d.mcp.Close()
	if n := s.next(); str(n, "/method") != "notifications/cancelled" || str(n, "/params/requestId") != "s1" || str(n, id) != "s1" {
		t.Errorf("cancelled: %s", n.Raw())
	}
	if n := s.next(); str(n, "/id") != "s1" || str(n, "/result/resultType") != "complete" || str(n, "/result/_meta/io.modelcontextprotocol~1subscriptionId") != "s1" {
		t.Errorf("completed: %s", n.Raw())
	}
	if n := s.next(); n != nil {
		t.Errorf("after the end: %s", n.Raw())
	}
	// Nothing to listen to ends at once, and a stream needs a client that takes one.
	s = p.stream("POST", headers("subscriptions/listen", ""), modern("2", "subscriptions/listen", `"notifications":{}`, ""))
	if n := s.next(); str(n, "/method") != "notifications/subscriptions/acknowledged" {
		t.Errorf("nothing agreed: %s", n.Raw())
	}
	if n := s.next(); str(n, "/result/resultType") != "complete" || s.next() != nil {
		t.Errorf("nothing agreed: %s", n.Raw())
	}
	h := headers("subscriptions/listen", "")
	h.Set("Accept", "application/json")
	if a := p.do("POST", "/mcp", h, modern("3", "subscriptions/listen", listening, "")); a.status != 406 {
		t.Errorf("without a stream: %d %s", a.status, a.body)
	}
}

// A stream lasts as long as the proof that opened it.
func TestListenEndsWithTheProof(t *testing.T) {
	d := open(t, writtest.Setup{}, nil)
	p := d.agent("files.*")
	d.Clock.Advance(time.Hour - 100*time.Millisecond) // of an hour that the certificate is valid
	s := p.stream("POST", headers("subscriptions/listen", ""), modern("1", "subscriptions/listen", listening, ""))
	var last *canon.Value
	for n := s.next(); n != nil; n = s.next() {
		last = n
	}
	if str(last, "/result/resultType") != "complete" {
		t.Errorf("it ended with %s", last.Raw())
	}
}

// Idle streams are bounded, for one key and for all, and hold up nobody's
// calls.
func TestH76IdleStreams(t *testing.T) {
	d := open(t, writtest.Setup{}, func(c *server.Config) {
		c.Limits = server.Limits{Requests: 4, KeyRequests: 3, KeyStreams: 5, Streams: 7}
	})
	p, q := d.agent("files.*"), d.agent("files.*")
	open := func(p *peer) string {
		s := p.stream("POST", headers("subscriptions/listen", ""), modern("1", "subscriptions/listen", listening, ""))
		if s.res.StatusCode == 200 && strings.HasPrefix(s.res.Header.Get("Content-Type"), "text/event-stream") {
			return str(s.next(), "/method")
		}
		return s.res.Status
	}
	for i := range 5 {
		if got := open(p); got != "notifications/subscriptions/acknowledged" {
			t.Fatalf("stream %d: %s", i, got)
		}
	}
	if a := p.do("POST", "/mcp", headers("subscriptions/listen", ""), modern("1", "subscriptions/listen", listening, "")); a.code() != "rate_limited" {
		t.Errorf("one more of the key: %d %s", a.status, a.body)
	}
	open(q)
	open(q)
	if a := q.do("POST", "/mcp", headers("subscriptions/listen", ""), modern("1", "subscriptions/listen", listening, "")); a.code() != "rate_limited" {
		t.Errorf("one more of all: %d %s", a.status, a.body)
	}
	if a := p.call("files.read", `{"path":"a"}`); a.text() != "the content" {
		t.Errorf("a call beside the streams: %d %s", a.status, a.body)
	}
}

// A key has so many requests under way, and everybody together; what is more
// is refused at once, and told when to come back.
func TestTooManyRequests(t *testing.T) {
	d := open(t, writtest.Setup{}, func(c *server.Config) {
		c.Limits = server.Limits{Requests: 3, KeyRequests: 2}
	})
	release, begun := make(chan struct{}), make(chan struct{}, 8)
	d.Tools.Do = func(context.Context, *broker.Lease, upstream.Order) (*upstream.Answer, error) {
		begun <- struct{}{}
		<-release
		return said("done"), nil
	}
	p, q := d.agent("files.*"), d.agent("files.*")
	var wg sync.WaitGroup
	slow := func(p *peer) {
		wg.Go(func() {
			if a := p.call("files.read", `{"path":"a"}`); a.text() != "done" {
				t.Errorf("a slow call: %d %s", a.status, a.body)
			}
		})
		<-begun
	}
	slow(p)
	slow(p)
	if a := p.call("files.read", `{"path":"b"}`); a.code() != "rate_limited" || !strings.Contains(a.text(), "after 15 seconds") {
		t.Errorf("a third of the key: %d %s", a.status, a.body)
	}
	slow(q)
	if a := q.call("files.read", `{"path":"b"}`); a.status != 503 || a.code() != "unavailable" || a.header.Get("Retry-After") == "" {
		t.Errorf("a fourth of all: %d %s", a.status, a.body)
	}
	close(release)
	wg.Wait()
	if a := p.call("files.read", `{"path":"c"}`); a.text() != "done" {
		t.Errorf("afterwards: %d %s", a.status, a.body)
	}
}

// What everybody's bodies take together is bounded, and a stranger's is not
// read before the channel has shown who it is.
func TestH70ManyBodies(t *testing.T) {
	d := open(t, writtest.Setup{}, func(c *server.Config) { c.Limits = server.Limits{Bytes: 2 << 20} })
	p, s := d.agent("files.*"), d.stranger()
	head := "POST /mcp HTTP/1.1\r\nHost: " + d.addr + "\r\nContent-Type: application/json\r\nContent-Length: 1048576\r\n\r\n"
	if got := s.raw(head); !strings.HasPrefix(got, "HTTP/1.1 401 ") {
		t.Errorf("a stranger who sends no body: %.60q", got)
	}
	slow := func() io.Closer {
		c, err := tls.Dial("tcp", d.addr, p.tls)
		d.must(err)
		_, err = io.WriteString(c, head+"{")
		d.must(err)
		return c
	}
	one, two := slow(), slow()
	for range 200 {
		if a := p.ask("tools/list", "", ""); a.status == 503 {
			one.Close()
			two.Close()
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Error("a third body had room")
}

func TestRateOfOneKey(t *testing.T) {
	d := open(t, writtest.Setup{}, func(c *server.Config) { c.Limits = server.Limits{KeyRate: 5} })
	p, q := d.agent("files.*"), d.agent("files.*")
	let := func(n int) (ok int) {
		for range n {
			if a := p.ask("tools/list", "", ""); a.code() == "" {
				ok++
			} else if a.code() != "rate_limited" {
				t.Fatalf("%d %s", a.status, a.body)
			}
		}
		return ok
	}
	if n := let(20); n != 10 {
		t.Errorf("%d of a burst went through, want 10", n)
	}
	if a := q.ask("tools/list", "", ""); a.code() != "" {
		t.Errorf("another key: %s", a.body)
	}
	d.Clock.Advance(time.Second)
	if n := let(20); n != 5 {
		t.Errorf("%d a second later, want 5", n)
	}
	d.Clock.Advance(-30 * time.Second)
	if n := let(5); n != 0 {
		t.Errorf("%d after the clock was set back", n)
	}
	d.Clock.Advance(time.Second)
	if n := let(20); n != 5 {
		t.Errorf("%d a second after that, want 5", n)
	}
	var counted int64
	d.noise.Record = func(_ context.Context, r server.Refusals) error {
		counted += r.Counts[writ.RateLimited]
		return nil
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	d.noise.Run(ctx)
	if counted != 10+15+5+15 {
		t.Errorf("%d refusals were counted, want %d", counted, 10+15+5+15)
	}
}

// TestH77LargeRequestsCountMore asks with a megabyte: every request is kept, and
// a key's rate is one of bytes as well.
func TestH77LargeRequestsCountMore(t *testing.T) {
	d := open(t, writtest.Setup{}, func(c *server.Config) { c.Limits = server.Limits{KeyRate: 10} })
	p := d.agent("files.*")
	body := modern("1", "tools/list", "", "")
	large := func() string {
		return p.do("POST", "/mcp", headers("tools/list", ""), body+strings.Repeat(" ", 1<<20-len(body))).code()
	}
	if code := large(); code != "" {
		t.Fatalf("the first: %s", code)
	}
	for _, x := range []struct {
		after time.Duration
		want  string
	}{{0, "rate_limited"}, {4 * time.Second, "rate_limited"}, {time.Second, ""}} { // 65 requests, of which 20 were a burst
		d.Clock.Advance(x.after)
		if code := p.ask("tools/list", "", "").code(); code != x.want {
			t.Errorf("%v later: %q, want %q", x.after, code, x.want)
		}
	}
}

// session begins a session of 2025-11-25, and gives the headers for it.
func (p *peer) session(capabilities string) http.Header {
	p.d.t.Helper()
	h := http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"}}
	a := p.do("POST", "/mcp", h, `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":`+capabilities+`,"clientInfo":{"name":"x","version":"1"}}}`)
	h.Set(mcp.HeaderSession, a.header.Get(mcp.HeaderSession))
	h.Set(mcp.HeaderVersion, mcp.Legacy)
	return h
}

// asking is a World with tools that ask for input, and may be answered.
var asking = writtest.Setup{Registry: registry.Config{Continuations: []string{"ask"}}, Tools: strange}

// A legacy client is asked for input on the stream of its own call, and only
// it can answer.
func TestLegacyClientIsAsked(t *testing.T) {
	d := open(t, asking, nil)
	d.Tools.Do = play
	p, other := d.agent("ask.*"), d.agent("ask.*")
	h, its := p.session(`{"elicitation":{}}`), other.session(`{"elicitation":{}}`)
	call := func(rpc string) (*stream, string) {
		s := p.stream("POST", h, `{"jsonrpc":"2.0","id":`+rpc+`,"method":"tools/call","params":{"name":"ask.name"}}`)
		q := s.next()
		id, _ := q.Get("id").Str()
		if str(q, "/method") != "elicitation/create" || str(q, "/params/mode") != "form" || id == "" {
			t.Fatalf("asked: %d %v %s", s.res.StatusCode, s.err, q.Raw())
		}
		return s, id
	}
	s, id := call("1")
	response := `{"jsonrpc":"2.0","id":"` + id + `","result":{"action":"accept","content":{"name":"Ada"}}}`
	for name, c := range map[string]struct {
		p *peer
		h http.Header
	}{"another session": {other, its}, "this session, another key": {other, h}, "no identity": {d.stranger(), h}} {
		if a := c.p.do("POST", "/mcp", c.h, response); a.status < 400 {
			t.Errorf("an answer by %s: %d", name, a.status)
		}
	}
	if a := p.do("POST", "/mcp", h, strings.Replace(response, id, strings.Repeat("0", 32), 1)); a.status != 400 {
		t.Errorf("an answer to another question: %d", a.status)
	}
	if a := p.do("POST", "/mcp", h, response); a.status != http.StatusAccepted || a.body != "" {
		t.Errorf("the answer: %d %s", a.status, a.body)
	}
	if n := s.next(); str(n, "/result/content/0/text") != `inputs {"q":{"action":"accept","content":{"name":"Ada"}}} state the tool's own` || n.Pointer("/id").JSON() != "1" {
		t.Errorf("the result: %s", n.Raw())
	}
	if a := p.do("POST", "/mcp", h, response); a.status != 400 {
		t.Errorf("the answer again: %d", a.status)
	}
	// A client that answers with an error has no input to give.
	s, id = call("2")
	if a := p.do("POST", "/mcp", h, `{"jsonrpc":"2.0","id":"`+id+`","error":{"code":-32603,"message":"no"}}`); a.status != http.StatusAccepted {
		t.Errorf("an error: %d %s", a.status, a.body)
	}
	if n := s.next(); !strings.Contains(str(n, "/result/content/0/text"), "could not give the input") {
		t.Errorf("after an error: %s", n.Raw())
	}
	intents, err := d.Ledger.Records(t.Context(), ledger.Filter{Type: ledger.TypeIntent})
	d.must(err)
	if len(intents) != 3 { // two calls, and one answer that went up
		t.Errorf("%d intents, want 3", len(intents))
	}
}

// A legacy session has one stream, and hears there that lists changed.
func TestLegacyStream(t *testing.T) {
	d := open(t, writtest.Setup{}, nil)
	p := d.agent("files.*")
	h := p.session(`{}`)
	h.Del("Content-Type")
	s := p.stream("GET", h, "")
	if got := s.res.Header.Get("Content-Type"); s.res.StatusCode != 200 || got != "text/event-stream" {
		t.Fatalf("%s, %s", s.res.Status, got)
	}
	if a := p.do("GET", "/mcp", h, ""); a.status != http.StatusConflict {
		t.Errorf("a second stream: %d %s", a.status, a.body)
	}
	d.mcp.Changed()
	if n := s.next(); str(n, "/method") != "notifications/tools/list_changed" {
		t.Errorf("changed: %s", n.Raw())
	}
	d.mcp.Close()
	if n := s.next(); n != nil {
		t.Errorf("after the end: %s", n.Raw())
	}
}

// hang is a tool that answers when it is told to, or when its caller's time is
// over.
func hang(begun chan<- string, release <-chan struct{}, ended chan<- error) func(context.Context, *broker.Lease, upstream.Order) (*upstream.Answer, error) {
	return func(ctx context.Context, _ *broker.Lease, o upstream.Order) (*upstream.Answer, error) {
		begun <- string(o.Call)
		select {
		case <-ctx.Done():
			ended <- ctx.Err()
			return nil, ctx.Err()
		case <-release:
			ended <- nil
			return said("sent"), nil
		}
	}
}

// Who hangs up on a call that only reads cancels it. A call that changes
// something goes on, and its outcome is there for whoever made it.
func TestF10CallerDisconnects(t *testing.T) {
	d := open(t, writtest.Setup{}, nil)
	begun, release, ended := make(chan string, 1), make(chan struct{}), make(chan error, 1)
	d.Tools.Do = hang(begun, release, ended)
	p := d.agent("files.*", "mail.*")

	ctx, cancel := context.WithCancel(t.Context())
	go p.try(ctx, "POST", "/mcp", headers("tools/call", "files.read"), modern("1", "tools/call", `"name":"files.read","arguments":{"path":"a"}`, ""))
	<-begun
	cancel()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a read went on by itself")
		}
	case <-time.After(2 * time.Second):
		t.Fatal("a read went on after its caller was gone")
	}

	const id = "call_06eajrq8msv0q1bt3r4vckg5ym"
	body := strings.Replace(modern("1", "tools/call", `"name":"mail.send","arguments":{"to":"a"}`, ""), `"_meta":{`, `"_meta":{"io.github.writgate/call":"`+id+`",`, 1)
	ctx, cancel = context.WithCancel(t.Context())
	go p.try(ctx, "POST", "/mcp", headers("tools/call", "mail.send"), body)
	if got := <-begun; got != id {
		t.Errorf("call %s, want %s", got, id)
	}
	cancel()
	time.Sleep(50 * time.Millisecond)
	close(release)
	if err := <-ended; err != nil {
		t.Fatalf("a write was cut off: %v", err)
	}
	for range 100 {
		a := p.do("POST", "/mcp", headers("tools/call", "mail.send"), body)
		if a.text() == "sent" {
			if n := len(d.Tools.Seen()); n != 2 {
				t.Errorf("%d actions reached the tools, want 2", n)
			}
			return
		}
		if a.code() != "already_used" {
			t.Fatalf("asked again: %d %s", a.status, a.body)
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the outcome never came")
}

// notifications/cancelled stops the call it names, in its own session, and
// nothing else.
func TestLegacyCancelled(t *testing.T) {
	d := open(t, writtest.Setup{}, nil)
	begun, release, ended := make(chan string, 1), make(chan struct{}), make(chan error, 1)
	d.Tools.Do = hang(begun, release, ended)
	p := d.agent("files.*")
	h, another := p.session(`{}`), p.session(`{}`)
	done := make(chan answer)
	go func() {
		a, _ := p.try(context.Background(), "POST", "/mcp", h, `{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"files.read","arguments":{"path":"a"}}}`)
		done <- a
	}()
	<-begun
	if a := p.do("POST", "/mcp", h, `{"jsonrpc":"2.0","id":"x","method":"tools/list"}`); !strings.Contains(a.body, "duplicate_id") {
		t.Errorf("H27: the same id again: %d %s", a.status, a.body)
	}
	cancel := func(h http.Header, id string) {
		if a := p.do("POST", "/mcp", h, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":`+id+`}}`); a.status != http.StatusAccepted {
			t.Errorf("cancelling: %d %s", a.status, a.body)
		}
	}
	cancel(another, `"x"`)
	cancel(h, `"y"`)
	select {
	case err := <-ended:
		t.Fatalf("another's cancellation ended it: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	cancel(h, `"x"`)
	if err := <-ended; err == nil {
		t.Error("it went on")
	}
	if a := <-done; a.code() != string(writ.OutcomeUnknown) {
		t.Errorf("the call: %d %s", a.status, a.body)
	}
}

// Nothing that a tool says can end an event, begin another, or be taken for a
// message of ours.
func TestH75EventInjection(t *testing.T) {
	d := open(t, writtest.Setup{}, nil)
	forged := "x\n\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"forged\":true}}\n\nevent: message\r\rdata: 1\u2028\u2029\u0085"
	d.Tools.Do = func(_ context.Context, _ *broker.Lease, o upstream.Order) (*upstream.Answer, error) {
		o.Progress("1", "")
		quoted := string(text(forged))
		return &upstream.Answer{Body: []byte("{\n\"content\" : \n\r\n[{\"type\":\"text\",\"text\":" + quoted + "}]\r\n}")}, nil
	}
	p := d.agent("files.*")
	body := strings.Replace(modern("1", "tools/call", `"name":"files.read","arguments":{"path":"a"}`, ""), `"_meta":{`, `"_meta":{"progressToken":"a\u2028\n\ndata: 1",`, 1)
	a := p.do("POST", "/mcp", headers("tools/call", "files.read"), body)
	for _, line := range strings.Split(strings.TrimSuffix(a.body, "\n\n"), "\n") {
		if line != "" && !strings.HasPrefix(line, "data: {\"jsonrpc\":\"2.0\",\"") {
			t.Errorf("a line %q", line)
		}
	}
	if len(a.events) != 2 {
		t.Errorf("%d events: %q", len(a.events), a.body)
	}
	if a.text() != forged {
		t.Errorf("the text came as %q", a.text())
	}
	if strings.ContainsAny(a.body, "\r\u2028\u2029\u0085") {
		t.Errorf("a line end got through: %q", a.body)
	}
}

func text(s string) writ.JSON {
	var b canon.Builder
	b.Text("t", s)
	j, err := b.JSON()
	if err != nil {
		panic(err)
	}
	return j[len(`{"t":`) : len(j)-1]
}

// TestH70SessionsKeepLittle declares a megabyte of capabilities in a session,
// which would be kept for an hour.
func TestH70SessionsKeepLittle(t *testing.T) {
	d := open(t, writtest.Setup{}, nil)
	p := d.agent("files.*")
	for size, want := range map[int]int{8 << 10: http.StatusOK, 900 << 10: http.StatusBadRequest} {
		capabilities := `{"experimental":{"x":"` + strings.Repeat("x", size) + `"}}`
		a := p.do("POST", "/mcp", http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"}},
			`{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":`+capabilities+`,"clientInfo":{"name":"x","version":"1"}}}`)
		if a.status != want {
			t.Errorf("capabilities of %d bytes: %d %.200s, want %d", size, a.status, a.body, want)
		}
	}
}

// TestToolThatKeepsAsking has a tool answer each answer with a question.
func TestToolThatKeepsAsking(t *testing.T) {
	d := open(t, asking, nil)
	d.Tools.Do = func(ctx context.Context, l *broker.Lease, o upstream.Order) (*upstream.Answer, error) {
		o.Action.Inputs, o.Action.State = "", ""
		return play(ctx, l, o)
	}
	p := d.agent("ask.*")
	h := p.session(`{"elicitation":{}}`)
	s := p.stream("POST", h, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"ask.name"}}`)
	for asked := 0; ; asked++ {
		q := s.next()
		if str(q, "/method") == "" {
			if asked != 8 || !strings.Contains(str(q, "/result/content/0/text"), "keeps asking") {
				t.Errorf("after %d questions: %v %s", asked, s.err, q.Raw())
			}
			return
		}
		if a := p.do("POST", "/mcp", h, `{"jsonrpc":"2.0","id":"`+str(q, "/id")+`","result":{"action":"accept","content":{"name":"Ada"}}}`); a.status != http.StatusAccepted || asked > 8 {
			t.Fatalf("answer %d: %d %s", asked, a.status, a.body)
		}
	}
}

// TestH70SessionsAreFew opens more sessions than there may be, of one key and
// of all.
func TestH70SessionsAreFew(t *testing.T) {
	d := open(t, writtest.Setup{}, func(c *server.Config) { c.Limits.KeySessions, c.Limits.Sessions = 2, 3 })
	p, other := d.agent("files.*"), d.agent("files.*")
	for i, x := range []struct {
		p  *peer
		ok bool
	}{{p, true}, {p, true}, {p, false}, {other, true}, {other, false}} {
		if h := x.p.session(`{}`); (h.Get(mcp.HeaderSession) != "") != x.ok {
			t.Errorf("session %d: %q, want one: %v", i, h.Get(mcp.HeaderSession), x.ok)
		}
	}
}

// TestH47AnswerWaitsForApproval answers a tool with what needs a person's yes.
// The answers are not in a handle of ours, which would be too much to keep:
// the same request is made again.
func TestH47AnswerWaitsForApproval(t *testing.T) {
	s := asking
	s.Tools = append(slices.Clone(strange),
		writtest.Tool{Name: "desk.get", Tier: writ.ReadOnly, Result: writ.Label{Class: writ.Confidential}, Args: map[string]string{}})
	d := open(t, s, impatient)
	d.Tools.Do = play
	p := d.agent("ask.*", "desk.*")
	if a := p.call("desk.get", `{}`); a.text() == "" {
		t.Fatal(a.body)
	}
	ask := func(more string) answer {
		return p.do("POST", "/mcp", headers("tools/call", "ask.name"),
			modern("1", "tools/call", `"name":"ask.name","arguments":{}`+more, `{"elicitation":{"form":{},"url":{}}}`))
	}
	state := ask("").str("/result/requestState")
	answers := `,"requestState":"` + state + `","inputResponses":{"q":{"action":"accept","content":{"name":"Ada"}}}`
	if a := ask(answers); a.code() != "approval_required" || a.str("/result/requestState") != "" {
		t.Fatalf("answered: %d %s", a.status, a.body)
	}
	d.answer(true)
	if a := ask(strings.Replace(answers, "Ada", "Eve", 1)); a.code() != "approval_required" {
		t.Errorf("another answer than was approved: %d %s", a.status, a.body)
	}
	if a := ask(answers); !strings.Contains(a.text(), "Ada") {
		t.Errorf("answered when it was approved: %d %s", a.status, a.body)
	}
}
