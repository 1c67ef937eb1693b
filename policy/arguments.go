package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	schema "github.com/cedar-policy/cedar-go/x/exp/schema/ast"
	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
)

// A kind is one of the fixed types that an argument can have in policy.
type kind uint8

const (
	asJSON    kind = iota // String: canonical text of the subtree
	asString              // String
	asBool                // Bool
	asLong                // Long
	asDecimal             // decimal: four fractional digits
	asSet                 // Set of elem
	asRecord              // record of attrs
)

// A shape is the type of one argument, or of all of them.
type shape struct {
	kind  kind
	elem  *shape
	attrs []attr // sorted by name
}

// An attr is one member of a record shape. Its pointer is the one policies
// name; members of elements of a set have none.
type attr struct {
	name     string
	pointer  string
	named    cedar.Value // the pointer, as policies see it
	required bool
	nullable bool
	shape    shape
}

// maxElements bounds an array that becomes a set: sets hash their elements,
// and whoever chooses the elements can make them collide.
const maxElements = 1000

// shapeOfTool reads the type of a tool's arguments from its input schema. At
// the root, what the schema does not declare cannot be passed at all, whether
// the schema is closed or not: policy could not see it.
func shapeOfTool(input []byte) (shape, error) {
	if len(input) == 0 {
		return shape{kind: asRecord}, nil
	}
	s, err := canon.Parse(input, canon.Limits{})
	if err != nil {
		return shape{}, fmt.Errorf("input schema: %v", err)
	}
	if t, ok := s.Get("type").Str(); ok && t != "object" {
		return shape{}, fmt.Errorf("input schema: arguments are of type %q, not object", t)
	}
	return recordOf(s), nil
}

// shapeOf is the fixed type map, and whether null is allowed.
func shapeOf(s *canon.Value) (_ shape, nullable bool) {
	typ, nullable := typeOf(s)
	switch typ {
	case "string":
		return shape{kind: asString}, nullable
	case "boolean":
		return shape{kind: asBool}, nullable
	case "integer":
		return shape{kind: asLong}, nullable
	case "number":
		return shape{kind: asDecimal}, nullable
	case "array":
		if items := s.Get("items"); items.Kind() == canon.Object && s.Get("prefixItems") == nil {
			elem, null := shapeOf(items)
			if null || elem.hasNull() {
				elem = shape{kind: asJSON}
			}
			return shape{kind: asSet, elem: &elem}, nullable
		}
	case "object":
		closed, ok := s.Get("additionalProperties").Bool()
		if ok && !closed && s.Get("patternProperties") == nil {
			return recordOf(s), nullable
		}
	case "union":
		for branch := range union(s).Elems() {
			if t, _ := branch.Get("type").Str(); t != "null" {
				inner, _ := shapeOf(branch)
				return inner, inner.kind != asJSON
			}
		}
	}
	return shape{}, false
}

// typeOf is the one type of a schema, null aside: "" when it has none or
// several, "union" when it is a choice between null and one other schema.
func typeOf(s *canon.Value) (typ string, nullable bool) {
	if t, ok := s.Get("type").Str(); ok {
		return t, false
	}
	if types := s.Get("type"); types.Kind() == canon.Array {
		for e := range types.Elems() {
			t, _ := e.Str()
			switch {
			case t == "null":
				nullable = true
			case typ != "":
				return "", false
			default:
				typ = t
			}
		}
		return typ, nullable
	}
	if union(s) != nil {
		return "union", true
	}
	return constantType(s), false
}

// union is the anyOf or oneOf of a schema that is exactly a choice between
// null and something else.
func union(s *canon.Value) *canon.Value {
	u := s.Get("anyOf")
	if u == nil {
		u = s.Get("oneOf")
	}
	null := func(v *canon.Value) bool { t, _ := v.Get("type").Str(); return t == "null" }
	if u.Kind() != canon.Array || u.Len() != 2 || null(u.Index(0)) == null(u.Index(1)) {
		return nil
	}
	return u
}

