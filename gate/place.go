package gate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/approval"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/policy"
	"github.com/writgate/writ/replay"
)

// maxBehind is how far the clock may be set back. A clock that says less than
// the log could give grants a longer life than they have.
const maxBehind = 2 * time.Second

// place fills in the agent, the task, the tool and the action of a query.
func (g *Gate) place(ctx context.Context, a *attempt) error {
	q := &a.query
	if behind := g.Ledger.Behind(); behind > maxBehind {
		return writ.Refuse(writ.Unavailable, "the gateway's clock is wrong; try again later", fmt.Errorf("the clock is %v behind the log", behind))
	}
	if err := g.notHalted(ctx, a); err != nil {
		return err
	}
	var reads []ledger.Expect
	var err error
	if q.Agent, reads, err = g.Catalog.Agent(ctx, q.Caller.Agent); err != nil {
		return err
	}
	a.reads = append(a.reads, reads...)

	// Nothing in the request chooses the task: it is the one its key is bound
	// to. A token that was issued for another one is a token of the past.
	held, err := g.Tasks.OfKey(ctx, q.Caller, q.Agent.Environment)
	if err != nil {
		return err
	}
	q.Task = held.Task
	a.reads = append(a.reads, held.Reads...)
	if a.who.Task != "" && a.who.Task != q.Task.ID {
		return writ.Refuse(writ.OutsideTask, "the task of this token has ended; get a new token", nil)
	}
	placed, err := g.Catalog.Place(a.Action)
	if err != nil {
		return err
	}
	q.Tool, q.Action, a.args, a.inputs = placed.Tool, placed.Action, placed.Arguments, placed.Inputs
	a.reads = append(a.reads, placed.Reads...)
	if q.Tool.Tier == writ.Privileged && !a.who.Bound {
		return writ.Refuse(writ.ProofMismatch, "a privileged call needs a proof that covers its body: add the \"body\" claim", nil)
	}
	if q.Spent, err = g.spent(ctx, &q.Task); err != nil {
		return err
	}
	return nil
}

// The row, and the file, that stop everything.
const (
	KindHalt = "halt"
	HaltKey  = "halt"
)

func (g *Gate) notHalted(ctx context.Context, a *attempt) error {
	_, halted, err := g.Ledger.Get(ctx, KindHalt, HaltKey)
	if err != nil {
		return writ.Refuse(writ.Unavailable, "the gateway's state could not be read", err)
	}
	if halted || g.HaltedByFile() {
		d := writ.Refuse(writ.Halted, "an operator has stopped all calls", nil)
		d.Remedy = writ.RemedyStop
		return d
	}
	a.reads = append(a.reads, ledger.Expect{Kind: KindHalt, Key: HaltKey, At: ledger.Absent})
	return nil
}

// HaltedByFile says whether the file that needs no database says stop. A file
// whose absence cannot be told counts as there.
func (g *Gate) HaltedByFile() bool {
	if g.HaltFile == "" {
		return false
	}
	_, err := os.Lstat(g.HaltFile)
	return !os.IsNotExist(err)
}

// kindBudget counts what a task has used, by task and budget.
const kindBudget = "budget"

func budgetKey(t writ.TaskID, name string) string { return string(t) + "/" + name }

func (g *Gate) spent(ctx context.Context, t *writ.Task) (map[string]int64, error) {
	if len(t.Budgets) == 0 {
		return nil, nil
	}
	spent := make(map[string]int64, len(t.Budgets))
	for _, b := range t.Budgets {
		row, _, err := g.Ledger.Get(ctx, kindBudget, budgetKey(t.ID, b.Name))
		if err != nil {
			return nil, writ.Refuse(writ.Unavailable, "the task's budgets could not be read", err)
		}
		spent[b.Name] = row.Count
	}
	return spent, nil
}

// approved puts what people have answered about this action into the query.
func (g *Gate) approved(ctx context.Context, a *attempt) error {
	r, err := g.Approvals.Find(ctx, a.query.Task.ID, a.query.Action.Digest())
	if err != nil {
		return writ.Refuse(writ.Unavailable, "approvals could not be read", err)
	}
	if r == nil {
		return nil
	}
	a.approval = r
	if r.State == approval.Approved {
		a.query.Assurance, a.query.Approvers = r.Assurance(), r.Approvers()
	}
	return nil
}

// bundle gives the policies in force, and makes the query name them. If none
// are, it gives a bundle that denies everything.
func (g *Gate) bundle(ctx context.Context, a *attempt) (*policy.Bundle, error) {
	row, ok, err := g.Ledger.Get(ctx, replay.KindBundle, replay.Active)
	if err != nil {
		return nil, writ.Refuse(writ.Unavailable, "the policies in force could not be read", err)
	}
	if !ok {
		a.reads = append(a.reads, ledger.Expect{Kind: replay.KindBundle, Key: replay.Active, At: ledger.Absent})
		return new(policy.Bundle), nil
	}
	digest := writ.Digest(row.Value)
	b := g.force.Load()
	if b == nil || b.Digest() != digest {
		if b, err = replay.Bundle(ctx, g.Ledger, digest); err != nil {
			return nil, writ.Refuse(writ.Unavailable, "the policies in force could not be read", err)
		}
		g.force.Store(b)
	}
	a.query.Bundle = digest
	a.reads = append(a.reads, ledger.Expect{Kind: replay.KindBundle, Key: replay.Active, At: row.At})
	return b, nil
}

// ask parks a call until a person has answered. The Denial says what is waited
// for, or that somebody has said no.
func (g *Gate) ask(ctx context.Context, a *attempt) error {
	if r := a.approval; r != nil && r.State == approval.Denied {
		reason, _ := r.Refused()
		d := writ.Refuse(writ.ApprovalDenied, "a person said no to this action", nil)
		if reason != "" {
			d.Reason += ": " + reason
		}
		d.Approval, d.Remedy = r.ID, writ.RemedyAskUser
		return d
	}
	r, entry, err := g.Approvals.Ask(ctx, &a.query, a.decision.Requires)
	if err != nil {
		return writ.Refuse(writ.Unavailable, "nobody could be asked", err)
	}
	return park(r, entry)
}

// alreadyAsked parks a call whose question somebody else asked at the same moment.
func (g *Gate) alreadyAsked(ctx context.Context, a *attempt) error {
	r, err := g.Approvals.Find(ctx, a.query.Task.ID, a.query.Action.Digest())
	if err == nil && r == nil {
		err = errors.New("what was asked is gone")
	}
	if err != nil {
		return writ.Refuse(writ.Unavailable, "nobody could be asked", err)
	}
	return park(r, nil)
}

// park says that r is waited for.
func park(r *approval.Request, entry *ledger.Entry) error {
	d := writ.Refuse(writ.ApprovalRequired, "a person has to approve this action first", nil)
	d.Approval, d.Remedy = r.ID, writ.RemedyWait
	return &parked{d, entry}
}

// parked is a Denial with the record that makes its approval exist.
type parked struct {
	*writ.Denial
	entry *ledger.Entry
}

// As lets a parked call be told like any other Denial.
func (p *parked) As(target any) bool {
	d, ok := target.(**writ.Denial)
	if ok {
		*d = p.Denial
	}
	return ok
}

// encode writes what a record holds of a noun.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("a record of plain data does not marshal: %v", err))
	}
	return b
}
