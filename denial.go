package writ

import (
	"errors"
	"fmt"
)

// A Code says why a call was refused: one stable word, the same in MCP, in
// HTTP problem details (RFC 9457), in the CLI, in the console and in the
// record.
type Code string

const (
	// The caller.
	Unauthenticated     Code = "unauthenticated"        // no identity was proven
	BadToken            Code = "bad_token"              // a token that does not verify
	WrongAudience       Code = "wrong_audience"         // a token for somebody else
	NoPossession        Code = "no_proof_of_possession" // a token without proof of its key
	ProofReplayed       Code = "pop_replay"             // a proof seen before
	ProofMismatch       Code = "pop_mismatch"           // a proof for another request
	BadSVID             Code = "bad_svid"               // a certificate that does not verify
	IdentityUnavailable Code = "identity_unavailable"   // identity could not be checked
	AgentNotActive      Code = "agent_not_active"       // unregistered, expired, suspended or due for certification

	// The message.
	InvalidRequest   Code = "invalid_request"
	InvalidArguments Code = "invalid_arguments" // they do not fit the tool's schema
	NotRepresentable Code = "not_representable" // a value that policy cannot see exactly
	TooLarge         Code = "too_large"

	// The action.
	UnknownTool      Code = "unknown_tool"
	Quarantined      Code = "quarantined"  // unreviewed, or changed since its review
	OutsideTask      Code = "outside_task" // not in the task's grant, or the task is not open
	Forbidden        Code = "forbidden"    // policy says no
	ApprovalRequired Code = "approval_required"
	ApprovalDenied   Code = "approval_denied"
	ApprovalMismatch Code = "approval_mismatch"
	AlreadyDecided   Code = "already_decided"
	SelfApproval     Code = "self_approval"
	NotEntitled      Code = "approver_not_entitled"
	Deferred         Code = "deferred"
	BudgetExceeded   Code = "budget_exceeded"
	RateLimited      Code = "rate_limited"
	StateChanged     Code = "state_changed" // what the decision read no longer holds
	Halted           Code = "halted"
	AlreadyUsed      Code = "already_used" // a call, approval or capability used before

	// The world.
	Unavailable           Code = "unavailable"            // what the decision depends on could not be read
	AuditUnavailable      Code = "audit_unavailable"      // the intent could not be made durable
	CredentialUnavailable Code = "credential_unavailable" // no lease could be had
	UpstreamUnavailable   Code = "upstream_unavailable"   // it was not reached: nothing happened
	OutcomeUnknown        Code = "outcome_unknown"        // it may have happened
	OutcomeUnrecorded     Code = "outcome_unrecorded"     // it happened, and the result is withheld
	ResultTooLarge        Code = "result_too_large"
	ResultWithheld        Code = "result_withheld" // the task ended while the call ran
	InternalError         Code = "internal_error"
)

// A Remedy is what an agent can do about a refusal. The list is closed, so
// that an explanation cannot teach a hijacked agent a way around.
type Remedy string

const (
	RemedyStop     Remedy = "stop"
	RemedyWait     Remedy = "wait"
	RemedyAskUser  Remedy = "ask_user"
	RemedyDelegate Remedy = "request_delegation"
	RemedyFix      Remedy = "correct_the_request"
)

// A Denial is a refusal. Reason is for the agent: it holds no policy text, no
// secret and no other task's facts. Err is for the operator.
type Denial struct {
	Code     Code
	Reason   string
	Argument string     // the argument at fault, as a JSON Pointer
	Bounds   []Bound    // the bounds of the task's own grant on it
	Remedy   Remedy     // empty means stop
	Approval ApprovalID // what is waited for, when Code is ApprovalRequired
	Err      error
}

// Error is the operator's view.
func (d *Denial) Error() string {
	if d.Err != nil {
		return fmt.Sprintf("%s: %s: %v", d.Code, d.Reason, d.Err)
	}
	return fmt.Sprintf("%s: %s", d.Code, d.Reason)
}

// Unwrap gives the operator's error.
func (d *Denial) Unwrap() error { return d.Err }

// Refuse makes a Denial. Err may be nil.
func Refuse(code Code, reason string, err error) *Denial {
	return &Denial{Code: code, Reason: reason, Err: err}
}

// AsDenial gives the Denial in err, or an internal error that wraps err: an
// error nobody classified refuses like any other.
func AsDenial(err error) *Denial {
	if d, ok := errors.AsType[*Denial](err); ok {
		return d
	}
	return Refuse(InternalError, "something went wrong inside the gateway", err)
}
