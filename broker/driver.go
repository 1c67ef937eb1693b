package broker

import (
	"context"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/capability/issue"
)

// A Driver mints and revokes credentials at one backend. Its settings say
// what is minted; a call has no say in it.
type Driver interface {
	// Mint makes a credential for row, named by row.Handle at the backend if
	// the backend lets its user choose names. A Minted returned beside an
	// error means that something exists and must be revoked by its handle.
	// The error tells no secret but those in that Minted.
	Mint(ctx context.Context, row Row) (Minted, error)

	// Revoke ends whatever goes by handle: the one Mint returned, or
	// row.Handle if nobody received an answer. It is idempotent, and what
	// never existed is revoked. An error means: call again.
	Revoke(ctx context.Context, handle string) (Evidence, error)

	// Lifetime is how long a credential minted for ttl can live at most if
	// it is never revoked: 0 if nothing but Revoke ends it.
	Lifetime(ttl time.Duration) time.Duration
}

// A Minted is what a driver made.
type Minted struct {
	Secret Secret   // what the tool needs
	Also   []Secret // parts of Secret that are redacted on their own, such as a password in a URL
	Handle string   // replaces Row.Handle if set; holds no secret that is not sealed
	Until  int64    // Unix milliseconds: when it dies by itself; 0 if it does not
}

// An Order asks for a credential for one call.
type Order struct {
	Token   *issue.Token // the call's capability: without one there is no lease
	Task    writ.TaskID
	Agent   writ.AgentID
	Tool    writ.ToolName
	Tier    writ.Tier     // of the tool; only a read-only tool's lease is ever shared
	Backend string        // writ.Tool.Credential; empty if the tool needs none
	TTL     time.Duration // 0 means one minute; more than 15 minutes means 15
}

// A Row is the durable trace of a lease, written before anything is minted:
// enough to end what nobody received.
type Row struct {
	Lease      writ.LeaseID      `json:"lease"`
	Capability writ.CapabilityID `json:"capability"`
	Task       writ.TaskID       `json:"task"`
	Agent      writ.AgentID      `json:"agent"`
	Tool       writ.ToolName     `json:"tool"`
	Backend    string            `json:"backend,omitempty"` // empty: nothing will be minted, nothing need be written
	Handle     string            `json:"handle"`
	Process    Process           `json:"process"`          // whose duty it is to end it
	Shared     bool              `json:"shared,omitempty"` // with other calls of the same task
	Issued     int64             `json:"issued"`           // Unix milliseconds
	Expires    int64             `json:"expires"`          // Unix milliseconds: not usable through Writ at or after it
	Until      int64             `json:"until"`            // Unix milliseconds: dead by then whatever happens; 0 if nothing but revocation ends it

	token  *issue.Token // set by Prepare, and by nothing else: a row that was stored can only be revoked
	reused bool         // a lease of this task that exists already
}

// Reused says that the row belongs to a lease that this task holds already:
// it has been durable since then, and is not written again.
func (r Row) Reused() bool { return r.reused }

// A Process is one run of one gateway.
type Process struct {
	Gateway string `json:"gateway"`
	Run     string `json:"run"` // random
}

// An Outcome is how a credential ended. The zero Outcome is no end: it may
// still be alive.
type Outcome string

const (
	Revoked         Outcome = "revoked"           // nobody accepts it any more
	RevokedAtIssuer Outcome = "revoked_at_issuer" // a resource that does not ask the issuer may accept it until Until
	Expires         Outcome = "expires"           // it cannot be revoked and expires at Until
	Unrevocable     Outcome = "cannot_be_revoked" // it cannot be revoked and does not expire
	Held            Outcome = "held_for_task"     // alive on purpose, for other calls of its task, until Until at the latest
)

// An Evidence says what is known of a credential's end, and how.
type Evidence struct {
	Outcome Outcome  `json:"outcome"`
	Until   int64    `json:"until,omitempty"` // Unix milliseconds
	Steps   []string `json:"steps,omitempty"` // what was done, in order
}

func (e Evidence) String() string {
	at := time.UnixMilli(e.Until).UTC().Format("2006-01-02T15:04:05.000Z07:00")
	switch e.Outcome {
	case Revoked:
		return "revoked"
	case RevokedAtIssuer:
		return "revoked at issuer, resource may accept until " + at
	case Expires:
		return "expires at " + at
	case Unrevocable:
		return "cannot be revoked, never expires"
	case Held:
		return "held for its task until " + at
	}
	return "not revoked"
}
