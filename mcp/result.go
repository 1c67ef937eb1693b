package mcp

import (
	"maps"
	"slices"
	"strings"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
)

// Kinds of results (2026-07-28, basic, "ResultType").
const (
	Complete      = "complete"
	InputRequired = "input_required"
)

// A Result is the result of a request: its own bytes, and an index over them.
type Result struct {
	v *canon.Value
}

// NewResult takes an object for a result. A resultType that is not known is an
// error: its meaning would have to be guessed.
func NewResult(v *canon.Value) (*Result, error) {
	if v.Kind() != canon.Object {
		return nil, refuse(CodeInternal, "a result must be an object", "", "")
	}
	if k := v.Get("_meta").Kind(); k != canon.Absent && k != canon.Object {
		return nil, refuse(CodeInternal, "a result's _meta must be an object", "", "/_meta")
	}
	r := &Result{v}
	switch r.Type() {
	case Complete, InputRequired:
		return r, nil
	}
	return nil, refuse(CodeInternal, "unknown result type", "", "/resultType")
}

// Type is the result's resultType. Revisions before 2026-07-28 have none: it
// is then complete.
func (r *Result) Type() string {
	t := r.v.Get("resultType")
	if t == nil {
		return Complete
	}
	s, _ := t.Str()
	return s
}

// IsError says that the tool itself reports a failure.
func (r *Result) IsError() bool {
	b, _ := r.v.Get("isError").Bool()
	return b
}

// Value is the result for reading.
func (r *Result) Value() *canon.Value { return r.v }

// Stamp gives the result with every _meta key under our prefix taken out, and
// own put in, and the changes made that the wire it goes down on demands; the
// keys of own are whole. Every other byte stays as it was.
func (r *Result) Stamp(own map[string]writ.JSON, changes ...canon.Change) ([]byte, error) {
	meta := r.v.Get("_meta")
	if meta == nil && len(own) > 0 {
		return canon.Splice(r.v, append(changes, canon.Change{In: r.v, Name: "_meta", Value: writ.JSON(object(own))})...)
	}
	for name := range meta.Members() {
		if _, replaced := own[name]; strings.HasPrefix(name, OurPrefix) && !replaced {
			changes = append(changes, canon.Change{In: meta, Name: name})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		changes = append(changes, canon.Change{In: meta, Name: name, Value: own[name]})
	}
	if len(changes) == 0 {
		return r.v.Raw(), nil
	}
	return canon.Splice(r.v, changes...)
}

func object(own map[string]writ.JSON) []byte {
	b := []byte{'{'}
	for i, name := range slices.Sorted(maps.Keys(own)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, quote(name)...), ':')
		b = append(b, own[name]...)
	}
	return append(b, '}')
}

// Response is the response that carries a result, with the result's bytes.
func Response(id string, result []byte) []byte {
	b := make([]byte, 0, len(result)+len(id)+40)
	b = append(append(b, `{"jsonrpc":"2.0","id":`...), id...)
	b = append(append(b, `,"result":`...), result...)
	return append(b, '}')
}

// Call is a request, or a notification if id is empty. Params is an object.
func Call(id, method string, params []byte) []byte {
	b := make([]byte, 0, len(params)+len(id)+len(method)+64)
	b = append(b, `{"jsonrpc":"2.0"`...)
	if id != "" {
		b = append(append(b, `,"id":`...), id...)
	}
	b = append(append(b, `,"method":`...), quote(method)...)
	if params != nil {
		b = append(append(b, `,"params":`...), params...)
	}
	return append(b, '}')
}

// ToolError is a tool result that says the call failed, in words that the
// model reads, with own in its _meta.
func ToolError(text string, own map[string]writ.JSON) []byte {
	b := append([]byte(nil), `{"resultType":"complete","content":[{"type":"text","text":`...)
	b = append(append(b, quote(text)...), `}],"isError":true`...)
	if len(own) > 0 {
		b = append(append(b, `,"_meta":`...), object(own)...)
	}
	return append(b, '}')
}
