package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/writgate/writ"
)

const (
	maxBatch  = 256             // commits that one transaction serves
	maxCommit = 64              // entries of one commit
	grace     = 5 * time.Second // how long a cancelled caller waits for an answer that is on its way

	reserveTries = 3 // of a commit from the reserve: whoever else fills the disk may take what the first one freed
)

// A pending is an entry that needs nothing more from its caller.
type pending struct {
	entry   *Entry
	leaf    Leaf     // what is known of it before it has a time
	changes []Change // the entry's, and those that follow from its type
	payload *payload // nil if there is nothing to seal
	erase   []erasing
}

// A request is one commit in the queue.
type request struct {
	pending  []*pending
	taken    atomic.Bool // by the writer, or by the caller who gave up
	done     chan struct{}
	receipts []Receipt
	err      error
}

// reserved says whether r is written even when the disk is full.
func (r *request) reserved() bool {
	return !slices.ContainsFunc(r.pending, func(p *pending) bool { return !slices.Contains(reserved, p.leaf.Type) })
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
		if e.Leaf.Type == TypeErasure {
			return nil, fmt.Errorf("%w: an erasure is made by Erase", ErrInvalid)
		}
		var err error
		if all[i], err = l.prepare(e); err != nil {
			return nil, err
		}
	}
	return l.submit(ctx, all)
}

