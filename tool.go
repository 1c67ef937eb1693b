package writ

import (
	"encoding/json"
	"fmt"
	"strings"
)

// A ToolName is "upstream.name".
type ToolName string

// In says whether a pattern of a grant or a budget covers n: the name itself,
// every tool of an upstream as "upstream.*", or every tool as "*".
func (n ToolName) In(pattern ToolName) bool {
	if upstream, ok := strings.CutSuffix(string(pattern), "*"); ok {
		return upstream == "" || strings.HasSuffix(upstream, ".") && strings.Count(upstream, ".") == 1 && strings.HasPrefix(string(n), upstream)
	}
	return n == pattern && n != ""
}

// A Kind says what an action asks of an upstream. The registry places every
// kind; the gate never branches on it.
type Kind string

const (
	KindTool         Kind = "tool"
	KindResource     Kind = "resource"
	KindPrompt       Kind = "prompt"
	KindContinuation Kind = "continuation" // an answer that goes back up
	KindCredential   Kind = "credential"   // a request for the capability itself
)

// A Tool is what the operator reviewed: one definition of one upstream.
type Tool struct {
	Name       ToolName `json:"name"`
	Upstream   string   `json:"upstream"`
	Definition Digest   `json:"definition"` // of the whole definition, as pinned
	Tier       Tier     `json:"tier"`
	Fetch      bool     `json:"fetch,omitempty"`      // reaches out to an address from its arguments: carries data out
	Result     Label    `json:"result"`               // what its results are worth
	Credential string   `json:"credential,omitempty"` // the broker backend it needs
}

// An Action is one requested invocation, complete: its canonical bytes are
// judged, digested and sent.
type Action struct {
	Kind          Kind   `json:"kind"`
	Upstream      string `json:"upstream"`
	Name          string `json:"name"` // as the upstream knows it; "resource" and "prompt" for what is named in the arguments
	Definition    Digest `json:"definition"`
	Arguments     JSON   `json:"arguments"`
	Inputs        JSON   `json:"inputs,omitempty"`        // input responses
	State         string `json:"state,omitempty"`         // the upstream's own requestState
	Preconditions JSON   `json:"preconditions,omitempty"` // what must still hold at the target
}

// Answers says whether an action goes on with an earlier one, whose upstream
// has asked for more.
func (a *Action) Answers() bool { return a.Inputs != "" || a.State != "" }

// Digest names an action by everything that distinguishes it from another: it
// is what an approval is bound to, and a capability.
func (a *Action) Digest() Digest {
	b, err := json.Marshal(a) // fields in order, texts escaped one way: one action, one encoding
	if err != nil {
		panic(fmt.Sprintf("an action of texts does not marshal: %v", err))
	}
	return Hash("action", b)
}

// A Claim is the agent's own word for what it is doing. It is recorded and
// shown, and trusted for nothing.
type Claim struct {
	Intent string `json:"intent,omitempty"`
	Prompt string `json:"prompt,omitempty"` // the fragment of its prompt it acts on
}

// A Result is what came back: the upstream's JSON result with its own bytes,
// or an error it reported.
type Result struct {
	Body       JSON  `json:"body"`
	Error      bool  `json:"error,omitempty"`       // the tool says it failed
	InputAsked bool  `json:"input_asked,omitempty"` // input_required: not complete yet
	Label      Label `json:"label"`
}
