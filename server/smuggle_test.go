package server_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/writgate/writ/writtest"
)

// What two parsers of HTTP could frame differently is refused, and the
// connection closed, before anything on it is believed: a second request
// hidden in the first never runs.
func TestH22Smuggling(t *testing.T) {
	d := open(t, writtest.Setup{}, nil)
	p := d.agent("files.*")
	body := modern("1", "tools/call", `"name":"files.read","arguments":{"path":"a"}`, "")
	length := strconv.Itoa(len(body))
	head := func(lines ...string) string {
		return "POST /mcp HTTP/1.1\r\nHost: " + d.addr + "\r\nContent-Type: application/json\r\nAccept: application/json\r\n" +
			"Mcp-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: files.read\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n"
	}
	whole := head("Connection: close", "Content-Length: "+length) + body
	chunked := "5\r\nhello\r\n0\r\n\r\n"
	if got := p.raw(whole); !strings.HasPrefix(got, "HTTP/1.1 200 ") || !strings.Contains(got, "the content") {
		t.Fatalf("an honest request: %q", got)
	}
	if got := p.raw(head("Content-Length: "+length) + body + whole); strings.Count(got, "HTTP/1.1 200 ") != 2 {
		t.Fatalf("two honest requests: %q", got)
	}
	before := len(d.Tools.Seen())
	for name, request := range map[string]string{
		"cl_te":              head("Content-Length: 6", "Transfer-Encoding: chunked") + "0\r\n\r\nG",
		"te_cl":              head("Transfer-Encoding: chunked", "Content-Length: 3") + "8\r\nSMUGGLED\r\n0\r\n\r\n",
		"te_alone":           head("Transfer-Encoding: chunked") + chunked,
		"te_identity":        head("Transfer-Encoding: chunked, identity") + chunked,
		"te_twice":           head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + chunked,
		"te_xchunked":        head("Transfer-Encoding: xchunked", "Content-Length: "+length) + body,
		"te_tab":             head("Transfer-Encoding:\tchunked", "Content-Length: "+length) + body,
		"te_vertical_tab":    head("Transfer-Encoding: \x0bchunked", "Content-Length: "+length) + body,
		"te_space_colon":     head("Transfer-Encoding : chunked", "Content-Length: "+length) + body,
		"te_folded":          head("Transfer-Encoding:\r\n chunked", "Content-Length: "+length) + body,
		"te_upper":           head("TRANSFER-ENCODING: CHUNKED", "Content-Length: "+length) + body,
		"te_quoted":          head(`Transfer-Encoding: "chunked"`, "Content-Length: "+length) + body,
		"chunk_extension_lf": head("Transfer-Encoding: chunked") + "5;a\nx\r\nhello\r\n0\r\n\r\n",
		"cl_twice":           head("Content-Length: "+length, "Content-Length: 0") + body,
		"cl_twice_same":      head("Content-Length: "+length, "Content-Length: "+length) + body,
		"cl_list":            head("Content-Length: "+length+", "+length) + body,
		"cl_plus":            head("Content-Length: +"+length) + body,
		"cl_minus":           head("Content-Length: -1") + body,
		"cl_hex":             head("Content-Length: 0x10") + body,
		"cl_space_inside":    head("Content-Length: 1 0") + body,
		"cl_empty":           head("Content-Length: ") + body,
		"cl_huge":            head("Content-Length: 99999999999999999999") + body,
		"cl_null":            head("Content-Length: 5\x00") + body,
		"obs_fold":           head("X-A: b\r\n c", "Content-Length: "+length) + body,
		"obs_fold_first":     "POST /mcp HTTP/1.1\r\n Host: " + d.addr + "\r\nContent-Length: 0\r\n\r\n",
		"bare_lf":            strings.ReplaceAll(head("Content-Length: "+length), "\r\n", "\n") + body,
		"one_bare_lf":        head("X-A: b\nContent-Length: 0", "Content-Length: "+length) + body,
		"bare_cr":            head("X-A: b\rContent-Length: 0", "Content-Length: "+length) + body,
		"lf_end_of_head":     strings.TrimSuffix(head("Content-Length: "+length), "\r\n") + "\n" + body,
		"null_in_value":      head("X-A: b\x00", "Content-Length: "+length) + body,
		"space_in_name":      head("Content Length: 1", "Content-Length: "+length) + body,
		"no_colon":           head("Content-Length", "Content-Length: "+length) + body,
		"empty_name":         head(": b", "Content-Length: "+length) + body,
		"name_not_ascii":     head("Content-L\xc3\xa9ngth: 1", "Content-Length: "+length) + body,
		"two_hosts":          head("Host: evil.example", "Content-Length: "+length) + body,
		"no_host":            "GET /mcp HTTP/1.1\r\nX: y\r\n\r\n",
		"http_1_0":           "GET /mcp HTTP/1.0\r\nHost: " + d.addr + "\r\n\r\n",
		"http_0_9":           "GET /mcp\r\n\r\n",
		"http_2_preface":     "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"http_1_2":           "GET /mcp HTTP/1.2\r\nHost: " + d.addr + "\r\n\r\n",
		"two_spaces":         "GET  /mcp HTTP/1.1\r\nHost: " + d.addr + "\r\n\r\n",
		"tab_in_line":        "GET /mcp\tHTTP/1.1\r\nHost: " + d.addr + "\r\n\r\n",
		"space_in_target":    "GET /mcp HTTP/1.1 HTTP/1.1\r\nHost: " + d.addr + "\r\n\r\n",
		"leading_crlf":       "\r\nGET /mcp HTTP/1.1\r\nHost: " + d.addr + "\r\n\r\n",
		"method_not_token":   "G(T /mcp HTTP/1.1\r\nHost: " + d.addr + "\r\n\r\n",
		"target_not_ascii":   "GET /m\xc3\xa7p HTTP/1.1\r\nHost: " + d.addr + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			got := p.raw(request + whole)
			if !strings.HasPrefix(got, "HTTP/1.1 400 ") || !strings.Contains(got, "Connection: close") {
				t.Errorf("answered %.120q, want 400 and close", got)
			}
			if n := strings.Count(got, "HTTP/1.1 "); n != 1 {
				t.Errorf("%d answers, want one", n)
			}
			if n := len(d.Tools.Seen()); n != before {
				t.Errorf("%d actions reached the tools", n-before)
			}
		})
	}
	// What can only be wrong is refused when it is seen, not when time is up.
	for _, request := range []string{"GET /mcp HTTP/1.1\nHost: " + d.addr + "\n\n", "GET /mcp HTTP/1.1\r\nHost: a\rb"} {
		if got := p.raw(request); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
			t.Errorf("%q: %.80q", request, got)
		}
	}
	// An upgrade is not made, and the request is what it is.
	if got := p.raw(head("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__", "Connection: close", "Content-Length: "+length) + body); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("h2c upgrade: %.80q", got)
	}
	// What comes in pieces is one request.
	if got := p.pieces(whole); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("a request in pieces: %.80q", got)
	}
}