// prepare does what can be done before the writer's turn.
func (l *Ledger) prepare(e *Entry) (*pending, error) {
	if err := e.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	p := &pending{entry: e, leaf: e.Leaf, changes: e.Changes}
	p.leaf.V = 1
	p.leaf.Gateway = l.config.Gateway
	p.leaf.User = l.vault.pseudonym(e.User)
	if err := p.leaf.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
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

// set makes p change rows that are the ledger's own.
func (p *pending) set(l *Ledger, changes ...Change) {
	p.changes = append(slices.Clip(p.changes), changes...)
	if p.payload == nil {
		p.payload = l.vault.newPayload(p.entry.Parts)
	}
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
	in := &l.inbox
	in.closing.RLock()
	defer in.closing.RUnlock()
	if in.closed {
		return ErrClosed
	}
	select {
	case in.queue <- r:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run is the writer: the one goroutine that commits. While it waits for the
// disk, the next batch gathers; and as long as others who can run bring more,
// it lets them: one transaction for many is most of what makes it quick.
func (l *Ledger) run() {
	for r := range l.inbox.queue {
		batch := []*request{r}
		for had := 0; had != len(batch) && len(batch) < maxBatch; {
			had = len(batch)
			runtime.Gosched()
			batch = l.inbox.drain(batch)
		}
		batch = slices.DeleteFunc(batch, func(r *request) bool { return !r.taken.CompareAndSwap(false, true) })
		if len(batch) != 0 {
			l.serve(batch)
		}
	}
}

// drain takes what is in the queue.
func (in *inbox) drain(batch []*request) []*request {
	for len(batch) < maxBatch {
		select {
		case r, ok := <-in.queue:
			if !ok {
				return batch
			}
			batch = append(batch, r)
		default:
			return batch
		}
	}
	return batch
}

// serve commits a batch and answers it. When the disk is full, what is
// reserved is committed from the reserve, and the rest is refused.
func (l *Ledger) serve(batch []*request) {
	err := l.commit(batch, false)
	if errors.Is(err, ErrFull) {
		var kept []*request
		for _, r := range batch {
			if r.reserved() {
				kept = append(kept, r)
			} else {
				r.answer(err)
			}
		}
		batch = kept
		for range reserveTries {
			if len(batch) != 0 && errors.Is(err, ErrFull) {
				err = l.commit(batch, true)
			}
		}
	}
	for _, r := range batch {
		r.answer(err)
	}
}

// answer wakes the caller. An error of the whole batch is everybody's, also of
// those who were refused: what refused them never was.
func (r *request) answer(err error) {
	if err != nil {
		r.receipts, r.err = nil, err
	}
	close(r.done)
}

// commit makes one transaction of a batch. Each commit is checked against the
// state as those before it left it; one that is refused writes nothing, and
// the others go on.
//
// What is to exist once is not looked for first: a store that finds it there
// has written nothing, and only then it is found out what whose was.
func (l *Ledger) commit(batch []*request, reserve bool) error {
	err := l.attempt(batch, reserve, false)
	if errors.Is(err, ErrExists) {
		err = l.attempt(batch, reserve, true)
	}
	return err
}

func (l *Ledger) attempt(batch []*request, reserve, look bool) error {
	ctx := context.Background()
	return l.write(ctx, func(d *draft, v View) error {
		d.batch.Reserve = reserve
		if err := d.load(ctx, v, batch, look); err != nil {
			return err
		}
		for _, r := range batch {
			r.receipts, r.err = d.take(r.pending)
		}
		return nil
	})
}

// A writer is what the writing goroutine knows of the log.
type writer struct {
	edge  edge
	note  []byte // the newest checkpoint
	swept int64  // Unix milliseconds
}

// write makes one transaction of the draft that fn fills.
func (l *Ledger) write(ctx context.Context, fn func(*draft, View) error) (err error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.down(); err != nil {
		return err
	}
	defer func() {
		if errors.Is(err, ErrFatal) {
			l.fail(err)
		}
	}()
	var d *draft
	err = l.store.Update(ctx, func(v View) (*Batch, error) {
		// 1. Has somebody else written? Then nothing in memory holds.
		if err := l.catchUp(ctx, v); err != nil {
			return nil, err
		}

		// 2. What is asked for, each in turn.
		d = newDraft(l)
		if err := fn(d, v); err != nil || len(d.batch.Records) == 0 {
			return nil, err
		}

		// 3. The tree, its checkpoint, the rows as they became.
		return &d.batch, d.finish()
	})
	if errors.Is(err, ErrUnknown) {
		err = l.settle(ctx, d, err)
	}
	if err != nil || len(d.batch.Records) == 0 {
		return err
	}
	l.writer = writer{d.edge, d.batch.Note, d.swept}
	l.newest.Store(d.time)
	l.cache.publish(d.over)
	l.anchor.follow(d.batch.Note)
	return nil
}

// settle finds out whether a batch was made whose commit got no answer. The
// store runs one update at a time, so what this one sees is final: the answer
// is yes, or that nothing was written, or still unknown if the store does not
// answer this either.
func (l *Ledger) settle(ctx context.Context, d *draft, unknown error) error {
	made := false
	err := l.store.Update(ctx, func(v View) (*Batch, error) {
		if d == nil { // it was not even asked for what to write
			return nil, nil
		}
		b, err := v.Batch(ctx, d.batch.Last)
		made = b != nil && b.Last == d.batch.Last && bytes.Equal(b.Note, d.batch.Note)
		return nil, err
	})
	switch {
	case err != nil:
		return unknown
	case !made:
		return fmt.Errorf("%w: the commit was lost: %v", ErrUnavailable, unknown)
	}
	return nil
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

// catchUp reads what somebody else has written since this process wrote, and
// makes sure that it goes on from there. A log that has become shorter, or
// another one, is the end: nobody knows what was dispatched on its word.
func (l *Ledger) catchUp(ctx context.Context, v View) error {
	b, err := v.Batch(ctx, -1)
	if err != nil {
		return err
	}
	e := l.writer.edge
	switch {
	case b == nil && e.size == 0:
		return nil
	case b == nil || b.Last < e.size-1:
		return fmt.Errorf("%w: %w: it has become shorter than %d records", ErrFatal, ErrRollback, e.size)
	case b.Last == e.size-1:
		if !bytes.Equal(b.Note, l.writer.note) {
			return fmt.Errorf("%w: %w: its %d records are others", ErrFatal, ErrRollback, e.size)
		}
		return nil
	}
	l.cache.forget()
	last, err := l.follow(ctx, v, &e, b.Last)
	if err != nil {
		return err
	}
	head, err := l.keys.Load().open(b.Note)
	if err != nil || head.size != e.size || head.root != e.root() {
		return fmt.Errorf("%w: %w: it does not go on from its first %d records", ErrFatal, ErrRollback, l.writer.edge.size)
	}
	l.writer.edge, l.writer.note = e, b.Note
	l.newest.Store(max(l.newest.Load(), last))
	return nil
}

// follow appends the stored leaves up to the record at last to e, and gives
// the time of that record.
func (l *Ledger) follow(ctx context.Context, v View, e *edge, last int64) (int64, error) {
	var time int64
	for e.size <= last {
		records, err := v.Records(ctx, Filter{From: e.size, Limit: maxBatch})
		if err != nil {
			return 0, err
		}
		if len(records) == 0 {
			return 0, damaged("record %d is missing", e.size)
		}
		for i := range records {
			r := &records[i]
			leaf, err := parseLeaf(r.LeafBytes)
			if err != nil || r.Index != e.size {
				return 0, damaged("record %d: %v", e.size, err)
			}
			if leaf.Type == TypeKey && r.Index != 0 {
				return 0, fmt.Errorf("%w: the log has another key since record %d", ErrFatal, r.Index)
			}
			e.add(r.LeafBytes, nil)
			time = leaf.Time
		}
	}
	return time, nil
}
