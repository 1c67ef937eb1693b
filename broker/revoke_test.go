package broker_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/ledger"
)

// A spotty queue fails when it is told to.
type spotty struct {
	broker.Queue
	down bool
}

func (q *spotty) Done(ctx context.Context, e broker.Entry, ev broker.Evidence) error {
	if q.down {
		return errors.New("the queue is down")
	}
	return q.Queue.Done(ctx, e, ev)
}

func (q *spotty) Failed(ctx context.Context, e broker.Entry, next time.Time) error {
	if q.down {
		return errors.New("the queue is down")
	}
	return q.Queue.Failed(ctx, e, next)
}

func TestRevokeIgnoresCancellation(t *testing.T) {
	h := newHouse(t)
	row, _ := h.lease(t, h.order(h.open(t)))
	ctx, hangUp := context.WithCancel(t.Context())
	hangUp()
	if ev, err := h.Revoke(ctx, row); err != nil || ev.Outcome != broker.Revoked || h.bank.living() != 0 {
		t.Errorf("Revoke: %v, %v", ev, err)
	}
}

// F13: a backend that is down at issue refuses the call, and what it may have
// made nevertheless is ended.
func TestF13BackendFailsAtIssue(t *testing.T) {
	for name, how := range map[string]trouble{
		"before minting": refuses, "answer lost": loses, "error beside a credential": deserts,
		"panic after minting": panics, "no credential": mumbles, "too long a life": prolongs,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.bank.life = time.Minute
			h.bank.renames = how == deserts
			h.bank.set(how, none)
			row, intent := h.intend(t, h.order(h.open(t)))
			lease, err := h.Lease(t.Context(), row, intent)
			if d := writ.AsDenial(err); lease != nil || d.Code != writ.CredentialUnavailable {
				t.Errorf("Lease: %v, %v", lease, err)
			}
			if text := fmt.Sprintf("%v %+v %#v", err, err, errors.Unwrap(err)); strings.Contains(text, "s3cret-") {
				t.Errorf("the error tells the secret: %s", text)
			}
			if ev, err := h.Revoke(t.Context(), row); err != nil || ev.Outcome != broker.Revoked {
				t.Errorf("Revoke: %v, %v", ev, err)
			}
			if h.bank.living() != 0 || h.live(t) != 0 {
				t.Errorf("%d credentials and %d rows are left", h.bank.living(), h.live(t))
			}
		})
	}
}

// F13: a backend that is down at revoke is asked again after 1 s, 2 s, 4 s … 5
// min, and the queue says how it stands.
func TestF13BackendFailsAtRevoke(t *testing.T) {
	h := newHouse(t)
	row, lease := h.lease(t, h.order(h.open(t)))
	h.bank.set(none, refuses)
	if _, err := h.Revoke(t.Context(), row); err == nil || lease.Check() == nil {
		t.Fatalf("Revoke: %v; lease %v", err, lease.Check())
	}
	var waits []time.Duration
	since := h.clock()
	overdue := false
	for len(waits) < 11 {
		h.pass(100 * time.Millisecond)
		calls := h.bank.calls
		left, err := h.Sweep(t.Context())
		if h.bank.calls == calls {
			continue
		}
		if err == nil || left.Waiting != 1 || left.Ended != 0 {
			t.Fatalf("Sweep: %+v, %v", left, err)
		}
		if late := h.clock().Sub(time.UnixMilli(row.Issued)) > 30*time.Second; left.Overdue == 1 && !late {
			t.Errorf("overdue after %v", h.clock().Sub(time.UnixMilli(row.Issued)))
		}
		overdue = overdue || left.Overdue == 1
		waits = append(waits, h.clock().Sub(since).Round(time.Second))
		since = h.clock()
	}
	if !overdue {
		t.Error("never overdue")
	}
	s := time.Second
	want := []time.Duration{s, 2 * s, 4 * s, 8 * s, 16 * s, 32 * s, 64 * s, 128 * s, 256 * s, 300 * s, 300 * s}
	if !slices.Equal(waits, want) {
		t.Errorf("waits %v, want %v", waits, want)
	}
	if h.live(t) != 1 {
		t.Error("what is not revoked is not listed")
	}
	h.bank.set(none, none)
	h.pass(5 * time.Minute)
	if left, err := h.Sweep(t.Context()); err != nil || left.Ended != 1 || h.live(t) != 0 {
		t.Errorf("Sweep: %+v, %v", left, err)
	}
	rs := h.records(t, row.Lease)
	if len(rs) != 13 || rs[0].Leaf.Type != ledger.TypeLease || rs[0].Leaf.Note["outcome"] != "not_revoked" || rs[11].Leaf.Note["attempts"] != "12" {
		t.Errorf("%d records, the first %+v", len(rs), rs[0].Leaf)
	}
}

