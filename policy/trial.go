package policy

import (
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
)

// maxTrials bounds how often an explanation decides again, for each kind of
// change.
const maxTrials = 100

// A trial decides a query again and again, each time with one thing changed.
type trial struct {
	bundle *Bundle
	query  *writ.Query
	asks   writ.Assurance // of people, as the query stands; none if it was denied
	left   int            // decisions
}

// permits decides a changed query, and says what people would still be asked
// for: less than they were without the change.
func (t *trial) permits(q writ.Query) (requires writ.Assurance, ok bool) {
	if t.left <= 0 {
		return 0, false
	}
	t.left--
	d := t.bundle.decide(&q)
	if d.Effect == writ.StepUp && (t.asks == writ.NoAssurance || d.Requires < t.asks) {
		q.Assurance, requires = d.Requires, d.Requires
		d = t.bundle.decide(&q)
	}
	return requires, d.Effect == writ.Permit
}

// values moves each number to the nearest value that permits: one that a
// policy compares with, one that the task's bounds name, or what is left in a
// budget.
func (t *trial) values() (found []Change) {
	args, _ := parseArguments(t.query)
	op := t.bundle.ops[t.query.Tool.Name]
	if args == nil || op == nil {
		return nil
	}
	for pointer, v := range canon.Leaves(args) {
		lexeme, ok := v.Number()
		if !ok || t.left <= 0 {
			continue
		}
		for _, to := range nearest(lexeme, t.candidates(op, pointer)) {
			q, ok := withValue(t.query, args, pointer, to)
			if !ok {
				continue
			}
			if requires, ok := t.permits(q); ok {
				found = append(found, Change{What: ChangeValue, Argument: pointer, To: to, Requires: requires})
				break
			}
		}
	}
	return found
}

// candidates are numbers that a policy, a bound or a budget draws a line at,
// and those next to them.
func (t *trial) candidates(op *operation, pointer string) []string {
	var all []string
	for _, b := range boundsOn(t.query, pointer) {
		all = append(all, b.Min, b.Max)
	}
	for _, b := range t.query.Task.Budgets {
		if b.Sum == pointer && t.query.Tool.Name.In(b.Tool) {
			all = append(all, strconv.FormatInt(b.Limit-t.query.Spent[b.Name], 10))
		}
	}
	_, principals := agentEntity(&t.query.Agent)
	for _, r := range op.slice(principals, t.query.Action.Answers()) {
		if r.facts&argumentFacts != 0 {
			all = append(all, literals((*ast.Policy)(r.policy.AST()))...)
		}
	}
	return all
}

// literals are the numbers in the conditions of a policy, each with its
// neighbours.
func literals(p *ast.Policy) (all []string) {
	around := func(n int64, format func(int64) string) {
		for _, d := range []int64{-1, 0, 1} {
			all = append(all, format(n+d))
		}
	}
	for _, c := range p.Conditions {
		ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
			switch n := n.(type) {
			case ast.NodeValue:
				if i, ok := n.Value.(types.Long); ok {
					around(int64(i), func(n int64) string { return strconv.FormatInt(n, 10) })
				}
			case ast.NodeTypeExtensionCall:
				v, _ := n.Args[0].(ast.NodeValue)
				if s, ok := v.Value.(types.String); ok && n.Name == "decimal" {
					if i, ok := canon.Scaled(string(s), 4); ok {
						around(i, fourPlaces)
					}
				}
			}
			return true
		})
	}
	return all
}

