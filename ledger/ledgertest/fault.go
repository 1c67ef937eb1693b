package ledgertest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
)

// faulty opens a ledger over a database whose updates can be made to fail.
func faulty(t *testing.T, d Database) (*ledger.Ledger, *Faults) {
	t.Helper()
	f := &Faults{Store: store(t, d)}
	return Open(t, f, ledger.Config{}), f
}

// next makes the next update, and no other, fail.
func (f *Faults) next(err error, n ...int64) func(int64) error {
	base := f.n.Load()
	return func(i int64) error {
		for _, k := range append(n, 1) {
			if i == base+k {
				return fmt.Errorf("%w: injected", err)
			}
		}
		return nil
	}
}

// unknown loses the answer to a commit, with and without its effect.
func unknown(t *testing.T, d Database) {
	l, f := faulty(t, d)
	n := size(t, l)

	f.After = f.next(ledger.ErrUnknown)
	call := newCall()
	rs, err := l.Commit(t.Context(), intent(call))
	if err != nil || rs[0].Index() != n {
		t.Fatalf("a commit whose answer was lost, but not its effect: %v, %v", rs, err)
	}
	f.After = nil

	other := newCall()
	for _, at := range []*func(int64) error{&f.Before, &f.During} {
		*at = f.next(ledger.ErrUnknown)
		if _, err := l.Commit(t.Context(), intent(other)); !errors.Is(err, ledger.ErrUnavailable) || errors.Is(err, ledger.ErrUnknown) {
			t.Fatalf("a commit that was lost: %v", err)
		}
		*at = nil
	}
	if got := size(t, l); got != n+1 {
		t.Errorf("%d records, want %d", got, n+1)
	}
	commit(t, l, intent(other))

	f.After = f.next(ledger.ErrUnknown, 2) // nor does the store say what happened
	third := newCall()
	if _, err := l.Commit(t.Context(), intent(third)); !errors.Is(err, ledger.ErrUnknown) {
		t.Fatalf("a commit that nobody knows of: %v", err)
	}
	f.After = nil
	if _, err := l.Commit(t.Context(), intent(third)); !errors.Is(err, ledger.ErrUsed) {
		t.Errorf("a call that may have been recorded, and was, is recorded again: %v", err)
	}
	commit(t, l, outcome(call), outcome(other), outcome(third))
	verifyAll(t, l)
}

func fatal(t *testing.T, d Database) {
	l, f := faulty(t, d)
	commit(t, l, intent("call_1"))
	f.After = f.next(ledger.ErrFatal)
	if _, err := l.Commit(t.Context(), intent("call_2")); !errors.Is(err, ledger.ErrFatal) {
		t.Fatalf("a commit on a store that fails: %v", err)
	}
	f.After = nil
	select {
	case <-l.Failed():
	default:
		t.Error("Failed is not closed")
	}
	if _, err := l.Commit(t.Context(), outcome("call_1")); !errors.Is(err, ledger.ErrFatal) {
		t.Errorf("a commit after the store failed: %v", err)
	}
	mustClose(t, l)
	l = start(t, d, ledger.Config{})
	commit(t, l, outcome("call_1"))
	verifyAll(t, l)
}

func reserve(t *testing.T, d Database) {
	l, f := faulty(t, d)
	calls := []writ.CallID{newCall(), newCall()}
	commit(t, l, intent(calls[0]), intent(calls[1]))
	n := size(t, l)
	f.Full.Store(true)
	of := func(typ string) *ledger.Entry { return &ledger.Entry{Leaf: ledger.Leaf{Type: typ}} }
	for _, e := range [][]*ledger.Entry{
		{intent(newCall())}, {of(ledger.TypeTaskOpen)}, {of(ledger.TypeApproval)}, {of(ledger.TypeLease)}, {of(ledger.TypeAdmin)},
		{outcome(calls[0]), of(ledger.TypeAdmin)},
	} {
		if _, err := l.Commit(t.Context(), e...); !errors.Is(err, ledger.ErrFull) {
			t.Errorf("%s on a full disk: %v", e[len(e)-1].Leaf.Type, err)
		}
	}
	if got := size(t, l); got != n {
		t.Errorf("%d records on a full disk, want %d", got, n)
	}
	commit(t, l, outcome(calls[0]))
	for _, typ := range []string{ledger.TypeRevocation, ledger.TypeHalt, ledger.TypeDecision, ledger.TypeTaskEnd} {
		commit(t, l, of(typ))
	}
	done := make(chan error)
	for i := range 40 { // in one batch, what is reserved is not refused with what is not
		go func() {
			e, want := of(ledger.TypeHalt), error(nil)
			if i%2 == 0 {
				e, want = of(ledger.TypeAdmin), ledger.ErrFull
			}
			if _, err := l.Commit(t.Context(), e); !errors.Is(err, want) {
				done <- fmt.Errorf("%s on a full disk: %v, want %v", e.Leaf.Type, err, want)
				return
			}
			done <- nil
		}()
	}
	for range 40 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	f.Full.Store(false)
	commit(t, l, intent(newCall()), outcome(calls[1]))
	verifyAll(t, l)
}

