package policy

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
)

// A Permit is a permitting decision, with the query it was made about. Only
// Decide makes one, so whoever holds it may rely on it; nil and the zero
// Permit are none.
type Permit struct {
	query    writ.Query
	decision writ.Decision
}

// Query is what was permitted; nil if p is no permit. Nobody may change what
// it points to.
func (p *Permit) Query() *writ.Query {
	if p == nil || p.decision.Effect != writ.Permit {
		return nil
	}
	return &p.query
}

// Decision is the decision; the zero one, which denies, if p is no permit.
func (p *Permit) Decision() writ.Decision {
	if p == nil {
		return writ.Decision{}
	}
	return p.decision
}

// Decide answers a query. The Permit is nil unless the effect is Permit. The
// query must name this bundle.
func (b *Bundle) Decide(q *writ.Query) (*Permit, writ.Decision) { return b.DecideWith(q, nil) }

// DecideWith is Decide for whoever has read the query's arguments already. If
// args are others they are read again.
func (b *Bundle) DecideWith(q *writ.Query, args *canon.Value) (*Permit, writ.Decision) {
	d := b.judge(q, args)
	if d.Effect != writ.Permit {
		return nil, d
	}
	return &Permit{*q, d}, d
}

// decide is Decide without the seal.
func (b *Bundle) decide(q *writ.Query) writ.Decision { return b.judge(q, nil) }

// judge is DecideWith without the seal.
func (b *Bundle) judge(q *writ.Query, args *canon.Value) writ.Decision {
	// 1. What policy cannot relax.
	args, no := readArguments(q, args)
	if no == nil {
		no = limit(q, args)
	}
	if no == nil {
		no = b.changed(q)
	}
	if no != nil {
		return no.decision()
	}
	if b.Empty() {
		return writ.Decision{Code: writ.Forbidden, Errors: []string{"there is no policy: everything is denied"}}
	}

	// 2. What policy sees, and the policies that may have a say.
	op := b.ops[q.Tool.Name]
	r, err := see(q, args, op.args)
	if m, ok := errors.AsType[*misfit](err); ok {
		return writ.Decision{Code: writ.NotRepresentable, Argument: m.argument}
	}
	agent, principals := agentEntity(&q.Agent)
	s := op.slice(principals, q.Action.Answers())
	reads := s.reads()
	if args == nil && reads&argumentFacts != 0 {
		return writ.Decision{Code: writ.NotRepresentable}
	}
	c := call{
		rules:   b.rules,
		slice:   s,
		world:   world{static: b.static, agent: agent},
		context: r.context(reads),
		request: cedar.Request{Principal: agent.UID, Action: op.uid, Resource: op.resource},
	}
	if q.Action.Answers() {
		c.world.action = cedar.Entity{UID: op.uid, Parents: cedar.NewEntityUIDSet(append([]cedar.EntityUID{continuation}, op.parents...)...)}
	}

	// 3. The question itself.
	d := c.ask(q.Assurance)
	if d.Effect == writ.Permit || len(d.Errors) > 0 || reads&assuranceFacts == 0 {
		return d
	}

	// 4. Would a person's word change the answer? A task that nobody opened is
	// not approved out of its limits, and nobody can consent to what nobody
	// showed.
	if q.Task.Unattended || args == nil {
		return d
	}
	for a := q.Assurance + 1; a <= writ.TwoPasskeys; a++ {
		up := c.ask(a)
		if len(up.Errors) > 0 {
			return up
		}
		if up.Effect == writ.Permit {
			d.Effect, d.Code, d.Requires = writ.StepUp, writ.ApprovalRequired, a
			if len(d.Reasons) == 0 {
				d.Reasons = up.Reasons
			}
			return d
		}
	}
	return d
}

// changed says that the query is not of this bundle, or its tool not the one
// that the policies were validated against.
func (b *Bundle) changed(q *writ.Query) *refusal {
	op := b.ops[q.Tool.Name]
	a := &q.Action
	switch {
	case b.digest == "":
		return &refusal{writ.Unavailable, "", "no policies are in force"}
	case q.Bundle != b.digest:
		return &refusal{writ.StateChanged, "", "other policies are in force"}
	case op == nil:
		return &refusal{writ.Quarantined, "", "the policies in force do not know this tool"}
	case op.tool.Definition != q.Tool.Definition || a.Definition != q.Tool.Definition:
		return &refusal{writ.Quarantined, "", "the tool is not the one that the policies in force know"}
	case op.tool != q.Tool || op.kind != a.Kind || op.tool.Upstream != a.Upstream:
		return &refusal{writ.StateChanged, "", "the tool was reviewed anew"}
	}
	return nil
}

// A call is one query as Cedar is asked about it.
type call struct {
	rules   map[cedar.PolicyID]*rule
	slice   slice
	world   world
	context cedar.RecordMap
	request cedar.Request
}

// ask asks Cedar, with some assurance. Any error denies.
func (c *call) ask(a writ.Assurance) writ.Decision {
	c.context["assurance"] = assurances[a]
	c.request.Context = cedar.NewRecord(c.context)
	effect, said := cedar.Authorize(c.slice, &c.world, c.request)
	d := writ.Decision{Code: writ.Forbidden}
	rules := make([]*rule, len(said.Reasons))
	for i, r := range said.Reasons {
		rules[i] = c.rules[r.PolicyID]
	}
	slices.SortFunc(rules, func(a, b *rule) int { return cmp.Compare(a.position, b.position) })
	for _, r := range rules {
		d.Reasons = append(d.Reasons, r.reason)
	}
	for _, e := range said.Errors {
		d.Errors = append(d.Errors, c.rules[e.PolicyID].problem(evaluationProblem(e.Message)))
	}
	slices.Sort(d.Errors)
	if effect != cedar.Allow || len(d.Errors) > 0 {
		return d
	}
	d.Effect, d.Code = writ.Permit, ""
	for _, r := range rules {
		for _, pointer := range r.redact {
			d.Obligations = append(d.Obligations, writ.Obligation{Redact: pointer})
		}
	}
	slices.SortFunc(d.Obligations, func(a, b writ.Obligation) int { return cmp.Compare(a.Redact, b.Redact) })
	d.Obligations = slices.Compact(d.Obligations)
	return d
}

// evaluationProblem is what went wrong, without the values that Cedar's own
// message holds.
func evaluationProblem(message string) string {
	if strings.Contains(message, "overflow") {
		return "its numbers are too large to compute with"
	}
	return "could not be evaluated"
}
