package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/writgate/writ"
	wire "github.com/writgate/writ/mcp"
)

// An Agent calls tools by script, over the official SDK's client. It holds no
// credential and proves nothing: whatever stands between it and the tools
// does that.
type Agent struct {
	session *mcp.ClientSession
	asked   func(context.Context, string) error
	waited  []string // the pages it was shown while the call under way waited
}

// Dial connects an agent to an MCP endpoint over HTTP. When a call waits for a
// person, asked is called with the page that shows how that stands; when it
// returns without error the agent goes on waiting, at the endpoint. An agent
// without asked says that it cannot show anybody a page.
func Dial(ctx context.Context, endpoint string, client *http.Client, asked func(ctx context.Context, page string) error) (*Agent, error) {
	a := &Agent{asked: asked}
	options := &mcp.ClientOptions{Capabilities: &mcp.ClientCapabilities{}}
	if asked != nil {
		options.Capabilities.Elicitation = &mcp.ElicitationCapabilities{URL: &mcp.URLElicitationCapabilities{}}
		options.ElicitationHandler = a.elicited
	}
	c := mcp.NewClient(&mcp.Implementation{Name: "acme-support-agent", Version: "1.0.0"}, options)
	session, err := c.Connect(ctx, &mcp.StreamableClientTransport{
		Endpoint: endpoint, HTTPClient: client, MaxRetries: -1, DisableStandaloneSSE: true,
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("connecting the agent: %w", err)
	}
	a.session = session
	return a, nil
}

// elicited is told that a call waits.
func (a *Agent) elicited(ctx context.Context, r *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
	if r.Params.Mode != "url" {
		return &mcp.ElicitResult{Action: "decline"}, nil
	}
	a.waited = append(a.waited, r.Params.URL)
	if err := a.asked(ctx, r.Params.URL); err != nil {
		return &mcp.ElicitResult{Action: "cancel"}, nil
	}
	return &mcp.ElicitResult{Action: "accept"}, nil
}

// Close ends the agent's connection.
func (a *Agent) Close() error { return a.session.Close() }

// Tools are the names of the tools that the agent is offered, sorted.
func (a *Agent) Tools(ctx context.Context) ([]string, error) {
	var names []string
	for t, err := range a.session.Tools(ctx, nil) {
		if err != nil {
			return nil, fmt.Errorf("listing tools: %w", err)
		}
		names = append(names, t.Name)
	}
	slices.Sort(names)
	return names, nil
}

// A Step is one call of the agent's script.
type Step struct {
	Say  string        `json:"-"`    // what is about to be seen
	Tool writ.ToolName `json:"tool"` // "upstream.name"
	Args writ.JSON     `json:"args"` // a text, as it is sent
	Want Ending        `json:"-"`
	Why  Why           `json:"-"` // it is refused; zero if it is not
}

// A Why says why a call is refused, and what would have let it through.
type Why struct {
	Code     writ.Code
	Policy   string        // that forbids it; empty: the task itself reaches no further
	Argument string        // JSON Pointer, of what is at fault; empty: nothing in particular
	From     writ.ToolName // whose result that argument was found in; empty: it does not matter
	Permits  string        // the smallest change that would have permitted it, whoever had to approve besides; empty: there is none to tell
}

// An Ending says how a step ends. The zero Ending is refused.
type Ending uint8

const (
	Refused  Ending = iota // by the gateway: it never reached the tool
	Ran                    // without anybody being asked
	Approved               // it waited for a person, who approved, and then ran once
)

func (e Ending) String() string {
	return map[Ending]string{Refused: "refused", Ran: "ran", Approved: "approved"}[e]
}

// Seen is what the agent saw of one step.
type Seen struct {
	Text     string    `json:"text"`               // what the tool, or the gateway, told the model
	Result   writ.JSON `json:"result,omitempty"`   // the structured result; empty if there is none
	Error    bool      `json:"error,omitempty"`    // the tool, or the gateway, says that it did not work
	Decision writ.JSON `json:"decision,omitempty"` // the gateway's block about its decision; empty if there is none
	Receipt  writ.JSON `json:"receipt,omitempty"`  // and about its record
	Pages    []string  `json:"pages,omitempty"`    // that were shown while it waited
}

// Do makes one call. Steps are done one at a time. The error is of the
// connection or the protocol; a refusal is something seen.
func (a *Agent) Do(ctx context.Context, s Step) (Seen, error) {
	a.waited = nil
	res, err := a.session.CallTool(ctx, &mcp.CallToolParams{Name: string(s.Tool), Arguments: json.RawMessage(s.Args)})
	if err != nil {
		return Seen{Pages: a.waited}, fmt.Errorf("calling %s: %w", s.Tool, err)
	}
	seen := Seen{Error: res.IsError, Pages: a.waited}
	var texts []string
	for _, c := range res.Content {
		if t, ok := c.(*mcp.TextContent); ok {
			texts = append(texts, t.Text)
		}
	}
	seen.Text = strings.Join(texts, "\n")
	for _, part := range []struct {
		from any
		to   *writ.JSON
	}{{res.StructuredContent, &seen.Result}, {res.Meta[wire.KeyDecision], &seen.Decision}, {res.Meta[wire.KeyReceipt], &seen.Receipt}} {
		if part.from == nil {
			continue
		}
		text, err := json.Marshal(part.from)
		if err != nil {
			return seen, fmt.Errorf("reading the answer of %s: %w", s.Tool, err)
		}
		*part.to = writ.JSON(text)
	}
	return seen, nil
}

// Check says how what was seen differs from what the step wants; nil if it
// does not.
func (s Step) Check(seen Seen) error {
	var decision struct {
		Code writ.Code `json:"code"`
	}
	if seen.Decision != "" {
		if err := json.Unmarshal([]byte(seen.Decision), &decision); err != nil {
			return fmt.Errorf("%s: the decision cannot be read: %w", s.Tool, err)
		}
	}
	got := Ran
	switch {
	case decision.Code != "":
		got = Refused
	case seen.Error:
		return fmt.Errorf("%s: the tool failed: %s", s.Tool, seen.Text)
	case len(seen.Pages) > 0:
		got = Approved
	}
	if got != s.Want || decision.Code != s.Why.Code {
		return fmt.Errorf("%s: %s %s, want %s %s", s.Tool, got, decision.Code, s.Want, s.Why.Code)
	}
	return nil
}
