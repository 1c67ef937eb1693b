package sqlite

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/ledger/ledgertest"
)

// history is all leaves, and all payloads that can be read.
func history(t *testing.T, l *ledger.Ledger) (lines []string) {
	t.Helper()
	rs, err := l.Records(t.Context(), ledger.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rs {
		line := fmt.Sprintf("%d %s", r.Index, r.LeafBytes)
		for _, p := range r.Parts {
			line += fmt.Sprintf(" %s %x", p.Name, p.Bytes)
		}
		lines = append(lines, line)
	}
	return lines
}

// TestF19DamageIsRefusedOrHarmless flips bytes of the file and of the log of
// writes, and cuts their ends off. Whatever then opens and verifies is the
// history that was, or, if the anchor is lost too, its beginning.
func TestF19DamageIsRefusedOrHarmless(t *testing.T) {
	dir := t.TempDir()
	anchor := filepath.Join(t.TempDir(), "anchor")
	s, err := Open(filepath.Join(dir, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	c := config()
	c.Anchor = anchor
	l, err := ledger.Open(t.Context(), s, c)
	if err != nil {
		t.Fatal(err)
	}
	for range 12 {
		_, in, end := call(700)
		if _, err := l.Commit(t.Context(), in, end); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.checkpoint(false); err != nil { // half of it is in the file, half in the log of writes
		t.Fatal(err)
	}
	for range 12 {
		_, in, end := call(700)
		if _, err := l.Commit(t.Context(), in, end); err != nil {
			t.Fatal(err)
		}
	}
	want := history(t, l)
	files := map[string][]byte{}
	for _, name := range []string{"ledger.db", "ledger.db-wal"} {
		if files[name], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for seed := range uint64(120 / slower) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		work := t.TempDir()
		for name, b := range files {
			b = bytes.Clone(b)
			if (rnd.IntN(2) == 0) == (name == "ledger.db") {
				switch rnd.IntN(4) {
				case 0:
					b = b[:rnd.IntN(len(b))]
				case 1:
					for range 1 + rnd.IntN(40) {
						b[rnd.IntN(len(b))] ^= byte(1 + rnd.IntN(255))
					}
				default:
					b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
				}
			}
			if err := os.WriteFile(filepath.Join(work, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c := config()
		anchored := seed%2 == 0
		if anchored {
			b, err := os.ReadFile(anchor)
			if err != nil {
				t.Fatal(err)
			}
			c.Anchor = filepath.Join(work, "anchor")
			if err := os.WriteFile(c.Anchor, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got, err := salvage(t, work, c)
		switch {
		case err != nil:
			seen["refused"]++
		case strings.Join(got, "\n") == strings.Join(want, "\n"):
			seen["harmless"]++
		case !anchored && len(got) < len(want) && strings.HasPrefix(strings.Join(want, "\n"), strings.Join(got, "\n")):
			seen["shorter"]++
		default:
			t.Errorf("seed %d, anchored %v: another history of %d records, of %d, verifies", seed, anchored, len(got), len(want))
		}
	}
	t.Log(seen)
	if slower == 1 && (seen["refused"] < 20 || seen["harmless"] < 10 || seen["shorter"] < 3) {
		t.Errorf("what was tried says little: %v", seen)
	}
}

// salvage opens a damaged ledger, if it opens, and gives its history, if that
// verifies.
func salvage(t *testing.T, dir string, c ledger.Config) ([]string, error) {
	t.Helper()
	s, err := Open(filepath.Join(dir, "ledger.db"))
	if err != nil {
		return nil, err
	}
	l, err := ledger.Open(t.Context(), s, c)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	defer l.Close()
	if _, err := l.VerifyAll(t.Context()); err != nil {
		return nil, err
	}
	return history(t, l), nil
}

// TestErasedKeysAreNotLeftBehind erases one record in three among many of all
// sizes: nothing that SQLite moved on the way keeps a key.
func TestErasedKeysAreNotLeftBehind(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(filepath.Join(dir, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(t.Context(), s, config())
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(8, 8))
	var erased []int64
	for range 150 / slower {
		_, in, end := call(rnd.IntN(9000))
		rs, err := l.Commit(t.Context(), in, end)
		if err != nil {
			t.Fatal(err)
		}
		if rnd.IntN(3) == 0 {
			erased = append(erased, rs[0].Index(), rs[1].Index())
		}
	}
	var keys [][]byte
	err = s.View(t.Context(), func(v ledger.View) error {
		for _, i := range erased {
			rs, err := v.Records(t.Context(), ledger.Filter{From: i, To: i + 1})
			if err != nil {
				return err
			}
			keys = append(keys, rs[0].Wrapped)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	count := func() (n int) {
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(filepath.Join(dir, f.Name()))
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range keys {
				if bytes.Contains(b, k) {
					n++
				}
			}
		}
		return n
	}
	if n := count(); n < len(keys) {
		t.Fatalf("%d of %d keys are found before they are erased: the search is wrong", n, len(keys))
	}
	if _, err := l.Erase(t.Context(), &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeErasure}}, erased...); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != 0 { // as soon as Erase has answered
		t.Errorf("%d keys are left", n)
	}
	if _, err := l.VerifyAll(t.Context()); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestH93SchemaIsChecked plants what would work inside the database.
func TestH93SchemaIsChecked(t *testing.T) {
	for _, sql := range []string{
		"CREATE TRIGGER t AFTER INSERT ON record BEGIN DELETE FROM state; END",
		"CREATE TABLE other (x)",
		"DROP INDEX record_once",
		"CREATE VIEW v AS SELECT * FROM record",
		"PRAGMA user_version=2",
		"PRAGMA application_id=1",
	} {
		path := filepath.Join(t.TempDir(), "ledger.db")
		s, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.write.once(sql); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s, err := Open(path); err == nil {
			t.Errorf("opened after %s", sql)
			s.Close()
		}
	}
}

func TestFilesArePrivateAndFew(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ledger.db")
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Reserve(100 << 10); err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(t.Context(), s, config())
	if err != nil {
		t.Fatal(err)
	}
	_, in, end := call(100)
	if _, err := l.Commit(t.Context(), in, end); err != nil {
		t.Fatal(err)
	}
	names := func() (out []string) {
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			info, err := f.Info()
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v", f.Name(), info.Mode())
			}
			out = append(out, f.Name())
		}
		return out
	}
	if got, want := fmt.Sprint(names()), "[ledger.db ledger.db-reserve ledger.db-shm ledger.db-wal]"; got != want {
		t.Errorf("open: %s, want %s", got, want)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(names()), "[ledger.db ledger.db-reserve]"; got != want {
		t.Errorf("closed: %s, want %s", got, want)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil {
		t.Error("opened a file that others can read")
	}
}

// TestV1OpensForever opens a file that was made when version 1 was, and goes
// on with it.
func TestV1OpensForever(t *testing.T) {
	b, err := os.ReadFile("testdata/v1.db")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ledger.db")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	c := config()
	c.Origin = "acme.example/writ/v1"
	c.Keys.Log = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{5}, 32)) // it was changed to that
	l := ledgertest.Open(t, s, c)
	if n, err := l.VerifyAll(t.Context()); err != nil || n != 12 {
		t.Errorf("%d records, %v; want 12", n, err)
	}
	_, in, end := call(100)
	if _, err := l.Commit(t.Context(), in, end); err != nil {
		t.Error(err)
	}
	if _, err := l.VerifyAll(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestF19OpenVerifiesTheEnd changes the end of the log: that is seen at once.
func TestF19OpenVerifiesTheEnd(t *testing.T) {
	for _, sql := range []string{
		"UPDATE batch SET hashes = zeroblob(length(hashes)) WHERE last = (SELECT max(last) FROM batch)",
		"UPDATE batch SET note = (SELECT note FROM batch WHERE last = 4) WHERE last = (SELECT max(last) FROM batch)",
		"DELETE FROM batch WHERE last = (SELECT max(last) FROM batch)",
		"UPDATE batch SET hashes = zeroblob(length(hashes)) WHERE last = 2",
		"UPDATE record SET leaf = (SELECT leaf FROM record WHERE idx = 3) WHERE idx = (SELECT max(idx) FROM record)",
		"DELETE FROM record WHERE idx = (SELECT max(idx) FROM record)",
		"DELETE FROM record WHERE idx = 3",
		"DELETE FROM record WHERE idx = 0",
		"UPDATE record SET sealed = x'00' WHERE idx = 3",
		"UPDATE record SET wrapped = NULL WHERE idx = 3",
	} {
		path := filepath.Join(t.TempDir(), "ledger.db")
		s, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		l, err := ledger.Open(t.Context(), s, config())
		if err != nil {
			t.Fatal(err)
		}
		for range 4 {
			_, in, end := call(10)
			if _, err := l.Commit(t.Context(), in, end); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.write.once(sql); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if s, err = Open(path); err != nil {
			t.Fatal(err)
		}
		if l, err := ledger.Open(t.Context(), s, config()); err == nil {
			t.Errorf("opened after %s", sql)
			l.Close()
		} else if s.Close(); sql[:18] != "DELETE FROM record" && !errors.Is(err, ledger.ErrDamaged) {
			t.Errorf("after %s: %v", sql, err)
		}
	}
}

// TestReplacedRowsAreNotLeftBehind changes rows of all sizes over and over:
// what they were is nowhere in the file, wherever SQLite moved them.
func TestReplacedRowsAreNotLeftBehind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(t.Context(), s, config())
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	var gone [][]byte
	for i := range 400 / slower {
		c := ledger.Change{Op: ledger.Put, Kind: "task", Key: fmt.Sprint("task_", rnd.IntN(60)), Value: make([]byte, rnd.IntN(3000))}
		if i%5 == 0 {
			c.Op, c.Value = ledger.Delete, nil
		}
		err := s.View(t.Context(), func(v ledger.View) error {
			rows, err := v.Rows(t.Context(), [2]string{c.Kind, c.Key})
			for _, r := range rows {
				gone = append(gone, r.Value[len(r.Value)/2:])
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Commit(t.Context(), &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeAdmin}, Changes: []ledger.Change{c}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	left := 0
	for _, g := range gone {
		if bytes.Contains(b, g) {
			left++
		}
	}
	if left != 0 || len(gone) < 20 {
		t.Errorf("of %d rows that were, %d are left", len(gone), left)
	}
}

// TestH93TakenPayloadIsNoErasure takes the payload of an old record away, as
// an erasure would, and puts nothing on record.
func TestH93TakenPayloadIsNoErasure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	l := ledgertest.Open(t, s, config())
	for range 50 { // so many that the record is not at the end, which is looked at first
		_, in, end := call(10)
		if _, err := l.Commit(t.Context(), in, end); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Erase(t.Context(), &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeErasure}}, 5, 6, 9); err != nil {
		t.Fatal(err)
	}
	if err := s.write.once("UPDATE record SET wrapped = NULL, sealed = NULL WHERE idx = 3"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.VerifyAll(t.Context()); !errors.Is(err, ledger.ErrDamaged) {
		t.Errorf("VerifyAll: %v", err)
	}
	if r, err := l.Record(t.Context(), 3); !errors.Is(err, ledger.ErrDamaged) {
		t.Errorf("read as erased: %v, %v", r, err)
	}
	if r, err := l.Record(t.Context(), 5); err != nil || !r.Erased {
		t.Errorf("what was erased: %+v, %v", r, err)
	}
	if _, err := l.Rebuild(t.Context(), &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeAdmin}}); !errors.Is(err, ledger.ErrDamaged) {
		t.Errorf("state is rebuilt from a log that is not in order: %v", err)
	}
}
