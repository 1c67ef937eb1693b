package writ

// A State is where an agent or a task is in its life. The zero State is
// neither active nor open, and so may do nothing.
type State string

const (
	Active    State = "active" // an agent that may act
	Suspended State = "suspended"
	Retired   State = "retired"

	Open   State = "open" // a task under which calls may run
	Paused State = "paused"
	Ended  State = "ended"
)

// An Agent is a registered non-human identity.
type Agent struct {
	ID          AgentID  `json:"id"`
	Owner       UserID   `json:"owner"`
	Purpose     string   `json:"purpose,omitempty"`
	Environment string   `json:"environment"`
	Groups      []string `json:"groups,omitempty"`
	HighestTier Tier     `json:"highest_tier"` // the most harmful tier it may ever use
	Expires     int64    `json:"expires"`      // Unix milliseconds; at or after it the agent is refused
	RecertifyBy int64    `json:"recertify_by"` // Unix milliseconds
	State       State    `json:"state"`
}

// A Proof says how a caller proved its key. The zero Proof proves nothing.
type Proof string

const (
	ProofTLS      Proof = "mtls"     // X.509-SVID over mutual TLS: the channel is the proof
	ProofDPoP     Proof = "dpop"     // RFC 9449
	ProofAsserted Proof = "asserted" // an enforcement point's word, never ours
)

// A Hop is one link of a delegation chain.
type Hop struct {
	Agent AgentID    `json:"agent"`
	Key   Thumbprint `json:"key"`
	Task  TaskID     `json:"task"`
}

// A Caller is a proven agent on one request: whoever holds Key, and nobody
// who merely says so.
type Caller struct {
	Agent AgentID    `json:"agent"`
	Key   Thumbprint `json:"key"`
	Proof Proof      `json:"proof"`
	User  UserID     `json:"user,omitempty"`
	Chain []Hop      `json:"chain,omitempty"` // from the first delegator to the caller's parent
}
