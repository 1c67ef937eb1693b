package server_test

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/writgate/writ"
	"github.com/writgate/writ/server"
	"github.com/writgate/writ/writtest"
)

// BenchmarkRequests measures what the door costs, without a network: all of a
// ping, a list of a hundred tools, and a call to one that costs nothing.
func BenchmarkRequests(b *testing.B) {
	var many []writtest.Tool
	for i := range 100 {
		many = append(many, writtest.Tool{Name: writ.ToolName(fmt.Sprintf("files.read%d", i)), Tier: writ.ReadOnly, Args: map[string]string{"path": "string", "line": "integer"}})
	}
	d := open(b, writtest.Setup{Tools: many}, func(c *server.Config) { c.Limits.KeyRate = 1e9 })
	p := d.agent("files.*")
	state := p.state()
	for _, c := range []struct{ name, method, tool, params string }{
		{"unknown", "ping", "", ""},
		{"list", "tools/list", "", ""},
		{"call", "tools/call", "files.read7", `"name":"files.read7","arguments":{"path":"a","line":1}`},
	} {
		body := modern("1", c.method, c.params, "")
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequest("POST", "/mcp", strings.NewReader(body))
				r.Host, r.TLS, r.Header = d.addr, state, headers(c.method, c.tool)
				w := httptest.NewRecorder()
				d.mcp.ServeHTTP(w, r)
				if w.Code != 200 && c.name != "unknown" {
					b.Fatalf("%d %s", w.Code, w.Body)
				}
			}
		})
	}
}
