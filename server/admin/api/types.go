// Package api is what operators and Writ say to each other: the objects of
// /api/v1, a client for it, and the proof that an operator's key signs. It
// knows nothing of how a gateway answers.
//
// Members are added to these objects, and never change or go. What was
// recorded is given as it was recorded, times in Unix milliseconds; what is
// made for people has times of RFC 3339.
package api

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/writgate/writ"
)

// A Time is Unix milliseconds, and is written as RFC 3339 with milliseconds,
// in UTC.
type Time int64

const timeLayout = "2006-01-02T15:04:05.000Z07:00"

func (t Time) String() string               { return time.UnixMilli(int64(t)).UTC().Format(timeLayout) }
func (t Time) MarshalText() ([]byte, error) { return []byte(t.String()), nil }
func (t *Time) UnmarshalText(b []byte) error {
	v, err := time.Parse(timeLayout, string(b))
	if err != nil {
		return fmt.Errorf("not a time of RFC 3339 with milliseconds: %.40q", b)
	}
	*t = Time(v.UnixMilli())
	return nil
}

// A Page is a part of a list.
type Page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"` // the "after" of the next page; empty at the end
}

// A Problem is why a request was not answered (RFC 9457). Code is the stable
// word, the same as everywhere in Writ; Cause is for the operator.
type Problem struct {
	Status   int       `json:"status"`
	Title    string    `json:"title"`
	Code     writ.Code `json:"code"`
	Detail   string    `json:"detail"`
	Cause    string    `json:"cause,omitempty"`
	Argument string    `json:"argument,omitempty"` // JSON Pointer, of what is at fault
	Approval *Approval `json:"approval,omitempty"` // as it stands, if it was decided before
}

// NotFound is the code for what does not exist.
const NotFound writ.Code = "not_found"

func (p *Problem) Error() string {
	if p.Cause != "" {
		return p.Detail + ": " + p.Cause
	}
	return p.Detail
}

// A Status is how the gateway and its log are.
type Status struct {
	Version    string `json:"version"`
	Origin     string `json:"origin"`     // the log's name: whom a proof is for
	Key        string `json:"key"`        // the log's verifier key (c2sp.org/signed-note)
	Size       int64  `json:"size"`       // records in the log
	Checkpoint string `json:"checkpoint"` // the newest signed tree head (c2sp.org/tlog-checkpoint)
	Behind     int64  `json:"behind_ms"`  // how far the clock is behind the newest record
	Failed     bool   `json:"failed"`     // the ledger takes no records any more: restart
	Halted     bool   `json:"halted"`
	LiftNeeds  int    `json:"lift_needs,omitempty"` // how many more operators must lift the halt
}

// A Call is one call as its newest decision left it.
type Call struct {
	ID          writ.CallID     `json:"call"`
	Time        Time            `json:"time"` // of the decision
	Agent       writ.AgentID    `json:"agent,omitempty"`
	Task        writ.TaskID     `json:"task,omitempty"`
	Tool        writ.ToolName   `json:"tool,omitempty"`
	Tier        string          `json:"tier,omitempty"`
	Environment string          `json:"environment,omitempty"`
	Effect      string          `json:"effect"` // permit, deny, step-up, defer
	Code        writ.Code       `json:"code,omitempty"`
	Reasons     []string        `json:"reasons,omitempty"` // the policies that decided; the first few
	Approval    writ.ApprovalID `json:"approval,omitempty"`
	Outcome     string          `json:"outcome,omitempty"` // of a permitted call: running, result, error, or the code of what went wrong
	Index       int64           `json:"index"`             // of the record of the decision
	Records     []Record        `json:"records,omitempty"` // all there are about the call, when one call is asked for
}

// A Record is one record of the log. Its content, which is encrypted at rest,
// is there when it is asked for: by part, JSON as it is, anything else as
// text.
type Record struct {
	Index   int64                      `json:"index"`
	Time    Time                       `json:"time"`
	Leaf    json.RawMessage            `json:"leaf"` // as it was committed
	Content map[string]json.RawMessage `json:"content,omitempty"`
	Erased  bool                       `json:"erased,omitempty"`  // there was content, and nobody can read it any more
	Receipt string                     `json:"receipt,omitempty"` // when it is asked for: a c2sp.org/tlog-proof@v1, which anybody can verify offline
}

