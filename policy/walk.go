package policy

import (
	"fmt"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
)

// What cedar-go's validator lets pass, and we do not, is found by walking the
// conditions of a policy once.
type walk struct {
	args     bool     // reads arguments of particular tools
	action   bool     // speaks of the action
	facts    factSet  // that it reads
	pointers []string // literal argument pointers it asks for
	has      []ast.NodeTypeHas
	literals []cedar.EntityUID
	problems []string
}

func walkConditions(conditions []ast.ConditionType) *walk {
	w := &walk{}
	for _, c := range conditions {
		ast.Inspect(ast.NewNode(c.Body), w.visit)
	}
	return w
}

func (w *walk) visit(n ast.IsNode) bool {
	switch n := n.(type) {
	case ast.NodeTypeVariable:
		switch n.Name {
		case "context": // as a whole: visit of its members stops above
			w.args, w.facts = true, allFacts
			w.problems = append(w.problems, "reads the context as a whole: name the member")
		case "action":
			w.action = true
		}
	case ast.NodeValue:
		if uid, ok := n.Value.(types.EntityUID); ok {
			w.literals = append(w.literals, uid)
		}
	case ast.NodeTypeHas:
		w.has = append(w.has, n)
		return !w.reads(n.Arg, n.Value)
	case ast.NodeTypeAccess:
		return !w.reads(n.Arg, n.Value)
	case ast.NodeTypeIsEmpty:
		return !w.pointerSet(n.Arg)
	case ast.NodeTypeContains:
		return !w.asks(n.Left, n.Right)
	case ast.NodeTypeContainsAny:
		return !w.asks(n.Left, n.Right)
	case ast.NodeTypeContainsAll:
		return !w.asks(n.Left, n.Right)
	}
	return true
}

// reads notes the use of one member of the context, or of an attribute of
// one, if that is what it is.
func (w *walk) reads(of ast.IsNode, name types.String) bool {
	if a, ok := of.(ast.NodeTypeAccess); ok && isVariable(a.Arg, "context") {
		w.member(a.Value, name)
		return true
	}
	if isVariable(of, "context") {
		w.member(name, "")
		return true
	}
	return false
}

func (w *walk) member(name, attr types.String) {
	w.facts |= factsOf(name, attr)
	switch name {
	case "args":
		w.args = true
	case "origin", "nulls":
		w.problems = append(w.problems, fmt.Sprintf("context.%s may only be asked isEmpty, contains, containsAny and containsAll, with literal pointers", name))
	}
}

// asks notes the pointers that a set of pointers is asked for, if it is one.
func (w *walk) asks(set, what ast.IsNode) bool {
	if !w.pointerSet(set) {
		return false
	}
	w.args = true
	elems := []ast.IsNode{what}
	if s, ok := what.(ast.NodeTypeSet); ok {
		elems = s.Elements
	}
	for _, e := range elems {
		v, _ := e.(ast.NodeValue)
		if s, ok := v.Value.(types.String); ok {
			w.pointers = append(w.pointers, string(s))
			continue
		}
		w.problems = append(w.problems, "argument pointers must be written out, as string literals")
	}
	return true
}

func isVariable(n ast.IsNode, name types.String) bool {
	v, ok := n.(ast.NodeTypeVariable)
	return ok && v.Name == name
}

func isMember(n ast.IsNode, name types.String) bool {
	a, ok := n.(ast.NodeTypeAccess)
	return ok && a.Value == name && isVariable(a.Arg, "context")
}

// pointerSet recognises context.nulls and context.origin.x, and notes its use.
func (w *walk) pointerSet(n ast.IsNode) bool {
	if isMember(n, "nulls") {
		w.facts |= factsOf("nulls", "")
		return true
	}
	if a, ok := n.(ast.NodeTypeAccess); ok && isMember(a.Arg, "origin") {
		w.facts |= factsOf("origin", a.Value)
		return true
	}
	return false
}

