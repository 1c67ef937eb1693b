package ledgertest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
)

// A Database is one empty database of the kind under test.
type Database struct {
	// Open opens it: for the first time, again after it was closed, and while
	// others have it open.
	Open func() (ledger.Store, error)
	// Bytes is everything that is stored of it, while nobody has it open.
	Bytes func() ([]byte, error)
	// Tamper gives, by name, what somebody can do who may write to the
	// database but has no key: at least, change every column of every table in
	// one row, delete one row of every table, and swap two. It is called while
	// nobody has the database open.
	Tamper func() map[string]func() error
}

// Suite states what every store must do. Fresh makes an empty database, which
// goes away with the test.
func Suite(t *testing.T, fresh func(t *testing.T) Database) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, Database)
	}{
		{"AllOrNothing", allOrNothing},
		{"RefusalsNameTheRow", refusals},
		{"ExpectSeesNoOwnChange", expectBefore},
		{"OrderIsKept", order},
		{"TestF11TimeNeverRunsBackwards", clockSetBack},
		{"TestF02OrphansAreFound", orphans},
		{"TestF14ExactUnderRace", exact},
		{"TestF15CallHappensOnce", callOnce},
		{"TestF19ReopenFindsTheSame", reopen},
		{"TestF08UnknownIsSettled", unknown},
		{"TestF06FatalIsFinal", fatal},
		{"TestF05ReserveIsForWhatIsReserved", reserve},
		{"TestF31ErasureIsAllOrNothing", erasureFaults},
		{"TestP9ReceiptsAndConsistency", proofs},
		{"TestP10ErasureKeepsProofs", erasure},
		{"TestP10ErasureRefusesWhatIsInUse", erasureInUse},
		{"TestP8NothingReadableIsStored", canary},
		{"TestH93StateIsRebuilt", rebuild},
		{"TestH95KeyIsRotated", rotation},
		{"FiltersSelect", filters},
		{"ScanIsInOrder", scan},
		{"SweepForgetsOnlyWhatIsOver", sweep},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, fresh(t))
		})
	}
	t.Run("TestF08EveryUpdateFails", func(t *testing.T) { everyUpdate(t, fresh) })
	t.Run("TestH93TamperingIsDetected", func(t *testing.T) { tampering(t, fresh) })
}

// start opens a ledger over a database.
func start(t *testing.T, d Database, c ledger.Config) *ledger.Ledger {
	t.Helper()
	return Open(t, store(t, d), c)
}

func store(t *testing.T, d Database) ledger.Store {
	t.Helper()
	s, err := d.Open()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustClose(t *testing.T, l *ledger.Ledger) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// commit commits what must succeed.
func commit(t *testing.T, l *ledger.Ledger, entries ...*ledger.Entry) []ledger.Receipt {
	t.Helper()
	rs, err := l.Commit(t.Context(), entries...)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func admin(changes ...ledger.Change) *ledger.Entry {
	return &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeAdmin}, Changes: changes}
}

func put(kind, key, value string) ledger.Change {
	return ledger.Change{Op: ledger.Put, Kind: kind, Key: key, Value: []byte(value)}
}

// intent is the intent of a new call.
func intent(call writ.CallID) *ledger.Entry {
	return &ledger.Entry{
		Leaf:  ledger.Leaf{Type: ledger.TypeIntent, Call: call, Task: "task_a", Effect: "permit"},
		User:  "ana@acme.example",
		Parts: []ledger.Part{{Name: "query", Bytes: []byte(`{"q":"` + string(call) + `"}`)}},
	}
}

func outcome(call writ.CallID) *ledger.Entry {
	return &ledger.Entry{
		Leaf:  ledger.Leaf{Type: ledger.TypeOutcome, Call: call, Task: "task_a", Effect: "done"},
		Parts: []ledger.Part{{Name: "result", Bytes: []byte(`{"r":"` + string(call) + `"}`)}},
	}
}

func newCall() writ.CallID { return writ.NewID[writ.CallID](time.Now()) }