// A backend that hangs at issue is given up when the task ends, and what it
// makes all the same is ended, whatever it says.
func TestRevokeTaskStopsMinting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { revokeTaskWhileMinting(t, hangs) })
	synctest.Test(t, func(t *testing.T) { revokeTaskWhileMinting(t, lingers) })
}

func revokeTaskWhileMinting(t *testing.T, how trouble) {
	h := newHouse(t)
	h.bank.set(how, none)
	id := h.open(t)
	row, intent := h.intend(t, h.order(id))
	var leased error
	var caller sync.WaitGroup
	caller.Go(func() { _, leased = h.Lease(t.Context(), row, intent) })
	synctest.Wait()
	start := time.Now()
	if err := h.RevokeTask(t.Context(), id); err != nil {
		t.Error(err)
	}
	caller.Wait()
	if leased == nil || h.bank.made != 1 || h.bank.living() != 0 || time.Since(start) > time.Second {
		t.Errorf("after %v: lease error %v, %d made, %d alive", time.Since(start), leased, h.bank.made, h.bank.living())
	}
	if ev, err := h.Revoke(t.Context(), row); err != nil || ev.Outcome != broker.Revoked {
		t.Errorf("Revoke: %v, %v", ev, err)
	}
}

// Minting takes no longer than ten seconds, nor than the lease would live.
func TestMintingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.Now = func() time.Time { return h.clock().Add(time.Since(start2000)) }
		h.bank.set(lingers, none)
		for ttl, want := range map[time.Duration]time.Duration{time.Minute: 10 * time.Second, time.Second: time.Second} {
			o := h.order(h.open(t))
			o.TTL = ttl
			row, intent := h.intend(t, o)
			start := time.Now()
			if _, err := h.Lease(t.Context(), row, intent); (err == nil) != (ttl == time.Minute) || time.Since(start) != want {
				t.Errorf("a life of %v: after %v: %v", ttl, time.Since(start), err)
			}
			if _, err := h.Revoke(t.Context(), row); err != nil || h.bank.living() != 0 {
				t.Errorf("%d alive: %v", h.bank.living(), err)
			}
		}
	})
}

// start2000 is when the clock of a synctest bubble starts.
var start2000 = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func TestExpiredRowIsNotLeased(t *testing.T) {
	h := newHouse(t)
	row, intent := h.intend(t, h.order(h.open(t)))
	h.pass(time.Minute)
	if _, err := h.Lease(t.Context(), row, intent); err == nil || h.bank.made != 0 {
		t.Errorf("%d made: %v", h.bank.made, err)
	}
}

// A lease ends with its task, however that ends, and with the task that it was
// delegated from.
func TestSweepFindsTasksThatAreOver(t *testing.T) {
	for name, end := range map[string]func(h *house, parent, child writ.TaskID) error{
		"ended":  func(h *house, _, child writ.TaskID) error { return h.putTask(t, child, writ.Task{State: writ.Ended}) },
		"paused": func(h *house, _, child writ.TaskID) error { return h.putTask(t, child, writ.Task{State: writ.Paused}) },
		"expired": func(h *house, _, child writ.TaskID) error {
			return h.putTask(t, child, writ.Task{State: writ.Open, Expires: 1})
		},
		"parent ended": func(h *house, parent, _ writ.TaskID) error { return h.putTask(t, parent, writ.Task{State: writ.Ended}) },
		"no parent": func(h *house, _, child writ.TaskID) error {
			return h.putTask(t, child, writ.Task{State: writ.Open, Expires: 1 << 60, Parent: "task_none"})
		},
		"own parent": func(h *house, _, child writ.TaskID) error {
			return h.putTask(t, child, writ.Task{State: writ.Open, Expires: 1 << 60, Parent: child})
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			parent, child := h.open(t), h.open(t)
			if err := h.putTask(t, child, writ.Task{State: writ.Open, Expires: 1 << 60, Parent: parent}); err != nil {
				t.Fatal(err)
			}
			_, lease := h.lease(t, h.order(child))
			if left, err := h.Sweep(t.Context()); err != nil || left != (broker.Backlog{}) || lease.Check() != nil {
				t.Errorf("while the task is open: %+v, %v", left, err)
			}
			if err := end(h, parent, child); err != nil {
				t.Fatal(err)
			}
			if left, err := h.Sweep(t.Context()); err != nil || left.Ended != 1 || lease.Check() == nil || h.bank.living() != 0 {
				t.Errorf("when it is over: %+v, %v", left, err)
			}
		})
	}
}