func erasureFaults(t *testing.T, d Database) {
	l, f := faulty(t, d)
	call := newCall()
	rs := commit(t, l, intent(call), outcome(call))
	e := &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeErasure, Note: map[string]string{"why": "asked for"}}}
	both := []int64{rs[0].Index(), rs[1].Index()}
	erased := func(want bool) {
		t.Helper()
		for _, i := range both {
			if r, err := l.Record(t.Context(), i); err != nil || r.Erased != want {
				t.Errorf("record %d: erased %v, %v; want %v", i, r != nil && r.Erased, err, want)
			}
		}
		verifyAll(t, l)
	}
	f.Before = f.next(ledger.ErrUnavailable)
	if _, err := l.Erase(t.Context(), e, both...); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("an erasure that fails: %v", err)
	}
	f.Before = nil
	erased(false)
	f.After = f.next(ledger.ErrUnknown)
	if _, err := l.Erase(t.Context(), e, both...); err != nil {
		t.Errorf("an erasure whose answer is lost: %v", err)
	}
	f.After = nil
	erased(true)
	n := size(t, l)
	if rs, err := l.Erase(t.Context(), e, both...); err != nil || len(rs) != 0 || size(t, l) != n {
		t.Errorf("an erasure of what is erased: %v, %v", rs, err)
	}
	mustClose(t, l)
	l = start(t, d, ledger.Config{})
	erased(true)
}

// everyUpdate fails each update of a workload in turn, before it is made and
// after, and has it answered in every way. Whoever is told that a call is on
// record finds it there; what failed is there once, or not at all; and what
// was counted is what is there.
func everyUpdate(t *testing.T, fresh func(t *testing.T) Database) {
	const calls, updates = 2, 7
	before, during, after := func(f *Faults) *func(int64) error { return &f.Before },
		func(f *Faults) *func(int64) error { return &f.During }, func(f *Faults) *func(int64) error { return &f.After }
	for _, c := range []struct {
		name string
		when func(*Faults) *func(int64) error
		err  error
		n    []int64 // besides the update itself
	}{
		{"before/unavailable", before, ledger.ErrUnavailable, nil},
		{"before/unknown", before, ledger.ErrUnknown, nil},
		{"before/fatal", before, ledger.ErrFatal, nil},
		{"during/unavailable", during, ledger.ErrUnavailable, nil},
		{"during/unknown", during, ledger.ErrUnknown, nil},
		{"after/unknown", after, ledger.ErrUnknown, nil},
		{"after/unknown twice", after, ledger.ErrUnknown, []int64{1}},
		{"after/fatal", after, ledger.ErrFatal, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for at := range int64(updates) {
				d := fresh(t)
				l, f := faulty(t, d)
				base := f.n.Load()
				fail := func(n int64) error {
					if n -= base + 1; n == at || len(c.n) != 0 && n == at+c.n[0] {
						return c.err
					}
					return nil
				}
				*c.when(f) = fail
				made := workload(t, l, calls)
				*c.when(f) = nil
				mustClose(t, l)
				account(t, start(t, d, ledger.Config{}), made)
			}
		})
	}
}

// workload makes calls and erases the first; it gives what it was told.
func workload(t *testing.T, l *ledger.Ledger, calls int) map[writ.CallID]bool {
	t.Helper()
	made := map[writ.CallID]bool{}
	for i := range calls {
		call := newCall()
		in := intent(call)
		in.Changes = []ledger.Change{{Op: ledger.Add, Kind: "budget", Key: "b", Delta: 1, Limit: 100}, {Op: ledger.Once, Kind: "cap", Key: string(call)}}
		rs, err := l.Commit(t.Context(), in)
		made[call] = err == nil
		if err != nil {
			continue
		}
		if _, err := l.Commit(t.Context(), outcome(call)); err != nil || i != 0 {
			continue
		}
		l.Erase(t.Context(), eraseEntry(), rs[0].Index())
	}
	return made
}

// account holds what is on record against what was told.
func account(t *testing.T, l *ledger.Ledger, made map[writ.CallID]bool) {
	t.Helper()
	verifyAll(t, l)
	total := int64(0)
	for call, told := range made {
		rs, err := l.Records(t.Context(), ledger.Filter{Call: call, Type: ledger.TypeIntent})
		if err != nil || len(rs) > 1 || told && len(rs) == 0 {
			t.Errorf("call %s was acknowledged: %v; it has %d intents, %v", call, told, len(rs), err)
		}
		total += int64(len(rs))
		if _, used, err := l.Get(t.Context(), "cap", string(call)); err != nil || used != (len(rs) == 1) {
			t.Errorf("call %s has %d intents, and its capability is used: %v, %v", call, len(rs), used, err)
		}
	}
	if _, n := value(t, l, "budget", "b"); n != total {
		t.Errorf("the budget counts %d calls of %d", n, total)
	}
}
