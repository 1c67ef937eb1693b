package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/writgate/writ"
)

// Revoke ends whatever was minted for row, leased or not. It ignores the
// cancellation of ctx: an agent that hangs up does not get to keep a
// credential alive. It takes at most some 25 seconds.
//
// The evidence of a shared lease that goes on is Held. An error means that
// the credential may be alive, and that ending it is queued; if even that
// could not be recorded, the row itself, which is durable and not done, brings
// it back to Sweep when it expires.
func (b *Broker) Revoke(ctx context.Context, row Row) (Evidence, error) {
	if row.Backend == "" {
		return Evidence{Outcome: Revoked, Steps: []string{"no credential was needed"}}, nil
	}
	goesOn := Evidence{Outcome: Held, Until: row.Expires}
	h, last := b.release(row)
	switch {
	case h != nil && !last:
		return goesOn, nil
	case h != nil:
		return b.end(ctx, h)
	case row.reused:
		return goesOn, nil // it has ended since, on its own row
	}
	// Lease was never called, or not by this process.
	evidence, _, err := b.attempt(ctx, Entry{Row: row})
	return evidence, err
}

// release counts one caller off. It says last if nothing keeps the lease
// alive: it is not shared, or nobody else uses it and the next call would not
// get it.
func (b *Broker) release(row Row) (h *held, last bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if h = b.held[row.Lease]; h == nil {
		return nil, false
	}
	h.users--
	defer b.forget(h)
	if !row.Shared || h.ended.Load() {
		return h, true
	}
	next := b.shared[shareKey{row.Task, row.Backend}] == h && b.Now().Before(h.lease.deadline)
	return h, h.users <= 0 && !next
}

// forget drops what is over, once nobody will ask for its evidence and its
// handle is durable. The caller holds b.mu.
func (b *Broker) forget(h *held) {
	select {
	case <-h.over:
		if h.users <= 0 && !h.lost && !h.buried {
			delete(b.held, h.row.Lease)
		}
	default:
	}
}

// RevokeTask ends every lease of a task that this process holds, whoever uses
// it, also one that is being minted, and one that was prepared and is not
// leased yet, which then never is. It is called when the queue can tell that
// the task is not open any more. Leases of the task that other gateways hold
// are ended by their Sweep.
func (b *Broker) RevokeTask(ctx context.Context, task writ.TaskID) error {
	b.mu.Lock()
	var of []*held
	for _, h := range b.held {
		if h.row.Task == task {
			of = append(of, h)
		}
	}
	b.mu.Unlock()
	err := each(of, func(h *held) error {
		_, err := b.end(ctx, h)
		return err
	})
	due, qerr := b.Queue.Pending(ctx, b.process())
	if qerr != nil {
		return errors.Join(err, fmt.Errorf("reading leases of %s to revoke: %w", task, qerr))
	}
	due = slices.DeleteFunc(due, func(e Entry) bool { return e.Row.Task != task })
	return errors.Join(err, each(due, func(e Entry) error { return b.sweepOne(ctx, e) }))
}

// end makes the first attempt to end h, or waits for whoever makes it.
func (b *Broker) end(ctx context.Context, h *held) (Evidence, error) {
	// 1. From here on nobody can use it or get it.
	if !h.ended.CompareAndSwap(false, true) {
		<-h.over
		return h.evidence, h.err
	}
	b.mu.Lock()
	if key := (shareKey{h.row.Task, h.row.Backend}); b.shared[key] == h {
		delete(b.shared, key)
	}
	b.mu.Unlock()

	// 2. Stop the minting, if it goes on, and end what it made.
	h.cancel()
	evidence, queued, err := b.attempt(ctx, Entry{Row: h.row})

	b.mu.Lock()
	defer b.mu.Unlock()
	h.evidence, h.err, h.lost = evidence, err, !queued
	close(h.over)
	b.forget(h)
	return evidence, err
}

// attempt tries once to end what e names, and records what came of it. It
// says durable if the record was made: then e, handle included, is either done
// or will come back from the queue.
func (b *Broker) attempt(ctx context.Context, e Entry) (ev Evidence, durable bool, err error) {
	ctx = context.WithoutCancel(ctx)
	if e.Row.Handle, err = b.handle(e.Row); err == nil {
		ev, err = b.try(ctx, e.Row)
	}
	now := b.Now()
	if err != nil && e.Row.Until != 0 && now.UnixMilli() >= e.Row.Until {
		ev = Evidence{Outcome: Expires, Until: e.Row.Until, Steps: append(ev.Steps, "it could not be revoked before it expired")}
		err = nil
	}

	// The driver may have used up its time; the record has its own.
	ctx, cancel := context.WithTimeout(ctx, queueTimeout)
	defer cancel()
	if err == nil {
		if derr := b.Queue.Done(ctx, e, ev); derr != nil {
			return ev, false, fmt.Errorf("recording the end of %s: %w", e.Row.Lease, derr)
		}
		return ev, true, nil
	}
	err = fmt.Errorf("revoking %s at %q: %w", e.Row.Lease, e.Row.Backend, err)
	if e.Attempts++; e.Attempts == 1 {
		e.Since = now.UnixMilli()
	}
	if qerr := b.Queue.Failed(ctx, e, now.Add(backoff(e.Attempts))); qerr != nil {
		return ev, false, errors.Join(err, fmt.Errorf("queueing the revocation: %w", qerr))
	}
	return ev, true, err
}

// handle gives what ends row: the handle that was minted, if it was minted
// here. While it is being minted there is none.
func (b *Broker) handle(row Row) (string, error) {
	b.mu.Lock()
	h := b.held[row.Lease]
	b.mu.Unlock()
	if h == nil {
		return row.Handle, nil
	}
	select {
	case <-h.minted:
		return h.handle, nil
	case <-time.After(revokeTimeout):
		return row.Handle, errors.New("it is still being minted")
	}
}

// try asks the backend.
func (b *Broker) try(ctx context.Context, row Row) (ev Evidence, err error) {
	backend, ok := b.Backends[row.Backend]
	if !ok {
		return Evidence{}, errors.New("no such backend any more")
	}
	ctx, cancel := context.WithTimeout(ctx, revokeTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			ev, err = Evidence{}, fmt.Errorf("the driver panicked with a %T", p)
		}
	}()
	ev, err = backend.Driver.Revoke(ctx, row.Handle)
	if err != nil {
		ev.Outcome = "" // steps that were taken, but no end
		return ev, err
	}
	switch ev.Outcome {
	case Revoked, RevokedAtIssuer, Unrevocable:
	case Expires:
		if ev.Until == 0 {
			ev.Until = row.Until
		}
		if ev.Until == 0 {
			ev.Outcome = Unrevocable
		}
	default:
		return Evidence{}, fmt.Errorf("the driver reported the outcome %q", ev.Outcome)
	}
	return ev, nil
}

// backoff is how long to wait after so many failures: 1 s, doubled each time,
// at most 5 minutes.
func backoff(attempts int) time.Duration {
	return min(time.Second<<min(attempts-1, 9), 5*time.Minute)
}
