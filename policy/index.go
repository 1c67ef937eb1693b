package policy

import (
	"iter"
	"slices"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/writgate/writ"
)

// Cedar looks at every policy on every request. A policy whose scope does not
// hold the request can neither match nor err, so it is enough to offer those
// that may apply: found by action, then by principal.

// A list holds the policies of one action, group or set of actions, by the
// principal their scope names. Those that name none are under the zero UID.
type list map[cedar.EntityUID][]*rule

// index puts every policy in exactly one list of each operation that it may
// apply to, so that no request is offered a policy twice.
func (b *Bundle) index() {
	b.rules = map[cedar.PolicyID]*rule{}
	shared := map[cedar.EntityUID]*list{}
	own, answers := map[*operation]*list{}, map[*operation]*list{}
	for _, r := range b.policies {
		b.rules[r.id] = r
		p := (*ast.Policy)(r.policy.AST())
		keys := indexActions(p)
		if len(keys) == 1 {
			put(shared, keys[0], r, p)
			continue
		}
		for _, op := range b.ops {
			if slices.ContainsFunc(keys, func(k cedar.EntityUID) bool { return k == op.uid || slices.Contains(op.parents, k) }) {
				put(own, op, r, p)
			} else if slices.Contains(keys, continuation) {
				put(answers, op, r, p)
			}
		}
	}
	for _, op := range b.ops {
		for _, key := range append([]cedar.EntityUID{{}, op.uid}, op.parents...) {
			if l := shared[key]; l != nil {
				op.lists = append(op.lists, l)
			}
		}
		if l := own[op]; l != nil {
			op.lists = append(op.lists, l)
		}
		if slices.Contains(op.parents, continuation) {
			continue
		}
		for _, l := range []*list{shared[continuation], answers[op]} {
			if l != nil {
				op.answers = append(op.answers, l)
			}
		}
	}
}

// continuation is the group of what goes back up to an upstream that has asked
// for more: an action with input responses is in it, whatever its tool.
var continuation = actionUID("kind:" + string(writ.KindContinuation))

func put[K comparable](lists map[K]*list, key K, r *rule, p *ast.Policy) {
	l := lists[key]
	if l == nil {
		l = &list{}
		lists[key] = l
	}
	principal := indexPrincipal(p)
	(*l)[principal] = append((*l)[principal], r)
}

// indexActions are the actions one of which a request must be in; the zero
// UID is any. A tool and its action are one to one, as are an upstream and
// its group, so a scope by resource is one by action.
func indexActions(p *ast.Policy) []cedar.EntityUID {
	switch a := p.Action.(type) {
	case ast.ScopeTypeEq:
		return []cedar.EntityUID{a.Entity}
	case ast.ScopeTypeIn:
		return []cedar.EntityUID{a.Entity}
	case ast.ScopeTypeInSet:
		return a.Entities
	}
	var uid cedar.EntityUID
	switch s := p.Resource.(type) {
	case ast.ScopeTypeEq:
		uid = s.Entity
	case ast.ScopeTypeIn:
		uid = s.Entity
	case ast.ScopeTypeIsIn:
		uid = s.Entity
	}
	switch uid.Type {
	case "Tool":
		return []cedar.EntityUID{actionUID(string(uid.ID))}
	case "Upstream":
		return []cedar.EntityUID{actionUID("upstream:" + string(uid.ID))}
	}
	return []cedar.EntityUID{{}}
}

// indexPrincipal is the entity that the principal must be or be in.
func indexPrincipal(p *ast.Policy) cedar.EntityUID {
	switch s := p.Principal.(type) {
	case ast.ScopeTypeEq:
		return s.Entity
	case ast.ScopeTypeIn:
		return s.Entity
	case ast.ScopeTypeIsIn:
		return s.Entity
	}
	return cedar.EntityUID{}
}

// A slice is the policies that may apply to one request.
type slice []*rule

// slice finds the policies that may apply to an operation and a principal,
// whose own UID and groups are given. To answer an upstream takes all that the
// tool takes: what is said of answers besides can only forbid.
func (op *operation) slice(principals []cedar.EntityUID, answers bool) slice {
	var s slice
	of := func(l *list) {
		s = append(s, (*l)[cedar.EntityUID{}]...)
		for _, p := range principals {
			s = append(s, (*l)[p]...)
		}
	}
	for _, l := range op.lists {
		of(l)
	}
	if !answers {
		return s
	}
	n := len(s)
	for _, l := range op.answers {
		of(l)
	}
	return append(s[:n], slices.DeleteFunc(s[n:], func(r *rule) bool { return r.policy.Effect() == cedar.Permit })...)
}

// All makes a slice a cedar.PolicyIterator.
func (s slice) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for _, r := range s {
			if !yield(r.id, r.policy) {
				return
			}
		}
	}
}

// reads are the facts that any of the policies reads.
func (s slice) reads() factSet {
	var set factSet
	for _, r := range s {
		set |= r.facts
	}
	return set
}
