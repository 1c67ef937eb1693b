package policy

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
	"github.com/writgate/writ"
)

// validate gives everything that is wrong with the policies, in their order.
func (b *Bundle) validate() (problems []string) {
	ids := map[string]writ.Reason{}
	for _, r := range b.policies {
		for _, p := range b.check(r) {
			problems = append(problems, r.problem(p))
		}
		if _, named := r.policy.Annotations()["id"]; named {
			if first, twice := ids[r.reason.Policy]; twice {
				problems = append(problems, r.problem(fmt.Sprintf("@id %q is taken by %s:%d", r.reason.Policy, first.File, first.Line)))
				continue
			}
			ids[r.reason.Policy] = r.reason
		}
	}
	return problems
}

// check gives everything that is wrong with one policy.
func (b *Bundle) check(r *rule) []string {
	p := (*ast.Policy)(r.policy.AST())
	w := walkConditions(p.Conditions)
	r.facts = w.facts

	// 1. What needs no types.
	problems := w.problems
	if bad := assuranceProblem(p); bad != "" && w.facts != allFacts {
		problems = append(problems, bad)
	}
	problems = append(problems, b.unknown(append(scopeEntities(p), w.literals...))...)
	if len(problems) > 0 {
		return sorted(problems)
	}

	// 2. The actions in its scope.
	envs, err := b.environments(p, w)
	if err != nil {
		return []string{err.Error()}
	}
	for _, a := range envs {
		for _, h := range w.has {
			if err := declared(h, b.schema, a.AppliesTo.Context); err != nil {
				problems = append(problems, err.Error())
			}
		}
		for _, pointer := range w.pointers {
			if pointer == writ.PointerInputs {
				continue
			}
			if op := b.ops[writ.ToolName(a.Entity.UID.ID)]; op == nil || !slices.Contains(op.args.pointers(), pointer) {
				problems = append(problems, fmt.Sprintf("%s has no argument %q", a.Entity.UID.ID, pointer))
			}
		}
	}

	// 3. The types, and whether any call could satisfy it.
	v := validate.New(b.subset(envs, w), validate.WithStrict())
	if err := v.Policy("", p); err != nil {
		what := anyStandIn.ReplaceAllString(err.Error(), "any action")
		return sorted(append(problems, strings.Split(what, "\n")...))
	}
	if len(problems) == 0 && impossible(v, p) {
		problems = append(problems, "no call could satisfy its conditions")
	}
	return sorted(problems)
}

// anyStandIn is how the validator speaks of the actions that standIns makes.
var anyStandIn = regexp.MustCompile(`Action::"\*\d+"`)

func sorted(problems []string) []string {
	slices.Sort(problems)
	return slices.Compact(problems)
}

// unknown names the entities that a policy writes out and that do not exist,
// where the schema knows all there are. The validator asks only for the type.
func (b *Bundle) unknown(literals []cedar.EntityUID) (problems []string) {
	for _, uid := range literals {
		enum, closed := b.schema.Enums[uid.Type]
		id, ok := string(uid.ID), true
		switch {
		case closed:
			ok = slices.Contains(enum.Values, uid)
		case uid.Type == "Action":
			_, ok = b.schema.Actions[uid]
		case uid.Type == "Tool":
			_, ok = b.ops[writ.ToolName(id)]
		case uid.Type == "Upstream":
			_, ok = b.schema.Actions[actionUID("upstream:"+id)]
		}
		if !ok {
			problems = append(problems, fmt.Sprintf("there is no %s", uid))
		}
	}
	return problems
}

func scopeEntities(p *ast.Policy) []cedar.EntityUID {
	uids := scopeActions(p)
	for _, scope := range []ast.IsScopeNode{p.Principal, p.Resource} {
		switch s := scope.(type) {
		case ast.ScopeTypeEq:
			uids = append(uids, s.Entity)
		case ast.ScopeTypeIn:
			uids = append(uids, s.Entity)
		case ast.ScopeTypeIsIn:
			uids = append(uids, s.Entity)
		}
	}
	return uids
}

// scopeActions are the actions that a policy's scope names; none means any.
func scopeActions(p *ast.Policy) []cedar.EntityUID {
	switch s := p.Action.(type) {
	case ast.ScopeTypeEq:
		return []cedar.EntityUID{s.Entity}
	case ast.ScopeTypeIn:
		return []cedar.EntityUID{s.Entity}
	case ast.ScopeTypeInSet:
		return slices.Clone(s.Entities)
	}
	return nil
}

// environments are the actions that a policy is checked against: those in its
// scope. Where it names groups and reads no arguments, they differ in nothing
// it could see, and stand-ins take their place, one for each combination of
// the groups it speaks of. So a policy may name a group that no tool is in.
func (b *Bundle) environments(p *ast.Policy, w *walk) ([]resolved.Action, error) {
	scope := scopeActions(p)
	group := func(uid cedar.EntityUID) bool { return b.schema.Actions[uid].AppliesTo == nil }
	if _, any := p.Action.(ast.ScopeTypeAll); any || slices.Contains(scope, actionUID("all")) {
		if w.args {
			return nil, errors.New("reads arguments, so its scope must name the tools: action == Action::\"upstream.tool\"")
		}
		scope = []cedar.EntityUID{actionUID("all")}
	}
	var envs []resolved.Action
	if _, eq := p.Action.(ast.ScopeTypeEq); !eq && !w.args && slices.ContainsFunc(scope, group) {
		envs = b.standIns(scope, w)
	}
	for _, op := range b.ops {
		named := slices.Contains(scope, op.uid)
		if _, eq := p.Action.(ast.ScopeTypeEq); !eq && w.args {
			named = named || slices.ContainsFunc(op.parents, func(g cedar.EntityUID) bool { return slices.Contains(scope, g) })
		}
		if named && inResource(p, op) {
			envs = append(envs, b.schema.Actions[op.uid])
		}
	}
	if len(envs) == 0 {
		return nil, errors.New("its scope holds no tool")
	}
	return envs, nil
}

