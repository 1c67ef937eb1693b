package demo_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/writgate/writ"
	"github.com/writgate/writ/demo"
)

// asks is a server that has a person asked before it answers, as the gateway
// does. A client that cannot show a page is told to come back.
func asks(t *testing.T) (endpoint string) {
	t.Helper()
	s := mcp.NewServer(&mcp.Implementation{Name: "asks", Version: "1"}, nil)
	tool := &mcp.Tool{Name: "a.b", InputSchema: map[string]any{"type": "object"}}
	s.AddTool(tool, func(_ context.Context, r *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		if said, ok := r.Params.InputResponses["approval"].(*mcp.ElicitResult); ok && said.Action != "accept" {
			return &mcp.CallToolResult{
				IsError: true, Content: []mcp.Content{&mcp.TextContent{Text: "stop"}},
				Meta: mcp.Meta{"io.github.writgate/decision": map[string]any{"effect": "step-up", "code": "approval_required"}},
			}, nil
		}
		if r.Params.RequestState == "sealed" {
			return &mcp.CallToolResult{
				Content: []mcp.Content{&mcp.TextContent{Text: "done"}}, StructuredContent: map[string]any{"n": 1},
				Meta: mcp.Meta{"io.github.writgate/decision": map[string]any{"effect": "permit"}, "io.github.writgate/receipt": map[string]any{"index": 7}},
			}, nil
		}
		if c := r.ClientCapabilities(); c == nil || c.Elicitation == nil || c.Elicitation.URL == nil {
			return &mcp.CallToolResult{
				IsError: true, Content: []mcp.Content{&mcp.TextContent{Text: "come back"}},
				Meta: mcp.Meta{"io.github.writgate/decision": map[string]any{"effect": "step-up", "code": "approval_required"}},
			}, nil
		}
		return &mcp.CallToolResult{
			InputRequests: mcp.InputRequestMap{"approval": &mcp.ElicitParams{Mode: "url", URL: "http://writ.localhost/appr_1", Message: "m"}},
			RequestState:  "sealed",
		}, nil
	})
	h := httptest.NewServer(mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return s }, &mcp.StreamableHTTPOptions{Stateless: true}))
	t.Cleanup(h.Close)
	return h.URL
}

// TestAgentWaits: the agent shows the page and goes on waiting, and says what
// it saw.
func TestAgentWaits(t *testing.T) {
	endpoint, step := asks(t), demo.Step{Tool: "a.b", Args: `{}`, Want: demo.Approved}
	pages := 0
	a, err := demo.Dial(t.Context(), endpoint, nil, func(context.Context, string) error { pages++; return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if tools, err := a.Tools(t.Context()); err != nil || !slices.Equal(tools, []string{"a.b"}) {
		t.Errorf("tools %v, %v", tools, err)
	}
	for range 2 {
		seen, err := a.Do(t.Context(), step)
		if err != nil {
			t.Fatal(err)
		}
		if seen.Text != "done" || seen.Result != `{"n":1}` || seen.Decision != `{"effect":"permit"}` || seen.Receipt != `{"index":7}` ||
			!slices.Equal(seen.Pages, []string{"http://writ.localhost/appr_1"}) {
			t.Errorf("seen %+v", seen)
		}
		if err := step.Check(seen); err != nil {
			t.Error(err)
		}
	}
	if pages != 2 {
		t.Errorf("%d pages shown, want 2", pages)
	}
	other := step
	other.Want = demo.Ran
	if seen, _ := a.Do(t.Context(), step); other.Check(seen) == nil {
		t.Error("a step that was asked about ran without anybody being asked, says its check")
	}
}

// TestAgentGivesUp: an agent that has nobody to ask, or whose asking fails,
// does not get through.
func TestAgentGivesUp(t *testing.T) {
	endpoint := asks(t)
	step := demo.Step{Tool: "a.b", Args: `{}`, Want: demo.Refused, Why: demo.Why{Code: writ.ApprovalRequired}}
	a, err := demo.Dial(t.Context(), endpoint, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	seen, err := a.Do(t.Context(), step)
	if err != nil {
		t.Fatal(err)
	}
	if err := step.Check(seen); err != nil || seen.Text != "come back" || !seen.Error {
		t.Errorf("seen %+v, %v", seen, err)
	}
	step.Why.Code = writ.Forbidden
	if step.Check(seen) == nil {
		t.Error("refused for another reason, says nothing")
	}
	if _, err := demo.Dial(t.Context(), "http://127.0.0.1:1/mcp", nil, nil); err == nil {
		t.Error("connected to nothing")
	}
	b, err := demo.Dial(t.Context(), endpoint, nil, func(context.Context, string) error { return errors.New("nobody is there") })
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	step.Why.Code = writ.ApprovalRequired
	if seen, err := b.Do(t.Context(), step); err != nil || step.Check(seen) != nil || seen.Text != "stop" {
		t.Errorf("with nobody there: %+v, %v", seen, err)
	}
	if _, err := b.Do(t.Context(), demo.Step{Tool: "no.such", Args: `{}`}); err == nil {
		t.Error("a tool that is not there answered")
	}
}
