package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/ledger/ledgertest"
	lib "modernc.org/sqlite/lib"
)

var bg = context.Background()

func config() ledger.Config {
	return ledger.Config{Origin: ledgertest.Origin, Keys: ledgertest.Keys()}
}

// call is the intent and the outcome of one call.
func call(size int) (writ.CallID, *ledger.Entry, *ledger.Entry) {
	c := writ.NewID[writ.CallID](time.Now())
	return c, &ledger.Entry{
			Leaf:    ledger.Leaf{Type: ledger.TypeIntent, Call: c},
			Parts:   []ledger.Part{{Name: "query", Bytes: make([]byte, size)}},
			Changes: []ledger.Change{{Op: ledger.Once, Kind: "cap", Key: string(c)}, {Op: ledger.Add, Kind: "budget", Key: "b", Delta: 1, Limit: 1 << 40}},
		}, &ledger.Entry{
			Leaf:  ledger.Leaf{Type: ledger.TypeOutcome, Call: c},
			Parts: []ledger.Part{{Name: "result", Bytes: make([]byte, size)}},
		}
}

// An outcome is what a workload was told before the power failed.
type outcome struct {
	made   map[writ.CallID]bool // acknowledged
	erased []int64              // acknowledged
}

// work makes calls, and erases some, until the disk stops.
func work(t *testing.T, s *Store, steps int) (out outcome) {
	out.made = map[writ.CallID]bool{}
	l, err := ledger.Open(t.Context(), s, config())
	if err != nil {
		s.Close()
		return out
	}
	defer l.Close()
	for i := range steps {
		c, in, end := call(200 + i%7*900)
		rs, err := l.Commit(t.Context(), in, end)
		if err != nil {
			return out
		}
		out.made[c] = true
		if i%9 != 8 {
			continue
		}
		e := &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeErasure}}
		if _, err := l.Erase(t.Context(), e, rs[0].Index(), rs[1].Index()); err != nil {
			continue // its counter is in use, or the disk stopped
		}
		out.erased = append(out.erased, rs[0].Index(), rs[1].Index())
	}
	return out
}

// check opens what the power failure left, and gives what is wrong with it.
func check(t *testing.T, dir string, want outcome) error {
	t.Helper()
	s, err := Open(filepath.Join(dir, "ledger.db"))
	if err != nil {
		return err
	}
	l, err := ledger.Open(t.Context(), s, config())
	if err != nil {
		return errors.Join(err, s.Close())
	}
	defer l.Close()
	if _, err := l.VerifyAll(t.Context()); err != nil {
		return err
	}
	for c := range want.made {
		rs, err := l.Records(t.Context(), ledger.Filter{Call: c})
		if err != nil || len(rs) != 2 {
			return fmt.Errorf("call %s was acknowledged, and has %d records (%v)", c, len(rs), err)
		}
	}
	for _, i := range want.erased {
		if r, err := l.Record(t.Context(), i); err != nil || !r.Erased {
			return fmt.Errorf("record %d was erased, and is readable (%v)", i, err)
		}
	}
	_, in, end := call(100)
	_, err = l.Commit(t.Context(), in, end)
	return err
}

