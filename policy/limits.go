package policy

import (
	"fmt"
	"slices"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
)

// A refusal is a no that policy cannot relax. Why is for the agent and the
// operator alike: it speaks of nothing but the caller's own task.
type refusal struct {
	code     writ.Code
	argument string // JSON Pointer
	why      string
}

func (r *refusal) decision() writ.Decision {
	return writ.Decision{Effect: writ.Deny, Code: r.code, Argument: r.argument}
}

// parseArguments gives the arguments of a query. Only a door that enforces
// elsewhere may show none; then they are nil.
func parseArguments(q *writ.Query) (*canon.Value, *refusal) { return readArguments(q, nil) }

// readArguments is parseArguments where they may have been read before: what
// has the same canonical text is the same.
func readArguments(q *writ.Query, read *canon.Value) (*canon.Value, *refusal) {
	if read.Kind() == canon.Object && read.JSON() == q.Action.Arguments {
		return read, nil
	}
	if q.Action.Arguments == "" && q.Caller.Proof == writ.ProofAsserted {
		return nil, nil
	}
	args, err := canon.ParseObject([]byte(q.Action.Arguments), canon.Limits{})
	if err != nil {
		return nil, &refusal{writ.NotRepresentable, "", "the arguments are not one exact JSON object"}
	}
	return args, nil
}

// limit applies what needs no bundle: the caller, the agent, the task, its
// grant and its budgets, as the query has them.
func limit(q *writ.Query, args *canon.Value) *refusal {
	a, t := &q.Agent, &q.Task
	no := func(code writ.Code, why string) *refusal { return &refusal{code, "", why} }
	switch {
	case q.Version != 1 || q.Assurance > writ.TwoPasskeys || q.Label.Class > writ.Public || q.Label.Integrity > writ.Trusted:
		return no(writ.InvalidRequest, "the query is not of a known version")

	case q.Caller.Proof != writ.ProofTLS && q.Caller.Proof != writ.ProofDPoP && q.Caller.Proof != writ.ProofAsserted:
		return no(writ.Unauthenticated, "no key was proven")
	case q.Caller.Agent == "" || q.Caller.Agent != a.ID:
		return no(writ.AgentNotActive, "the caller is another agent")
	case a.State != writ.Active:
		return no(writ.AgentNotActive, "the agent is not active")
	case a.Expires != 0 && q.Time >= a.Expires:
		return no(writ.AgentNotActive, "the agent has expired")
	case a.RecertifyBy != 0 && q.Time >= a.RecertifyBy:
		return no(writ.AgentNotActive, "the agent is due for certification")

	case t.Agent != a.ID || t.Key != q.Caller.Key:
		return no(writ.OutsideTask, "the task is somebody else's")
	case t.State != writ.Open:
		return no(writ.OutsideTask, "the task is not open")
	case q.Time >= t.Expires:
		return no(writ.OutsideTask, "the task has expired")

	case q.Tool.Tier < a.HighestTier:
		return no(writ.Forbidden, "the agent may use no tool of this tier")
	case t.Unattended && (q.Tool.Tier != writ.ReadOnly || q.Tool.Fetch || q.Action.Answers()):
		return no(writ.OutsideTask, "a task that nobody opened may only read")
	}
	if r := outsideGrant(t.Grant, q.Tool.Name, args); r != nil {
		return r
	}
	return overBudget(q, args)
}

// outsideGrant wants one line of the grant that covers the tool and whose
// bounds the arguments keep, all of them.
func outsideGrant(g writ.Grant, tool writ.ToolName, args *canon.Value) *refusal {
	var first *refusal
	for _, p := range g {
		if !tool.In(p.Tool) {
			continue
		}
		i := slices.IndexFunc(p.Bounds, func(b writ.Bound) bool { return !keeps(b, args.Pointer(b.Argument)) })
		if i < 0 {
			return nil
		}
		if first == nil {
			first = &refusal{writ.OutsideTask, p.Bounds[i].Argument, "an argument is beyond the bounds of the task"}
		}
	}
	if first == nil {
		return &refusal{writ.OutsideTask, "", "the task was not granted this tool"}
	}
	return first
}

// keeps reports whether a value is within a bound. A list is if it has
// elements and every one is. What is absent, or a bound that cannot be read,
// keeps nothing.
func keeps(b writ.Bound, v *canon.Value) bool {
	if v.Kind() == canon.Array {
		for e := range v.Elems() {
			if e.Kind() == canon.Array || !keeps(b, e) {
				return false
			}
		}
		return v.Len() > 0
	}
	if v == nil {
		return false
	}
	if len(b.In) > 0 {
		if s, ok := v.Str(); !ok || !slices.Contains(b.In, s) {
			return false
		}
	}
	n, _ := v.Number()
	if b.Min != "" {
		if order, ok := canon.Compare(n, b.Min); !ok || order < 0 {
			return false
		}
	}
	if b.Max != "" {
		if order, ok := canon.Compare(n, b.Max); !ok || order > 0 {
			return false
		}
	}
	return true
}

// overBudget wants room for the call in every budget that counts it.
func overBudget(q *writ.Query, args *canon.Value) *refusal {
	for _, b := range q.Task.Budgets {
		if !q.Tool.Name.In(b.Tool) {
			continue
		}
		cost, ok := costOf(b, args)
		if !ok {
			return &refusal{writ.BudgetExceeded, b.Sum, fmt.Sprintf("the budget %q counts this argument, which is no whole number of at least zero", b.Name)}
		}
		if spent := q.Spent[b.Name]; spent < 0 || spent > b.Limit || cost > b.Limit-spent {
			return &refusal{writ.BudgetExceeded, b.Sum, fmt.Sprintf("the budget %q has no room for this call", b.Name)}
		}
	}
	return nil
}

// costOf is what a call takes of a budget. What cannot be counted exactly has
// no cost, and a negative number gives nothing back.
func costOf(b writ.Budget, args *canon.Value) (int64, bool) {
	if b.Sum == "" {
		return 1, true
	}
	lexeme, _ := args.Pointer(b.Sum).Number()
	n, ok := canon.Int64(lexeme)
	return n, ok && n >= 0
}
