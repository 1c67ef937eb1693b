package canon

import (
	"iter"
	"sort"
	"strconv"
	"strings"

	"github.com/writgate/writ"
)

// A Kind says what a Value is. The zero Kind is of no value at all.
type Kind uint8

const (
	Absent Kind = iota // of a nil Value
	Null
	Bool
	String
	Number
	Array
	Object
)

var kindNames = [...]string{"absent", "null", "boolean", "string", "number", "array", "object"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// A Value is one value of a parsed document: immutable, and safe to share. It
// keeps the whole document alive. A nil Value stands for what is not there:
// every method may be called on it, and says no.
type Value struct {
	doc       *document
	name      string // in the object that holds it, unescaped
	begin     int32  // where its member begins; start, if it is none
	start     int32  // where its bytes begin
	end       int32  // and where they end
	at        int32  // its own position in doc.values; its children follow
	next      int32  // the position after its last descendant
	count     int32  // of its children
	index     int32  // where its children are listed in doc.index, if they are more than few
	kind      Kind
	canonical bool // as written
}

// String is the kind alone, so that no document lands in a log by accident.
func (v *Value) String() string { return "json " + v.Kind().String() }

// GoString is String.
func (v *Value) GoString() string { return v.String() }

func (v *Value) raw() string { return v.doc.src[v.start:v.end] }

// Raw gives a copy of the value's own bytes, as they were parsed; nil if v is
// nil.
func (v *Value) Raw() []byte {
	if v == nil {
		return nil
	}
	return []byte(v.raw())
}

// Kind is what v is.
func (v *Value) Kind() Kind {
	if v == nil {
		return Absent
	}
	return v.kind
}

// Str gives the unescaped text of a string.
func (v *Value) Str() (string, bool) {
	if v.Kind() != String {
		return "", false
	}
	raw := v.doc.src[v.start+1 : v.end-1]
	if strings.IndexByte(raw, '\\') < 0 {
		return raw, true
	}
	return string(unescape(nil, raw).text), true
}

// Number gives a number as it was written: SameNumber, Compare, Int64
// and Scaled read it exactly.
func (v *Value) Number() (lexeme string, ok bool) {
	if v.Kind() != Number {
		return "", false
	}
	return v.raw(), true
}

// Bool gives a boolean.
func (v *Value) Bool() (value, ok bool) {
	if v.Kind() != Bool {
		return false, false
	}
	return v.raw() == "true", true
}

// Len is the number of an array's elements or an object's members; 0 of
// anything else.
func (v *Value) Len() int {
	if v == nil {
		return 0
	}
	return int(v.count)
}

// Index gives element i of an array; nil if there is none.
func (v *Value) Index(i int) *Value {
	if v.Kind() != Array || i < 0 || i >= int(v.count) {
		return nil
	}
	if v.count > few {
		return &v.doc.values[v.doc.index[int(v.index)+i]]
	}
	at := v.at + 1
	for range i {
		at = v.doc.values[at].next
	}
	return &v.doc.values[at]
}

// Get gives the member of an object with exactly this name; nil if there is
// none.
func (v *Value) Get(name string) *Value {
	if v.Kind() != Object {
		return nil
	}
	if v.count > few {
		sorted := v.doc.index[v.index : v.index+v.count]
		i, ok := sort.Find(len(sorted), func(i int) int {
			return strings.Compare(name, v.doc.values[sorted[i]].name)
		})
		if !ok {
			return nil
		}
		return &v.doc.values[sorted[i]]
	}
	for m := range v.children {
		if m.name == name {
			return m
		}
	}
	return nil
}

// children yields the members or elements of v as they were written.
func (v *Value) children(yield func(*Value) bool) {
	if v == nil {
		return
	}
	for i := v.at + 1; i < v.next; i = v.doc.values[i].next {
		if !yield(&v.doc.values[i]) {
			return
		}
	}
}

// Members yields the members of an object in the order of the document.
func (v *Value) Members() iter.Seq2[string, *Value] {
	return func(yield func(string, *Value) bool) {
		if v.Kind() != Object {
			return
		}
		for m := range v.children {
			if !yield(m.name, m) {
				return
			}
		}
	}
}

// Elems yields the elements of an array.
func (v *Value) Elems() iter.Seq[*Value] {
	return func(yield func(*Value) bool) {
		if v.Kind() != Array {
			return
		}
		v.children(yield)
	}
}

// Pointer gives the value that an RFC 6901 JSON Pointer names, with v as the
// whole; nil if there is none, or p is no JSON Pointer.
func (v *Value) Pointer(p string) *Value {
	if p == "" {
		return v
	}
	if p[0] != '/' {
		return nil
	}
	for token := range strings.SplitSeq(p[1:], "/") {
		switch v.Kind() {
		case Object:
			name, ok := unescapeToken(token)
			if !ok {
				return nil
			}
			v = v.Get(name)
		case Array:
			i, err := strconv.Atoi(token)
			if err != nil || strconv.Itoa(i) != token {
				return nil // only the canonical index: no 01, no +1, no -
			}
			v = v.Index(i)
		default:
			return nil
		}
	}
	return v
}

// escapeToken writes a name as a token of a JSON Pointer.
func escapeToken(name string) string {
	if !strings.ContainsAny(name, "~/") {
		return name
	}
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

func unescapeToken(token string) (name string, ok bool) {
	if strings.IndexByte(token, '~') < 0 {
		return token, true
	}
	name = strings.NewReplacer("~0", "~", "~1", "/").Replace(token)
	return name, escapeToken(name) == token
}

// Leaves yields every string, number, boolean and null in v, itself included,
// in the order of the document, with the JSON Pointer (RFC 6901) from v to
// it. Empty arrays and objects have none.
func Leaves(v *Value) iter.Seq2[string, *Value] {
	return func(yield func(string, *Value) bool) {
		if v != nil {
			leaves(v, nil, yield)
		}
	}
}

func leaves(v *Value, path []byte, yield func(string, *Value) bool) bool {
	if v.kind != Array && v.kind != Object {
		return yield(string(path), v)
	}
	i := int64(0)
	for child := range v.children {
		below := append(path, '/')
		if v.kind == Object {
			below = append(below, escapeToken(child.name)...)
		} else {
			below = strconv.AppendInt(below, i, 10)
		}
		i++
		if !leaves(child, below, yield) {
			return false
		}
	}
	return true
}

// Digest is the digest of v's canonical bytes under a domain.
func (v *Value) Digest(what string) writ.Digest {
	return writ.Hash(what, []byte(v.JSON()))
}
