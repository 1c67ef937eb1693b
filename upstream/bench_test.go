package upstream_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/writgate/writ/upstream"
)

// lean is a modern server that does next to nothing.
func lean(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	_, rest, _ := bytes.Cut(body, []byte(`"id":`))
	id, _, _ := bytes.Cut(rest, []byte(","))
	result := `{"content":[{"type":"text","text":"x"}]}`
	switch r.Header.Get("Mcp-Method") {
	case "server/discover":
		result = `{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{}}}`
	case "tools/list":
		result = `{"tools":[` + plainTool + `]}`
	}
	w.Header()["Content-Type"] = []string{"application/json"}
	io.WriteString(w, `{"jsonrpc":"2.0","id":`+string(id)+`,"result":`+result+`}`)
}

// BenchmarkCall makes one modern call of some 700 bytes over loopback, client
// and server in one process. The floor is the same exchange by hand.
func BenchmarkCall(b *testing.B) {
	srv := httptest.NewServer(http.HandlerFunc(lean))
	defer srv.Close()
	b.Run("floor", func(b *testing.B) {
		body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"text":"` + strings.Repeat("x", 600) + `"}}`
		b.ReportAllocs()
		for b.Loop() {
			resp, err := http.Post(srv.URL, "application/json", strings.NewReader(body))
			if err != nil {
				b.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	})
	b.Run("call", func(b *testing.B) {
		w := newWorld(b, upstream.Config{Name: "up", URL: srv.URL})
		a := w.tool("up", "tool", `{"text":"`+strings.Repeat("x", 400)+`"}`)
		lease, _ := w.lease("task", "")
		b.ReportAllocs()
		for b.Loop() {
			if _, err := w.Call(b.Context(), lease, upstream.Order{Task: "task", Action: a}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