// constantType is "string" for a schema that only lists strings.
func constantType(s *canon.Value) string {
	if c := s.Get("const"); c != nil {
		if c.Kind() == canon.String {
			return "string"
		}
		return ""
	}
	enum := s.Get("enum")
	if enum.Kind() != canon.Array || enum.Len() == 0 {
		return ""
	}
	for e := range enum.Elems() {
		if e.Kind() != canon.String {
			return ""
		}
	}
	return "string"
}

func recordOf(s *canon.Value) shape {
	var required []string
	for r := range s.Get("required").Elems() {
		name, _ := r.Str()
		required = append(required, name)
	}
	rec := shape{kind: asRecord}
	for name, p := range s.Get("properties").Members() {
		inner, nullable := shapeOf(p)
		rec.attrs = append(rec.attrs, attr{name: name, required: slices.Contains(required, name), nullable: nullable, shape: inner})
	}
	slices.SortFunc(rec.attrs, func(a, b attr) int { return strings.Compare(a.name, b.name) })
	return rec
}

// hasNull reports whether a null somewhere inside has a pointer to be named
// by, which it could not have inside a set.
func (s shape) hasNull() bool {
	return slices.ContainsFunc(s.attrs, func(a attr) bool { return a.nullable || a.shape.hasNull() })
}

// point gives every attribute its pointer.
func (s *shape) point(at string) {
	for i := range s.attrs {
		a := &s.attrs[i]
		a.pointer = at + "/" + escapePointer(a.name)
		a.named = cedar.String(a.pointer)
		a.shape.point(a.pointer)
	}
}

// pointers lists the pointers that policies may name.
func (s shape) pointers() []string {
	var all []string
	for _, a := range s.attrs {
		all = append(append(all, a.pointer), a.shape.pointers()...)
	}
	return all
}

func escapePointer(name string) string {
	return strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
}

// shapeFromSchema reads a shape back from the generated Cedar schema.
func shapeFromSchema(t schema.IsType) (shape, error) {
	switch t := t.(type) {
	case schema.TypeRef:
		for k, name := range typeNames {
			if name == string(t) {
				return shape{kind: k}, nil
			}
		}
	case schema.SetType:
		elem, err := shapeFromSchema(t.Element)
		return shape{kind: asSet, elem: &elem}, err
	case schema.RecordType:
		rec := shape{kind: asRecord}
		for name, a := range t {
			inner, err := shapeFromSchema(a.Type)
			if err != nil {
				return shape{}, err
			}
			_, nullable := a.Annotations["nullable"]
			rec.attrs = append(rec.attrs, attr{name: string(name), required: !a.Optional, nullable: nullable, shape: inner})
		}
		slices.SortFunc(rec.attrs, func(a, b attr) int { return strings.Compare(a.name, b.name) })
		return rec, nil
	}
	return shape{}, fmt.Errorf("argument of unknown type %v", t)
}

// typeNames are the names of the scalar shapes in the schema.
var typeNames = map[kind]string{
	asJSON: "JSON", asString: "String", asBool: "Bool", asLong: "Long", asDecimal: "decimal",
}

// A reading turns one call's arguments into what policy sees, once.
type reading struct {
	query   *writ.Query
	args    *canon.Value
	seen    cedar.Value
	trace   map[string]writ.Origin // of every leaf that was traced
	nulls   []cedar.Value
	origins [writ.FromPrompt + 1][]cedar.Value // pointers, by the worst origin of their leaves
}

// A misfit is a value that policy could not see exactly.
type misfit struct{ argument string }

func (m *misfit) Error() string { return "argument " + m.argument + " does not fit its type" }