// size is the number of records.
func size(t *testing.T, l *ledger.Ledger) int64 {
	t.Helper()
	b, err := l.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n, _, err := Trust(l).Checkpoint(b)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func verifyAll(t *testing.T, l *ledger.Ledger) {
	t.Helper()
	n, err := l.VerifyAll(t.Context())
	if err != nil {
		t.Fatalf("VerifyAll: %v", err)
	}
	if want := size(t, l); n != want {
		t.Fatalf("VerifyAll read %d records of %d", n, want)
	}
}

// value reads a row.
func value(t *testing.T, l *ledger.Ledger, kind, key string) (string, int64) {
	t.Helper()
	r, ok, err := l.Get(t.Context(), kind, key)
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		return "absent", 0
	}
	return string(r.Value), r.Count
}

func allOrNothing(t *testing.T, d Database) {
	l := start(t, d, ledger.Config{})
	commit(t, l, admin(put("x", "there", "1")))
	before := size(t, l)
	call := newCall()
	_, err := l.Commit(t.Context(),
		intent(call),
		admin(put("x", "new", "1"), put("x", "there", "2"), ledger.Change{Op: ledger.Add, Kind: "n", Key: "n", Delta: 1, Limit: 9}),
		&ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeAdmin}, Changes: []ledger.Change{{Op: ledger.Once, Kind: "x", Key: "there"}}})
	if !errors.Is(err, ledger.ErrUsed) {
		t.Fatalf("Once of a row that exists: %v", err)
	}
	if got := size(t, l); got != before {
		t.Errorf("%d records after a refused commit, want %d", got, before)
	}
	for _, key := range []string{"new", "there"} {
		if got, _ := value(t, l, "x", key); got != map[string]string{"new": "absent", "there": "1"}[key] {
			t.Errorf("row %q is %q after a refused commit", key, got)
		}
	}
	if rs, err := l.Records(t.Context(), ledger.Filter{Call: call}); err != nil || len(rs) != 0 {
		t.Errorf("records of a refused commit: %v, %v", rs, err)
	}
	if o, err := l.Orphans(t.Context()); err != nil || len(o) != 0 {
		t.Errorf("orphans of a refused commit: %v, %v", o, err)
	}
	rs := commit(t, l, intent(call), admin(put("x", "new", "1"))) // nothing of the refused one is in the way
	if rs[0].Index() != before || rs[1].Index() != before+1 {
		t.Errorf("records %d and %d, want them after %d", rs[0].Index(), rs[1].Index(), before)
	}
	verifyAll(t, l)
}

func refusals(t *testing.T, d Database) {
	l := start(t, d, ledger.Config{})
	commit(t, l, admin(put("task", "t", "open"), ledger.Change{Op: ledger.Add, Kind: "budget", Key: "b", Delta: 7, Limit: 10},
		ledger.Change{Op: ledger.Once, Kind: "cap", Key: "c"}))
	one := func(c ledger.Change) *ledger.Entry { return admin(c) }
	for _, c := range []struct {
		name      string
		entry     *ledger.Entry
		err       error
		kind, key string
		have      int64
	}{
		{"stale", &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeAdmin}, Expect: []ledger.Expect{{Kind: "task", Key: "t", At: 0}}}, ledger.ErrConflict, "task", "t", 0},
		{"not absent", &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeAdmin}, Expect: []ledger.Expect{{Kind: "task", Key: "t", At: ledger.Absent}}}, ledger.ErrConflict, "task", "t", 0},
		{"absent", &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeAdmin}, Expect: []ledger.Expect{{Kind: "task", Key: "u", At: 1}}}, ledger.ErrConflict, "task", "u", 0},
		{"once", one(ledger.Change{Op: ledger.Once, Kind: "cap", Key: "c"}), ledger.ErrUsed, "cap", "c", 0},
		{"put over once", one(put("cap", "c", "x")), ledger.ErrUsed, "cap", "c", 0},
		{"delete of once", one(ledger.Change{Op: ledger.Delete, Kind: "cap", Key: "c"}), ledger.ErrUsed, "cap", "c", 0},
		{"once over put", one(ledger.Change{Op: ledger.Once, Kind: "task", Key: "t"}), ledger.ErrUsed, "task", "t", 0},
		{"above", one(ledger.Change{Op: ledger.Add, Kind: "budget", Key: "b", Delta: 4, Limit: 10}), ledger.ErrExceeded, "budget", "b", 7},
		{"below", one(ledger.Change{Op: ledger.Add, Kind: "budget", Key: "b", Delta: -8, Limit: 10}), ledger.ErrExceeded, "budget", "b", 7},
		{"overflow", one(ledger.Change{Op: ledger.Add, Kind: "budget", Key: "b", Delta: 1<<63 - 1, Limit: 1<<63 - 1}), ledger.ErrExceeded, "budget", "b", 7},
		{"second", admin(put("x", "y", "1"), ledger.Change{Op: ledger.Once, Kind: "x", Key: "y"}), ledger.ErrUsed, "x", "y", 0},
	} {
		_, err := l.Commit(t.Context(), c.entry)
		e, ok := errors.AsType[*ledger.Error](err)
		if !ok || !errors.Is(err, c.err) || e.Kind != c.kind || e.Key != c.key || e.Have != c.have {
			t.Errorf("%s: %v (%+v), want %v of %s %q at %d", c.name, err, e, c.err, c.kind, c.key, c.have)
		}
	}
	commit(t, l, one(ledger.Change{Op: ledger.Add, Kind: "budget", Key: "b", Delta: 3, Limit: 10}))
	commit(t, l, one(ledger.Change{Op: ledger.Add, Kind: "budget", Key: "b", Delta: -10, Limit: 0}))
	if _, n := value(t, l, "budget", "b"); n != 0 {
		t.Errorf("count %d, want 0", n)
	}
}

