package ledger_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/ledger/ledgertest"
	"github.com/writgate/writ/ledger/sqlite"
)

func entry() *ledger.Entry {
	return &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeAdmin, Note: map[string]string{"at": fmt.Sprint(time.Now().UnixNano())}}}
}

func grow(t *testing.T, l *ledger.Ledger, n int) {
	t.Helper()
	for range n {
		if _, err := l.Commit(t.Context(), entry()); err != nil {
			t.Fatal(err)
		}
	}
}

func copyFile(t *testing.T, to, from string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func anchored(anchor string) ledger.Config {
	return ledger.Config{Origin: ledgertest.Origin, Keys: ledgertest.Keys(), Anchor: anchor}
}

// tryOpen opens the ledger in a file, and closes it again.
func tryOpen(t *testing.T, path string, c ledger.Config) error {
	t.Helper()
	s, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(t.Context(), s, c)
	if err != nil {
		return errors.Join(err, s.Close())
	}
	return l.Close()
}

// TestF27RestoreIsRefused puts an old copy of the database in its place. It is
// refused until an operator adopts it, and that stays on record.
func TestF27RestoreIsRefused(t *testing.T) {
	dir := t.TempDir()
	db, old, anchor := filepath.Join(dir, "db"), filepath.Join(dir, "old"), filepath.Join(t.TempDir(), "anchor")
	l := reopen(t, db, anchored(anchor))
	grow(t, l, 5)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	copyFile(t, old, db)
	l = reopen(t, db, anchored(anchor))
	grow(t, l, 5)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := tryOpen(t, db, anchored(anchor)); err != nil {
		t.Fatalf("the newest: %v", err)
	}
	seen, err := os.ReadFile(anchor)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := tryOpen(t, old, anchored(anchor)); !errors.Is(err, ledger.ErrRollback) || !strings.Contains(err.Error(), "it has 6 records, and the anchor has seen 11") {
			t.Fatalf("an old copy: %v", err)
		}
	}
	c := anchored(anchor)
	c.Adopt = &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeAdmin, Note: map[string]string{"why": "disk lost"}}, User: "ana@acme.example"}
	l = reopen(t, old, c)
	rs, err := l.Records(t.Context(), ledger.Filter{Type: ledger.TypeAdmin, Reverse: true, Limit: 1})
	if err != nil || len(rs) != 1 {
		t.Fatal(rs, err)
	}
	n, part := rs[0].Leaf.Note, rs[0].Parts[0]
	if rs[0].Index != 6 || n["act"] != "adopt" || n["why"] != "disk lost" || n["anchor"] != strings.Join(strings.Split(string(seen), "\n")[1:3], " ") ||
		part.Name != "anchor" || string(part.Bytes) != string(seen) || rs[0].Leaf.User != l.Pseudonym("ana@acme.example") {
		t.Errorf("the record of it: %s %+v", rs[0].LeafBytes, rs[0].Parts)
	}
	grow(t, l, 1)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := tryOpen(t, old, c); err != nil { // nothing to adopt any more
		t.Fatal(err)
	}
	l = reopen(t, old, anchored(anchor))
	if rs, err := l.Records(t.Context(), ledger.Filter{}); err != nil || len(rs) != 8 {
		t.Errorf("%d records, %v; want 8", len(rs), err)
	}
	if err := tryOpen(t, db, anchored(anchor)); !errors.Is(err, ledger.ErrRollback) {
		t.Errorf("the history that was given up: %v", err)
	}
}

// TestF16AnotherHistoryIsRefused: of the same length or longer, with the right
// keys, it is still another.
func TestF16AnotherHistoryIsRefused(t *testing.T) {
	dir := t.TempDir()
	db, fork, anchor := filepath.Join(dir, "db"), filepath.Join(dir, "fork"), filepath.Join(t.TempDir(), "anchor")
	l := reopen(t, db, anchored(anchor))
	grow(t, l, 4)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	copyFile(t, fork, db)
	l = reopen(t, db, anchored(anchor))
	grow(t, l, 3)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		f := reopen(t, fork, ledger.Config{})
		grow(t, f, 1)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if err := tryOpen(t, fork, anchored(anchor)); !errors.Is(err, ledger.ErrRollback) {
			t.Errorf("another history: %v", err)
		}
	}
	other := anchored(filepath.Join(t.TempDir(), "other"))
	other.Keys.Log = ed25519.NewKeyFromSeed(make([]byte, 32))
	if err := tryOpen(t, filepath.Join(dir, "another"), other); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]string{
		"the anchor of another log": other.Anchor, "no anchor": filepath.Join(dir, "none"),
	} {
		if err := tryOpen(t, db, anchored(c)); !errors.Is(err, ledger.ErrRollback) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.WriteFile(anchor, []byte("what is this?"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := tryOpen(t, db, anchored(anchor)); !errors.Is(err, ledger.ErrRollback) {
		t.Errorf("an anchor that was overwritten: %v", err)
	}
	if err := tryOpen(t, filepath.Join(dir, "a new one"), anchored(anchor)); !errors.Is(err, ledger.ErrRollback) {
		t.Errorf("an empty database where there was a log: %v", err)
	}
	c := anchored(anchor)
	c.Adopt = &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeHalt}}
	if err := tryOpen(t, db, c); !errors.Is(err, ledger.ErrInvalid) {
		t.Errorf("adopted by a record of another type: %v", err)
	}
}

