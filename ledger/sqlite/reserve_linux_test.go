package sqlite

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
)

// TestF05ReserveOutlastsTheDisk fills a real file system of 16 MiB. Calls are
// refused; what came of those that were let through, and what takes authority
// away, is written; and calls are let through again when there is room.
func TestF05ReserveOutlastsTheDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Skipf("a file system cannot be mounted here: %v", err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	s, err := Open(filepath.Join(dir, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Reserve(4 << 20); err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(t.Context(), s, config())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()

	one := filepath.Join(dir, "somebody else's")
	if err := os.WriteFile(one, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var calls []writ.CallID
	for {
		c, in, _ := call(20000)
		if _, err = l.Commit(t.Context(), in); err != nil {
			break
		}
		calls = append(calls, c)
	}
	if !errors.Is(err, ledger.ErrFull) || len(calls) < 20 {
		t.Fatalf("%d calls, then %v", len(calls), err)
	}
	fill := func(name string) string {
		name = filepath.Join(dir, name)
		if os.WriteFile(name, make([]byte, 8<<20), 0o600) == nil {
			t.Fatal("the disk is not full")
		}
		return name
	}
	rest := fill("and more of it")
	begin := time.Now()
	for _, c := range calls {
		_, _, end := call(2000)
		end.Leaf.Call = c
		if _, err := l.Commit(t.Context(), end); err != nil {
			t.Fatalf("an outcome on a full disk: %v", err)
		}
		if _, in, _ := call(10); true {
			if _, err := l.Commit(t.Context(), in); !errors.Is(err, ledger.ErrFull) {
				t.Fatalf("a call took from the reserve: %v", err)
			}
		}
	}
	if _, err := l.Commit(t.Context(), &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeRevocation}}); err != nil {
		t.Errorf("a revocation on a full disk: %v", err)
	}
	if o, err := l.Orphans(t.Context()); err != nil || len(o) != 0 {
		t.Errorf("orphans %v, %v", o, err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("%d calls took %v", len(calls), took)
	}
	if info, err := os.Stat(filepath.Join(dir, "ledger.db-reserve")); err != nil || info.Size() == 4<<20 {
		t.Errorf("the reserve was not touched: %v, %v", info.Size(), err)
	}

	if err := l.Close(); err != nil { // a restart does not forget that it is short
		t.Fatal(err)
	}
	last := fill("and all of it")
	if s, err = Open(filepath.Join(dir, "ledger.db")); err != nil {
		t.Fatal(err)
	}
	if err := s.Reserve(4 << 20); err != nil {
		t.Fatal(err)
	}
	if l, err = ledger.Open(t.Context(), s, config()); err != nil {
		t.Fatal(err)
	}
	if _, in, _ := call(10); true {
		if _, err := l.Commit(t.Context(), in); !errors.Is(err, ledger.ErrFull) {
			t.Errorf("a call took from the reserve after a restart: %v", err)
		}
	}
	if err := errors.Join(os.Remove(one), os.Remove(rest), os.Remove(last)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(refillWait)
	_, in, end := call(10)
	if _, err := l.Commit(t.Context(), in, end); err != nil {
		t.Errorf("a call when there is room again: %v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, "ledger.db-reserve")); err != nil || info.Size() != 4<<20 {
		t.Errorf("the reserve was not made whole: %v, %v", info.Size(), err)
	}
	if _, err := l.VerifyAll(t.Context()); err != nil {
		t.Error(err)
	}
}
