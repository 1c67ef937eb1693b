package server_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/server"
	"github.com/writgate/writ/writtest"
)

// Whatever a stranger asks for, on whichever route and in whichever way that a
// probe, a browser or a scanner would, the answer is a refusal.
func TestH11NoRouteAnswersAStranger(t *testing.T) {
	d := open(t, writtest.Setup{}, nil)
	methods := []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"}
	paths := []string{
		"/mcp", "/mcp/", "/mcp/files", "/mcp/none", "/", "/health", "/healthz", "/readyz", "/livez", "/metrics", "/debug/pprof/", "/api/v1/tasks", "/status",
		"/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp", "/favicon.ico", "/mcp?x=1", "/mcp/../mcp", "/MCP", "/mcp%2ffiles", "//mcp", "/sse", "/message",
	}
	bodies := []string{
		"", modern("1", "server/discover", "", ""), `{"jsonrpc":"2.0","id":1,"method":"ping"}`,
		`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}`,
	}
	p := d.stranger()
	for _, method := range methods {
		for _, path := range paths {
			for i, body := range bodies {
				h := headers("server/discover", "")
				h.Set("User-Agent", "kube-probe/1.31")
				if i > 0 && method != "POST" {
					continue
				}
				a := p.do(method, path, h, body)
				if a.status < 400 {
					t.Errorf("%s %s with body %d: %d %s", method, path, i, a.status, a.body)
				}
				if a.status == http.StatusUnauthorized && a.header.Get("WWW-Authenticate") == "" {
					t.Errorf("%s %s: 401 without a challenge", method, path)
				}
			}
		}
	}
	if seen := d.Tools.Seen(); len(seen) > 0 {
		t.Errorf("%d actions reached the tools", len(seen))
	}
}

func TestH01NoCredential(t *testing.T) {
	d := open(t, writtest.Setup{}, nil)
	body := modern("1", "tools/call", `"name":"files.read","arguments":{"path":"a"}`, "")
	for _, c := range []struct {
		name, code, challenge string
		header                http.Header
	}{
		{"none", "unauthenticated", "", nil},
		{"empty", "unauthenticated", "", http.Header{"Authorization": {""}}},
		{"two", "unauthenticated", "", http.Header{"Authorization": {"DPoP a", "DPoP b"}}},
		{"bearer", "no_proof_of_possession", `error="invalid_dpop_proof"`, http.Header{"Authorization": {"Bearer abc"}}},
		{"basic", "unauthenticated", "", http.Header{"Authorization": {"Basic YTpi"}}},
		{"proof_alone", "unauthenticated", "", http.Header{"Dpop": {"a.b.c"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := headers("tools/call", "files.read")
			for name, values := range c.header {
				h[name] = values
			}
			a := d.stranger().do("POST", "/mcp", h, body)
			if a.status != http.StatusUnauthorized || a.code() != c.code {
				t.Fatalf("status %d, code %s, want 401 %s: %s", a.status, a.code(), c.code, a.body)
			}
			if got := a.header.Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("Content-Type = %s", got)
			}
			got := a.header.Get("WWW-Authenticate")
			if !strings.HasPrefix(got, "DPoP ") || !strings.Contains(got, `resource_metadata="https://writ.test/`) || !strings.Contains(got, c.challenge) {
				t.Errorf("WWW-Authenticate = %s, want DPoP with %s", got, c.challenge)
			}
		})
	}
}

// A header may say anything about who calls; nobody listens.
func TestH08IdentityHeadersAreNotRead(t *testing.T) {
	d := open(t, writtest.Setup{}, nil)
	body := modern("1", "tools/call", `"name":"files.read","arguments":{"path":"a"}`, "")
	lie := string(writtest.AgentID("root"))
	var names []string
	for _, base := range []string{"X-Forwarded-Client-Cert", "X-Writ-Agent", "X-Writ-Identity", "X-Client-Cert", "X-Forwarded-User", "X-Remote-User", "Remote-User", "Forwarded", "X-Ssl-Client-Verify", "X-Auth-Request-User"} {
		names = append(names, base, strings.ToLower(base), strings.ReplaceAll(base, "-", "_"), strings.ReplaceAll(base, "-", "."))
	}
	stranger, agent := d.stranger(), d.agent("files.*")
	for _, name := range names {
		h := headers("tools/call", "files.read")
		h[name] = []string{lie, "By=" + lie + ";Hash=00;URI=" + lie}
		h["Connection"] = []string{"close, " + name}
		if a := stranger.do("POST", "/mcp", h, body); a.status != http.StatusUnauthorized {
			t.Errorf("%s alone: %d %s", name, a.status, a.body)
		}
		if a := agent.do("POST", "/mcp", h, body); a.text() != "the content" {
			t.Errorf("%s beside a proof: %d %s", name, a.status, a.body)
		}
	}
	records, err := d.Ledger.Records(t.Context(), ledger.Filter{Type: ledger.TypeIntent})
	d.must(err)
	if len(records) != len(names) {
		t.Errorf("%d intents, want %d", len(records), len(names))
	}
	for _, r := range records {
		if r.Leaf.Agent != writtest.AgentID("billing") || r.Leaf.Key != agent.key {
			t.Fatalf("an intent of %s with key %s", r.Leaf.Agent, r.Leaf.Key)
		}
	}
}

