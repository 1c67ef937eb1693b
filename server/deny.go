package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/writgate/writ"
	"github.com/writgate/writ/gate"
	"github.com/writgate/writ/mcp"
)

// This file is the one place where a refusal becomes something on the wire.
// There are three shapes:
//
//   - Who is not known, or may not be here at all, gets an HTTP status and
//     problem details (RFC 9457), whatever was asked.
//   - A refused tool call is a tool result with isError, in words that the
//     model can act on, and the decision in _meta for a program.
//   - Everything else is a JSON-RPC error, whose code is the HTTP status that
//     fits: positive, and so outside every range that is reserved.

// A shape is how refusals with one code leave.
type shape struct {
	status    int    // of HTTP at the door, and the code of a JSON-RPC error
	door      bool   // refused at the door
	challenge string // the error attribute of WWW-Authenticate (RFC 6750, 3.1; RFC 9449, 7.1); none if "-"
}

var shapes = map[writ.Code]shape{
	writ.Unauthenticated:     {status: 401, door: true, challenge: "-"},
	writ.BadToken:            {status: 401, door: true, challenge: "invalid_token"},
	writ.WrongAudience:       {status: 401, door: true, challenge: "invalid_token"},
	writ.NoPossession:        {status: 401, door: true, challenge: "invalid_dpop_proof"},
	writ.ProofReplayed:       {status: 401, door: true, challenge: "invalid_dpop_proof"},
	writ.ProofMismatch:       {status: 401, door: true, challenge: "invalid_dpop_proof"},
	writ.BadSVID:             {status: 401, door: true, challenge: "-"},
	writ.IdentityUnavailable: {status: 503, door: true},
	writ.AgentNotActive:      {status: 403, door: true},

	writ.InvalidRequest:   {status: 400},
	writ.InvalidArguments: {status: 422},
	writ.NotRepresentable: {status: 422},
	writ.TooLarge:         {status: 413},

	writ.UnknownTool:      {status: 404},
	writ.Quarantined:      {status: 423},
	writ.OutsideTask:      {status: 403},
	writ.Forbidden:        {status: 403},
	writ.ApprovalRequired: {status: 403},
	writ.ApprovalDenied:   {status: 403},
	writ.ApprovalMismatch: {status: 409},
	writ.AlreadyDecided:   {status: 409},
	writ.SelfApproval:     {status: 403},
	writ.NotEntitled:      {status: 403},
	writ.Deferred:         {status: 409},
	writ.BudgetExceeded:   {status: 403},
	writ.RateLimited:      {status: 429},
	writ.StateChanged:     {status: 409},
	writ.Halted:           {status: 503},
	writ.AlreadyUsed:      {status: 409},

	writ.Unavailable:           {status: 503},
	writ.AuditUnavailable:      {status: 503},
	writ.CredentialUnavailable: {status: 503},
	writ.UpstreamUnavailable:   {status: 502},
	writ.OutcomeUnknown:        {status: 504},
	writ.OutcomeUnrecorded:     {status: 500},
	writ.ResultTooLarge:        {status: 502},
	writ.ResultWithheld:        {status: 403},
	writ.InternalError:         {status: 500},
}

// again is how long an agent is told to wait before it asks again, in seconds.
const again = 15

// refuse answers with whatever err is.
func (x *exchange) refuse(err error) {
	if e, ok := errors.AsType[*mcp.Error](err); ok {
		if e.Code != mcp.CodeMissingCapability { // of a call that is on record
			x.m.config.Noise.Count(writ.InvalidRequest)
			x.m.config.Noise.sample(writ.InvalidRequest, x.from())
		}
		x.fault(e)
		return
	}
	d := writ.AsDenial(err)
	s, ok := shapes[d.Code]
	if !ok {
		s = shapes[writ.InternalError]
	}
	stranger := x.who == nil
	if x.m.config.Refused != nil {
		x.m.config.Refused(x.callID(), d)
	}
	switch {
	case stranger && d.Code == writ.Unavailable, d.Code == writ.RateLimited:
		x.m.config.Noise.Count(d.Code) // nobody else does
		x.m.config.Noise.sample(d.Code, x.from())
	case stranger:
		x.m.config.Noise.sample(d.Code, x.from())
	}
	switch {
	case (s.door || stranger) && !x.out.started():
		x.problem(s, d)
	case x.req != nil && x.req.Method == "tools/call" && x.req.ID != "":
		x.out.result(mcp.ToolError(advice(d), map[string]writ.JSON{mcp.KeyDecision: x.decision(d)}))
	default:
		x.out.answer(http.StatusOK, (&mcp.Error{Code: s.status, Message: advice(d), Data: x.decision(d), ID: x.out.id}).Response())
	}
}

