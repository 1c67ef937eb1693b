package registry

import (
	"fmt"
	"regexp"
	"regexp/syntax"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// maxEffort bounds what checking one call's arguments may cost, in schemas that
// are applied to values. References and alternatives can make a small schema
// apply to a small value more often than anybody will wait for.
const maxEffort = 500_000

// maxApplied bounds how deep schemas are applied inside each other.
const maxApplied = 10_000

// An effort counts what a validation would do at most, before it is done. It
// goes where the validator may go, and stops where there is too much of it.
type effort struct{ left, deep int }

// affords says whether s can be applied to v.
func affords(s *jsonschema.Schema, v any) bool {
	e := effort{left: maxEffort}
	e.apply(s, v)
	return e.left > 0
}

// apply counts the application of s to v.
func (e *effort) apply(s *jsonschema.Schema, v any) {
	if s == nil || e.left <= 0 {
		return
	}
	e.left--
	if e.deep++; e.deep > maxApplied {
		e.left = 0
	}
	defer func() { e.deep-- }()

	// What applies to the value itself.
	for _, same := range []*jsonschema.Schema{s.Ref, s.Not, s.If, s.Then, s.Else, s.ContentSchema} {
		e.apply(same, v)
	}
	for _, all := range [][]*jsonschema.Schema{s.AllOf, s.AnyOf, s.OneOf} {
		for _, same := range all {
			e.apply(same, v)
		}
	}
	for _, same := range s.DependentSchemas {
		e.apply(same, v)
	}
	for _, same := range s.Dependencies {
		e.perhaps(same, v)
	}
	if s.Enum != nil {
		e.left -= len(s.Enum.Values) / 8 // are compared quickly
	}

	// What applies to its parts.
	switch v := v.(type) {
	case string:
		e.match(s.Pattern, v)
	case []any:
		e.elements(s, v)
	case map[string]any:
		e.members(s, v)
	}
}

func (e *effort) elements(s *jsonschema.Schema, v []any) {
	for i, x := range v {
		if e.left <= 0 {
			return
		}
		e.apply(s.Contains, x)
		e.apply(s.UnevaluatedItems, x)
		if i < len(s.PrefixItems) {
			e.apply(s.PrefixItems[i], x)
		} else {
			e.apply(s.Items2020, x)
		}
		if all, ok := s.Items.([]*jsonschema.Schema); ok && i < len(all) {
			e.apply(all[i], x)
			continue
		}
		e.perhaps(s.Items, x)
		e.perhaps(s.AdditionalItems, x)
	}
}

func (e *effort) members(s *jsonschema.Schema, v map[string]any) {
	for name, x := range v {
		if e.left <= 0 {
			return
		}
		e.apply(s.PropertyNames, name)
		e.apply(s.Properties[name], x)
		for pattern, matched := range s.PatternProperties {
			e.match(pattern, name)
			e.apply(matched, x)
		}
		e.perhaps(s.AdditionalProperties, x)
		e.apply(s.UnevaluatedProperties, x)
	}
}

// perhaps counts what may be no schema.
func (e *effort) perhaps(s, v any) {
	if s, ok := s.(*jsonschema.Schema); ok {
		e.apply(s, v)
	}
}

// match counts a regular expression's search in a text: at most every
// instruction of it for every byte, 64 of which cost what a schema does.
func (e *effort) match(pattern jsonschema.Regexp, text string) {
	if p, ok := pattern.(*expression); ok && e.left > 0 {
		e.left -= 1 + len(text)*p.instructions/64
	}
}

// An expression is a regular expression, and its size.
type expression struct {
	*regexp.Regexp
	instructions int
}

// parseExpression is the jsonschema.RegexpEngine of tools' schemas.
func parseExpression(text string) (jsonschema.Regexp, error) {
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, err
	}
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, err
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, fmt.Errorf("regular expression: %w", err)
	}
	return &expression{re, len(program.Inst)}, nil
}
