package server

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"
)

// What checkHead lets through, net/http reads in the same way: the same
// length, the same fields, nothing folded or joined.
func FuzzCheckHead(f *testing.F) {
	f.Add([]byte("POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\nX: \t b \r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.1\nHost: a\n\n"))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\n X: b\r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := checkHead(b)
		if err != nil || n == 0 {
			return
		}
		end := bytes.Index(b, []byte("\r\n\r\n")) + 4
		if end < 4 || n < end {
			t.Fatalf("a head of %d bytes, a request of %d", end, n)
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return // net/http refuses more than we do
		}
		if len(r.TransferEncoding) > 0 || r.ContentLength != int64(n-end) {
			t.Errorf("net/http reads a body of %d %v, we %d", r.ContentLength, r.TransferEncoding, n-end)
		}
		fields := 0
		for _, values := range r.Header {
			fields += len(values)
		}
		lines := strings.Count(string(b[:end]), "\r\n") - 2 // the request line, and the empty one
		if fields+1 != lines {                              // net/http keeps Host apart
			t.Errorf("net/http reads %d fields, we %d", fields+1, lines)
		}
	})
}
