package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/writgate/writ"
)

// An Explanation tells an operator why a decision is what it is, and what
// would have permitted the call. None of it is for the agent: it would teach a
// hijacked one how to split an amount.
type Explanation struct {
	Decision writ.Decision `json:"decision"`
	Why      string        `json:"why"`
	Changes  []Change      `json:"changes,omitempty"` // each alone would have permitted, the smallest first
}

// A Change is one thing that was not so.
type Change struct {
	What     What           `json:"what"`
	Argument string         `json:"argument,omitempty"` // JSON Pointer; empty means all of them
	Name     string         `json:"name,omitempty"`     // of the budget or the tool
	To       string         `json:"to,omitempty"`
	Requires writ.Assurance `json:"requires,omitempty"` // from people, besides
}

// What says what kind of a Change it is.
type What string

// From the smallest to the largest.
const (
	ChangeAssurance What = "assurance" // people consent: Requires
	ChangeValue     What = "value"     // the number Argument is To
	ChangeOrigin    What = "origin"    // Argument comes from To
	ChangeBudget    What = "budget"    // the budget Name has the limit To
	ChangeBound     What = "bound"     // the task's bound on Argument admits To
	ChangeGrant     What = "grant"     // the task is granted the tool Name
)

var whats = []What{ChangeAssurance, ChangeValue, ChangeOrigin, ChangeBudget, ChangeBound, ChangeGrant}

// String is a sentence without its full stop.
func (c Change) String() string {
	var s string
	switch c.What {
	case ChangeAssurance:
		return consent(c.Requires)
	case ChangeValue:
		s = fmt.Sprintf("%s is %s", c.Argument, c.To)
	case ChangeOrigin:
		s = fmt.Sprintf("%s comes from %s", cmp.Or(c.Argument, "every argument"), c.To)
	case ChangeBudget:
		s = fmt.Sprintf("the budget %q has a limit of %s", c.Name, c.To)
	case ChangeBound:
		s = fmt.Sprintf("the task's bound on %s admits %s", c.Argument, c.To)
	case ChangeGrant:
		s = "the task is granted " + c.Name
	}
	if c.Requires != writ.NoAssurance {
		s += ", and " + consent(c.Requires)
	}
	return s
}

// consent says in words who has to say yes.
func consent(a writ.Assurance) string {
	switch a {
	case writ.UserConfirmed:
		return "the user confirms"
	case writ.OneReviewer:
		return "a reviewer approves"
	case writ.OnePasskey:
		return "a reviewer with a passkey approves"
	case writ.TwoPasskeys:
		return "two reviewers with passkeys approve"
	}
	return "nobody is asked"
}

// Explain decides a query, and decides it again with one thing changed at a
// time. What it finds to permit would have: nothing is guessed.
func (b *Bundle) Explain(q *writ.Query) Explanation {
	e := Explanation{Decision: b.decide(q)}
	e.Why = b.why(q, e.Decision)
	if e.Decision.Effect == writ.Permit || len(e.Decision.Errors) > 0 || b.Empty() {
		return e
	}
	asks := e.Decision.Requires
	if asks != writ.NoAssurance {
		e.Changes = append(e.Changes, Change{What: ChangeAssurance, Requires: asks})
	}
	t := trial{bundle: b, query: q, asks: asks}
	for _, try := range []func() []Change{t.values, t.origins, t.budgets, t.bounds, t.grant} {
		t.left = maxTrials
		e.Changes = append(e.Changes, try()...)
	}
	slices.SortStableFunc(e.Changes, func(a, b Change) int {
		return cmp.Or(
			cmp.Compare(a.size(), b.size()),
			cmp.Compare(slices.Index(whats, a.What), slices.Index(whats, b.What)),
			cmp.Compare(a.Requires, b.Requires))
	})
	return e
}

// size is how many things a change changes, roughly.
func (c Change) size() int {
	n := 1
	if c.What != ChangeAssurance && c.Requires != writ.NoAssurance {
		n++
	}
	if c.What == ChangeOrigin && c.Argument == "" {
		n++
	}
	return n
}

// why is one sentence.
func (b *Bundle) why(q *writ.Query, d writ.Decision) string {
	var by []string
	for _, r := range d.Reasons {
		by = append(by, fmt.Sprintf("%s (%s:%d)", r.Policy, r.File, r.Line))
	}
	list := strings.Join(by, ", ")
	switch {
	case len(d.Errors) > 0:
		return strings.Join(d.Errors, "; ")
	case d.Effect == writ.Permit:
		return "permitted by " + list
	case d.Effect == writ.StepUp:
		return "waits until " + consent(d.Requires) + ", because of " + list
	case d.Code == writ.Forbidden && list != "":
		return "forbidden by " + list
	}
	args, no := parseArguments(q)
	if no == nil {
		no = limit(q, args)
	}
	if no == nil {
		no = b.changed(q)
	}
	switch {
	case no != nil && no.argument != "":
		return no.why + ": " + no.argument
	case no != nil:
		return no.why
	case d.Code == writ.NotRepresentable && d.Argument == "":
		return "a policy reads the arguments, and they were not shown"
	case d.Code == writ.NotRepresentable:
		return "an argument is missing, undeclared, or does not fit its type: " + d.Argument
	}
	return "no policy permits it"
}