func TestH12AgentNotActive(t *testing.T) {
	d := open(t, writtest.Setup{}, nil)
	p := d.agent("files.*")
	d.must(d.Gate.Catalog.SetState(t.Context(), "agent", string(writtest.AgentID("billing")), writ.Suspended, "omar"))
	a := p.call("files.read", `{"path":"a"}`)
	if a.status != http.StatusForbidden || a.code() != "agent_not_active" || !strings.Contains(a.body, "maya") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestH18MediaType(t *testing.T) {
	d := open(t, writtest.Setup{}, nil)
	p := d.agent("files.*")
	body := modern("1", "tools/call", `"name":"files.read","arguments":{"path":"a"}`, "")
	for _, c := range []struct {
		header http.Header
		status int
	}{
		{http.Header{"Content-Type": {"Application/JSON"}}, 200},
		{http.Header{"Content-Type": {"application/json; charset=UTF-8"}}, 200},
		{http.Header{"Content-Type": {"application/json;charset=utf-16"}}, 415},
		{http.Header{"Content-Type": {"text/json"}}, 415},
		{http.Header{"Content-Type": {"application/jsonp"}}, 415},
		{http.Header{"Content-Type": {"application/json", "application/json"}}, 415},
		{http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}}, 415},
		{http.Header{"Content-Type": nil}, 415},
		{http.Header{"Accept": {"text/html"}}, 406},
		{http.Header{"Accept": {"application/json"}}, 200},
		{http.Header{"Accept": {"*/*"}}, 200},
		{http.Header{"Accept": {"text/event-stream"}}, 200},
	} {
		h := headers("tools/call", "files.read")
		for name, values := range c.header {
			h[name] = values
		}
		if a := p.do("POST", "/mcp", h, body); a.status != c.status || (a.status == 200) != (a.text() == "the content") {
			t.Errorf("%v: %d %s, want %d", c.header, a.status, a.body, c.status)
		}
	}
}

