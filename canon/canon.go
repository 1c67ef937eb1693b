// Package canon reads a stranger's JSON once, strictly, so that what was
// judged is what is forwarded.
//
// Parsers disagree on much of what they accept: of a duplicate key one takes
// the first value and another the last, to a third "Name" is "name", 1e400 is
// infinite or an error, and 9007199254740993 becomes …992. A gateway that
// reads a document differently from the tool behind it can be passed. So
// Parse refuses, at any depth:
//
//   - duplicate names, compared after unescaping
//   - text that is not Unicode scalar values in UTF-8: invalid or overlong
//     bytes, lone surrogates, a byte order mark, NUL
//   - numbers that do not survive: negative zero, overflow, underflow, more
//     than 38 digits, and fractions and exponents that say something else
//     than the shortest form of their float64
//   - whatever RFC 8259 does not allow: comments, trailing commas, NaN, a
//     second value
//
// Integers beyond 2^53 are kept by lexeme and never converted. Names are
// compared exactly. Two names of one object that differ only in case are two
// names to Parse, for tools have such arguments; a protocol's own objects go
// through Envelope, which knows every name that may be there.
//
// The canonical form has no whitespace, members sorted by the UTF-8 bytes of
// their unescaped names, the shortest escape where RFC 8259 demands one (\"
// \\ \b \f \n \r \t, else \u00 and two lower-case digits) and none elsewhere,
// and numbers as they were written. It is never longer than its source, and
// its own canonical form. It is not RFC 8785, which takes integers through
// float64. 1.0 and 1 differ in it: they are different to some tools.
package canon

import (
	"fmt"
	"math"
	"strings"
)

// Limits of one document. Zero fields mean the defaults, negative ones refuse
// everything. A caller that raises Depth by much pays with stack.
type Limits struct {
	Bytes int // of the text; 1 MiB; never more than 2 GiB
	Depth int // of arrays and objects open at once; 64
	Nodes int // values, the outermost included; 10,000
}

// maxPath bounds the names on the way to any value, in bytes together. A name
// of a megabyte over ten thousand leaves would otherwise cost ten gigabytes
// of JSON Pointers.
const maxPath = 4 << 10

func (l Limits) orDefaults() Limits {
	if l.Bytes == 0 {
		l.Bytes = 1 << 20
	}
	if l.Depth == 0 {
		l.Depth = 64
	}
	if l.Nodes == 0 {
		l.Nodes = 10_000
	}
	l.Bytes = min(l.Bytes, math.MaxInt32) // offsets are int32
	return l
}

// Parse reads one JSON document (RFC 8259). It keeps a copy of b. Its time is
// linear in what it reads, n log n in the members of one object, and it stops
// at the first fault. Every error is an *Error.
func Parse(b []byte, lim Limits) (*Value, error) {
	lim = lim.orDefaults()
	if len(b) > lim.Bytes {
		return nil, &Error{Code: TooLarge, Offset: max(0, lim.Bytes)}
	}
	p := newParser(string(b), lim)
	if err := p.document(); err != nil {
		return nil, err
	}
	return &p.doc.values[0], nil
}

// ParseObject is Parse for a document that must be an object. An array is
// refused as batch_unsupported: MCP has no JSON-RPC batches since 2025-06-18.
func ParseObject(b []byte, lim Limits) (*Value, error) {
	v, err := Parse(b, lim)
	switch {
	case err != nil:
		return nil, err
	case v.kind == Array:
		return nil, &Error{Code: BatchUnsupported}
	case v.kind != Object:
		return nil, &Error{Code: InvalidJSON, Detail: "want an object"}
	}
	return v, nil
}

// Envelope refuses an object that has a member not in known, compared
// exactly. A look-alike under Unicode simple case folding, such as "Method"
// or "argument\u017f", is named in the error: encoding/json takes it for the
// real one (CVE-2026-27896). Every error is an *Error.
func Envelope(v *Value, known ...string) error {
	if v.Kind() != Object {
		return &Error{Code: InvalidJSON, Detail: "want an object"}
	}
members:
	for name, m := range v.Members() {
		e := &Error{Code: UnknownMember, Pointer: "/" + escapeToken(name), Offset: int(m.begin)}
		for _, k := range known {
			if k == name {
				continue members
			}
			if strings.EqualFold(k, name) {
				e.Like = k
			}
		}
		return e
	}
	return nil
}

// Codes of refusal: stable words.
const (
	InvalidJSON      = "invalid_json"
	InvalidText      = "invalid_text"
	DuplicateKey     = "duplicate_key"
	NumberNotExact   = "number_not_exact"
	BatchUnsupported = "batch_unsupported"
	UnknownMember    = "unknown_member"
	TooLarge         = "too_large"
	TooDeep          = "too_deep"
	TooManyNodes     = "too_many_nodes"
)

// An Error says why a document was refused, and where. It holds names from
// the document, never values.
type Error struct {
	Code    string
	Pointer string // RFC 6901, to the value at fault or the innermost one around it; from Envelope, within its object
	Offset  int    // in bytes from the document's beginning
	Like    string // for unknown_member: the known name it could be taken for
	Detail  string // a fixed phrase, for people
}

// Error gives the code and the place, in at most some 600 bytes.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s at %q, byte %d", e.Code, clip(e.Pointer), e.Offset)
	if e.Like != "" {
		fmt.Fprintf(&b, ": looks like %q", e.Like)
	}
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	return b.String()
}

// clip bounds a stranger's text in an error.
func clip(s string) string {
	const most = 128
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
