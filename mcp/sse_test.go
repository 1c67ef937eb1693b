package mcp_test

import (
	"bufio"
	"strings"
	"testing"
	"time"

	"github.com/writgate/writ/mcp"
)

func TestEventReaderSaysWhereToGoOn(t *testing.T) {
	stream := "id: a\ndata:\n\nretry: 1500\nid: b\ndata: {}\n\nid: c\x00d\nretry: soon\ndata: {}\n\nid\ndata: {}\n\n"
	r := &mcp.EventReader{R: bufio.NewReader(strings.NewReader(stream)), Event: 1 << 10, Events: 10}
	for i, want := range []struct {
		data, id string
		retry    time.Duration
	}{{"", "a", 0}, {"{}", "b", 1500 * time.Millisecond}, {"{}", "b", 1500 * time.Millisecond}, {"{}", "", 1500 * time.Millisecond}} {
		data, err := r.Next()
		if err != nil || string(data) != want.data || r.LastID != want.id || r.Retry != want.retry {
			t.Errorf("event %d: %q, id %q, retry %v, %v, want %+v", i, data, r.LastID, r.Retry, err, want)
		}
	}
}