// fault answers with a protocol fault.
func (x *exchange) fault(e *mcp.Error) {
	if e.ID == "" {
		e.ID = x.out.id
	}
	status := e.HTTP
	if status == 0 {
		status = http.StatusOK
	}
	x.out.answer(status, e.Response())
}

// fault makes a protocol fault of our own: word is for programs.
func fault(status int, word, message string) *mcp.Error {
	return &mcp.Error{Code: mcp.CodeInvalidRequest, HTTP: status, Message: message, Data: writ.JSON(`{"code":"` + word + `"}`)}
}

// problem refuses at the door.
func (x *exchange) problem(s shape, d *writ.Denial) {
	body, err := json.Marshal(struct {
		Title  string      `json:"title"`
		Status int         `json:"status"`
		Detail string      `json:"detail"`
		Code   writ.Code   `json:"code"`
		Remedy writ.Remedy `json:"remedy,omitempty"`
	}{http.StatusText(s.status), s.status, d.Reason, d.Code, d.Remedy})
	if err != nil {
		panic(fmt.Sprintf("a problem of texts does not marshal: %v", err))
	}
	h := x.w.Header()
	if s.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", x.m.challenge(s.challenge))
	}
	if s.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	x.w.WriteHeader(s.status)
	x.w.Write(body)
}

// challenge says how to prove an identity (RFC 9449, 7.1; RFC 9728, 5.1).
func (m *MCP) challenge(code string) string {
	c := `DPoP algs="EdDSA ES256"`
	if m.config.Metadata != "" {
		c += `, resource_metadata="` + m.config.Metadata + `"`
	}
	if code != "-" {
		c += `, error="` + code + `"`
	}
	return c
}

// decision is the machine-readable form of a refusal.
func (x *exchange) decision(d *writ.Denial) writ.JSON {
	return gate.DecisionMeta(x.callID(), d)
}

func (x *exchange) callID() writ.CallID {
	if x.call == nil {
		return ""
	}
	return x.call.Call
}

// advice is a refusal in words that a model can act on: what, why, where, how
// far its own task reaches, and what to do. It holds no policy text.
func advice(d *writ.Denial) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Refused (%s): %s.", d.Code, strings.TrimRight(d.Reason, "."))
	if d.Argument != "" {
		fmt.Fprintf(&b, " The argument is %s.", d.Argument)
	}
	for _, bound := range d.Bounds {
		b.WriteString(" This task allows " + bound.Argument)
		if bound.Min != "" {
			b.WriteString(" from " + bound.Min)
		}
		if bound.Max != "" {
			b.WriteString(" up to " + bound.Max)
		}
		if len(bound.In) > 0 {
			b.WriteString(" to be one of " + strings.Join(bound.In, ", "))
		}
		b.WriteByte('.')
	}
	if d.Approval != "" {
		fmt.Fprintf(&b, " The request for approval is %s.", d.Approval)
	}
	b.WriteString(" " + remedy(d))
	return b.String()
}

// remedy says what to do, from a closed list.
func remedy(d *writ.Denial) string {
	seconds := strconv.Itoa(again)
	switch {
	case d.Code == writ.ApprovalRequired && d.Remedy == writ.RemedyWait:
		return "Nothing was done yet. Call the same tool again with exactly the same arguments after " + seconds +
			" seconds, and again until it answers; other arguments ask for another approval."
	case d.Remedy == writ.RemedyWait:
		return "Nothing was done. Make the same request again after " + seconds + " seconds."
	case d.Remedy == writ.RemedyAskUser:
		return "Tell the user, and go on only with what they say."
	case d.Remedy == writ.RemedyDelegate:
		return "This task does not reach that far: ask the user for a task that does."
	case d.Remedy == writ.RemedyFix:
		return "Correct the request and make it again."
	}
	return "Do not try this again, and do not try to get the same effect in another way; tell the user."
}

// recover turns a panic into a refusal, and lets the process live. What a
// panic says may hold anything, so nobody is told.
func (x *exchange) recover() {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler {
		panic(p)
	}
	x.refuse(writ.Refuse(writ.InternalError, "something went wrong inside the gateway", fmt.Errorf("panic with a %T: %s", p, debug.Stack())))
}
