package upstream_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/writgate/writ/mcp"
	"github.com/writgate/writ/upstream"
)

// FuzzAnswer reads what a stranger answers. Whatever it is, an answer is one
// response to our request, in the bytes that came, and reading ends.
func FuzzAnswer(f *testing.F) {
	good := response("1", ok("x"))
	for _, typ := range []string{"application/json", "text/event-stream", "text/event-stream; charset=utf-8", ""} {
		for _, body := range []string{
			good, event(good), "\ufeff" + event(good), "data: " + good, strings.ReplaceAll(event(good), "\n", "\r"), strings.ReplaceAll(event(good), "\n", "\r\n"),
			event(response("2", ok("x"))) + event(good), "event: x\n" + event(good) + ":\n\nretry: 1\nid: \x00\n\n", event(`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}`),
			"data: {\"jsonrpc\":\"2.0\",\ndata: \"id\":1,\"result\":{}}\n\n", `{"jsonrpc":"2.0","id":1,"error":{"code":-32020,"message":"x"}}`,
		} {
			f.Add(typ, 200, []byte(body))
			f.Add(typ, 404, []byte(body))
		}
	}
	f.Fuzz(func(t *testing.T, typ string, status int, body []byte) {
		m, seen, err := upstream.Read(typ, status, body)
		if (m == nil) != (err != nil) {
			t.Fatalf("answer %+v beside error %v", m, err)
		}
		if seen > len(body) {
			t.Fatalf("%d messages in %d bytes", seen, len(body))
		}
		if m == nil {
			return
		}
		if m.ID != "1" || m.Method != "" {
			t.Fatalf("%+v is no response to us", m)
		}
		// The result is a piece of the body, save for what frames events.
		var data []byte
		for line := range strings.FieldsFuncSeq(string(body), func(r rune) bool { return r == '\r' || r == '\n' }) {
			if line, ok := strings.CutPrefix(strings.TrimPrefix(line, "\ufeff"), "data:"); ok {
				data = append(data, line...)
			}
		}
		if raw := unframed(m.Result.Raw()); !bytes.Contains(unframed(body), raw) && !bytes.Contains(unframed(data), raw) {
			t.Fatalf("%q is not in %q", raw, body)
		}
	})
}

// unframed takes out everything that the framing of events may put between
// two bytes of a message.
func unframed(b []byte) []byte {
	for _, s := range []string{"\r", "\n", "data:", " "} {
		b = bytes.ReplaceAll(b, []byte(s), nil)
	}
	return b
}

// FuzzEvents reads a stream of events in pieces of every size.
func FuzzEvents(f *testing.F) {
	f.Add([]byte("data: a\n\ndata: b\r\rdata: c\r\n\r\n"))
	f.Add([]byte("id: 1\nretry: 2\ndata\ndata: x\n\nevent: y\ndata: z\n\n:\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		read := func(r io.Reader, size int) string {
			e := &mcp.EventReader{R: bufio.NewReaderSize(r, size), Event: 64, Events: 16}
			var out strings.Builder
			for {
				data, err := e.Next()
				if err != nil {
					fmt.Fprint(&out, err)
					return out.String()
				}
				if len(data) > 64 {
					t.Fatalf("an event of %d bytes", len(data))
				}
				fmt.Fprintf(&out, "%q %q %v\n", data, e.LastID, e.Retry)
			}
		}
		whole := read(bytes.NewReader(b), 4096)
		if bit := read(iotest.OneByteReader(bytes.NewReader(b)), 16); bit != whole {
			t.Fatalf("in one piece\n%s\nin many\n%s", whole, bit)
		}
	})
}
