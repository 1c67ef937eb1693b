package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
)

// Limits of a schema that an upstream may send. Checking arguments against a
// larger one could cost more than the call.
const (
	maxSchema       = 64 << 10 // bytes
	maxSchemaNodes  = 2_000
	maxAlternatives = 64 // anyOf, oneOf and allOf branches, all together
)

// schema checks and completes arguments.
type schema struct {
	text     *canon.Value
	compiled *jsonschema.Schema
	defaults bool // it says what is meant by leaving something out
}

var errNoNetwork = errors.New("a schema refers to nothing outside itself")

// nowhere loads nothing: no reference leaves the schema.
type nowhere struct{}

// Load refuses every reference.
func (nowhere) Load(string) (any, error) { return nil, errNoNetwork }

// compile reads a tool's input schema. What is wrong with it is a reason for
// quarantine, not an error. A tool without a schema takes an empty object.
func compile(v *canon.Value) (writ.JSON, *schema, string) {
	if v.Kind() != canon.Object {
		return "", nil, BadSchema
	}
	text := v.JSON()
	nodes, alternatives := 0, 0
	measure(v, &nodes, &alternatives)
	if len(text) > maxSchema || nodes > maxSchemaNodes || alternatives > maxAlternatives {
		return text, nil, TooComplex
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
	if err != nil {
		return text, nil, BadSchema
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(nowhere{})
	c.UseRegexpEngine(parseExpression)
	const here = "schema:///input"
	if err := c.AddResource(here, doc); err != nil {
		return text, nil, BadSchema
	}
	compiled, err := c.Compile(here)
	if err != nil {
		return text, nil, BadSchema
	}
	if defaults(v) != unconditional(v) {
		return text, nil, AmbiguousDefault
	}
	return text, &schema{v, compiled, defaults(v) > 0}, ""
}

func measure(v *canon.Value, nodes, alternatives *int) {
	*nodes++
	for e := range v.Elems() {
		measure(e, nodes, alternatives)
	}
	for name, m := range v.Members() {
		switch name {
		case "anyOf", "oneOf", "allOf":
			*alternatives += m.Len()
		case "$dynamicRef", "$recursiveRef": // where they lead shows only as they are followed
			*alternatives += maxAlternatives + 1
		}
		measure(m, nodes, alternatives)
	}
}

// defaults counts every "default" keyword anywhere in a schema.
func defaults(v *canon.Value) int {
	n := 0
	for e := range v.Elems() {
		n += defaults(e)
	}
	for name, m := range v.Members() {
		if name == "default" {
			n++
		}
		n += defaults(m)
	}
	return n
}

// unconditional counts the defaults that complete will fill in: of properties
// of objects, all the way from the top. Any other depends on what the tool
// makes of its schema.
func unconditional(v *canon.Value) int {
	n := 0
	for _, p := range v.Get("properties").Members() {
		if d := p.Get("default"); d != nil {
			n += 1 + defaults(d)
		}
		n += unconditional(p)
	}
	return n
}

// complete fills in what the schema says is meant by leaving it out.
func complete(schema, v *canon.Value) (writ.JSON, error) {
	if v.Kind() != canon.Object || schema.Get("properties").Len() == 0 {
		return v.JSON(), nil
	}
	var b canon.Builder
	for name, m := range v.Members() {
		j, err := complete(schema.Get("properties").Get(name), m)
		if err != nil {
			return "", err
		}
		b.Value(name, j)
	}
	for name, p := range schema.Get("properties").Members() {
		if d := p.Get("default"); d != nil && v.Get(name) == nil {
			b.Value(name, d.JSON())
		}
	}
	return b.JSON()
}

// check completes arguments and validates them. The error is a Denial that
// names the argument at fault.
func (s *schema) check(args *canon.Value) (*canon.Value, error) {
	full := args
	if s.defaults {
		text, err := complete(s.text, args)
		if err == nil {
			full, err = canon.Parse([]byte(text), canon.Limits{})
		}
		if err != nil {
			return nil, writ.Refuse(writ.InvalidArguments, "the arguments could not be completed", err)
		}
	}
	value := plain(full)
	if !affords(s.compiled, value) {
		return nil, writ.Refuse(writ.TooLarge, "to check these arguments against the tool's schema would cost too much; send less", nil)
	}
	if err := s.compiled.Validate(value); err != nil {
		at := ""
		if invalid, ok := errors.AsType[*jsonschema.ValidationError](err); ok {
			at = deepest(invalid)
		}
		d := writ.Refuse(writ.InvalidArguments, fmt.Sprintf("the arguments do not fit the tool's schema at %q", at), nil)
		d.Argument, d.Remedy = at, writ.RemedyFix
		return nil, d
	}
	return full, nil
}

// plain is a value as the validator takes it: numbers by their lexemes.
func plain(v *canon.Value) any {
	switch v.Kind() {
	case canon.Object:
		m := make(map[string]any, v.Len())
		for name, x := range v.Members() {
			m[name] = plain(x)
		}
		return m
	case canon.Array:
		a := make([]any, 0, v.Len())
		for x := range v.Elems() {
			a = append(a, plain(x))
		}
		return a
	case canon.String:
		s, _ := v.Str()
		return s
	case canon.Number:
		n, _ := v.Number()
		return json.Number(n)
	case canon.Bool:
		b, _ := v.Bool()
		return b
	}
	return nil
}

// deepest is the JSON Pointer of the first value at fault.
func deepest(e *jsonschema.ValidationError) string {
	for len(e.Causes) > 0 {
		e = e.Causes[0]
	}
	var b strings.Builder
	for _, token := range e.InstanceLocation {
		b.WriteByte('/')
		b.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(token))
	}
	return b.String()
}