// An Explanation says why a decision was made, from its record alone.
type Explanation struct {
	Call       Call              `json:"call"`
	Caller     writ.Caller       `json:"caller"`
	Owner      writ.UserID       `json:"owner,omitempty"`
	User       writ.UserID       `json:"user,omitempty"` // on whose behalf
	Purpose    writ.Purpose      `json:"purpose"`
	Claim      writ.Claim        `json:"claim"`  // the agent's own word: unverified
	Action     json.RawMessage   `json:"action"` // as it was judged
	Decision   writ.Decision     `json:"decision"`
	Why        string            `json:"why"`               // one sentence
	Bundle     writ.Digest       `json:"bundle,omitempty"`  // of the policies that decided
	InForce    bool              `json:"in_force"`          // they still do
	Permits    []Change          `json:"permits,omitempty"` // each alone would have permitted the call, the smallest first
	Provenance []writ.Provenance `json:"provenance"`        // of the arguments
	Label      writ.Label        `json:"label"`             // of what the task had read
	Size       int64             `json:"size"`              // records in the log, this one among them
}

// A Change is one thing that was not so, and under which a call would have
// been permitted.
type Change struct {
	What     string         `json:"what"`               // assurance, value, origin, budget, bound, grant
	Argument string         `json:"argument,omitempty"` // JSON Pointer; empty means all of them
	Name     string         `json:"name,omitempty"`     // of the budget or the tool
	To       string         `json:"to,omitempty"`
	Requires writ.Assurance `json:"requires,omitempty"` // from people, besides
	Text     string         `json:"text"`               // all of that, in words
}

// A Task is one task as it stands. What it is for is shown when it is asked
// for.
type Task struct {
	ID          writ.TaskID       `json:"task"`
	Parent      writ.TaskID       `json:"parent,omitempty"`
	Agent       writ.AgentID      `json:"agent"`
	User        writ.UserID       `json:"user,omitempty"`
	Key         writ.Thumbprint   `json:"key"`
	Environment string            `json:"environment"`
	State       writ.State        `json:"state"` // open, paused, ended
	Opened      Time              `json:"opened"`
	Expires     Time              `json:"expires"`
	Unattended  bool              `json:"unattended,omitempty"` // nobody opened it
	Isolation   writ.Isolation    `json:"isolation,omitempty"`
	Grant       []writ.Permission `json:"grant,omitempty"`
	Budgets     []writ.Budget     `json:"budgets,omitempty"`
	Purpose     *writ.Purpose     `json:"purpose,omitempty"` // when it is asked for
}

// An Agent is one registered agent as it stands.
type Agent struct {
	ID          writ.AgentID `json:"agent"`
	Owner       writ.UserID  `json:"owner"`
	Purpose     string       `json:"purpose,omitempty"`
	Environment string       `json:"environment"`
	Groups      []string     `json:"groups,omitempty"`
	HighestTier writ.Tier    `json:"highest_tier"`
	State       writ.State   `json:"state"`
	Expires     Time         `json:"expires,omitempty"`
	RecertifyBy Time         `json:"recertify_by,omitempty"`
}

// A Tool is one thing an upstream offers. What the upstream says of it is the
// upstream's own word.
type Tool struct {
	Name       writ.ToolName   `json:"tool"`
	Upstream   string          `json:"upstream"`
	Kind       writ.Kind       `json:"kind"`
	Definition writ.Digest     `json:"definition"`
	Quarantine string          `json:"quarantine,omitempty"` // why it cannot be called
	Proposed   bool            `json:"proposed,omitempty"`   // what follows is only what its definition suggests
	Tier       writ.Tier       `json:"tier"`
	Fetch      bool            `json:"fetch"`
	Result     writ.Label      `json:"result"`
	Credential string          `json:"credential,omitempty"`
	Title      string          `json:"title,omitempty"`
	Summary    string          `json:"summary,omitempty"`
	Offered    json.RawMessage `json:"offered,omitempty"` // the whole definition, when one tool is asked for
}

