package server

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/gate"
)

const (
	maxDefer  = 10 * time.Second // then the deferral is the answer
	pollDefer = time.Second      // for calls that end in another gateway
)

// A room is where calls wait that depend on calls under way in the same task.
// A task has one key, and a key one open task, so they wait by key: in the
// order in which they came, a bounded number of them. The first in the queue
// asks again when a call of its key is over.
type room struct {
	mu     sync.Mutex
	queues map[writ.Thumbprint][]*guest
}

// A guest is a waiting call.
type guest struct {
	turn chan struct{} // has one element when it may be worth to ask again
}

// join puts a call at the end of its key's queue, if there is space.
func (r *room) join(key writ.Thumbprint, most int) (*guest, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.queues[key]
	if len(q) >= most {
		return nil, false
	}
	if r.queues == nil {
		r.queues = map[writ.Thumbprint][]*guest{}
	}
	g := &guest{make(chan struct{}, 1)}
	r.queues[key] = append(q, g)
	return g, true
}

// leave takes a call out of the queue, and lets the next one ask.
func (r *room) leave(key writ.Thumbprint, g *guest) {
	r.mu.Lock()
	q := slices.DeleteFunc(r.queues[key], func(o *guest) bool { return o == g })
	r.queues[key] = q
	if len(q) == 0 {
		delete(r.queues, key)
	}
	r.mu.Unlock()
	r.stir(key)
}

// stir lets the first in a key's queue ask again.
func (r *room) stir(key writ.Thumbprint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if q := r.queues[key]; len(q) > 0 {
		select {
		case q[0].turn <- struct{}{}:
		default:
		}
	}
}

func (r *room) first(key writ.Thumbprint, g *guest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.queues[key]
	return len(q) > 0 && q[0] == g
}

// do takes one call through the gate. If it depends on a call under way it
// waits for that, without holding up those that do not.
func (m *MCP) do(ctx context.Context, r *gate.Request, key writ.Thumbprint) (*gate.Result, error) {
	decide := func() (*gate.Permit, error) { return m.config.Gate.Decide(ctx, r) }
	p, err := decide()
	if isDeferred(err) {
		p, err = m.room.wait(ctx, key, m.config.Limits.DeferredCalls, decide, err)
	}
	if err != nil {
		return nil, err
	}
	defer m.room.stir(key)
	return m.config.Gate.Carry(ctx, p)
}

// wait has a call decided again until it is not deferred any more. When that
// takes too long, or too many wait already, the deferral is the answer.
func (r *room) wait(ctx context.Context, key writ.Thumbprint, most int, decide func() (*gate.Permit, error), deferred error) (*gate.Permit, error) {
	g, ok := r.join(key, most)
	if !ok {
		return nil, deferred
	}
	defer r.leave(key, g)
	over := time.NewTimer(maxDefer)
	defer over.Stop()
	poll := time.NewTicker(pollDefer)
	defer poll.Stop()
	for {
		select {
		case <-over.C:
			return nil, deferred
		case <-ctx.Done():
			return nil, deferred
		case <-poll.C:
			if !r.first(key, g) {
				continue
			}
		case <-g.turn:
		}
		p, err := decide()
		if !isDeferred(err) {
			return p, err
		}
	}
}

func isDeferred(err error) bool {
	d, ok := errors.AsType[*writ.Denial](err)
	return ok && d.Code == writ.Deferred
}
