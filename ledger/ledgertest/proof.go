package ledgertest

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/writgate/writ/ledger"
	"golang.org/x/mod/sumdb/tlog"
)

// proofs lets a log grow by batches of every size, and checks that every
// record can be proven and that every tree is a prefix of the later ones.
func proofs(t *testing.T, d Database) {
	l := start(t, d, ledger.Config{})
	rnd := rand.New(rand.NewPCG(2, 3))
	roots := map[int64]tlog.Hash{}
	var sizes []int64
	for range 40 {
		var es []*ledger.Entry
		for range 1 + rnd.IntN(9) {
			es = append(es, &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeAdmin, Note: map[string]string{"n": fmt.Sprint(rnd.Int64())}}})
		}
		commit(t, l, es...)
		b, err := l.Checkpoint(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n := size(t, l)
		h, err := tlog.ParseHash(strings.Split(string(b), "\n")[2])
		if err != nil {
			t.Fatal(err)
		}
		roots[n], sizes = h, append(sizes, n)
	}
	last := sizes[len(sizes)-1]
	for i := range last {
		proves(t, l, i, last)
	}
	for range 300 {
		a, b := sizes[rnd.IntN(len(sizes))], sizes[rnd.IntN(len(sizes))]
		if a > b {
			a, b = b, a
		}
		text, err := l.Consistency(t.Context(), a, b)
		if err != nil {
			t.Fatal(err)
		}
		var p tlog.TreeProof
		for line := range strings.Lines(string(text)) {
			h, err := tlog.ParseHash(strings.TrimSuffix(line, "\n"))
			if err != nil {
				t.Fatal(err)
			}
			p = append(p, h)
		}
		if err := tlog.CheckTree(p, b, roots[b], a, roots[a]); err != nil {
			t.Errorf("from %d to %d: %v", a, b, err)
		}
	}
	for _, bad := range [][2]int64{{0, 1}, {2, 1}, {1, last + 1}, {-1, 1}} {
		if _, err := l.Consistency(t.Context(), bad[0], bad[1]); err == nil {
			t.Errorf("a proof from %d to %d of %d", bad[0], bad[1], last)
		}
	}
	for _, i := range []int64{-1, last, last + 7} {
		if _, err := l.Prove(t.Context(), i); err == nil {
			t.Errorf("a receipt of record %d of %d", i, last)
		}
	}
	verifyAll(t, l)
}