// Whoever ends a lease beside others, one record says so.
func TestEndIsRecordedOnce(t *testing.T) {
	h := newHouse(t)
	row, _ := h.lease(t, h.order(h.open(t)))
	e := broker.Entry{Row: row}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			var err error
			if i%2 == 0 {
				err = h.journal.Done(t.Context(), e, broker.Evidence{Outcome: broker.Revoked})
			} else {
				err = h.journal.Failed(t.Context(), e, h.clock())
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	ends := 0
	for _, r := range h.records(t, row.Lease) {
		if r.Leaf.Type == ledger.TypeRevocation {
			ends++
		}
	}
	if ends != 1 || h.live(t) != 0 {
		t.Errorf("%d records of the end, %d rows", ends, h.live(t))
	}
}

func TestRevokePanics(t *testing.T) {
	h := newHouse(t)
	row, lease := h.lease(t, h.order(h.open(t)))
	h.bank.set(none, panics)
	if _, err := h.Revoke(t.Context(), row); err == nil || lease.Check() == nil {
		t.Errorf("Revoke: %v", err)
	}
	h.bank.set(none, none)
	h.pass(time.Second)
	if left, err := h.Sweep(t.Context()); err != nil || left.Ended != 1 || h.bank.living() != 0 {
		t.Errorf("Sweep: %+v, %v", left, err)
	}
}

// What dies by itself, and could not be revoked until then, says so.
func TestExpiredAtBackend(t *testing.T) {
	h := newHouse(t)
	h.bank.life = time.Minute
	row, _ := h.lease(t, h.order(h.open(t)))
	h.bank.set(none, refuses)
	if _, err := h.Revoke(t.Context(), row); err == nil {
		t.Fatal("revoked")
	}
	h.pass(2 * time.Minute)
	if left, err := h.Sweep(t.Context()); err != nil || left.Ended != 1 {
		t.Errorf("Sweep: %+v, %v", left, err)
	}
	rs := h.records(t, row.Lease)
	if last := rs[len(rs)-1].Leaf; last.Type != ledger.TypeRevocation || last.Note["outcome"] != "expires" || last.Note["until"] != fmt.Sprint(row.Until) {
		t.Errorf("the last record: %+v", last)
	}
}

// F18: a restart finds what the run before it left: revoked and not ended,
// with the handle that only the answer had; leased; and not leased yet.
func TestF18Restart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "writ.db")
	h := openHouse(t, path)
	h.bank.renames = true
	id := h.open(t)
	failed, _ := h.lease(t, h.order(id))
	h.bank.set(none, refuses)
	if _, err := h.Revoke(t.Context(), failed); err == nil {
		t.Fatal("revoked")
	}
	h.bank.set(none, none)
	h.bank.renames = false
	leased, _ := h.lease(t, h.order(id))
	prepared, _ := h.intend(t, h.order(id))

	// Another gateway leaves alone what is this one's; its clock says that
	// nothing has expired.
	h.pass(time.Second)
	if left, err := h.gateway("gw-2").Sweep(t.Context()); err != nil || left != (broker.Backlog{}) || h.live(t) != 3 {
		t.Errorf("another gateway: %+v, %v", left, err)
	}
	if err := h.journal.Ledger.Close(); err != nil {
		t.Fatal(err)
	}

	again := openHouse(t, path)
	again.bank, again.now = h.bank, h.now
	again.restart()
	if left, err := again.Sweep(t.Context()); err != nil || left.Ended != 3 {
		t.Errorf("Sweep: %+v, %v", left, err)
	}
	if again.bank.living() != 0 || again.live(t) != 0 {
		t.Errorf("%d credentials and %d rows are left", again.bank.living(), again.live(t))
	}
	for _, row := range []broker.Row{failed, leased, prepared} {
		rs := again.records(t, row.Lease)
		if last := rs[len(rs)-1].Leaf; last.Type != ledger.TypeRevocation || last.Note["outcome"] != "revoked" {
			t.Errorf("%s: %+v", row.Lease, last)
		}
	}
}

