// Package broker leases just-in-time credentials: it has a backend mint one
// for a single call, hands it to the upstream and to nobody else, and ends it.
//
// The order of a call's steps is what makes it hold:
//
//  1. Prepare computes, from the call's capability, the row that names the
//     credential. Nothing exists yet.
//  2. The gate's commit makes the row durable, with the intent.
//  3. Lease takes the receipt of that commit, and has the driver mint under
//     the handle in the row.
//  4. Revoke ends what the row names, whether Lease succeeded, failed, or
//     failed after the backend had minted. It ignores the caller's
//     cancellation. What cannot be ended now is queued durably.
//  5. Sweep ends what a crash, an unreachable backend or a forgetful caller
//     left behind.
//
// A lease serves one call. Where the operator allows it, read-only tools of
// one task share a lease; two tasks never do. Nothing in a call's arguments is
// ever looked up or expanded here: a placeholder is text.
package broker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
)

const (
	defaultTTL    = time.Minute
	maxTTL        = 15 * time.Minute
	mintTimeout   = 10 * time.Second
	revokeTimeout = 10 * time.Second // for one attempt at the backend
	queueTimeout  = 5 * time.Second  // for recording what came of it
)

// A Backend is one entry of the operator's configuration: what is minted, and
// where it goes.
type Backend struct {
	Driver Driver
	Place  Placement
	Share  bool // read-only tools of one task may share a lease
}

// A Broker leases and revokes. Every exported field is required; a Broker is
// not copied. Its memory is a convenience: what must survive is in the queue.
type Broker struct {
	Gateway  string             // this gateway; no other that shares the queue has the same name
	Backends map[string]Backend // by the name that a tool's Credential gives
	Queue    Queue
	Now      func() time.Time

	start sync.Once // sets run
	run   string

	mu     sync.Mutex // guards what follows and the unguarded fields of each held; never held across a call to a driver or the queue
	held   map[writ.LeaseID]*held
	shared map[shareKey]*held // the lease that the next read-only call of a task gets
}

type shareKey struct {
	task    writ.TaskID
	backend string
}

// A held is a lease from before it is minted until it is over and every
// caller has let go of it.
type held struct {
	row    Row
	cancel context.CancelFunc // stops the minting
	minted chan struct{}      // closed when the driver's Mint has returned
	ended  atomic.Bool        // set once, before the first attempt to end it
	over   chan struct{}      // closed after that attempt; evidence and err are set then
	lease  *Lease             // nil unless minted and sound
	handle string             // what ends it
	users  int                // callers that have leased and not revoked
	lost   bool               // the failure could not be queued: the handle is here only
	buried bool               // ended before anybody leased it: kept, so that nobody does

	evidence Evidence
	err      error
}

// Prepare computes the row of a lease. It changes nothing and mints nothing.
// The same order prepared twice names the same credential, except that a
// shared lease of the task may have come to exist meanwhile.
func (b *Broker) Prepare(o Order) (Row, error) {
	if o.Token == nil || o.Token.ID() == "" {
		return Row{}, errors.New("preparing lease: there is no capability")
	}
	if b.Gateway == "" {
		return Row{}, errors.New("preparing lease: the gateway has no name")
	}
	if o.Task == "" || o.Agent == "" || o.Tool == "" {
		return Row{}, errors.New("preparing lease: it needs a task, an agent and a tool")
	}
	if o.TTL < 0 {
		return Row{}, fmt.Errorf("preparing lease: a life of %v", o.TTL)
	}
	ttl := min(o.TTL, maxTTL)
	if ttl == 0 {
		ttl = defaultTTL
	}
	now := b.Now()
	row := Row{
		Lease:      leaseOf(o.Token.ID()),
		Capability: o.Token.ID(), Task: o.Task, Agent: o.Agent, Tool: o.Tool,
		Backend: o.Backend,
		Process: b.process(),
		Issued:  now.UnixMilli(),
		Expires: now.Add(ttl).UnixMilli(),
		Until:   now.Add(ttl).UnixMilli(),
		token:   o.Token,
	}
	row.Handle = string(row.Lease)
	if o.Backend == "" {
		return row, nil
	}
	backend, ok := b.Backends[o.Backend]
	if !ok {
		return Row{}, fmt.Errorf("preparing lease: no backend %q", o.Backend)
	}
	if err := backend.Place.Check(); err != nil {
		return Row{}, fmt.Errorf("preparing lease: backend %s: %w", o.Backend, err)
	}
	row.Shared = backend.Share && o.Tier == writ.ReadOnly
	row.Until = 0
	if life := backend.Driver.Lifetime(ttl); life > 0 {
		row.Until = now.Add(ttl + life).UnixMilli() // it may be minted as late as it expires
	}
	if row.Shared {
		if mine, ok := b.sharedRow(row, now.Add(ttl/2)); ok {
			return mine, nil
		}
	}
	return row, nil
}

// process names this run of the gateway. The next run has another name, and so
// knows what this one left behind.
func (b *Broker) process() Process {
	b.start.Do(func() { b.run = rand.Text() })
	return Process{Gateway: b.Gateway, Run: b.run}
}

// leaseOf names the one lease of a capability.
func leaseOf(c writ.CapabilityID) writ.LeaseID {
	_, unique, _ := strings.Cut(string(c), "_")
	return writ.LeaseID("lease_" + unique)
}

// sharedRow finds a lease of the same task and backend that lives beyond until.
func (b *Broker) sharedRow(row Row, until time.Time) (Row, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.shared[shareKey{row.Task, row.Backend}]
	if h == nil || h.ended.Load() || !until.Before(h.lease.deadline) {
		return Row{}, false
	}
	mine := h.row
	mine.token, mine.reused = row.token, true
	return mine, true
}