// powerFails runs the workload on a disk that stops at some operation, and
// then looks at what may be found on it.
func powerFails(t *testing.T, seed uint64, sql string) error {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	d := watch(t, dir)
	s, err := Open(filepath.Join(dir, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	if sql != "" {
		if err := s.write.once(sql); err != nil {
			t.Fatal(err)
		}
	}
	stop := d.ops + 1 + rnd.IntN(400)
	d.fail = func(op, file string, n int) int32 {
		d.dead = n >= stop
		if d.dead {
			return lib.SQLITE_IOERR
		}
		return 0
	}
	told := work(t, s, 40)
	return check(t, d.after(t, rnd), told)
}

// TestF01PowerFails loses what was not synced, at any operation.
func TestF01PowerFails(t *testing.T) {
	for seed := range uint64(30 / slower) {
		if err := powerFails(t, seed, ""); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// TestF01UnsyncedIsCaught takes the sync away from commits: the test above
// must be able to see that.
func TestF01UnsyncedIsCaught(t *testing.T) {
	for seed := range uint64(30 / slower) {
		if powerFails(t, seed, "PRAGMA synchronous=OFF") != nil {
			return
		}
	}
	t.Error("commits that were never synced survive every loss of power: the simulation loses nothing")
}

// TestF06FsyncErrorIsFatal fails one sync of the log of writes. What became
// of the data is unknown, and stays so when the next sync succeeds.
func TestF06FsyncErrorIsFatal(t *testing.T) {
	for _, at := range []string{"write-ahead log", "file"} {
		t.Run(at, func(t *testing.T) {
			dir := t.TempDir()
			d := watch(t, dir)
			s, err := Open(filepath.Join(dir, "ledger.db"))
			if err != nil {
				t.Fatal(err)
			}
			l, err := ledger.Open(t.Context(), s, config())
			if err != nil {
				t.Fatal(err)
			}
			failed := false
			d.mu.Lock()
			d.fail = func(op, file string, n int) int32 {
				if op != "sync" || failed || isWAL(file) != (at == "write-ahead log") {
					return 0
				}
				failed = true
				return lib.SQLITE_IOERR_FSYNC
			}
			d.mu.Unlock()
			for range 3000 {
				_, in, end := call(4000)
				if _, err = l.Commit(t.Context(), in, end); err != nil {
					break
				}
			}
			if !errors.Is(err, ledger.ErrFatal) {
				t.Fatalf("a sync that fails: %v", err)
			}
			select {
			case <-l.Failed():
			default:
				t.Error("Failed is not closed")
			}
			if _, in, _ := call(10); true {
				if _, err := l.Commit(t.Context(), in); !errors.Is(err, ledger.ErrFatal) {
					t.Errorf("a commit after it: %v", err)
				}
			}
			err = s.Update(bg, func(ledger.View) (*ledger.Batch, error) { t.Error("the store is asked again"); return nil, nil })
			if !errors.Is(err, ledger.ErrFatal) {
				t.Errorf("an update after it: %v", err)
			}
			l.Close()
			if err := check(t, dir, outcome{}); err != nil {
				t.Errorf("after a restart: %v", err)
			}
		})
	}
}

// TestF05FullDiskIsRefused has no room for a while, in the log of writes or in
// the file that it is moved into. Commits are refused or made, nothing is
// half made, and all goes on when there is room again.
func TestF05FullDiskIsRefused(t *testing.T) {
	for _, at := range []string{"write-ahead log", "file", "both"} {
		t.Run(at, func(t *testing.T) {
			dir := t.TempDir()
			d := watch(t, dir)
			s, err := Open(filepath.Join(dir, "ledger.db"))
			if err != nil {
				t.Fatal(err)
			}
			l := ledgertest.Open(t, s, config())
			var told outcome
			told.made = map[writ.CallID]bool{}
			try := func(n int) (refused int) {
				for range n {
					c, in, end := call(12000)
					switch _, err := l.Commit(t.Context(), in, end); {
					case err == nil:
						told.made[c] = true
					case errors.Is(err, ledger.ErrFull):
						refused++
					default:
						t.Fatalf("on a full disk: %v", err)
					}
				}
				return refused
			}
			for round := range 4 {
				if n := try(5); n != 0 {
					t.Fatalf("%d commits refused with room", n)
				}
				d.mu.Lock()
				from := d.ops + round
				d.fail = func(op, file string, n int) int32 {
					if op == "write" && n > from && (at == "both" || isWAL(file) == (at == "write-ahead log")) {
						return lib.SQLITE_FULL
					}
					return 0
				}
				d.mu.Unlock()
				const many = 90 / slower
				n := try(many)
				if at != "file" && n < many-2 {
					t.Errorf("%d of %d commits refused on a full disk", n, many)
				}
				if at == "file" && n != 0 {
					t.Errorf("%d commits refused that only the write-ahead log had to hold", n)
				}
				if _, err := l.Records(t.Context(), ledger.Filter{Limit: 3}); err != nil {
					t.Errorf("reading on a full disk: %v", err)
				}
				d.mu.Lock()
				d.fail = nil
				d.mu.Unlock()
			}
			try(5)
			if _, err := l.VerifyAll(t.Context()); err != nil {
				t.Error(err)
			}
			if err := check(t, d.after(t, rand.New(rand.NewPCG(1, 2))), told); err != nil {
				t.Errorf("and then the power fails: %v", err)
			}
		})
	}
}

// TestF31CrashInErasure loses power at every operation of an erasure. After a
// restart the payload is there and no record says otherwise, or the record is
// there and the key is nowhere.
func TestF31CrashInErasure(t *testing.T) {
	both := map[bool]int{}
	for step := 1; ; step++ {
		dir := t.TempDir()
		d := watch(t, dir)
		s, err := Open(filepath.Join(dir, "ledger.db"))
		if err != nil {
			t.Fatal(err)
		}
		l, err := ledger.Open(t.Context(), s, config())
		if err != nil {
			t.Fatal(err)
		}
		_, in, end := call(300)
		rs, err := l.Commit(t.Context(), in, end)
		if err != nil {
			t.Fatal(err)
		}
		key := wrappedKey(t, s, rs[0].Index())
		d.mu.Lock()
		stop := d.ops + step
		d.fail = func(_, _ string, n int) int32 {
			if d.dead = n >= stop; d.dead {
				return lib.SQLITE_IOERR
			}
			return 0
		}
		d.mu.Unlock()
		_, err = l.Erase(t.Context(), &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeErasure}}, rs[0].Index())
		d.mu.Lock()
		whole := !d.dead
		d.mu.Unlock()
		told := outcome{}
		if err == nil {
			told.erased = []int64{rs[0].Index()}
		}
		after := d.after(t, rand.New(rand.NewPCG(uint64(step), 1)))
		l.Close()
		if s, err = Open(filepath.Join(after, "ledger.db")); err != nil {
			t.Fatal(err)
		}
		if l, err = ledger.Open(t.Context(), s, config()); err != nil {
			t.Fatal(err)
		}
		r, err := l.Record(t.Context(), rs[0].Index())
		if err != nil {
			t.Fatal(err)
		}
		if found := holds(t, after, key); found == r.Erased { // at once, not only when it is closed
			t.Errorf("power lost at operation %d: erased %v, and the key is there: %v", step, r.Erased, found)
		}
		both[r.Erased]++
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := check(t, after, told); err != nil {
			t.Fatalf("power lost at operation %d: %v", step, err)
		}
		if whole {
			break
		}
	}
	if both[true] < 2 || both[false] < 2 {
		t.Errorf("erased, or not: %v", both)
	}
}

func wrappedKey(t *testing.T, s *Store, index int64) (key []byte) {
	t.Helper()
	err := s.View(t.Context(), func(v ledger.View) error {
		rs, err := v.Records(t.Context(), ledger.Filter{From: index, To: index + 1})
		if err == nil {
			key = rs[0].Wrapped
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// holds says whether a file of a directory contains b.
func holds(t *testing.T, dir string, b []byte) bool {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, f := range files {
		all, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		found = found || bytes.Contains(all, b)
	}
	return found
}
