package ledger

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/note"
)

// VerifyAll verifies everything: that every leaf, in its place, is in the tree
// that every checkpoint signs; that every payload is what its leaf commits to,
// or erased by a record that says so; that times do not run backwards; that
// the columns of a record say what its leaf says; and that state is what the
// records make of it. It gives the number of records.
//
// It may run while others write: what they add is verified too, up to the
// moment when state is compared. An error wraps ErrDamaged if the log does not
// verify, and ErrDiverged if only state does not.
func (l *Ledger) VerifyAll(ctx context.Context) (int64, error) {
	if s, ok := l.store.(interface{ Check(context.Context) error }); ok {
		if err := s.Check(ctx); err != nil {
			return 0, err
		}
	}
	a := l.newAudit()
	for more := true; more; {
		err := l.store.View(ctx, func(v View) (err error) {
			more, err = a.read(ctx, v, auditPage)
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	err := l.store.View(ctx, func(v View) error {
		if _, err := a.read(ctx, v, 0); err != nil {
			return err
		}
		if err := a.finish(); err != nil {
			return err
		}
		return a.compare(ctx, v)
	})
	return a.edge.size, err
}

const auditPage = 4096 // records that are read in one view

// An audit is a pass over the log from its beginning.
type audit struct {
	l      *Ledger
	keys   keychain
	edge   edge
	time   int64
	state  map[rowKey]*Row
	gone   []run // payloads that are not there
	erased erasures
}

func (l *Ledger) newAudit() *audit {
	return &audit{l: l, keys: keychain{origin: l.config.Origin}, state: map[rowKey]*Row{}}
}

// read goes on by whole batches: to the end, or to where a page of records was
// read, and says whether there are more.
func (a *audit) read(ctx context.Context, v View, page int64) (more bool, err error) {
	last, err := newest(ctx, v)
	if err != nil {
		return false, err
	}
	if last.Last+1 < a.edge.size {
		return false, damaged("it has become shorter")
	}
	from := a.edge.size
	for a.edge.size <= last.Last && (page == 0 || a.edge.size-from < page) {
		b, err := v.Batch(ctx, a.edge.size)
		if err != nil {
			return false, err
		}
		if b == nil || b.First != a.edge.size || b.Last < b.First {
			return false, damaged("no batch begins with record %d", a.edge.size)
		}
		if err := a.batch(ctx, v, b); err != nil {
			return false, err
		}
	}
	return a.edge.size <= last.Last, nil
}

// batch verifies the records of one batch, then its hashes and its checkpoint.
func (a *audit) batch(ctx context.Context, v View, b *Batch) error {
	var stored []byte
	keys := len(a.keys.all)
	for a.edge.size <= b.Last {
		records, err := v.Records(ctx, Filter{From: a.edge.size, To: b.Last + 1, Limit: maxBatch})
		if err != nil {
			return err
		}
		if len(records) == 0 || records[0].Index != a.edge.size {
			return damaged("record %d is missing", a.edge.size)
		}
		for i := range records {
			if records[i].Index != a.edge.size {
				return damaged("record %d is missing", a.edge.size)
			}
			if err := a.record(&records[i]); err != nil {
				return err
			}
			stored = a.edge.add(records[i].LeafBytes, stored)
		}
	}
	if !bytes.Equal(stored, b.Hashes) {
		return damaged("the hashes of records %d to %d are not those of their leaves", b.First, b.Last)
	}
	signed := a.keys.all[max(0, keys-1)] // the key as it was before the batch: it signs a change to another, too
	head, err := (&keyring{a.l.keys.Load().signer, []note.Verifier{signed}}).open(b.Note)
	if err != nil {
		return damaged("the checkpoint of %d records: %v", b.Last+1, err)
	}
	if head.size != a.edge.size || head.root != a.edge.root() {
		return damaged("the checkpoint of %d records is of others", b.Last+1)
	}
	return nil
}

// record verifies one record, and folds what it changed into the state.
func (a *audit) record(s *Record) error {
	r, err := a.l.vault.record(s)
	if err != nil {
		return err
	}
	if r.Leaf.Time < a.time {
		return damaged("record %d is older than the one before it", r.Index)
	}
	a.time = r.Leaf.Time
	switch {
	case r.Leaf.Type == TypeKey:
		if err := a.keys.add(r.Leaf); err != nil {
			return damaged("record %d: %v", r.Index, err)
		}
	case r.Index == 0:
		return damaged("the first record is not the log's key")
	case r.Leaf.Type == TypeErasure:
		if err := a.erased.add(r.Leaf, r.Index); err != nil {
			return err
		}
	}
	if r.Erased {
		if n := len(a.gone); n != 0 && a.gone[n-1].last == r.Index-1 {
			a.gone[n-1].last = r.Index
		} else {
			a.gone = append(a.gone, run{r.Index, r.Index})
		}
	}
	if b, ok := r.Part(partChanges); ok {
		return fold(a.state, r.Index, b)
	}
	return nil
}

// finish holds the payloads that are not there against the erasures.
func (a *audit) finish() error {
	for _, r := range a.gone {
		for i := r.first; i <= r.last; i++ {
			if !a.erased.has(i) {
				return damaged("the payload of record %d is gone, and no erasure accounts for it", i)
			}
		}
	}
	return nil
}

// compare holds the rows against the state that the records make.
func (a *audit) compare(ctx context.Context, v View) error {
	rows, err := v.Scan(ctx, "", "", 0)
	if err != nil {
		return err
	}
	var bad []string
	now := max(a.time, a.l.Time())
	for i := range rows {
		if rows[i].Kind == kindWitness {
			if err := a.witness(ctx, v, &rows[i]); err != nil {
				bad = append(bad, fmt.Sprintf("%s %.80q: %v", rows[i].Kind, rows[i].Key, err))
			}
			continue
		}
		k := rows[i].name()
		want := a.state[k]
		delete(a.state, k)
		switch have, err := a.l.vault.openRow(&rows[i]); {
		case err != nil:
			bad = append(bad, fmt.Sprintf("%s %.80q does not open", k[0], k[1]))
		case want == nil && have.live(now).At != Absent:
			bad = append(bad, fmt.Sprintf("%s %.80q is there", k[0], k[1]))
		case want != nil && have.live(now).At != want.live(now).At,
			want != nil && have.At == want.At && (have.Count != want.Count || have.Until != want.Until || !bytes.Equal(have.Value, want.Value)):
			bad = append(bad, fmt.Sprintf("%s %.80q is another", k[0], k[1]))
		}
	}
	for k, want := range a.state {
		if want.live(now).At != Absent {
			bad = append(bad, fmt.Sprintf("%s %.80q is missing", k[0], k[1]))
		}
	}
	if len(bad) == 0 {
		return nil
	}
	slices.Sort(bad)
	return fmt.Errorf("%w: of %d rows that are wrong the first is %s", ErrDiverged, len(bad), bad[0])
}

// witness verifies a cosigned checkpoint against the tree.
func (a *audit) witness(ctx context.Context, v View, s *Row) error {
	r, err := a.l.vault.openRow(s)
	if err != nil {
		return err
	}
	head, err := a.l.keys.Load().open(r.Value)
	if err == nil && head.size != r.At {
		err = damaged("a checkpoint of %d records", head.size)
	}
	if err != nil {
		return err
	}
	return a.l.has(ctx, v, head)
}

// Rebuild makes state anew from the records: for when VerifyAll says that it
// has diverged, and the log is in order. E, of type TypeAdmin, is the record
// of it, in the same transaction. Nothing else is committed meanwhile.
func (l *Ledger) Rebuild(ctx context.Context, e *Entry) (Receipt, error) {
	if e.Leaf.Type != TypeAdmin {
		return Receipt{}, fmt.Errorf("%w: state is rebuilt by a record of type %s", ErrInvalid, TypeAdmin)
	}
	p, err := l.prepare(e)
	if err != nil {
		return Receipt{}, err
	}
	var receipts []Receipt
	err = l.alone(func() error {
		return l.write(ctx, func(d *draft, v View) error {
			a := l.newAudit()
			if _, err := a.read(ctx, v, 0); err != nil {
				return err
			}
			if err := a.finish(); err != nil {
				return err
			}
			d.base, d.batch.Reset = a.state, true
			if receipts, err = d.take([]*pending{p}); err != nil {
				return err
			}
			return d.keep(ctx, v)
		})
	})
	if err != nil {
		return Receipt{}, err
	}
	l.cache.forget()
	return receipts[0], nil
}

// keep writes again, after a reset, what the draft does not change.
func (d *draft) keep(ctx context.Context, v View) error {
	for k, r := range d.base {
		if d.over[k] == nil && r.live(d.time).At != Absent {
			d.over[k] = r
		}
	}
	rows, err := v.Scan(ctx, kindWitness, "", 0)
	if err != nil {
		return err
	}
	for i := range rows {
		if r, err := d.l.vault.openRow(&rows[i]); err == nil {
			d.over[r.name()] = r
		}
	}
	return nil
}

// alone runs fn as long as the ledger is not closed, and makes Close wait.
func (l *Ledger) alone(fn func() error) error {
	l.inbox.closing.RLock()
	defer l.inbox.closing.RUnlock()
	if l.inbox.closed {
		return ErrClosed
	}
	return fn()
}
