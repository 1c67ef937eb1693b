package server_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/mcp"
	"github.com/writgate/writ/registry"
	"github.com/writgate/writ/server"
	"github.com/writgate/writ/writtest"
)

// Whatever a proven agent sends, the handler answers, in JSON; and what
// reaches a tool is canonical JSON that names what the message named, and
// holds none of the message's own bytes beside it.
func FuzzPost(f *testing.F) {
	f.Add("tools/call", "files.read", []byte(modern("1", "tools/call", `"name":"files.read","arguments":{"path":"a"}`, "")))
	f.Add("tools/call", "files.read", []byte(modern(`"x"`, "tools/call", `"name":"files.read","arguments":{ "path" : "\u0061\ud83d\ude00" }`, `{"elicitation":{}}`)))
	f.Add("tools/call", "ask.name", []byte(modern("1", "tools/call", `"name":"ask.name","requestState":"AAAA","inputResponses":{}`, `{"elicitation":{"url":{}}}`)))
	f.Add("tools/list", "", []byte(modern("1", "tools/list", `"cursor":"YQ"`, "")))
	f.Add("resources/read", "files+file:///a", []byte(modern("1", "resources/read", `"uri":"files+file:///a"`, "")))
	f.Add("prompts/get", "files.p", []byte(modern("1", "prompts/get", `"name":"files.p","arguments":{"a":"b"}`, "")))
	f.Add("server/discover", "", []byte(modern("1", "server/discover", "", "")))
	f.Add("initialize", "", []byte(`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{}}}`))
	f.Add("", "", []byte(`{"jsonrpc":"2.0","id":1,"result":{}}`))
	f.Add("", "", []byte(`[]`))

	d := open(f, writtest.Setup{Registry: registry.Config{Continuations: []string{"ask", "files"}}, Tools: append(tools[:1:1], strange...)}, func(c *server.Config) {
		c.Limits = server.Limits{KeyRate: 1e9, KeySessions: 1e9, Sessions: 1e9}
		c.Lists = lists
	})
	d.Tools.Do = play
	d.offerOthers()
	p := d.agent("files.*", "ask.*", "odd.*")
	state := p.state()
	seen := 0
	f.Fuzz(func(t *testing.T, method, name string, body []byte) {
		r := httptest.NewRequest("POST", "/mcp", bytes.NewReader(body))
		r.Host, r.TLS = d.addr, state
		r.Header = http.Header{
			"Content-Type": {"application/json"}, "Accept": {"application/json"},
			mcp.HeaderVersion: {mcp.Modern}, mcp.HeaderMethod: {method},
		}
		if name != "" {
			r.Header.Set(mcp.HeaderName, name)
		}
		w := httptest.NewRecorder()
		d.mcp.ServeHTTP(w, r)
		if w.Code == http.StatusAccepted && w.Body.Len() == 0 {
			return
		}
		if _, err := canon.Parse(w.Body.Bytes(), canon.Limits{Bytes: 8 << 20, Nodes: 1 << 20}); err != nil {
			t.Errorf("answered %d %q: %v", w.Code, w.Body, err)
		}
		if w.Code == http.StatusInternalServerError || strings.Contains(w.Body.String(), string(writ.InternalError)) {
			t.Errorf("%q is an internal error: %s", body, w.Body)
		}
		all := d.Tools.Seen()
		for _, a := range all[seen:] {
			for _, part := range []writ.JSON{a.Arguments, a.Inputs} {
				if v, err := canon.Parse([]byte(part), canon.Limits{}); part != "" && (err != nil || v.JSON() != part) {
					t.Errorf("%q went up, %v", part, err)
				}
			}
			if a.Preconditions != "" || a.Definition == "" {
				t.Errorf("%+v went up", a)
			}
		}
		seen = len(all)
	})
}
