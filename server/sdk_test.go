package server_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/writgate/writ/mcp"
	"github.com/writgate/writ/registry"
	"github.com/writgate/writ/server"
	"github.com/writgate/writ/writtest"
)

// The official SDK's client, over mutual TLS, as a peer that nobody here
// wrote: on the wire of 2026-07-28, which it tries first, and on that of
// 2025-11-25, to which it falls back.
func TestSDKClient(t *testing.T) {
	for _, version := range []string{mcp.Modern, mcp.Legacy} {
		t.Run(version, func(t *testing.T) {
			d := open(t, writtest.Setup{
				Registry: registry.Config{Continuations: []string{"ask"}},
				Tools:    append(slices.Clone(tools), strange...),
			}, func(c *server.Config) {
				c.Versions = []string{version}
				c.Status = "https://people.example/waiting/"
				c.Lists = lists
			})
			d.Tools.Do = play
			d.offerOthers()
			talk(t, d, version)
		})
	}
}

func talk(t *testing.T, d *door, version string) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	changed := make(chan struct{}, 8)
	progress := make(chan float64, 8)
	client := sdk.NewClient(&sdk.Implementation{Name: "peer", Version: "1"}, &sdk.ClientOptions{
		Capabilities: &sdk.ClientCapabilities{Elicitation: &sdk.ElicitationCapabilities{Form: &sdk.FormElicitationCapabilities{}, URL: &sdk.URLElicitationCapabilities{}}},
		ElicitationHandler: func(_ context.Context, r *sdk.ElicitRequest) (*sdk.ElicitResult, error) {
			if r.Params.Mode == "url" {
				if !strings.HasPrefix(r.Params.URL, "https://people.example/waiting/appr_") {
					t.Errorf("sent to %s", r.Params.URL)
				}
				d.answer(true)
				return &sdk.ElicitResult{Action: "accept"}, nil
			}
			return &sdk.ElicitResult{Action: "accept", Content: map[string]any{"name": "Ada"}}, nil
		},
		ToolListChangedHandler: func(context.Context, *sdk.ToolListChangedRequest) { changed <- struct{}{} },
		ProgressNotificationHandler: func(_ context.Context, r *sdk.ProgressNotificationClientRequest) {
			progress <- r.Params.Progress
		},
	})
	p := d.agent("files.*", "mail.*", "bank.*", "ask.*", "odd.*")
	s, err := client.Connect(ctx, &sdk.StreamableClientTransport{Endpoint: "https://" + d.addr + "/mcp", HTTPClient: p.http, MaxRetries: -1}, nil)
	d.must(err)
	if got := s.InitializeResult(); got.ProtocolVersion != version || got.ServerInfo.Name != "writ" || got.Instructions == "" {
		t.Errorf("connected to %+v", got)
	}
	list, err := s.ListTools(ctx, nil)
	d.must(err)
	var names []string
	for _, tool := range list.Tools {
		names = append(names, tool.Name)
	}
	if want := []string{"ask.model", "ask.name", "ask.url", "bank.pay", "files.read", "mail.send", "odd.bytes", "odd.error", "odd.mirror", "odd.progress"}; !slices.Equal(names, want) {
		t.Errorf("tools %v, want %v", names, want)
	}
	call := func(tool string, args any) (string, *sdk.CallToolResult) {
		t.Helper()
		params := &sdk.CallToolParams{Name: tool, Arguments: args}
		if tool == "odd.progress" {
			params.SetProgressToken("token")
		}
		res, err := s.CallTool(ctx, params)
		if err != nil {
			t.Fatalf("%s: %v", tool, err)
		}
		if len(res.Content) != 1 {
			t.Fatalf("%s: %d contents", tool, len(res.Content))
		}
		return res.Content[0].(*sdk.TextContent).Text, res
	}
	if text, res := call("files.read", map[string]any{"path": "a"}); text != "the content" || res.IsError || res.Meta[mcp.KeyReceipt] == nil {
		t.Errorf("files.read: %q, %+v", text, res.Meta)
	}
	if text, res := call("files.read", map[string]any{"path": 1}); !res.IsError || !strings.Contains(text, "invalid_arguments") {
		t.Errorf("a wrong argument: %q", text)
	}
	if text, _ := call("odd.progress", nil); text != "done" {
		t.Errorf("odd.progress: %q", text)
	}
	for _, want := range []float64{1, 2} { // the client hears of it beside the answer
		select {
		case got := <-progress:
			if got != want {
				t.Errorf("progress %v, want %v", got, want)
			}
		case <-ctx.Done():
			t.Fatal("no progress")
		}
	}
	if text, _ := call("ask.name", nil); text != `inputs {"q":{"action":"accept","content":{"name":"Ada"}}} state the tool's own` {
		t.Errorf("ask.name: %q", text)
	}
	if text, res := call("ask.url", nil); !res.IsError || !strings.Contains(text, "not passed on") {
		t.Errorf("ask.url: %q", text)
	}
	if _, err := s.CallTool(ctx, &sdk.CallToolParams{Name: "odd.error"}); err == nil || !strings.Contains(err.Error(), "what you sent me is old") {
		t.Errorf("odd.error: %v", err)
	}
	text, _ := call("bank.pay", map[string]any{"amount": 7})
	if version == mcp.Legacy { // it is told to call again
		if !strings.Contains(text, "approval_required") {
			t.Errorf("bank.pay at first: %q", text)
		}
		d.answer(true)
		text, _ = call("bank.pay", map[string]any{"amount": 7})
	}
	if text != "done" {
		t.Errorf("bank.pay: %q", text)
	}
	resources, err := s.ListResources(ctx, nil)
	d.must(err)
	if len(resources.Resources) != 2 || resources.Resources[0].URI != "files+file:///a" {
		t.Errorf("resources %+v", resources.Resources)
	}
	read, err := s.ReadResource(ctx, &sdk.ReadResourceParams{URI: "files+file:///a"})
	d.must(err)
	if len(read.Contents) != 1 || read.Contents[0].Text != "A" {
		t.Errorf("resource %+v", read.Contents)
	}
	prompt, err := s.GetPrompt(ctx, &sdk.GetPromptParams{Name: "files.summary", Arguments: map[string]string{"path": "a"}})
	d.must(err)
	if prompt.Description != `{"arguments":{"path":"a"},"name":"summary"}` {
		t.Errorf("prompt %+v", prompt)
	}
	for range 50 { // the client opens its stream when it likes
		d.mcp.Changed()
		select {
		case <-changed:
			d.must(s.Close())
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
	t.Error("the client never heard that the list changed")
}
