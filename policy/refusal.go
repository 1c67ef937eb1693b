package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/writgate/writ"
)

// Refusal is what an agent is told of a decision that is no permit: the code,
// the argument at fault, its own task's bounds on it, and a remedy. It says
// nothing of any policy, so that it cannot teach a hijacked agent a way
// around; the operator's error does.
func Refusal(q *writ.Query, d writ.Decision) *writ.Denial {
	no := &writ.Denial{Code: d.Code, Argument: d.Argument, Remedy: writ.RemedyStop, Err: determined(d)}
	// Asked again, the checks that need no policy say why.
	args, r := parseArguments(q)
	if r == nil {
		r = limit(q, args)
	}
	if r != nil && r.code == d.Code && r.argument == d.Argument {
		no.Reason = r.why
	}
	switch d.Code {
	case writ.ApprovalRequired:
		no.Reason, no.Remedy = "a person has to approve this action first", writ.RemedyWait
	case writ.OutsideTask:
		no.Remedy = remedyOutside(q, d)
		no.Bounds = boundsOn(q, d.Argument)
	case writ.BudgetExceeded:
		no.Remedy = writ.RemedyAskUser
	case writ.NotRepresentable:
		no.Remedy = writ.RemedyFix
		if no.Reason == "" {
			no.Reason = "an argument is missing, unknown, or not of the type that the tool declares"
		}
	case writ.Quarantined:
		no.Reason = "this tool changed and waits for its review"
	case writ.StateChanged:
		no.Reason, no.Remedy = "what this decision depends on has changed; try again", writ.RemedyWait
	case writ.Unavailable:
		no.Reason, no.Remedy = "no policies are in force; try again later", writ.RemedyWait
	case writ.Forbidden, "":
		no.Code = writ.Forbidden
		if no.Reason == "" {
			no.Reason = "policy does not permit this action; do not try it in another form"
		}
	}
	return no
}

// remedyOutside tells what the task could be given from what it cannot.
func remedyOutside(q *writ.Query, d writ.Decision) writ.Remedy {
	switch {
	case q.Task.State != writ.Open || q.Time >= q.Task.Expires || q.Task.Agent != q.Agent.ID:
		return writ.RemedyStop
	case d.Argument != "":
		return writ.RemedyFix
	case q.Task.Unattended:
		return writ.RemedyAskUser
	}
	return writ.RemedyDelegate
}

// boundsOn are the bounds of the task's own grant on an argument of the tool.
func boundsOn(q *writ.Query, argument string) []writ.Bound {
	var bounds []writ.Bound
	for _, p := range q.Task.Grant {
		if q.Tool.Name.In(p.Tool) {
			bounds = append(bounds, p.Bounds...)
		}
	}
	return slices.DeleteFunc(bounds, func(b writ.Bound) bool { return b.Argument != argument })
}

// determined is the operator's error: what determined the decision.
func determined(d writ.Decision) error {
	var said []string
	for _, r := range d.Reasons {
		said = append(said, fmt.Sprintf("%s:%d: %s", r.File, r.Line, r.Policy))
	}
	said = append(said, d.Errors...)
	if len(said) == 0 {
		return nil
	}
	return errors.New(strings.Join(said, "; "))
}
