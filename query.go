package writ

// An Assurance is how sure a person has made us. It is a ladder: a higher
// rung never permits less. The zero Assurance is none.
type Assurance uint8

const (
	NoAssurance   Assurance = iota
	UserConfirmed           // the user on whose behalf the agent acts said yes
	OneReviewer
	OnePasskey  // a reviewer who signed the action with a passkey
	TwoPasskeys // two distinct reviewers who did
)

// A Query is everything a decision depends on, time included. The same query
// under the same bundle gives the same decision, forever.
type Query struct {
	Version    int              `json:"v"` // 1
	Call       CallID           `json:"call"`
	Time       int64            `json:"time"` // Unix milliseconds
	Bundle     Digest           `json:"bundle"`
	Caller     Caller           `json:"caller"`
	Agent      Agent            `json:"agent"`
	Task       Task             `json:"task"`
	Tool       Tool             `json:"tool"`
	Action     Action           `json:"action"`
	Claim      Claim            `json:"claim"`
	Label      Label            `json:"label"` // what the task has read so far
	Provenance []Provenance     `json:"provenance,omitempty"`
	Spent      map[string]int64 `json:"spent,omitempty"` // by budget name, before this call
	Assurance  Assurance        `json:"assurance"`
	Approvers  []UserID         `json:"approvers,omitempty"`
}

// An Effect is what a decision says. The zero Effect denies.
type Effect uint8

const (
	Deny Effect = iota
	StepUp
	Defer
	Permit
)

// A Reason names a policy that determined a decision.
type Reason struct {
	Policy string `json:"policy"` // its @id, or policyN in its file
	File   string `json:"file"`
	Line   int    `json:"line"`
}

// An Obligation is what must be done to a permitted call's result.
type Obligation struct {
	Redact string `json:"redact"` // JSON Pointer into the structured result
}

// A Decision is the answer to a Query. Reasons are sorted.
type Decision struct {
	Effect      Effect       `json:"effect"`
	Code        Code         `json:"code,omitempty"`     // why not, when it is not a permit
	Argument    string       `json:"argument,omitempty"` // the argument that a check refused, as a JSON Pointer
	Requires    Assurance    `json:"requires,omitempty"` // the weakest that would permit, when Effect is StepUp
	Reasons     []Reason     `json:"reasons,omitempty"`
	Errors      []string     `json:"errors,omitempty"` // policies that could not be evaluated: any one denies
	Obligations []Obligation `json:"obligations,omitempty"`
}

var (
	effectNames    = []string{"deny", "step-up", "defer", "permit"}
	assuranceNames = []string{"none", "user-confirmed", "one-reviewer", "one-passkey", "two-passkeys"}
)

func (e Effect) String() string                { return nameOf(effectNames, int(e)) }
func (e Effect) MarshalText() ([]byte, error)  { return marshalName(effectNames, int(e)) }
func (e *Effect) UnmarshalText(b []byte) error { return unmarshalName(e, effectNames, "effect", b) }

func (a Assurance) String() string               { return nameOf(assuranceNames, int(a)) }
func (a Assurance) MarshalText() ([]byte, error) { return marshalName(assuranceNames, int(a)) }
func (a *Assurance) UnmarshalText(b []byte) error {
	return unmarshalName(a, assuranceNames, "assurance", b)
}
