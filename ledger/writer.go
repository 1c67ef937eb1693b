package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/writgate/writ"
)

const (
	maxBatch  = 256             // commits that one transaction serves
	maxCommit = 64              // entries of one commit
	grace     = 5 * time.Second // how long a cancelled caller waits for an answer that is on its way
)

// A pending is an entry that needs nothing more from its caller.
type pending struct {
	entry   *Entry
	leaf    Leaf     // what is known of it before it has a time
	changes []Change // the entry's, and those that follow from its type
	payload *payload // nil if there is nothing to seal
}

// A request is one commit in the queue.
type request struct {
	pending  []*pending
	taken    atomic.Bool // by the writer, or by the caller who gave up
	done     chan struct{}
	receipts []Receipt
	err      error
}

// Commit makes the entries durable, all or none, in order, and answers when
// they are. The error wraps one of this package's.
//
// If ctx ends while the commit waits its turn, nothing is committed and the
// error is that of ctx. If it ends later, Commit waits a little longer for
// the answer, and if that does not come the error wraps ErrUnknown.
func (l *Ledger) Commit(ctx context.Context, entries ...*Entry) ([]Receipt, error) {
	if len(entries) == 0 || len(entries) > maxCommit {
		return nil, fmt.Errorf("%w: a commit of %d entries; the most is %d", ErrInvalid, len(entries), maxCommit)
	}
	all := make([]*pending, len(entries))
	for i, e := range entries {
		err := e.check()
		if err == nil && e.Leaf.Type == TypeErasure {
			err = errors.New("an erasure is made by Erase")
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if all[i], err = l.prepare(e); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	return l.submit(ctx, all)
}

// prepare does what can be done before the writer's turn.
func (l *Ledger) prepare(e *Entry) (*pending, error) {
	p := &pending{entry: e, leaf: e.Leaf, changes: e.Changes}
	p.leaf.V = 1
	p.leaf.Gateway = l.config.Gateway
	p.leaf.User = l.vault.pseudonym(e.User)
	if err := p.leaf.check(); err != nil {
		return nil, err
	}
	switch e.Leaf.Type {
	case TypeIntent:
		p.changes = append(slices.Clip(p.changes), Change{Op: Put, Kind: kindOpen, Key: string(p.leaf.Call)})
	case TypeOutcome:
		p.changes = append(slices.Clip(p.changes), Change{Op: Delete, Kind: kindOpen, Key: string(p.leaf.Call)})
	}
	if len(e.Parts) != 0 {
		p.leaf.Parts = make(map[string]writ.Digest, len(e.Parts)+1)
		for i := range e.Parts {
			e.Parts[i].Salt = newSalt()
			p.leaf.Parts[e.Parts[i].Name] = e.Parts[i].Digest()
		}
	}
	if len(e.Parts) != 0 || len(p.changes) != 0 {
		p.payload = l.vault.newPayload(e.Parts)
	}
	return p, nil
}

func (l *Ledger) submit(ctx context.Context, all []*pending) ([]Receipt, error) {
	r := &request{pending: all, done: make(chan struct{})}
	if err := l.enqueue(ctx, r); err != nil {
		return nil, err
	}
	select {
	case <-r.done:
		return r.receipts, r.err
	case <-ctx.Done():
	}
	if r.taken.CompareAndSwap(false, true) {
		return nil, ctx.Err()
	}
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-r.done:
		return r.receipts, r.err
	case <-t.C:
		return nil, fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
	}
}

func (l *Ledger) enqueue(ctx context.Context, r *request) error {
	l.closing.RLock()
	defer l.closing.RUnlock()
	if l.closed {
		return ErrClosed
	}
	select {
	case l.queue <- r:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run is the writer: the one goroutine that commits. While it waits for the
// disk, the next batch gathers.
func (l *Ledger) run() {
	for r := range l.queue {
		batch := []*request{r}
		for len(batch) < maxBatch {
			select {
			case r, ok := <-l.queue:
				if ok {
					batch = append(batch, r)
					continue
				}
			default:
			}
			break
		}
		batch = slices.DeleteFunc(batch, func(r *request) bool { return !r.taken.CompareAndSwap(false, true) })
		if len(batch) != 0 {
			l.serve(batch)
		}
	}
}

// serve commits a batch and answers it.
func (l *Ledger) serve(batch []*request) {
	err := l.down()
	if err == nil {
		err = l.commit(batch)
	}
	if errors.Is(err, ErrFatal) {
		l.fail(err)
	}
	for _, r := range batch {
		if err != nil { // also for those refused: what refused them never was
			r.receipts, r.err = nil, err
		}
		close(r.done)
	}
}

func (l *Ledger) down() error {
	if p := l.fatal.Load(); p != nil {
		return *p
	}
	return nil
}

func (l *Ledger) fail(err error) {
	if l.fatal.CompareAndSwap(nil, &err) {
		close(l.failed)
	}
}

// A writer is what the writing goroutine knows of the log.
type writer struct {
	edge  edge
	swept int64 // Unix milliseconds
}

// commit makes one transaction of a batch. Each commit is checked against the
// state as those before it left it; one that is refused writes nothing, and
// the others go on.
func (l *Ledger) commit(batch []*request) error {
	ctx := context.Background()
	d := &draft{
		l: l, base: map[rowKey]*Row{}, over: map[rowKey]*Row{}, broken: map[rowKey]error{},
		intents: map[writ.CallID]bool{},
	}
	err := l.store.Update(ctx, func(v View) (*Batch, error) {
		// 1. Has somebody else written? Then nothing in memory holds.
		if err := l.catchUp(ctx, v); err != nil {
			return nil, err
		}
		d.edge, d.time = l.writer.edge, l.Time()

		// 2. What the batch asks about and memory does not know.
		if err := d.load(ctx, v, batch); err != nil {
			return nil, err
		}

		// 3. Each in turn.
		for _, r := range batch {
			r.receipts, r.err = d.take(r.pending)
		}
		if len(d.batch.Records) == 0 {
			return nil, nil
		}

		// 4. The tree, its checkpoint, the rows as they became.
		return &d.batch, d.finish()
	})
	if err != nil || len(d.batch.Records) == 0 {
		return err
	}
	l.writer.edge = d.edge
	l.newest.Store(d.time)
	l.cache.publish(d.over)
	return nil
}

// catchUp reads the end of the log again if it is not where this process left
// it. A log that has become shorter is refused.
func (l *Ledger) catchUp(ctx context.Context, v View) error {
	b, err := v.Batch(ctx, -1)
	if err != nil {
		return err
	}
	size := l.writer.edge.size
	switch {
	case b == nil && size == 0, b != nil && b.Last == size-1:
		return nil
	case b == nil || b.Last < size-1:
		return fmt.Errorf("%w: %w: it has become shorter", ErrFatal, ErrRollback)
	}
	l.cache.forget()
	return l.verifyEnd(ctx, v)
}
