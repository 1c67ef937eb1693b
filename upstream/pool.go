package upstream

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/broker"
)

const (
	maxSessions = 128              // of one upstream
	idleTime    = 10 * time.Minute // after which a session that nobody uses ends
	leasePoll   = time.Second      // how often a session asks whether its credential still lives
)

// A key says whose a session is: a task's, or a lease's. Two tasks never have
// one together, so nothing that a server keeps in it goes from one to another.
type key struct {
	task  writ.TaskID
	lease writ.LeaseID // empty if the session has no credential
}

// A kept session is there for the next call with the same key.
type kept struct {
	ready chan struct{} // closed when s or err is set
	s     *session
	err   error
	lease *broker.Lease
	stop  context.CancelFunc // of its start

	// guarded by the peer's mutex
	users int
	timer *time.Timer
	ended bool
}

// session gives the session for a call, and what to do when the call is over.
func (p *peer) session(ctx context.Context, t *trip) (*session, func(dress), error) {
	if p.http != nil && (t.secret || p.knownEra().sessionless != "") {
		s, err := p.legacy(ctx, t.request.meta.Capabilities, t.dress)
		if err != nil {
			return nil, nil, err
		}
		return s, s.close, nil
	}
	k := key{task: t.Task}
	if t.secret {
		k.lease = t.lease.ID()
	}
	for {
		one, err := p.keep(k, t)
		if err != nil {
			return nil, nil, err
		}
		release := sync.OnceFunc(func() { p.release(k, one) })
		select {
		case <-one.ready:
		case <-ctx.Done():
			release()
			return nil, nil, context.Cause(ctx)
		}
		if one.err != nil {
			release()
			return nil, nil, one.err
		}
		if !one.s.over() {
			return one.s, func(dress) { release() }, nil
		}
		p.remove(k, one) // it ended by itself since it was last used
		release()
	}
}

// keep finds the session of a key, or begins one.
func (p *peer) keep(k key, t *trip) (*kept, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one := p.kept[k]; one != nil {
		one.users++
		return one, nil
	}
	switch {
	case p.ctx.Err() != nil:
		return nil, errClosed
	case len(p.kept) >= maxSessions:
		return nil, errors.New("too many sessions with this upstream")
	}
	one := &kept{ready: make(chan struct{}), users: 1}
	if k.lease != "" {
		one.lease = t.lease
	}
	var ctx context.Context
	ctx, one.stop = context.WithTimeoutCause(p.ctx, p.Timeout, errTime)
	p.kept[k] = one
	p.running.Go(func() {
		defer one.stop()
		s, err := p.start(ctx, t)
		p.mu.Lock()
		one.s, one.err = s, err
		if err != nil {
			p.forgetLocked(k, one)
		}
		ended := one.ended
		p.mu.Unlock()
		if ended && s != nil {
			s.close(nil)
		}
		close(one.ready)
	})
	return one, nil
}

// start opens a session for a call to be kept.
func (p *peer) start(ctx context.Context, t *trip) (*session, error) {
	if p.http != nil {
		return p.legacy(ctx, t.request.meta.Capabilities, nil)
	}
	env, args, err := t.lease.Process()
	if err != nil {
		return nil, err
	}
	return p.spawn(ctx, t.request.meta.Capabilities, env, args)
}

// release ends one use. A session with a credential ends with its lease, any
// other when it has been idle for long.
func (p *peer) release(k key, one *kept) {
	p.mu.Lock()
	defer p.mu.Unlock()
	one.users--
	if one.users > 0 || one.ended {
		return
	}
	wait := idleTime
	if one.lease != nil {
		wait = leasePoll
	}
	if one.timer != nil {
		one.timer.Reset(wait)
		return
	}
	one.timer = time.AfterFunc(wait, func() {
		p.mu.Lock()
		switch {
		case one.users > 0 || one.ended:
			p.mu.Unlock()
			return
		case one.lease != nil && one.lease.Check() == nil:
			one.timer.Reset(leasePoll)
			p.mu.Unlock()
			return
		}
		p.forgetLocked(k, one) // so that no call begins in it
		p.mu.Unlock()
		p.remove(k, one)
	})
}

// remove ends a kept session, also one that is only beginning.
func (p *peer) remove(k key, one *kept) {
	p.mu.Lock()
	p.forgetLocked(k, one)
	p.mu.Unlock()
	one.stop()
	<-one.ready
	if one.s != nil {
		one.s.close(nil)
	}
}

func (p *peer) forgetLocked(k key, one *kept) {
	one.ended = true
	if one.timer != nil {
		one.timer.Stop()
	}
	if p.kept[k] == one {
		delete(p.kept, k)
	}
}

// closeTask ends what a task has running here; all tasks' if task is empty.
func (p *peer) closeTask(task writ.TaskID) {
	var held []*hold
	gone := map[key]*kept{}
	p.mu.Lock()
	for handle, h := range p.holds {
		if task == "" || h.task == task {
			held = append(held, h)
			delete(p.holds, handle)
		}
	}
	for k, one := range p.kept {
		if task == "" || k.task == task {
			gone[k] = one
		}
	}
	p.mu.Unlock()
	var all sync.WaitGroup
	for _, h := range held {
		all.Go(func() { p.drop(h) })
	}
	all.Wait() // while there still is a session to say it in
	for k, one := range gone {
		all.Go(func() { p.remove(k, one) })
	}
	all.Wait()
}
