package gate

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/approval"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/capability/issue"
	"github.com/writgate/writ/ledger"
)

// kindCapability remembers the capabilities that were used.
const kindCapability = "cap"

// A carried is a call whose intent is durable. Only commit makes one.
type carried struct {
	query   *writ.Query
	attempt *attempt
	token   *issue.Token
	row     broker.Row
	expect  []ledger.Expect // what the commit found unchanged
	begun   time.Time       // before it looked; its monotonic reading is what counts
	until   int64           // Unix milliseconds: at or after it the decision does not hold
	intent  ledger.Receipt
}

// attempts is how often a call is decided whose ground keeps shifting.
const attempts = 3

// commit makes the intent durable, together with everything that must be true
// and used up for it. If what was read has changed meanwhile, nothing was
// written, and policy decides again; but a call does not move to another task.
func (g *Gate) commit(ctx context.Context, p *Permit) (_ *carried, err error) {
	a, task := p.attempt, p.attempt.query.Task.ID
	defer func() {
		if p := recover(); p != nil {
			err = g.refuse(ctx, a, panicked(p))
		}
	}()
	for range attempts {
		c, entry, err := g.intend(ctx, p)
		if err != nil {
			return nil, g.refuse(ctx, p.attempt, err)
		}
		receipts, err := g.Ledger.Commit(ctx, entry)
		if err == nil {
			c.intent = receipts[0]
			p.attempt.who.Once = nil
			return c, nil
		}
		if err = g.unchanged(err); err != nil {
			return nil, g.refuse(ctx, p.attempt, err)
		}
		if p, err = g.decide(ctx, p.attempt); err != nil {
			return nil, err // recorded by decide
		}
		if p.attempt.query.Task.ID != task {
			break
		}
	}
	return nil, g.refuse(ctx, p.attempt, writ.Refuse(writ.StateChanged, "what this decision depends on keeps changing; try again", nil))
}

// unchanged says why a commit cannot be tried again: nil if it can.
func (g *Gate) unchanged(err error) error {
	row, ok := errors.AsType[*ledger.Error](err)
	switch {
	case ok && (row.Err == ledger.ErrConflict || row.Err == ledger.ErrExceeded):
		return nil
	case ok && row.Kind == ledger.TypeIntent:
		return writ.Refuse(writ.AlreadyUsed, "this call was made before", err)
	case ok && row.Kind == kindCapability:
		return writ.Refuse(writ.AlreadyUsed, "this capability was used before", err)
	case ok:
		return writ.Refuse(writ.ProofReplayed, "this proof was used before; make a new one for every request", err)
	}
	return unrecorded(err)
}

// intend prepares the intent: a capability for exactly this action, the row
// of its credential, and what the commit expects and changes.
func (g *Gate) intend(ctx context.Context, p *Permit) (*carried, *ledger.Entry, error) {
	a, q := p.attempt, p.policy.Query()
	token, err := g.Issuer.Issue(p.policy, q.Action.Upstream, 0)
	if err != nil {
		return nil, nil, writ.Refuse(writ.InternalError, "no capability could be issued", err)
	}
	row, err := g.Broker.Prepare(broker.Order{
		Token: token, Task: q.Task.ID, Agent: q.Caller.Agent, Tool: q.Tool.Name, Tier: q.Tool.Tier, Backend: q.Tool.Credential,
	})
	if err != nil {
		return nil, nil, writ.Refuse(writ.CredentialUnavailable, "no credential can be had for this tool", err)
	}
	e := a.entry(ledger.TypeIntent, "")
	e.Leaf.Capability, e.Leaf.Lease = string(token.ID()), string(row.Lease)
	e.Expect = append(e.Expect, a.reads...)
	e.Changes = append(e.Changes, a.who.Once...)
	e.Changes = append(e.Changes, ledger.Change{
		Op: ledger.Once, Kind: kindCapability, Key: string(token.ID()), Until: q.Time + time.Hour.Milliseconds(),
	})
	if row.Backend != "" && !row.Reused() {
		e.Changes = append(e.Changes, row.Change())
	}
	if err := take(e, q, a.args); err != nil {
		return nil, nil, err
	}
	if r := a.approval; r != nil && r.State == approval.Approved {
		expect, used, err := r.Use()
		if err != nil {
			return nil, nil, err
		}
		token.UnderApproval(r.ID)
		e.Leaf.Approval = r.ID
		e.Expect, e.Changes = append(e.Expect, expect...), append(e.Changes, used)
	}
	c := &carried{query: q, attempt: a, token: token, row: row, expect: e.Expect, begun: time.Now(), until: a.until()}
	e.Expect = append(slices.Clip(e.Expect), a.reader)
	return c, e, nil
}

// until is when the first of what a decision rests on is over.
func (a *attempt) until() int64 {
	until := min(a.query.Task.Expires, a.who.Until)
	for _, end := range []int64{a.query.Agent.Expires, a.query.Agent.RecertifyBy} {
		if end != 0 {
			until = min(until, end)
		}
	}
	if r := a.approval; r != nil && r.State == approval.Approved {
		until = min(until, r.Expires)
	}
	return until
}

// take adds what a call takes of its task's budgets.
func take(e *ledger.Entry, q *writ.Query, args *canon.Value) error {
	for _, b := range q.Task.Budgets {
		if !q.Tool.Name.In(b.Tool) {
			continue
		}
		amount := int64(1)
		if b.Sum != "" {
			n, _ := args.Pointer(b.Sum).Number()
			var ok bool
			if amount, ok = canon.Int64(n); !ok || amount < 0 {
				d := writ.Refuse(writ.BudgetExceeded, "the budget "+b.Name+" counts an argument that is no whole number of at least zero", nil)
				d.Argument = b.Sum
				return d
			}
		}
		e.Changes = append(e.Changes, ledger.Change{
			Op: ledger.Add, Kind: kindBudget, Key: budgetKey(q.Task.ID, b.Name), Delta: amount, Limit: b.Limit,
		})
	}
	return nil
}