// proves checks that record i has a receipt that verifies, and gives it.
func proves(t *testing.T, l *ledger.Ledger, i, size int64) []byte {
	t.Helper()
	p, err := l.Prove(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	holds(t, l, p, i, size)
	return p
}

func holds(t *testing.T, l *ledger.Ledger, receipt []byte, i, size int64) {
	t.Helper()
	v, err := ledger.Verify(receipt, Trust(l))
	if err != nil || v.Index != i || v.Size != size {
		t.Fatalf("the receipt of record %d of %d: %+v, %v", i, size, v, err)
	}
	r, err := l.Record(t.Context(), i)
	if err != nil || !bytes.Equal(r.LeafBytes, v.LeafBytes) {
		t.Fatalf("the receipt of record %d is of %s, %v", i, v.LeafBytes, err)
	}
	for j := range r.Parts {
		if v.Leaf.Parts[r.Parts[j].Name] != r.Parts[j].Digest() {
			t.Errorf("part %s of record %d is not what its receipt says", r.Parts[j].Name, i)
		}
	}
}

func eraseEntry(changes ...ledger.Change) *ledger.Entry {
	return &ledger.Entry{
		Leaf: ledger.Leaf{Type: ledger.TypeErasure, Note: map[string]string{"why": "article 17"}}, User: "ana@acme.example", Changes: changes,
	}
}

// erasure erases calls, and checks that what was proven stays proven, that
// the keys are nowhere any more, and that state goes on.
func erasure(t *testing.T, d Database) {
	s := store(t, d)
	l := Open(t, s, ledger.Config{})
	fillWith(t, l, 12)
	call := newCall()
	in := intent(call)
	in.Changes = []ledger.Change{
		{Op: ledger.Add, Kind: "budget", Key: "only", Delta: 5, Limit: 9},
		{Op: ledger.Once, Kind: "cap", Key: "only"},
	}
	rs := commit(t, l, in, outcome(call))
	targets := []int64{rs[0].Index(), rs[1].Index()}
	n := size(t, l)
	var receipts [][]byte
	for i := range n {
		receipts = append(receipts, proves(t, l, i, n))
	}
	keys := wrapped(t, s, targets...)
	erases(t, l, targets)
	for i := range n {
		holds(t, l, receipts[i], i, n)
		proves(t, l, i, n+1)
	}
	verifyAll(t, l)
	before := snapshot(t, l)
	mustClose(t, l)
	b, err := d.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range keys {
		if bytes.Contains(b, k) {
			t.Errorf("the key of record %d is still stored", targets[i])
		}
	}
	l = start(t, d, ledger.Config{})
	if got := snapshot(t, l); got != before {
		t.Errorf("after a restart:\n%s\nbefore:\n%s", got, before)
	}
	if _, err := l.Commit(t.Context(), admin(ledger.Change{Op: ledger.Once, Kind: "cap", Key: "only"})); !errors.Is(err, ledger.ErrUsed) {
		t.Errorf("an id whose record was erased is used again: %v", err)
	}
	commit(t, l, admin(ledger.Change{Op: ledger.Add, Kind: "budget", Key: "only", Delta: 4, Limit: 9}))
	if _, err := l.Rebuild(t.Context(), admin()); err != nil {
		t.Fatal(err)
	}
	if _, n := value(t, l, "budget", "only"); n != 9 {
		t.Errorf("a count is %d after a record of it was erased, want 9", n)
	}
	verifyAll(t, l)
}

// erases erases records that can be, and looks at what is left of them.
func erases(t *testing.T, l *ledger.Ledger, targets []int64) {
	t.Helper()
	if got, err := l.Erasable(t.Context(), targets...); err != nil || !slices.Equal(got, targets) {
		t.Errorf("erasable of %v: %v, %v", targets, got, err)
	}
	done, err := l.Erase(t.Context(), eraseEntry(), targets...)
	if err != nil || len(done) != 1 {
		t.Fatalf("Erase: %v, %v", done, err)
	}
	for _, i := range targets {
		if r, err := l.Record(t.Context(), i); err != nil || !r.Erased || r.Parts != nil {
			t.Errorf("record %d after its erasure: %+v, %v", i, r, err)
		}
	}
	if got, err := l.Erasable(t.Context(), targets...); err != nil || len(got) != 0 {
		t.Errorf("erasable of what is erased: %v, %v", got, err)
	}
	r, err := l.Record(t.Context(), done[0].Index())
	if err != nil || r.Leaf.Note["records"] == "" || r.Leaf.Note["why"] != "article 17" || r.Leaf.User != l.Pseudonym("ana@acme.example") {
		t.Errorf("the erasure's record: %s, %v", r.LeafBytes, err)
	}
}

// wrapped is the stored keys of records.
func wrapped(t *testing.T, s ledger.Store, records ...int64) (keys [][]byte) {
	t.Helper()
	err := s.View(t.Context(), func(v ledger.View) error {
		for _, i := range records {
			rs, err := v.Records(t.Context(), ledger.Filter{From: i, To: i + 1})
			if err != nil {
				return err
			}
			if len(rs) != 1 || len(rs[0].Wrapped) < 32 {
				return fmt.Errorf("record %d has no key", i)
			}
			keys = append(keys, rs[0].Wrapped)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func erasureInUse(t *testing.T, d Database) {
	l := start(t, d, ledger.Config{})
	call := newCall()
	open := commit(t, l, intent(call))[0].Index()
	row := commit(t, l, admin(put("task", "t", "the purpose")))[0].Index()
	gone := commit(t, l, admin(put("task", "u", "a purpose")))[0].Index()
	drop := commit(t, l, admin(ledger.Change{Op: ledger.Delete, Kind: "task", Key: "u"}))[0].Index()
	refuse := func(e *ledger.Entry, kind, key string, records ...int64) {
		t.Helper()
		n := size(t, l)
		_, err := l.Erase(t.Context(), e, records...)
		row, _ := errors.AsType[*ledger.Error](err)
		if !errors.Is(err, ledger.ErrInUse) || kind != "" && (row == nil || row.Kind != kind || row.Key != key) {
			t.Errorf("erasing %v: %v, want %v of %s %q", records, err, ledger.ErrInUse, kind, key)
		}
		if size(t, l) != n {
			t.Errorf("a refused erasure of %v wrote a record", records)
		}
	}
	refuse(eraseEntry(), "open", string(call), open)
	refuse(eraseEntry(), "task", "t", row)
	refuse(eraseEntry(), "task", "t", gone, row)
	refuse(eraseEntry(), "", "", 0) // the log's key
	if got, err := l.Erasable(t.Context(), 0, open, row, gone, drop); err != nil || !slices.Equal(got, []int64{gone, drop}) {
		t.Errorf("erasable: %v, %v; want %v", got, err, []int64{gone, drop})
	}
	if _, err := l.Erase(t.Context(), eraseEntry(), drop); err != nil { // the row that it deleted must not come back
		t.Fatal(err)
	}
	verifyAll(t, l)
	rs, err := l.Erase(t.Context(), eraseEntry(ledger.Change{Op: ledger.Delete, Kind: "task", Key: "t"}), row, gone)
	if err != nil || len(rs) != 1 {
		t.Fatalf("an erasure that removes the row: %v, %v", rs, err)
	}
	refuse(eraseEntry(), "", "", rs[0].Index()) // the account of an erasure
	commit(t, l, outcome(call))
	if _, err := l.Erase(t.Context(), eraseEntry(), open); err != nil {
		t.Errorf("erasing a call that is over: %v", err)
	}
	if _, err := l.Rebuild(t.Context(), admin()); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"t", "u"} {
		if v, _ := value(t, l, "task", key); v != "absent" {
			t.Errorf("row %q is back: %q", key, v)
		}
	}
	if o, err := l.Orphans(t.Context()); err != nil || len(o) != 0 {
		t.Errorf("orphans %v, %v", o, err)
	}
	verifyAll(t, l)
}

// canary looks for content in what is stored.
func canary(t *testing.T, d Database) {
	const secret = "canary-4f1d2c-in-the-mine"
	l := start(t, d, ledger.Config{})
	call := newCall()
	in := intent(call)
	in.User = secret + "@acme.example"
	in.Parts = append(in.Parts, ledger.Part{Name: "args", Bytes: []byte(secret)})
	in.Changes = []ledger.Change{put("task", "t", secret), {Op: ledger.Once, Kind: "cap", Key: "c", Value: []byte(secret)}}
	commit(t, l, in)
	mustClose(t, l)
	b, err := d.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b, []byte(call)) {
		t.Fatal("not even the call is found in what is stored: the search is wrong")
	}
	for name, form := range map[string]string{
		"as it is": secret, "in hex": hex.EncodeToString([]byte(secret)),
		"in base64": base64.StdEncoding.EncodeToString([]byte(secret))[4:24],
	} {
		if bytes.Contains(b, []byte(form)) {
			t.Errorf("content is stored %s", name)
		}
	}
	l = start(t, d, ledger.Config{})
	rs, err := l.Records(t.Context(), ledger.Filter{Call: call})
	if err != nil || len(rs) != 1 {
		t.Fatalf("records %v, %v", rs, err)
	}
	if p, _ := rs[0].Part("args"); string(p) != secret {
		t.Errorf("the content is %q", p)
	}
}

// tampering does everything that can be done without a key to the database,
// each to one of its own, and expects it to be noticed.
func tampering(t *testing.T, fresh func(t *testing.T) Database) {
	prepare := func(t *testing.T) Database {
		d := fresh(t)
		l := start(t, d, ledger.Config{})
		fillWith(t, l, 5)
		commit(t, l, intent("call_open"))
		mustClose(t, l)
		return d
	}
	for name := range prepare(t).Tamper() {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			d := prepare(t)
			if err := d.Tamper()[name](); err != nil {
				t.Fatal(err)
			}
			s, err := d.Open()
			if err != nil {
				return
			}
			l, err := ledger.Open(t.Context(), s, fill(ledger.Config{}))
			if err != nil {
				s.Close()
				return
			}
			defer l.Close()
			if _, err := l.VerifyAll(t.Context()); err == nil {
				t.Errorf("%s goes unnoticed", name)
			} else if !errors.Is(err, ledger.ErrDamaged) && !errors.Is(err, ledger.ErrDiverged) {
				t.Errorf("%s is noticed as %v", name, err)
			}
		})
	}
}
