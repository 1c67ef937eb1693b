package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
)

// KindLease is the kind of the rows this package keeps: by LeaseID, an Entry
// for every lease that is not over.
const KindLease = "lease"

// kindTask is the kind of the rows of package task: by TaskID, a writ.Task.
const kindTask = "task"

// maxDepth bounds how far a task is followed to the tasks it was delegated
// from. It is more than a delegation may have.
const maxDepth = 16

// A Journal is the Queue in the ledger. That a lease may exist is a row, which
// the commit of the intent makes; that it is over is a record of type
// revocation, with the evidence, which deletes the row; and each failure to
// end it is a record of type lease.
//
// A row is left behind when another run of the same gateway made it: a gateway
// has one process at a time. What another gateway made is that gateway's
// until it expires. Nobody else ends it before, for it may still be minted,
// and what is ended before it is minted lives.
type Journal struct {
	Ledger *ledger.Ledger
}

// Change is the row of a new lease, for the commit of the intent. A row that
// is Reused, or names no backend, is not committed.
func (r Row) Change() ledger.Change {
	return Entry{Row: r}.change()
}

func (e Entry) change() ledger.Change {
	value, err := json.Marshal(e)
	if err != nil {
		panic(err) // text and numbers
	}
	return ledger.Change{Op: ledger.Put, Kind: KindLease, Key: string(e.Row.Lease), Value: value}
}

// Live gives every lease that is not over, oldest first: what is in use, and
// what is still to be ended.
func (j *Journal) Live(ctx context.Context) ([]Entry, error) {
	rows, err := j.Ledger.Scan(ctx, KindLease, "", 0)
	if err != nil {
		return nil, err
	}
	all := make([]Entry, len(rows))
	for i, r := range rows {
		if err := json.Unmarshal(r.Value, &all[i]); err != nil {
			return nil, fmt.Errorf("reading lease %s: %w", r.Key, err)
		}
	}
	return all, nil
}

// Pending implements Queue.
func (j *Journal) Pending(ctx context.Context, p Process) ([]Entry, error) {
	all, err := j.Live(ctx)
	if err != nil {
		return nil, err
	}
	now := j.Ledger.Time()
	over := make(map[writ.TaskID]bool)
	var due []Entry
	for _, e := range all {
		switch {
		case now < e.Next:
			continue
		case now >= e.Row.Expires:
		case e.Row.Process.Gateway != p.Gateway:
			continue
		case e.Row.Process.Run != p.Run || e.Attempts > 0:
		default:
			ended, known := over[e.Row.Task]
			if !known {
				if ended, err = j.over(ctx, e.Row.Task, now); err != nil {
					return nil, err
				}
				over[e.Row.Task] = ended
			}
			if !ended {
				continue
			}
		}
		due = append(due, e)
	}
	return due, nil
}

// over says whether a task, or one that it was delegated from, is not open.
func (j *Journal) over(ctx context.Context, id writ.TaskID, now int64) (bool, error) {
	for range maxDepth {
		row, ok, err := j.Ledger.Get(ctx, kindTask, string(id))
		if err != nil {
			return false, err
		}
		var t writ.Task
		if ok {
			if err := json.Unmarshal(row.Value, &t); err != nil {
				return false, fmt.Errorf("reading task %s: %w", id, err)
			}
		}
		if t.State != writ.Open || now >= t.Expires {
			return true, nil
		}
		if t.Parent == "" {
			return false, nil
		}
		id = t.Parent
	}
	return true, nil
}

// Done implements Queue.
func (j *Journal) Done(ctx context.Context, e Entry, evidence Evidence) error {
	part, err := json.Marshal(evidence)
	if err != nil {
		return err
	}
	r := record(e, ledger.TypeRevocation, map[string]string{"outcome": string(evidence.Outcome)})
	if evidence.Until != 0 {
		r.Leaf.Note["until"] = strconv.FormatInt(evidence.Until, 10)
	}
	r.Parts = []ledger.Part{{Name: "evidence", Bytes: part}}
	r.Changes = []ledger.Change{{Op: ledger.Delete, Kind: KindLease, Key: string(e.Row.Lease)}}
	return j.commit(ctx, r)
}

// Failed implements Queue.
func (j *Journal) Failed(ctx context.Context, e Entry, next time.Time) error {
	e.Next = next.UnixMilli()
	r := record(e, ledger.TypeLease, map[string]string{"outcome": "not_revoked", "attempts": strconv.Itoa(e.Attempts)})
	r.Changes = []ledger.Change{e.change()}
	return j.commit(ctx, r)
}

func record(e Entry, typ string, note map[string]string) *ledger.Entry {
	note["backend"] = e.Row.Backend
	return &ledger.Entry{Leaf: ledger.Leaf{
		Type: typ, Task: e.Row.Task, Agent: e.Row.Agent, Tool: e.Row.Tool,
		Capability: string(e.Row.Capability), Lease: string(e.Row.Lease), Note: note,
	}}
}

// commit commits r if its lease still has a row, whatever the row says. If it
// has none, somebody has ended it, and there is nothing to record.
func (j *Journal) commit(ctx context.Context, r *ledger.Entry) error {
	for {
		row, ok, err := j.Ledger.Get(ctx, KindLease, r.Leaf.Lease)
		if err != nil || !ok {
			return err
		}
		r.Expect = []ledger.Expect{{Kind: KindLease, Key: r.Leaf.Lease, At: row.At}}
		if _, err = j.Ledger.Commit(ctx, r); !errors.Is(err, ledger.ErrConflict) {
			return err
		}
	}
}
