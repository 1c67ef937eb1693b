package writ

import "slices"

// A PurposeOrigin says who attests a task's purpose. Only instructions of a
// user, an operator or a harness are the prompt; an agent's own word is not.
// The zero PurposeOrigin is the agent.
type PurposeOrigin string

const (
	OriginAgent    PurposeOrigin = ""         // the agent's own word
	OriginHarness  PurposeOrigin = "harness"  // a registered channel the model's tools cannot use
	OriginOperator PurposeOrigin = "operator" // writ run --task
	OriginUser     PurposeOrigin = "user"     // signed by the user
)

// A Purpose is what a task is for.
type Purpose struct {
	Instructions string        `json:"instructions,omitempty"`
	Data         string        `json:"data,omitempty"` // pasted matter: untrusted, whoever pasted it
	Origin       PurposeOrigin `json:"origin,omitempty"`
}

// Prompt is what counts as the prompt for provenance: instructions that
// somebody other than the agent attests.
func (p Purpose) Prompt() string {
	if p.Origin == OriginAgent {
		return ""
	}
	return p.Instructions
}

// A Bound limits one argument. Every field that is set must hold; an argument
// that is absent satisfies no bound.
type Bound struct {
	Argument string   `json:"argument"`      // JSON Pointer into the arguments
	Min      string   `json:"min,omitempty"` // decimal
	Max      string   `json:"max,omitempty"` // decimal
	In       []string `json:"in,omitempty"`  // the string values allowed
}

// A Permission is one line of a grant: a tool, or every tool of an upstream
// written "upstream.*", and the bounds its arguments must keep.
type Permission struct {
	Tool   ToolName `json:"tool"`
	Bounds []Bound  `json:"bounds,omitempty"`
}

// A Grant is what a task may do. The zero Grant permits nothing.
type Grant []Permission

// Holds says whether a line of the grant covers a tool, its bounds aside.
func (g Grant) Holds(n ToolName) bool {
	return slices.ContainsFunc(g, func(p Permission) bool { return n.In(p.Tool) })
}

// A Budget limits what a task may do in sum. It counts calls, or, if Sum
// names an argument, adds up that argument's integer value.
type Budget struct {
	Name  string   `json:"name"`
	Tool  ToolName `json:"tool"`          // a tool, or "upstream.*", or "*"
	Sum   string   `json:"sum,omitempty"` // JSON Pointer into the arguments
	Limit int64    `json:"limit"`
}

// An Isolation says what keeps an agent from going around Writ.
type Isolation string

const (
	IsolationNone    Isolation = "" // nothing: the agent runs as its user
	IsolationSandbox Isolation = "sandbox"
	IsolationUID     Isolation = "uid"
	IsolationHost    Isolation = "host"
)

// A Task is the unit of work that scopes authority: history, labels, budgets,
// approvals and credentials belong to it, never to a connection.
type Task struct {
	ID          TaskID     `json:"id"`
	Parent      TaskID     `json:"parent,omitempty"`
	Agent       AgentID    `json:"agent"`
	User        UserID     `json:"user,omitempty"`
	Key         Thumbprint `json:"key"` // the one key whose calls are this task's
	Purpose     Purpose    `json:"purpose"`
	Grant       Grant      `json:"grant,omitempty"`
	Budgets     []Budget   `json:"budgets,omitempty"`
	Environment string     `json:"environment"`
	Isolation   Isolation  `json:"isolation,omitempty"`
	Unattended  bool       `json:"unattended,omitempty"` // nobody opened it: read-only, no fetch
	Opened      int64      `json:"opened"`               // Unix milliseconds
	Expires     int64      `json:"expires"`              // Unix milliseconds
	State       State      `json:"state"`
}