func expectBefore(t *testing.T, d Database) {
	l := start(t, d, ledger.Config{})
	absent := ledger.Expect{Kind: "x", Key: "k", At: ledger.Absent}
	rs := commit(t, l,
		&ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeAdmin}, Expect: []ledger.Expect{absent}, Changes: []ledger.Change{put("x", "k", "1")}},
		&ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeAdmin}, Expect: []ledger.Expect{absent}, Changes: []ledger.Change{put("x", "k", "2")}})
	r, ok, err := l.Get(t.Context(), "x", "k")
	if err != nil || !ok || string(r.Value) != "2" || r.At != rs[1].Index() {
		t.Errorf("row %+v, %v, %v; want 2 at %d", r, ok, err, rs[1].Index())
	}
}

func order(t *testing.T, d Database) {
	l := start(t, d, ledger.Config{})
	next := size(t, l)
	for i := range 5 {
		var es []*ledger.Entry
		for j := range i + 1 {
			es = append(es, &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeAdmin, Note: map[string]string{"n": strconv.Itoa(j)}}})
		}
		for j, r := range commit(t, l, es...) {
			if !r.Valid() || r.Index() != next || r.Type() != ledger.TypeAdmin {
				t.Fatalf("receipt of %s %d, want %d", r.Type(), r.Index(), next)
			}
			rec, err := l.Record(t.Context(), next)
			if err != nil || rec.Leaf.Note["n"] != strconv.Itoa(j) || !bytes.Equal(rec.LeafBytes, r.Leaf()) {
				t.Fatalf("record %d is %s, %v; the receipt says %s", next, rec.LeafBytes, err, r.Leaf())
			}
			next++
		}
	}
}

// clockSetBack sets the clock back, and finds no time in the log running backwards.
func clockSetBack(t *testing.T, d Database) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	clock := ledger.Config{Now: func() time.Time { return now }}
	l := start(t, d, clock)
	var last int64
	for _, step := range []time.Duration{0, time.Second, -time.Hour, time.Millisecond, 2 * time.Hour, -10 * 365 * 24 * time.Hour} {
		now = now.Add(step)
		r := commit(t, l, admin())[0]
		if r.Time() < last || r.Time() < now.UnixMilli() {
			t.Errorf("a record of %d at %d after one of %d", r.Time(), now.UnixMilli(), last)
		}
		last = r.Time()
		if behind := l.Behind(); behind != time.Duration(last-now.UnixMilli())*time.Millisecond {
			t.Errorf("behind %v at %d after %d", behind, now.UnixMilli(), last)
		}
	}
	mustClose(t, l)
	l = start(t, d, clock)
	if r := commit(t, l, admin())[0]; r.Time() < last {
		t.Errorf("after a restart, a record of %d follows one of %d", r.Time(), last)
	}
	verifyAll(t, l)
}