// declared checks a `has` against the types of one action: the validator
// takes an attribute that does not exist for one that is never there, and so
// disarms the policy.
func declared(h ast.NodeTypeHas, s *resolved.Schema, context resolved.RecordType) error {
	rec, ok := recordType(h.Arg, s, context)
	if !ok {
		return fmt.Errorf("`has %s` on an expression that is not a plain path", h.Value)
	}
	if _, ok := rec[h.Value]; !ok {
		return fmt.Errorf("`has %s`: there is no such attribute", h.Value)
	}
	return nil
}

// recordType is the type of a path such as context.args.to.
func recordType(n ast.IsNode, s *resolved.Schema, context resolved.RecordType) (resolved.RecordType, bool) {
	switch n := n.(type) {
	case ast.NodeTypeVariable:
		switch n.Name {
		case "context":
			return context, true
		case "principal":
			return s.Entities["Agent"].Shape, true
		case "resource":
			return s.Entities["Tool"].Shape, true
		}
	case ast.NodeTypeAccess:
		rec, ok := recordType(n.Arg, s, context)
		if !ok {
			return nil, false
		}
		switch t := rec[n.Value].Type.(type) {
		case resolved.RecordType:
			return t, true
		case resolved.EntityType:
			return s.Entities[types.EntityType(t)].Shape, true
		}
	}
	return nil, false
}

// A trend says how an expression's value moves as the assurance rises: not at
// all, up, down, or either way.
type trend uint8

const (
	steady trend = 0
	up     trend = 1
	down   trend = 2
	either trend = up | down
)

func (t trend) flip() trend { return t>>1 | t<<1&down }

// trendOf is exact where policies are written plainly, and either elsewhere.
func trendOf(n ast.IsNode) trend {
	switch n := n.(type) {
	case ast.NodeTypeAccess:
		if isMember(n.Arg, "assurance") {
			return up
		}
	case ast.NodeTypeAnd:
		return trendOf(n.Left) | trendOf(n.Right)
	case ast.NodeTypeOr:
		return trendOf(n.Left) | trendOf(n.Right)
	case ast.NodeTypeAdd:
		return trendOf(n.Left) | trendOf(n.Right)
	case ast.NodeTypeNot:
		return trendOf(n.Arg).flip()
	case ast.NodeTypeNegate:
		return trendOf(n.Arg).flip()
	case ast.NodeTypeSub:
		return trendOf(n.Left) | trendOf(n.Right).flip()
	case ast.NodeTypeGreaterThan:
		return trendOf(n.Left) | trendOf(n.Right).flip()
	case ast.NodeTypeGreaterThanOrEqual:
		return trendOf(n.Left) | trendOf(n.Right).flip()
	case ast.NodeTypeLessThan:
		return trendOf(n.Left).flip() | trendOf(n.Right)
	case ast.NodeTypeLessThanOrEqual:
		return trendOf(n.Left).flip() | trendOf(n.Right)
	case ast.NodeTypeIfThenElse:
		if trendOf(n.If) == steady {
			return trendOf(n.Then) | trendOf(n.Else)
		}
	}
	w := &walk{}
	ast.Inspect(ast.NewNode(n), w.visit)
	if w.facts&assuranceFacts != 0 {
		return either
	}
	return steady
}

// assuranceProblem refuses a policy under which a stronger assurance could
// permit less: a permit may only open with it, a forbid may only close.
func assuranceProblem(p *ast.Policy) string {
	var t trend
	for _, c := range p.Conditions {
		if c.Condition == ast.ConditionWhen {
			t |= trendOf(c.Body)
		} else {
			t |= trendOf(c.Body).flip()
		}
	}
	if p.Effect == ast.EffectForbid {
		t = t.flip()
	}
	if t&down == 0 {
		return ""
	}
	return "a stronger assurance must never permit less: compare context.assurance with >= or >, in a permit's when or a forbid's unless"
}
