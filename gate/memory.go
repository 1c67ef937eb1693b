package gate

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/replay"
)

// kindReader names, by task, the process that records what the task reads. Every
// other process takes over from it first, and then reads the log: what is
// recorded after that is its own. While one process works for a task the row
// does not change, and costs nothing.
const kindReader = "reader"

// self is this process among those that share a ledger.
func (g *Gate) self() string {
	g.once.Do(func() { g.name = rand.Text() })
	return g.name
}

// trace asks where the arguments came from, after everything that the task has
// read is remembered here, whichever process let it be read.
func (g *Gate) trace(ctx context.Context, a *attempt) error {
	t := &a.query.Task
	if t.State != writ.Open || a.query.Time >= t.Expires {
		return nil // nothing is permitted any more: why read everything again
	}
	if err := g.own(ctx, a); err != nil {
		return writ.Refuse(writ.Unavailable, "what this task has read could not be read again", err)
	}
	a.query.Provenance, a.query.Label = g.Flow.Trace(t, a.args)
	if a.inputs != nil {
		from, _ := g.Flow.Trace(t, a.inputs)
		for _, p := range from {
			p.Argument = writ.PointerInputs + p.Argument
			a.query.Provenance = append(a.query.Provenance, p)
		}
	}
	return nil
}

// own makes this process the one that records what the task reads, and makes
// it know all that the task has read before.
func (g *Gate) own(ctx context.Context, a *attempt) error {
	t := &a.query.Task
	owner, err := g.reader(ctx, a)
	for n := 0; err == nil && owner != "" && !a.mine; n++ {
		if n == attempts {
			return ledger.ErrConflict
		}
		g.Flow.Stale(t.ID)
		_, err = g.Ledger.Commit(ctx, &ledger.Entry{
			Leaf:   ledger.Leaf{Type: ledger.TypeAdmin, Task: t.ID, Agent: t.Agent, Note: map[string]string{"act": "task.take_over"}},
			Expect: []ledger.Expect{a.reader}, Changes: []ledger.Change{g.reads(a)},
		})
		if err == nil || errors.Is(err, ledger.ErrConflict) {
			owner, err = g.reader(ctx, a)
		}
	}
	if err != nil || g.Flow.Knows(t.ID) {
		return err
	}
	begun := g.Flow.Begin(t)
	if err := g.remember(ctx, t.ID); err != nil {
		return err
	}
	g.Flow.Complete(t.ID, begun)
	return nil
}

// reads is the row that says that this process records what a task reads.
func (g *Gate) reads(a *attempt) ledger.Change {
	return ledger.Change{Op: ledger.Put, Kind: kindReader, Key: a.reader.Key, Value: []byte(g.self())}
}

// sent notes what a call is about to send.
func (g *Gate) sent(q *writ.Query, args, inputs *canon.Value) {
	g.Flow.Sent(q.Task.ID, q.Provenance, "", args)
	if q.Action.Inputs != "" {
		g.Flow.Sent(q.Task.ID, q.Provenance, writ.PointerInputs, inputs)
	}
}

// asked is all that a call sends, in one: what its result may repeat.
func (a *attempt) asked() *canon.Value {
	if a.inputs == nil {
		return a.args
	}
	return both(a.args, a.inputs)
}

// both is a list of two values; nil if one is not there.
func both(a, b *canon.Value) *canon.Value {
	v, err := canon.Parse(fmt.Appendf(nil, "[%s,%s]", a.JSON(), b.JSON()), resultLimits)
	if err != nil {
		return nil
	}
	return v
}

// reader reads who records, and notes what a commit must find unchanged.
func (g *Gate) reader(ctx context.Context, a *attempt) (owner string, err error) {
	key := string(a.query.Task.ID)
	row, ok, err := g.Ledger.Get(ctx, kindReader, key)
	a.reader, a.mine = ledger.Expect{Kind: kindReader, Key: key, At: ledger.Absent}, false
	if ok {
		a.reader.At, owner = row.At, string(row.Value)
		a.mine = owner == g.self()
	}
	return owner, err
}

// took makes an outcome say that this process records, if nobody has yet.
func (g *Gate) took(e *ledger.Entry, a *attempt) {
	e.Expect = append(e.Expect, a.reader)
	if !a.mine {
		e.Changes = append(e.Changes, g.reads(a))
	}
}

// remember reads what a task has read, and is not remembered here, from the
// log.
func (g *Gate) remember(ctx context.Context, t writ.TaskID) error {
	const page = 64
	asked := map[writ.CallID]*canon.Value{} // of calls whose outcome is yet to come
	for from := int64(0); ; {
		records, err := g.Ledger.Records(ctx, ledger.Filter{From: from, Task: t, Limit: page})
		if err != nil {
			return err
		}
		for _, r := range records {
			from = r.Index + 1
			switch r.Leaf.Type {
			case ledger.TypeIntent:
				asked[r.Leaf.Call] = g.sentBefore(r)
			case ledger.TypeOutcome:
				if err := g.rememberOne(r, asked[r.Leaf.Call]); err != nil {
					return err
				}
				delete(asked, r.Leaf.Call)
			}
		}
		if len(records) < page {
			return nil
		}
	}
}

// sentBefore notes what the call of an intent has sent, and gives it; nil if it
// has been erased.
func (g *Gate) sentBefore(r *ledger.Record) *canon.Value {
	q, err := replay.Query(r)
	if err != nil {
		g.Flow.Sent(r.Leaf.Task, nil, "", nil)
		return nil
	}
	args, _ := canon.Parse([]byte(q.Action.Arguments), canon.Limits{})
	inputs, _ := canon.Parse([]byte(q.Action.Inputs), canon.Limits{})
	g.sent(q, args, inputs)
	if q.Action.Inputs == "" {
		return args
	}
	return both(args, inputs)
}

// rememberOne reads one outcome again. What cannot be read is the worst it
// could have been.
func (g *Gate) rememberOne(r *ledger.Record, args *canon.Value) error {
	if r.Leaf.Note["class"] == "" {
		return nil // nothing came back
	}
	var label writ.Label
	body, ok := r.Part(partResult)
	if !ok {
		g.Flow.Remember(r.Leaf.Task, r.Leaf.Call, label, nil, nil)
		return nil
	}
	if err := label.Integrity.UnmarshalText([]byte(r.Leaf.Note["integrity"])); err != nil {
		return err
	}
	if err := label.Class.UnmarshalText([]byte(r.Leaf.Note["class"])); err != nil {
		return err
	}
	v, err := canon.Parse(body, resultLimits)
	if err != nil {
		return err
	}
	if args == nil { // erased: any leaf could repeat them
		label.Integrity = writ.Untrusted
	}
	g.Flow.Remember(r.Leaf.Task, r.Leaf.Call, label, args, v)
	return nil
}
