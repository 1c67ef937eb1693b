package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// A Queue is the durable memory of what is still to be ended. The row of a
// lease enters it with the gate's commit, before this package is asked to
// mint. Each method returns when what it did is durable.
type Queue interface {
	// Pending gives, oldest first, the rows that are not done and that p has
	// to see to now: its own that failed and have waited until next, or whose
	// task is not open any more; those that an earlier run of its gateway
	// left behind; and whoever's that have expired.
	Pending(ctx context.Context, p Process) ([]Entry, error)

	// Done closes e with evidence. Closing twice is no error.
	Done(ctx context.Context, e Entry, evidence Evidence) error

	// Failed keeps e, with the handle, the attempts and the time in it, and
	// gives it again at next or later.
	Failed(ctx context.Context, e Entry, next time.Time) error
}

// An Entry is a row on its way to its end.
type Entry struct {
	Row      Row   `json:"row"`
	Attempts int   `json:"attempts,omitempty"` // that failed
	Since    int64 `json:"since,omitempty"`    // Unix milliseconds of the first failure
	Next     int64 `json:"next,omitempty"`     // Unix milliseconds: not tried again before
}

// A Backlog is what a sweep did and what it left.
type Backlog struct {
	Ended   int // done, with evidence
	Waiting int // still to be ended, and will be tried again
	Overdue int // of these, tried in vain for more than half of the lease's life: worth an alarm
}

// atOnce is how many calls to one backend run beside each other in a sweep.
const atOnce = 16

// Sweep makes one attempt at everything that is due. Call it at start-up,
// every second or so, and after a task has ended. It is safe beside itself, in
// one process or several. A backend of which nothing succeeds is left alone
// until the next sweep, and holds up no other. The error joins what went
// wrong; the Backlog is right also then.
func (b *Broker) Sweep(ctx context.Context) (Backlog, error) {
	due, err := b.Queue.Pending(ctx, b.process())
	if err != nil {
		return Backlog{}, fmt.Errorf("reading leases to revoke: %w", err)
	}
	b.exhume()
	at := make(map[string][]Entry)
	for _, e := range due {
		at[e.Row.Backend] = append(at[e.Row.Backend], e)
	}
	left := Backlog{Waiting: len(due)}
	var mu sync.Mutex // guards left
	err = each(slices.Collect(maps.Values(at)), func(due []Entry) error {
		var errs []error
		for some := range slices.Chunk(due, atOnce) {
			ended := 0
			errs = append(errs, each(some, func(e Entry) error {
				err := b.sweepOne(ctx, e)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					left.Ended++
					left.Waiting--
					ended++
				case b.overdue(e):
					left.Overdue++
				}
				return err
			}))
			if ended == 0 {
				break
			}
		}
		return errors.Join(errs...)
	})
	return left, err
}

// overdue says that e has waited for more than half of its lease's life.
func (b *Broker) overdue(e Entry) bool {
	return e.Since != 0 && 2*(b.Now().UnixMilli()-e.Since) > e.Row.Expires-e.Row.Issued
}

func (b *Broker) sweepOne(ctx context.Context, e Entry) error {
	b.mu.Lock()
	h := b.held[e.Row.Lease]
	if h == nil && e.Attempts == 0 && e.Row.Process == b.process() {
		// It may be about to be leased, and what is ended before it is
		// minted lives: so nobody leases it any more.
		h = b.hold(e.Row, func() {})
		h.buried = true
		close(h.minted)
	}
	b.mu.Unlock()
	if h != nil && !h.ended.Load() {
		_, err := b.end(ctx, h)
		return err
	}
	if h != nil {
		<-h.over
	}
	_, durable, err := b.attempt(ctx, e)
	if h == nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	h.lost = h.lost && !durable
	b.forget(h)
	return err
}

// exhume forgets what was buried and could not be leased any more anyway.
func (b *Broker) exhume() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, h := range b.held {
		if h.buried && h.row.Expires <= b.Now().UnixMilli() {
			delete(b.held, id)
		}
	}
}

// each calls f for every item, all at once, waits, and joins the errors.
func each[T any](items []T, f func(T) error) error {
	errs := make([]error, len(items))
	var wg sync.WaitGroup
	for i, item := range items {
		wg.Go(func() { errs[i] = f(item) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