// TestAnchorFollows is never ahead, soon there, and there at the end.
func TestAnchorFollows(t *testing.T) {
	anchor := filepath.Join(t.TempDir(), "anchor")
	db := filepath.Join(t.TempDir(), "db")
	l, m := reopen(t, db, anchored(anchor)), reopen(t, db, anchored(anchor)) // two processes keep one anchor
	last := int64(0)
	for i := range int64(20) {
		grow(t, l, 1)
		n, err := l.Anchored()
		if err != nil || n > i+2 || n < last {
			t.Fatalf("of %d records the anchor has %d after %d, %v", i+2, n, last, err)
		}
		last = n
	}
	for begin := time.Now(); last != 21; last, _ = l.Anchored() {
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("of 21 records the anchor has %d", last)
		}
		time.Sleep(10 * time.Millisecond)
	}
	grow(t, m, 3)
	grow(t, l, 3)
	if err := errors.Join(l.Close(), m.Close()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(anchor)
	if err != nil || !strings.HasPrefix(string(b), ledgertest.Origin+"\n27\n") {
		t.Errorf("at the end the anchor is %q, %v", b, err)
	}
}

// TestAnchorThatFailsIsSeen loses its directory: commits go on, and Anchored
// says so.
func TestAnchorThatFailsIsSeen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "volume")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := sqlite.Open(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(t.Context(), s, anchored(filepath.Join(dir, "anchor")))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	grow(t, l, 3)
	for begin := time.Now(); err == nil; _, err = l.Anchored() {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("nobody says that the anchor is not written")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := l.Close(); err == nil {
		t.Error("nor does Close")
	}
}

// swap is a store whose database somebody replaces while it is open.
type swap struct{ at atomic.Pointer[ledger.Store] }

func (s *swap) View(ctx context.Context, fn func(ledger.View) error) error {
	return (*s.at.Load()).View(ctx, fn)
}

func (s *swap) Update(ctx context.Context, fn func(ledger.View) (*ledger.Batch, error)) error {
	return (*s.at.Load()).Update(ctx, fn)
}

func (s *swap) Close() error { return (*s.at.Load()).Close() }

// TestH93TwoPrimaries replaces the database under a running ledger: by an
// empty one, by an older one, and by one where another primary went on, less
// far, as far, and farther.
func TestH93TwoPrimaries(t *testing.T) {
	for name, more := range map[string]int{"empty": -1, "older": 0, "shorter": 2, "as long": 4, "longer": 9} {
		t.Run(name, func(t *testing.T) {
			one, two := filepath.Join(t.TempDir(), "db"), filepath.Join(t.TempDir(), "db")
			l := reopen(t, one, ledger.Config{})
			grow(t, l, 3)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			copyFile(t, two, one)
			s := new(swap)
			a, err := sqlite.Open(one)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			var store ledger.Store = a
			s.at.Store(&store)
			l = ledgertest.Open(t, s, ledger.Config{})
			grow(t, l, 4)
			if more < 0 {
				if err := os.Remove(two); err != nil {
					t.Fatal(err)
				}
			} else {
				grow(t, reopen(t, two, ledger.Config{}), more)
			}
			b, err := sqlite.Open(two)
			if err != nil {
				t.Fatal(err)
			}
			store = b
			s.at.Store(&store)
			if _, err := l.Commit(t.Context(), entry()); !errors.Is(err, ledger.ErrRollback) || !errors.Is(err, ledger.ErrFatal) {
				t.Errorf("a commit on another history: %v", err)
			}
			select {
			case <-l.Failed():
			default:
				t.Error("Failed is not closed")
			}
		})
	}
}