// read converts v. At is v's own pointer; origins are noted for the pointers
// that policies may name, so for those of attributes only.
func (r *reading) read(v *canon.Value, s shape, at string) (cedar.Value, writ.Origin, error) {
	bad := &misfit{at}
	switch s.kind {
	case asRecord:
		if v.Kind() != canon.Object {
			return nil, 0, bad
		}
		return r.readRecord(v, s, at)
	case asSet:
		if v.Kind() != canon.Array || v.Len() > maxElements {
			return nil, 0, bad
		}
		worst, elems := writ.FromPrompt, make([]cedar.Value, 0, v.Len())
		for i := range v.Len() {
			e, o, err := r.read(v.Index(i), *s.elem, fmt.Sprintf("%s/%d", at, i))
			if err != nil {
				return nil, 0, err
			}
			elems, worst = append(elems, e), min(worst, o)
		}
		if len(elems) == 0 {
			worst = writ.FromAgent
		}
		return cedar.NewSet(elems...), worst, nil
	case asJSON:
		return cedar.String(v.JSON()), r.originOf(v, at), nil
	}
	c, ok := scalar(v, s.kind)
	if !ok {
		return nil, 0, bad
	}
	return c, r.leaf(v, at), nil
}

// leaf is the origin of one leaf. One without text, such as true, null or "",
// repeats nothing: if it was not traced, the agent chose it.
func (r *reading) leaf(v *canon.Value, at string) writ.Origin {
	if o, ok := r.trace[at]; ok {
		return o
	}
	if s, _ := v.Str(); s == "" && v.Kind() != canon.Number {
		return writ.FromAgent
	}
	return writ.FromUntrusted
}

func scalar(v *canon.Value, k kind) (cedar.Value, bool) {
	switch k {
	case asString:
		s, ok := v.Str()
		return cedar.String(s), ok
	case asBool:
		b, ok := v.Bool()
		return cedar.Boolean(b), ok
	}
	lexeme, _ := v.Number()
	if k == asLong {
		i, ok := canon.Int64(lexeme)
		return cedar.Long(i), ok
	}
	i, ok := canon.Scaled(lexeme, 4)
	d, err := cedar.NewDecimal(i, -4)
	return d, ok && err == nil
}

func (r *reading) readRecord(v *canon.Value, s shape, at string) (cedar.Value, writ.Origin, error) {
	worst, seen, rec := writ.FromPrompt, 0, make(cedar.RecordMap, len(s.attrs))
	for i := range s.attrs {
		a := &s.attrs[i]
		m := v.Get(a.name)
		if m == nil {
			if a.required {
				return nil, 0, &misfit{at + "/" + escapePointer(a.name)}
			}
			continue
		}
		seen++
		var origin writ.Origin
		if m.Kind() == canon.Null && a.nullable {
			origin = r.leaf(m, a.pointer)
			r.nulls = append(r.nulls, a.named)
		} else {
			inner := a.pointer
			if inner == "" {
				inner = at + "/" + escapePointer(a.name)
			}
			c, o, err := r.read(m, a.shape, inner)
			if err != nil {
				return nil, 0, err
			}
			rec[cedar.String(a.name)], origin = c, o
		}
		if a.pointer != "" {
			r.origins[origin] = append(r.origins[origin], a.named)
		}
		worst = min(worst, origin)
	}
	if seen != v.Len() {
		return nil, 0, &misfit{undeclared(v, s, at)}
	}
	if seen == 0 {
		worst = writ.FromAgent
	}
	return cedar.NewRecord(rec), worst, nil
}

// undeclared finds a member that the shape does not have.
func undeclared(v *canon.Value, s shape, at string) string {
	for name := range v.Members() {
		if !slices.ContainsFunc(s.attrs, func(a attr) bool { return a.name == name }) {
			return at + "/" + escapePointer(name)
		}
	}
	return at
}

// originOf is the worst origin of the leaves of a subtree, and of the names in
// it that were traced.
func (r *reading) originOf(v *canon.Value, at string) writ.Origin {
	worst, leaves := writ.FromPrompt, 0
	if o, ok := r.trace[at]; ok {
		worst, leaves = o, 1
	}
	for pointer, l := range canon.Leaves(v) {
		leaves++
		worst = min(worst, r.leaf(l, at+pointer))
	}
	if leaves == 0 {
		return writ.FromAgent
	}
	return worst
}
