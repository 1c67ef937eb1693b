package mcp

import (
	"strings"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
)

// A Request is a client's request or notification, with what the protocol
// says about it read out.
type Request struct {
	Message
	Meta Meta
	Name string // params.name, or params.uri of resources/read; empty for methods without
}

// ParseRequest reads what a client may send on the modern wire: one request or
// notification, of at most 1 MiB. A response is refused. Every error is an
// *Error.
func ParseRequest(b []byte) (*Request, error) {
	m, err := ParseMessage(b, canon.Limits{})
	if err != nil {
		return nil, err
	}
	return m.Request()
}

// Request reads m as a client's request or notification. Members of params
// that the method does not have are refused, so that nothing is dropped in
// silence on the way up. Every error is an *Error.
func (m *Message) Request() (*Request, error) {
	r := &Request{Message: *m}
	if err := r.fill(); err != nil {
		err.ID = m.ID
		return nil, err
	}
	return r, nil
}

func (r *Request) fill() *Error {
	if r.Method == "" {
		return refuse(CodeInvalidRequest, "a client sends requests and notifications only", "", "")
	}
	if known := members(r.Method); known != nil && r.Params != nil {
		if err := canon.Envelope(r.Params, known...); err != nil {
			return envelope(CodeInvalidParams, "/params", err)
		}
	}
	if member := nameMember(r.Method); member != "" {
		name, ok := r.Params.Get(member).Str()
		if !ok || name == "" {
			return refuse(CodeInvalidParams, member+" must be a string that is not empty", "", "/params/"+member)
		}
		r.Name = name
	}
	for _, member := range []string{"arguments", "inputResponses"} {
		if k := r.Params.Get(member).Kind(); k != canon.Absent && k != canon.Object {
			return refuse(CodeInvalidParams, member+" must be an object", "", "/params/"+member)
		}
	}
	if k := r.Params.Get("requestState").Kind(); k != canon.Absent && k != canon.String {
		return refuse(CodeInvalidParams, "requestState must be a string", "", "/params/requestState")
	}
	return r.Meta.fill(r.Params.Get("_meta"))
}

// fill reads a request's _meta. A key under our prefix that we do not know,
// and every other key, is left unread.
func (m *Meta) fill(v *canon.Value) *Error {
	bad := func(key, want string) *Error {
		return refuse(CodeInvalidParams, key+" must be "+want, "", "/params/_meta/"+strings.ReplaceAll(key, "/", "~1"))
	}
	if k := v.Kind(); k != canon.Absent && k != canon.Object {
		return bad("", "an object")
	}
	if t := v.Get("progressToken"); t != nil {
		var ok bool
		if m.ProgressToken, ok = token(t); !ok {
			return bad("progressToken", "a string or an integer of at most 256 bytes")
		}
	}
	m.Traceparent, m.Tracestate = trace(v)
	if err := claim(&m.Claim, v.Get(KeyIntent)); err != "" {
		return bad(KeyIntent, err)
	}
	if c := v.Get(KeyCall); c != nil {
		s, _ := c.Str()
		id, err := writ.ParseID[writ.CallID](s)
		if err != nil {
			return bad(KeyCall, "an identifier of the form call_…")
		}
		m.Call = id
	}
	version := v.Get(KeyVersion)
	if version == nil {
		return nil
	}
	var ok bool
	if m.Version, ok = version.Str(); !ok || m.Version == "" {
		return bad(KeyVersion, "a string")
	}
	if v.Get(KeyCapabilities).Kind() != canon.Object {
		return bad(KeyCapabilities, "an object")
	}
	m.Capabilities = v.Get(KeyCapabilities).JSON()
	if c := v.Get(KeyClient); c != nil {
		if c.Kind() != canon.Object {
			return bad(KeyClient, "an object")
		}
		m.Client = c.JSON()
	}
	return nil
}

// claim reads the agent's word for what it does: a string, or an object of
// intent and prompt. It gives what was wanted instead.
func claim(c *writ.Claim, v *canon.Value) (want string) {
	switch v.Kind() {
	case canon.Absent:
		return ""
	case canon.String:
		c.Intent, _ = v.Str()
	case canon.Object:
		if canon.Envelope(v, "intent", "prompt") != nil {
			return "a string, or an object of intent and prompt"
		}
		for _, part := range []struct {
			name string
			to   *string
		}{{"intent", &c.Intent}, {"prompt", &c.Prompt}} {
			p := v.Get(part.name)
			s, ok := p.Str()
			if p != nil && !ok {
				return "a string, or an object of intent and prompt"
			}
			*part.to = s
		}
	default:
		return "a string, or an object of intent and prompt"
	}
	if len(c.Intent) > maxClaim || len(c.Prompt) > maxClaim {
		return "at most 4096 bytes in each part"
	}
	return ""
}

// trace gives the trace context (W3C Trace Context, version 00), or none if it
// is malformed: a trace is never a reason to refuse.
func trace(v *canon.Value) (parent, state string) {
	parent, _ = v.Get("traceparent").Str()
	if len(parent) != 55 || parent[:3] != "00-" || parent[35] != '-' || parent[52] != '-' {
		return "", ""
	}
	for i := range len(parent) {
		c := parent[i]
		if i != 2 && i != 35 && i != 52 && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", ""
		}
	}
	state, _ = v.Get("tracestate").Str()
	if len(state) > maxTrace {
		return parent, ""
	}
	for i := range len(state) {
		if c := state[i]; c < 0x20 || c > 0x7e {
			return parent, ""
		}
	}
	return parent, state
}

// members are the params that a method has; nil for a method not known here.
func members(method string) []string {
	switch method {
	case "tools/call", "prompts/get":
		return []string{"_meta", "name", "arguments", "inputResponses", "requestState"}
	case "resources/read":
		return []string{"_meta", "uri", "inputResponses", "requestState"}
	case "tools/list", "prompts/list", "resources/list", "resources/templates/list":
		return []string{"_meta", "cursor"}
	case "server/discover", "ping", "notifications/initialized":
		return []string{"_meta"}
	case "initialize":
		return []string{"_meta", "protocolVersion", "capabilities", "clientInfo"}
	case "subscriptions/listen":
		return []string{"_meta", "notifications"}
	case "completion/complete":
		return []string{"_meta", "ref", "argument", "context"}
	case "notifications/cancelled":
		return []string{"_meta", "requestId", "reason"}
	}
	return nil
}

// nameMember is the member of params that Mcp-Name mirrors.
func nameMember(method string) string {
	switch method {
	case "tools/call", "prompts/get":
		return "name"
	case "resources/read":
		return "uri"
	}
	return ""
}