// inResource reports whether a policy's scope by resource holds the tool of
// an action.
func inResource(p *ast.Policy, op *operation) bool {
	in := func(uid cedar.EntityUID) bool {
		return uid == op.resource || uid == cedar.NewEntityUID("Upstream", cedar.String(op.tool.Upstream))
	}
	switch s := p.Resource.(type) {
	case ast.ScopeTypeEq:
		return s.Entity == op.resource
	case ast.ScopeTypeIn:
		return in(s.Entity)
	case ast.ScopeTypeIsIn:
		return in(s.Entity)
	}
	return true
}

// standIns are actions without arguments in every combination of the groups
// that a policy speaks of, as far as its scope holds them.
func (b *Bundle) standIns(scope []cedar.EntityUID, w *walk) (envs []resolved.Action) {
	groups := slices.Clone(scope)
	for _, uid := range w.literals {
		if uid.Type == "Action" && !slices.Contains(groups, uid) {
			groups = append(groups, uid)
		}
	}
	groups = slices.DeleteFunc(groups, func(uid cedar.EntityUID) bool { return b.schema.Actions[uid].AppliesTo != nil })
	add := func(in func(i int) bool) {
		parents := []cedar.EntityUID{}
		for i, g := range groups {
			if g == actionUID("all") || in(i) {
				parents = append(parents, g)
			}
		}
		if slices.ContainsFunc(parents, func(g cedar.EntityUID) bool { return slices.Contains(scope, g) }) {
			uid := actionUID(fmt.Sprintf("*%d", len(envs)))
			envs = append(envs, resolved.Action{Entity: cedar.Entity{UID: uid, Parents: cedar.NewEntityUIDSet(parents...)}, AppliesTo: b.standIn})
		}
	}
	add(func(int) bool { return true })
	if !w.action {
		return envs
	}
	if len(groups) > maxCombined { // one in each, and one in all but each
		for i := range groups {
			add(func(j int) bool { return i == j })
			add(func(j int) bool { return i != j })
		}
		return envs
	}
	for mask := range 1<<len(groups) - 1 {
		add(func(i int) bool { return mask>>i&1 == 1 })
	}
	return envs
}

// maxCombined bounds the groups whose combinations are all tried.
const maxCombined = 6

// subset is the schema with only these actions, and what they and the policy
// name besides.
func (b *Bundle) subset(envs []resolved.Action, w *walk) *resolved.Schema {
	s := &resolved.Schema{Namespaces: b.schema.Namespaces, Entities: b.schema.Entities, Enums: b.schema.Enums, Actions: map[cedar.EntityUID]resolved.Action{}}
	for _, uid := range w.literals {
		if a, ok := b.schema.Actions[uid]; ok {
			a.AppliesTo = nil // known, but no environment
			s.Actions[uid] = a
		}
	}
	for _, a := range envs {
		for g := range a.Entity.Parents.All() {
			s.Actions[g] = b.schema.Actions[g]
		}
	}
	for _, a := range envs {
		s.Actions[a.Entity.UID] = a
	}
	return s
}

// impossible reports whether the conditions are false by their types alone,
// in every environment. The validator does not say so; but it does not look
// at what follows a false, so that an ill-typed rest goes unseen only there.
func impossible(v *validate.Validator, p *ast.Policy) bool {
	if len(p.Conditions) == 0 {
		return false
	}
	illTyped := ast.NodeTypeNot{UnaryNode: ast.UnaryNode{Arg: ast.NodeValue{Value: types.Long(0)}}}
	var all ast.IsNode = illTyped
	for _, c := range slices.Backward(p.Conditions) {
		body := c.Body
		if c.Condition == ast.ConditionUnless {
			body = ast.NodeTypeNot{UnaryNode: ast.UnaryNode{Arg: body}}
		}
		all = ast.NodeTypeAnd{BinaryNode: ast.BinaryNode{Left: body, Right: all}}
	}
	probe := *p
	probe.Conditions = []ast.ConditionType{{Condition: ast.ConditionWhen, Body: all}}
	return v.Policy("", &probe) == nil
}

// entities are those of the schema: they are the same in every decision.
func (b *Bundle) entities() cedar.EntityMap {
	m := cedar.EntityMap{}
	for uid, a := range b.schema.Actions {
		m[uid] = a.Entity
	}
	for op := range maps.Values(b.ops) {
		up := cedar.NewEntityUID("Upstream", cedar.String(op.tool.Upstream))
		m[up] = cedar.Entity{UID: up}
		m[op.resource] = cedar.Entity{UID: op.resource, Parents: cedar.NewEntityUIDSet(up), Attributes: cedar.NewRecord(cedar.RecordMap{
			"fetch":  cedar.Boolean(op.tool.Fetch),
			"harm":   cedar.Long(writ.ReadOnly - op.tool.Tier),
			"tier":   cedar.NewEntityUID("Tier", cedar.String(op.tool.Tier.String())),
			"result": labelRecord(op.tool.Result),
		})}
	}
	return m
}