func TestH23WrongHost(t *testing.T) {
	d := open(t, writtest.Setup{}, func(c *server.Config) { c.Hosts = []string{"writ.example"} })
	p := d.agent("files.*")
	for host, status := range map[string]int{
		"writ.example": 200, d.addr: 200,
		"evil.example": 421, "writ.example.": 421, "writ.example:0": 421, "writ.example:443": 421, "WRIT.example": 421, "x@writ.example": 421, "localhost": 421, "127.0.0.1": 421,
	} {
		h := headers("tools/list", "")
		h.Set("Host", host)
		if a := p.do("POST", "/mcp", h, modern("1", "tools/list", "", "")); a.status != status {
			t.Errorf("Host %s: %d %s, want %d", host, a.status, a.body, status)
		}
	}
	for _, target := range []string{"https://evil.example/mcp", "https://" + d.addr + "/mcp", "http://writ.example/mcp"} {
		got := p.raw("POST " + target + " HTTP/1.1\r\nHost: " + d.addr + "\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
		if !strings.HasPrefix(got, "HTTP/1.1 421 ") {
			t.Errorf("absolute form %s: %.60q", target, got)
		}
	}
}

func TestH66OtherOrigin(t *testing.T) {
	d := open(t, writtest.Setup{}, func(c *server.Config) { c.Origins = []string{"https://console.example"} })
	p := d.agent("files.*")
	for _, c := range []struct {
		origins []string
		status  int
	}{
		{nil, 200},
		{[]string{"https://console.example"}, 200},
		{[]string{"https://evil.example"}, 403},
		{[]string{"null"}, 403},
		{[]string{""}, 403},
		{[]string{"https://" + d.addr}, 403},
		{[]string{"https://console.example.evil.example"}, 403},
		{[]string{"HTTPS://console.example"}, 403},
		{[]string{"https://console.example", "https://evil.example"}, 403},
	} {
		h := headers("tools/list", "")
		if c.origins != nil {
			h["Origin"] = c.origins
		}
		if a := p.do("POST", "/mcp", h, modern("1", "tools/list", "", "")); a.status != c.status {
			t.Errorf("Origin %q: %d %s, want %d", c.origins, a.status, a.body, c.status)
		}
	}
}

func TestH70LargeBodies(t *testing.T) {
	d := open(t, writtest.Setup{}, nil)
	p := d.agent("files.*")
	if a := p.do("POST", "/mcp", headers("tools/list", ""), strings.Repeat(" ", 1<<20+1)); a.status != 413 {
		t.Errorf("more than 1 MiB: %d %s", a.status, a.body)
	}
	pad := 1<<20 - len(modern("1", "tools/list", "", ""))
	if a := p.do("POST", "/mcp", headers("tools/list", ""), modern("1", "tools/list", "", "")+strings.Repeat(" ", pad)); a.status != 200 {
		t.Errorf("exactly 1 MiB: %d %s", a.status, a.body)
	}
	head := "POST /mcp HTTP/1.1\r\nHost: " + d.addr + "\r\nContent-Type: application/json\r\n"
	for name, c := range map[string]struct{ request, status string }{
		"announced_gigabyte": {head + "Content-Length: 1073741824\r\n\r\n{}", "413"},
		"long_head":          {head + "X-Pad: " + strings.Repeat("x", 64<<10) + "\r\nContent-Length: 0\r\n\r\n", "431"},
		"many_fields":        {head + strings.Repeat("A: b\r\n", 10_000) + "Content-Length: 0\r\n\r\n", "431"},
		"get_with_body":      {"GET /mcp HTTP/1.1\r\nHost: " + d.addr + "\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", "400"},
	} {
		if got := p.raw(c.request); !strings.HasPrefix(got, "HTTP/1.1 "+c.status+" ") {
			t.Errorf("%s: %.80q, want %s", name, got, c.status)
		}
	}
}

// The sum of records and of counted refusals is the number of requests.
func TestH77NoiseIsCountedExactly(t *testing.T) {
	d := open(t, writtest.Setup{}, nil)
	var mu sync.Mutex
	counts := map[writ.Code]int64{}
	var sample string
	fail := true
	d.noise.Record = func(_ context.Context, r server.Refusals) error {
		mu.Lock()
		defer mu.Unlock()
		if fail = !fail; !fail {
			return fmt.Errorf("the disk is full")
		}
		for code, n := range r.Counts {
			counts[code] += n
		}
		sample = r.Sample
		return nil
	}
	p, s := d.agent("files.*"), d.stranger()
	const each = 20
	for range each {
		s.call("files.read", `{"path":"a"}`)                                               // no identity
		p.do("POST", "/mcp", headers("tools/list", ""), `{"jsonrpc":"2.0","id":1,"id":1}`) // no message
		p.raw("GET /mcp HTTP/1.1\r\nHost: " + d.addr + "\r\nHost: " + d.addr + "\r\n\r\n") // no request
		p.do("GET", "/metrics", http.Header{}, "")                                         // nothing there
		p.call("none.such", `{}`)                                                          // a decision: recorded, not counted
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { d.noise.Run(ctx); close(done) }()
	time.Sleep(10 * time.Millisecond)
	stop()
	<-done
	d.noise.Run(ctx) // what could not be recorded the first time
	decisions, err := d.Ledger.Records(t.Context(), ledger.Filter{Type: ledger.TypeDecision})
	d.must(err)
	if len(decisions) != each || counts[writ.Unauthenticated] != each || counts[writ.InvalidRequest] != 3*each || len(counts) != 2 {
		t.Errorf("%d decisions and counts %v, want %d decisions, %d strangers and %d messages", len(decisions), counts, each, each, 3*each)
	}
	if !strings.HasSuffix(sample, " from 127.0.0.1") {
		t.Errorf("sample = %q", sample)
	}
}

// TestH80gTasksAreNotPassedOn asks for what upstreams may have and we do not
// serve: nobody's handle of a task, or question, reaches any of them.
func TestH80gTasksAreNotPassedOn(t *testing.T) {
	d := open(t, writtest.Setup{}, nil)
	p := d.agent("files.*", "mail.*", "bank.*")
	for _, method := range []string{
		"tasks/get", "tasks/result", "tasks/list", "tasks/cancel", "tasks/update", "completion/complete", "resources/subscribe", "resources/unsubscribe",
		"sampling/createMessage", "roots/list", "elicitation/create", "tools/call/", "Tools/call",
	} {
		a := p.ask(method, "", `"taskId":"somebody's"`)
		if strings.HasPrefix(method, "completion/") {
			a = p.ask(method, "", `"ref":{"type":"ref/prompt","name":"x"},"argument":{"name":"x","value":"y"}`)
		}
		if code, _ := a.json.Pointer("/error/code").Number(); code != "-32601" || a.status != http.StatusNotFound {
			t.Errorf("%s: %d %s", method, a.status, a.body)
		}
	}
	if n := len(d.Tools.Seen()); n != 0 {
		t.Errorf("%d actions reached the tools", n)
	}
}
