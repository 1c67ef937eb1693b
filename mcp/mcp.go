// Package mcp is the Model Context Protocol on the wire: revision 2026-07-28,
// which is stateless, and the four revisions before it, which open a session
// with initialize.
//
// A message is read once, strictly, by package canon; from then on there is an
// index over its bytes and the bytes themselves. Nothing is decoded into Go
// values and encoded again, because that loses what it does not know and
// rounds what it does not expect: a result leaves with every byte it came
// with, save the _meta keys of our own prefix.
//
// The package knows the protocol and nothing else. It has no policy, no
// identity, no connection and no clock. Which methods are served, which
// versions are enabled and who may call are questions for others.
package mcp

import (
	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
)

// Protocol revisions. Modern carries its metadata in every request; the others
// open a session with initialize.
const (
	Modern  = "2026-07-28"
	Legacy  = "2025-11-25" // the newest that has sessions
	Legacy3 = "2025-06-18"
	Legacy2 = "2025-03-26"
	Legacy1 = "2024-11-05"
)

// Keys of _meta (2026-07-28, basic, "Reserved keys"), and the prefix of our own.
const (
	KeyVersion      = "io.modelcontextprotocol/protocolVersion"
	KeyClient       = "io.modelcontextprotocol/clientInfo"
	KeyCapabilities = "io.modelcontextprotocol/clientCapabilities"
	KeySubscription = "io.modelcontextprotocol/subscriptionId"

	OurPrefix   = "io.github.writgate/"
	KeyIntent   = OurPrefix + "intent"   // the agent's claim, on a request
	KeyCall     = OurPrefix + "call"     // the id that a client chose for its call, to ask for its outcome again
	KeyDecision = OurPrefix + "decision" // why, on a result
	KeyReceipt  = OurPrefix + "receipt"
)

const (
	maxID    = 256  // bytes of a request id or progress token, as written
	maxClaim = 4096 // bytes of each part of a claim
	maxTrace = 512  // bytes of a tracestate (W3C Trace Context, 3.3.1.5)
)

// A Message is one JSON-RPC 2.0 message: a request if it has Method and ID, a
// notification if it has Method alone, otherwise a response.
type Message struct {
	ID     string       // JSON text as it was sent, to be echoed; empty if there is none
	Method string       // empty: a response
	Params *canon.Value // an object, or nil
	Result *canon.Value // an object, or nil
	Err    *Error       // the peer's, when it answers with an error
}

// ParseMessage reads one message of either direction. Batches, unknown or
// look-alike members, fractional, null and oversized ids are refused. Every
// error is an *Error fit to be sent back; its ID is the message's, if that
// could be read.
func ParseMessage(b []byte, lim canon.Limits) (*Message, error) {
	v, err := canon.Parse(b, lim)
	if err != nil {
		return nil, notJSON(err)
	}
	if v.Kind() == canon.Array {
		return nil, refuse(CodeInvalidRequest, "batches are not supported", "batch_unsupported", "")
	}
	m := &Message{}
	if m.ID, err = parseID(v.Get("id")); err != nil {
		return nil, err
	}
	if err := m.fill(v); err != nil {
		err.ID = m.ID
		return nil, err
	}
	return m, nil
}

// fill checks the shape of the envelope and takes its members.
func (m *Message) fill(v *canon.Value) *Error {
	if err := canon.Envelope(v, "jsonrpc", "id", "method", "params", "result", "error"); err != nil {
		return envelope(CodeInvalidRequest, "", err)
	}
	if s, _ := v.Get("jsonrpc").Str(); s != "2.0" {
		return refuse(CodeInvalidRequest, `jsonrpc must be "2.0"`, "", "/jsonrpc")
	}
	method, isCall := v.Get("method").Str()
	m.Params, m.Result = v.Get("params"), v.Get("result")
	failed := v.Get("error")
	switch {
	case isCall && m.Result == nil && failed == nil:
		m.Method = method
		if method == "" || len(method) > 128 {
			return refuse(CodeInvalidRequest, "method must be 1 to 128 bytes", "", "/method")
		}
		if k := m.Params.Kind(); k != canon.Absent && k != canon.Object {
			return refuse(CodeInvalidParams, "params must be an object", "", "/params")
		}
		if v.Get("id") != nil && m.ID == "" {
			return refuse(CodeInvalidRequest, "id must not be null", "", "/id")
		}
		return nil
	case v.Get("method") != nil || m.Params != nil:
		return refuse(CodeInvalidRequest, "neither a request nor a response", "", "")
	case failed != nil && m.Result == nil:
		m.Err = peerError(failed)
		if m.Err == nil {
			return refuse(CodeInvalidRequest, "error must have an integer code and a message", "", "/error")
		}
		return nil
	case m.Result.Kind() == canon.Object && failed == nil && m.ID != "":
		return nil
	}
	return refuse(CodeInvalidRequest, "neither a request nor a response", "", "")
}

// parseID gives an id as it was written. A null id, which an error about an
// unreadable request may have, is the empty id.
func parseID(v *canon.Value) (string, error) {
	switch v.Kind() {
	case canon.Absent, canon.Null:
		return "", nil
	}
	id, ok := token(v)
	if !ok {
		return "", refuse(CodeInvalidRequest, "id must be a string or an integer of at most 256 bytes", "", "/id")
	}
	return id, nil
}

// token reads what the protocol uses as an id or a progress token.
func token(v *canon.Value) (string, bool) {
	switch v.Kind() {
	case canon.String:
	case canon.Number:
		lexeme, _ := v.Number()
		for _, c := range lexeme {
			if c == '.' || c == 'e' || c == 'E' {
				return "", false
			}
		}
	default:
		return "", false
	}
	raw := v.Raw()
	return string(raw), len(raw) <= maxID
}

// Meta is what a request says about itself in _meta. Only Version,
// Capabilities, ProgressToken and the trace context ever go up; the rest is
// read and kept.
type Meta struct {
	Version       string    // empty: a legacy message
	Client        writ.JSON // clientInfo; the client's own word
	Capabilities  writ.JSON // clientCapabilities
	ProgressToken string    // JSON text; empty: no progress is wanted
	Traceparent   string    // W3C Trace Context; empty if malformed
	Tracestate    string
	Claim         writ.Claim
	Call          writ.CallID // empty: the client chose none
}

// Append appends m to b as the value of a request's _meta. It is the allow
// list: nothing else of what a client sent goes up. The claim does not.
func (m Meta) Append(b []byte) []byte {
	b = append(b, '{')
	first := true
	member := func(name, value string) {
		if value == "" {
			return
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, '"')
		b = append(b, name...)
		b = append(b, `":`...)
		b = append(b, value...)
	}
	if m.Version != "" {
		member(KeyVersion, quote(m.Version))
		member(KeyClient, string(m.Client))
		member(KeyCapabilities, string(m.Capabilities))
	}
	member("progressToken", m.ProgressToken)
	if m.Traceparent != "" {
		member("traceparent", quote(m.Traceparent))
		if m.Tracestate != "" {
			member("tracestate", quote(m.Tracestate))
		}
	}
	return append(b, '}')
}