// An Approval is a question to a person, with the answers so far.
type Approval struct {
	ID       writ.ApprovalID `json:"approval"`
	Call     writ.CallID     `json:"call"`
	Task     writ.TaskID     `json:"task"`
	Agent    writ.AgentID    `json:"agent"`
	Owner    writ.UserID     `json:"owner,omitempty"`
	User     writ.UserID     `json:"user,omitempty"`
	Tool     writ.ToolName   `json:"tool"`
	Tier     writ.Tier       `json:"tier"`
	Requires writ.Assurance  `json:"requires"`
	State    string          `json:"state"` // pending, approved, denied, used, expired
	Asked    Time            `json:"asked"`
	Expires  Time            `json:"expires"`
	Answers  []Answer        `json:"answers,omitempty"`
	Shown    *Shown          `json:"shown,omitempty"` // when it is asked for
}

// An Answer is what one person said.
type Answer struct {
	By     writ.UserID `json:"by"`
	Time   Time        `json:"time"`
	Yes    bool        `json:"yes"`
	Reason string      `json:"reason,omitempty"` // when the content is asked for
}

// A Shown is what an approver sees. Action is the very text whose digest the
// approval is bound to: its member "arguments" is a JSON text in a string, the
// bytes that the tool gets.
type Shown struct {
	Digest     writ.Digest       `json:"digest"` // SHA-256 over "writ/action/v1", a zero byte, and action
	Action     json.RawMessage   `json:"action"`
	Provenance []writ.Provenance `json:"provenance,omitempty"`
	Label      writ.Label        `json:"label"` // what the task has read
	Purpose    writ.Purpose      `json:"purpose"`
	Claim      writ.Claim        `json:"claim"` // the agent's own word: unverified
}

// A Revocation is what taking authority away did.
type Revocation struct {
	Kind        string          `json:"kind"` // task, agent, owner, capability, tool, upstream
	Of          string          `json:"of"`
	Fenced      Time            `json:"fenced"`    // nothing was dispatched for it after this
	Cancelled   int             `json:"cancelled"` // calls under way here; their results are withheld
	Agents      []writ.AgentID  `json:"agents,omitempty"`
	Tasks       []writ.TaskID   `json:"tasks,omitempty"`
	Tools       []writ.ToolName `json:"tools,omitempty"`
	Credentials []Credential    `json:"credentials,omitempty"`
	Remains     []string        `json:"remains,omitempty"` // what could not be done, yet
}

// A Credential is one that was, or is, alive for a call or a task.
type Credential struct {
	Lease   writ.LeaseID  `json:"lease"`
	Task    writ.TaskID   `json:"task"`
	Tool    writ.ToolName `json:"tool"`
	Backend string        `json:"backend"`
	Outcome string        `json:"outcome,omitempty"` // how it ended; empty while it may be alive
	Until   Time          `json:"until,omitempty"`   // when it dies by itself
	Failed  int           `json:"failed,omitempty"`  // attempts to end it that failed
}

// A Policy is the policies in force, and those on disk.
type Policy struct {
	Bundle   writ.Digest       `json:"bundle,omitempty"`   // in force; empty is none, which denies everything
	Files    map[string]string `json:"files"`              // of the bundle: texts by name, the generated schema among them
	Offered  writ.Digest       `json:"offered,omitempty"`  // what the files on disk would make, with the tools as reviewed
	Drafts   map[string]string `json:"drafts,omitempty"`   // the files of that
	Changes  []string          `json:"changes,omitempty"`  // files that differ: "+ new", "- gone", "~ changed"
	Problems []string          `json:"problems,omitempty"` // why the files on disk cannot come into force
}

// A Run is what an agent that was just started needs to call tools.
type Run struct {
	Agent    writ.AgentID `json:"agent"`
	Task     writ.TaskID  `json:"task,omitempty"` // empty: nobody attends it, and it gets a short, read-only one
	Audience string       `json:"audience"`       // where the token is good: the MCP endpoint
	Token    string       `json:"token"`          // an access token, bound to the run's key
	Expires  Time         `json:"expires"`        // of the token
}

// A Fact is one thing that the doctor says.
type Fact struct {
	About string `json:"about"`
	Name  string `json:"name"`
	Value string `json:"value"`
	Level string `json:"level"`          // ok, note, warning, bad
	Hint  string `json:"hint,omitempty"` // what to do about it
}