func orphans(t *testing.T, d Database) {
	l := start(t, d, ledger.Config{})
	var calls []writ.CallID
	for i := range 10 {
		c := newCall()
		commit(t, l, intent(c))
		if i%2 == 0 {
			calls = append(calls, c)
		} else {
			commit(t, l, outcome(c))
		}
	}
	if _, err := l.Commit(t.Context(), outcome(newCall())); !errors.Is(err, ledger.ErrUsed) {
		t.Errorf("an outcome without an intent: %v", err)
	}
	both := newCall()
	commit(t, l, intent(both), outcome(both))
	mustClose(t, l)
	l = start(t, d, ledger.Config{})
	slices.Sort(calls)
	got, err := l.Orphans(t.Context())
	if err != nil || !slices.Equal(got, calls) {
		t.Errorf("orphans %v, %v; want %v", got, err, calls)
	}
	for _, c := range calls {
		commit(t, l, outcome(c))
	}
	if got, err := l.Orphans(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("orphans %v, %v; want none", got, err)
	}
}

func reopen(t *testing.T, d Database) {
	l := start(t, d, ledger.Config{})
	fillWith(t, l, 30)
	want := snapshot(t, l)
	for range 3 {
		mustClose(t, l)
		l = start(t, d, ledger.Config{})
		if got := snapshot(t, l); got != want {
			t.Fatalf("after a restart:\n%s\nbefore:\n%s", got, want)
		}
	}
	for name, c := range map[string]ledger.Config{
		"log":       {Keys: ledger.Keys{Log: other().Log, Seal: Keys().Seal, Pseudonym: Keys().Pseudonym}},
		"seal":      {Keys: ledger.Keys{Log: Keys().Log, Seal: other().Seal, Pseudonym: Keys().Pseudonym}},
		"pseudonym": {Keys: ledger.Keys{Log: Keys().Log, Seal: Keys().Seal, Pseudonym: other().Pseudonym}},
		"origin":    {Origin: "other.example/log"},
	} {
		s := store(t, d)
		if _, err := ledger.Open(t.Context(), s, fill(c)); err == nil {
			t.Errorf("opened with another %s", name)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	verifyAll(t, l)
}

func other() ledger.Keys {
	return ledger.Keys{Log: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize)), Seal: [32]byte{9}, Pseudonym: [32]byte{9}}
}

// fillWith makes some of everything: calls, rows of all four operations, an
// erasure.
func fillWith(t *testing.T, l *ledger.Ledger, n int) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range n {
		c := newCall()
		in := intent(c)
		in.Changes = []ledger.Change{
			{Op: ledger.Add, Kind: "budget", Key: fmt.Sprint("b", rnd.IntN(3)), Delta: 1, Limit: 1 << 40},
			{Op: ledger.Once, Kind: "cap", Key: string(c)},
			{Op: ledger.Once, Kind: "jti", Key: string(c), Until: l.Time() + int64(rnd.IntN(3))*1e6},
		}
		rs := commit(t, l, in, outcome(c))
		commit(t, l, admin(put("task", fmt.Sprint("t", rnd.IntN(4)), fmt.Sprint("value ", i)), put("gone", "g", "x")))
		commit(t, l, admin(ledger.Change{Op: ledger.Delete, Kind: "gone", Key: "g"}))
		if i == n/2 {
			e := &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeErasure, Note: map[string]string{"why": "asked for"}}, User: "ana@acme.example"}
			if _, err := l.Erase(t.Context(), e, rs[0].Index(), rs[1].Index()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// snapshot is everything that a ledger can be asked.
func snapshot(t *testing.T, l *ledger.Ledger) string {
	t.Helper()
	var b bytes.Buffer
	rs, err := l.Records(t.Context(), ledger.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rs {
		fmt.Fprintf(&b, "%d %s %v", r.Index, r.LeafBytes, r.Erased)
		for _, p := range r.Parts {
			fmt.Fprintf(&b, " %s=%q", p.Name, p.Bytes)
		}
		b.WriteByte('\n')
	}
	for _, kind := range []string{"task", "budget", "cap", "jti", "gone", "log"} {
		rows, err := l.Scan(t.Context(), kind, "", 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			fmt.Fprintf(&b, "%+v\n", r)
		}
	}
	cp, err := l.Checkpoint(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	b.Write(cp)
	return b.String()
}