// fourPlaces is n/10000, without zeros at its end.
func fourPlaces(n int64) string {
	s := new(big.Rat).SetFrac64(n, 10_000).FloatString(4)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// nearest sorts the candidates that are numbers by their distance from a
// number, and drops that number itself.
func nearest(from string, candidates []string) []string {
	at, _ := new(big.Rat).SetString(from)
	distance := map[string]*big.Rat{}
	for _, c := range candidates {
		if order, ok := canon.Compare(c, from); ok && order != 0 { // so no exponent is too large
			r, _ := new(big.Rat).SetString(c)
			distance[c] = r.Abs(r.Sub(r, at))
		}
	}
	sorted := slices.SortedFunc(maps.Keys(distance), func(a, b string) int {
		if c := distance[a].Cmp(distance[b]); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	return sorted
}

// withValue is the query with another number as an argument.
func withValue(q *writ.Query, args *canon.Value, pointer, to string) (writ.Query, bool) {
	cut := strings.LastIndexByte(pointer, '/')
	if cut < 0 {
		return writ.Query{}, false
	}
	name := strings.ReplaceAll(strings.ReplaceAll(pointer[cut+1:], "~1", "/"), "~0", "~")
	text, err := canon.Splice(args, canon.Change{In: args.Pointer(pointer[:cut]), Name: name, Value: writ.JSON(to)})
	changed := *q
	changed.Action.Arguments = writ.JSON(text)
	return changed, err == nil
}

// origins lets each argument come from somewhere better, the least better
// place first, and then, if no one argument is enough, all of them.
func (t *trial) origins() (found []Change) {
	args, _ := parseArguments(t.query)
	var pointers []string
	for pointer := range canon.Leaves(args) {
		pointers = append(pointers, pointer)
	}
	better := func(argument string, pointers ...string) bool {
		for o := writ.FromAgent; o <= writ.FromPrompt && t.left > 0; o++ {
			q, any := withOrigin(t.query, o, pointers)
			if !any {
				continue
			}
			if requires, ok := t.permits(q); ok {
				found = append(found, Change{What: ChangeOrigin, Argument: argument, To: o.String(), Requires: requires})
				return true
			}
		}
		return false
	}
	enough := false
	for _, p := range pointers {
		enough = better(p, p) || enough
	}
	if !enough && len(pointers) > 1 {
		better("", pointers...)
	}
	return found
}

// withOrigin is the query with the arguments from o, unless they are from
// somewhere better already. It reports whether that changes anything.
func withOrigin(q *writ.Query, o writ.Origin, pointers []string) (changed writ.Query, any bool) {
	changed = *q
	changed.Provenance = slices.Clone(q.Provenance)
	for _, pointer := range pointers {
		traced := false
		for i := range changed.Provenance {
			if p := &changed.Provenance[i]; p.Argument == pointer {
				traced = true
				if p.Origin < o {
					*p, any = writ.Provenance{Argument: pointer, Origin: o}, true
				}
			}
		}
		if !traced {
			changed.Provenance = append(changed.Provenance, writ.Provenance{Argument: pointer, Origin: o})
			any = true
		}
	}
	return changed, any
}

// budgets makes room in the one that has none.
func (t *trial) budgets() (found []Change) {
	args, _ := parseArguments(t.query)
	for i, b := range t.query.Task.Budgets {
		cost, ok := costOf(b, args)
		spent := t.query.Spent[b.Name]
		if !ok || spent < 0 || cost > 1<<62-spent || cost <= b.Limit-spent || !t.query.Tool.Name.In(b.Tool) {
			continue
		}
		q := *t.query
		q.Task.Budgets = slices.Clone(q.Task.Budgets)
		q.Task.Budgets[i].Limit = spent + cost
		if requires, ok := t.permits(q); ok {
			found = append(found, Change{What: ChangeBudget, Name: b.Name, To: strconv.FormatInt(spent+cost, 10), Requires: requires})
		}
	}
	return found
}

// bounds widens one bound of one line of the grant so that it admits what was
// asked for.
func (t *trial) bounds() (found []Change) {
	args, _ := parseArguments(t.query)
	for i, p := range t.query.Task.Grant {
		if !t.query.Tool.Name.In(p.Tool) {
			continue
		}
		for j, b := range p.Bounds {
			v := args.Pointer(b.Argument)
			if v == nil || keeps(b, v) {
				continue
			}
			q := *t.query
			q.Task.Grant = slices.Clone(q.Task.Grant)
			q.Task.Grant[i].Bounds = slices.Delete(slices.Clone(p.Bounds), j, j+1)
			if requires, ok := t.permits(q); ok {
				found = append(found, Change{What: ChangeBound, Argument: b.Argument, To: string(v.JSON()), Requires: requires})
			}
		}
	}
	return slices.Compact(found)
}

// grant gives the task the tool.
func (t *trial) grant() []Change {
	if t.query.Task.Grant.Holds(t.query.Tool.Name) {
		return nil
	}
	q := *t.query
	q.Task.Grant = append(slices.Clone(q.Task.Grant), writ.Permission{Tool: q.Tool.Name})
	requires, ok := t.permits(q)
	if !ok {
		return nil
	}
	return []Change{{What: ChangeGrant, Name: string(q.Tool.Name), Requires: requires}}
}