// What a gateway that never comes back left is ended by another when it has
// expired.
func TestGatewayGoneForGood(t *testing.T) {
	h := newHouse(t)
	h.lease(t, h.order(h.open(t)))
	other := h.gateway("gw-2")
	h.pass(59 * time.Second)
	if left, err := other.Sweep(t.Context()); err != nil || left.Ended != 0 {
		t.Errorf("early: %+v, %v", left, err)
	}
	h.pass(time.Second)
	if left, err := other.Sweep(t.Context()); err != nil || left.Ended != 1 || h.bank.living() != 0 {
		t.Errorf("late: %+v, %v", left, err)
	}
}

// What could not even be queued is remembered with its handle until it can.
func TestQueueFails(t *testing.T) {
	for name, revoke := range map[string]trouble{"and the backend": refuses, "alone": none} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.bank.renames = true
			queue := &spotty{Queue: h.journal}
			h.Queue = queue
			row, _ := h.lease(t, h.order(h.open(t)))
			queue.down = true
			h.bank.set(none, revoke)
			if _, err := h.Revoke(t.Context(), row); err == nil || !strings.Contains(err.Error(), "queue is down") {
				t.Errorf("Revoke: %v", err)
			}
			queue.down = false
			h.bank.set(none, none)
			h.pass(time.Minute)
			if left, err := h.Sweep(t.Context()); err != nil || left.Ended != 1 || h.bank.living() != 0 || h.live(t) != 0 {
				t.Errorf("Sweep: %+v, %v; %d alive, %d listed", left, err, h.bank.living(), h.live(t))
			}
		})
	}
}

// One backend that hangs holds up no other.
func TestSweepGivesUpOnABackend(t *testing.T) {
	h := newHouse(t)
	id := h.open(t)
	hung := &bank{revoke: refuses}
	h.Backends["hung"] = broker.Backend{Driver: hung, Place: broker.Placement{Env: "TOKEN"}}
	for i := range 60 {
		o := h.order(id)
		if i < 40 {
			o.Backend = "hung"
		}
		h.lease(t, o)
	}
	h.pass(time.Minute)
	left, err := h.Sweep(t.Context())
	if err == nil || left.Ended != 20 || left.Waiting != 40 {
		t.Errorf("Sweep: %+v, %v", left, err)
	}
	if hung.calls > 16 {
		t.Errorf("the backend that is down was asked %d times", hung.calls)
	}
	hung.set(none, none)
	h.pass(time.Second)
	if left, err := h.Sweep(t.Context()); err != nil || left.Ended != 40 || hung.living() != 0 {
		t.Errorf("Sweep: %+v, %v", left, err)
	}
}

// Callers, the task's end and a sweep at once: nothing is left, and nobody
// waits for ever.
func TestTaskEndsUnderLoad(t *testing.T) {
	h := newHouse(t)
	id := h.open(t)
	var callers sync.WaitGroup
	for i := range 32 {
		o := h.order(id)
		if o.Tier = writ.ReadOnly; i%2 == 0 {
			o.Backend = "shared"
		}
		row, intent := h.intend(t, o)
		callers.Go(func() {
			lease, err := h.Lease(t.Context(), row, intent)
			if err == nil && lease == nil {
				t.Error("no lease and no error")
			}
			if _, err := h.Revoke(t.Context(), row); err != nil {
				t.Error(err)
			}
		})
	}
	if _, err := h.tasks.End(t.Context(), id, "test", "ana"); err != nil {
		t.Fatal(err)
	}
	callers.Go(func() { h.Sweep(t.Context()) })
	if err := h.RevokeTask(t.Context(), id); err != nil {
		t.Error(err)
	}
	callers.Wait()
	if _, err := h.Sweep(t.Context()); err != nil || h.bank.living() != 0 || h.live(t) != 0 {
		t.Errorf("%v; %d alive, %d listed", err, h.bank.living(), h.live(t))
	}
}