// Lease has the credential minted that row names. The row came from Prepare,
// and intent is the receipt of the commit that made it durable: an intent of
// the row's task whose leaf names the lease, and the capability that the row
// was prepared with. Whatever Lease returns, the caller calls Revoke with the
// same row exactly once; an error here does not mean that nothing exists. A
// row is leased once. The error is a *writ.Denial.
func (b *Broker) Lease(ctx context.Context, row Row, intent ledger.Receipt) (*Lease, error) {
	if err := recorded(row, intent); err != nil {
		return nil, refuse(row, err)
	}
	if row.Backend == "" {
		return &Lease{id: row.Lease, deadline: deadline(b.Now(), row), now: b.Now, ended: new(atomic.Bool)}, nil
	}
	backend, ok := b.Backends[row.Backend]
	if !ok {
		return nil, refuse(row, errors.New("no such backend"))
	}
	if row.reused {
		return b.join(row)
	}
	if !b.Now().Before(time.UnixMilli(row.Expires)) {
		return nil, refuse(row, errors.New("the row has expired"))
	}

	// 1. Be known before anything can exist, so that whoever ends the task
	// from now on finds this lease.
	ctx, cancel := context.WithTimeout(ctx, min(mintTimeout, deadline(b.Now(), row).Sub(b.Now())))
	defer cancel()
	h, err := b.register(row, cancel)
	if err != nil {
		return nil, refuse(row, err)
	}

	// 2. Mint.
	minted, err := mint(ctx, backend.Driver, row)

	// 3. Remember first how to end it, then judge it.
	b.mu.Lock()
	defer b.mu.Unlock()
	defer close(h.minted)
	if minted.Handle != "" {
		h.handle = minted.Handle
	}
	secrets := newScrubber(append(minted.Also, minted.Secret)...)
	if err != nil {
		return nil, refuse(row, (&Lease{scrub: secrets}).ScrubError(err))
	}
	now := b.Now()
	if err := sound(h, minted, now); err != nil {
		return nil, refuse(row, err)
	}

	// 4. Hand it out, and to later calls of the task if it is shared.
	h.lease = &Lease{id: row.Lease, place: backend.Place, secret: minted.Secret, scrub: secrets,
		deadline: deadline(now, row), now: b.Now, ended: &h.ended}
	if row.Shared {
		if b.shared == nil {
			b.shared = make(map[shareKey]*held)
		}
		b.shared[shareKey{row.Task, row.Backend}] = h
	}
	return h.lease, nil
}

// recorded says why intent is not the record that row was committed with.
func recorded(row Row, intent ledger.Receipt) error {
	if row.token == nil || row.Lease == "" || row.Lease != leaseOf(row.Capability) {
		return errors.New("the row was not prepared")
	}
	if !intent.Valid() || intent.Type() != ledger.TypeIntent {
		return errors.New("no intent is on record")
	}
	if intent.Task() != row.Task || intent.Lease() != string(row.Lease) || intent.Capability() != string(row.token.ID()) {
		return errors.New("the intent on record is for another lease")
	}
	return nil
}

// sound says what is wrong with a credential that was minted.
func sound(h *held, m Minted, now time.Time) error {
	row := h.row
	switch {
	case h.ended.Load():
		return errors.New("revoked while it was minted")
	case now.UnixMilli() >= row.Expires:
		return errors.New("expired while it was minted")
	case m.Secret.value == nil:
		return errors.New("the backend made no credential")
	case row.Until != 0 && (m.Until == 0 || m.Until > row.Until):
		return errors.New("the backend made a credential that lives longer than it may")
	case m.Until != 0 && m.Until < now.UnixMilli():
		return errors.New("the backend made a credential that has expired")
	}
	return nil
}

// deadline is the end of a lease on the monotonic clock of now: a wall clock
// set back does not prolong it.
func deadline(now time.Time, row Row) time.Time {
	return now.Add(time.UnixMilli(row.Expires).Sub(now))
}

func refuse(row Row, err error) error {
	return writ.Refuse(writ.CredentialUnavailable, "no credential could be had for this tool",
		fmt.Errorf("leasing %s from %q: %w", row.Lease, row.Backend, err))
}

func (b *Broker) register(row Row, cancel context.CancelFunc) (*held, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held[row.Lease] != nil {
		return nil, errors.New("leased before, or revoked")
	}
	h := b.hold(row, cancel)
	h.users = 1
	return h, nil
}

// hold makes a held of row. The caller holds b.mu.
func (b *Broker) hold(row Row, cancel context.CancelFunc) *held {
	h := &held{row: row, cancel: cancel, minted: make(chan struct{}), over: make(chan struct{}), handle: row.Handle}
	if b.held == nil {
		b.held = make(map[writ.LeaseID]*held)
	}
	b.held[row.Lease] = h
	return h
}

// join gives a later call the lease that its task holds.
func (b *Broker) join(row Row) (*Lease, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.held[row.Lease]
	if h == nil || h.lease == nil {
		return nil, refuse(row, errors.New("the shared lease is over"))
	}
	if err := h.lease.Check(); err != nil {
		return nil, refuse(row, err)
	}
	h.users++
	return h.lease, nil
}

// mint contains a driver that panics: what it panics with may hold a secret.
func mint(ctx context.Context, d Driver, row Row) (m Minted, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the driver panicked with a %T", p)
		}
	}()
	return d.Mint(ctx, row)
}
