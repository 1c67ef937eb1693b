package ledgertest

import (
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/writgate/writ/ledger"
)

const racers = 64

// race runs fn for racers goroutines, half of them over each of two ledgers
// that share the database.
func race(t *testing.T, d Database, fn func(l *ledger.Ledger, i int) error) (a, b *ledger.Ledger) {
	t.Helper()
	a, b = start(t, d, ledger.Config{Gateway: "a"}), start(t, d, ledger.Config{Gateway: "b"})
	var wg sync.WaitGroup
	for i := range racers {
		l := a
		if i%2 == 1 {
			l = b
		}
		wg.Go(func() {
			if err := fn(l, i); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	return a, b
}

// exact takes from a counter, uses ids once, and changes rows that must be as
// they were read: never once too often, and never once too seldom.
func exact(t *testing.T, d Database) {
	const limit, ids, steps = 40, 4, 3
	var added atomic.Int64
	var used [ids]atomic.Int64
	a, b := race(t, d, func(l *ledger.Ledger, i int) error {
		_, err := l.Commit(t.Context(), admin(ledger.Change{Op: ledger.Add, Kind: "budget", Key: "b", Delta: 1, Limit: limit}))
		if err == nil {
			added.Add(1)
		} else if !errors.Is(err, ledger.ErrExceeded) {
			return err
		}
		for k := range ids {
			_, err := l.Commit(t.Context(), admin(ledger.Change{Op: ledger.Once, Kind: "cap", Key: strconv.Itoa(k)}))
			if err == nil {
				used[k].Add(1)
			} else if !errors.Is(err, ledger.ErrUsed) {
				return err
			}
		}
		for done := 0; done < steps; {
			r, ok, err := l.Get(t.Context(), "cas", "n")
			if err != nil {
				return err
			}
			n, at := 0, ledger.Absent
			if ok {
				at = r.At
				if n, err = strconv.Atoi(string(r.Value)); err != nil {
					return err
				}
			}
			e := admin(put("cas", "n", strconv.Itoa(n+1)))
			e.Expect = []ledger.Expect{{Kind: "cas", Key: "n", At: at}}
			switch _, err = l.Commit(t.Context(), e); {
			case err == nil:
				done++
			case !errors.Is(err, ledger.ErrConflict):
				return err
			}
		}
		return nil
	})
	if n := added.Load(); n != limit {
		t.Errorf("taken %d times of %d", n, limit)
	}
	for k := range ids {
		if n := used[k].Load(); n != 1 {
			t.Errorf("id %d used %d times", k, n)
		}
	}
	commit(t, a, admin())
	commit(t, b, admin())
	for _, l := range []*ledger.Ledger{a, b} {
		if v, _ := value(t, l, "cas", "n"); v != strconv.Itoa(racers*steps) {
			t.Errorf("%s changes, want %d", v, racers*steps)
		}
		if _, n := value(t, l, "budget", "b"); n != limit {
			t.Errorf("count %d, want %d", n, limit)
		}
		verifyAll(t, l)
	}
}

func callOnce(t *testing.T, d Database) {
	call := newCall()
	var intents, outcomes atomic.Int64
	a, _ := race(t, d, func(l *ledger.Ledger, i int) error {
		_, err := l.Commit(t.Context(), intent(call))
		if err == nil {
			intents.Add(1)
		} else if !errors.Is(err, ledger.ErrUsed) {
			return err
		}
		_, err = l.Commit(t.Context(), outcome(call))
		if err == nil {
			outcomes.Add(1)
		} else if !errors.Is(err, ledger.ErrUsed) {
			return err
		}
		return nil
	})
	if i, o := intents.Load(), outcomes.Load(); i != 1 || o != 1 {
		t.Errorf("%d intents and %d outcomes of one call", i, o)
	}
	if _, err := a.Commit(t.Context(), intent(call)); !errors.Is(err, ledger.ErrUsed) {
		t.Errorf("an intent of a call that is over: %v", err)
	}
	verifyAll(t, a)
}
