package demo_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/writgate/writ/demo"
)

// TestPerform: an agent does what it is told line by line, says when its call
// waits, and goes on after a call that came to nothing.
func TestPerform(t *testing.T) {
	in, tell := io.Pipe()
	hear, out := io.Pipe()
	over := make(chan error, 1)
	go func() { over <- demo.Perform(t.Context(), asks(t), in, out) }()
	lines := json.NewDecoder(hear)
	next := func() (l demo.Line) {
		t.Helper()
		if err := lines.Decode(&l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	if l := next(); !slices.Equal(l.Tools, []string{"a.b"}) {
		t.Errorf("it says %+v first", l)
	}
	do := func(s demo.Step) {
		t.Helper()
		if err := json.NewEncoder(tell).Encode(s); err != nil {
			t.Fatal(err)
		}
	}
	do(demo.Step{Tool: "no.such", Args: `{}`})
	if l := next(); l.Error == "" {
		t.Errorf("a tool that is not there: %+v", l)
	}
	step := demo.Step{Tool: "a.b", Args: `{}`, Want: demo.Approved}
	do(step)
	if l := next(); l.Page != "http://writ.localhost/appr_1" {
		t.Errorf("while it waits: %+v", l)
	}
	if l := next(); l.Seen == nil || step.Check(*l.Seen) != nil || l.Seen.Result != `{"n":1}` {
		t.Errorf("when it is over: %+v", l)
	}
	tell.Close()
	if err := <-over; err != nil {
		t.Error(err)
	}
}

// TestPerformStops: when nobody directs it any more, an agent does not wait
// for the end of its call.
func TestPerformStops(t *testing.T) {
	called, gone := make(chan bool, 1), make(chan bool, 1)
	s := mcp.NewServer(&mcp.Implementation{Name: "hangs", Version: "1"}, nil)
	s.AddTool(&mcp.Tool{Name: "a.b", InputSchema: map[string]any{"type": "object"}}, func(ctx context.Context, _ *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		called <- true
		<-ctx.Done()
		gone <- true
		return nil, ctx.Err()
	})
	h := httptest.NewServer(mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return s }, &mcp.StreamableHTTPOptions{
		Stateless: true, PropagateRequestCancellation: true,
	}))
	defer h.Close()
	in, tell := io.Pipe()
	over := make(chan error, 1)
	go func() { over <- demo.Perform(t.Context(), h.URL, in, io.Discard) }()
	if err := json.NewEncoder(tell).Encode(demo.Step{Tool: "a.b", Args: `{}`}); err != nil {
		t.Fatal(err)
	}
	<-called
	tell.Close()
	if err := <-over; err != nil {
		t.Error(err)
	}
	<-gone
	if err := demo.Perform(t.Context(), "http://127.0.0.1:1/", in, io.Discard); err == nil {
		t.Error("connected to nothing")
	}
}
