package ledgertest

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
)

// rebuild breaks state, and has it made anew.
func rebuild(t *testing.T, d Database) {
	s := store(t, d)
	l := Open(t, s, ledger.Config{})
	fillWith(t, l, 10)
	commit(t, l, admin(put("task", "was", "there")))
	var was []ledger.Row
	err := s.View(t.Context(), func(v ledger.View) (err error) {
		was, err = v.Rows(t.Context(), [2]string{"task", "was"})
		return err
	})
	if err != nil || len(was) != 1 {
		t.Fatal(was, err)
	}
	commit(t, l, admin(ledger.Change{Op: ledger.Delete, Kind: "task", Key: "was"}))
	before := rows(t, l)
	var all []ledger.Row
	err = s.View(t.Context(), func(v ledger.View) (err error) {
		all, err = v.Scan(t.Context(), "", "", 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*ledger.Batch{
		"a row is gone":             {Delete: [][2]string{{all[0].Kind, all[0].Key}}},
		"every row is gone":         {Reset: true},
		"a row is back":             {Put: was},
		"a row is renamed":          {Put: []ledger.Row{{Kind: all[0].Kind, Key: "other", At: all[0].At, Until: all[0].Until, Value: all[0].Value}}},
		"a row is sealed otherwise": {Put: []ledger.Row{{Kind: all[1].Kind, Key: all[1].Key, At: all[1].At, Until: all[1].Until, Value: all[0].Value}}},
	} {
		if err := s.Update(t.Context(), func(ledger.View) (*ledger.Batch, error) { return b, nil }); err != nil {
			t.Fatal(err)
		}
		if _, err := l.VerifyAll(t.Context()); !errors.Is(err, ledger.ErrDiverged) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := l.Rebuild(t.Context(), admin()); err != nil {
			t.Fatal(err)
		}
		if got := rows(t, l); got != before {
			t.Errorf("%s: rebuilt\n%s\nfrom\n%s", name, got, before)
		}
		verifyAll(t, l)
	}
}

// rows is all rows that are not over.
func rows(t *testing.T, l *ledger.Ledger) string {
	t.Helper()
	var b strings.Builder
	for _, kind := range []string{"task", "budget", "cap", "jti", "gone", "open", "log"} {
		rs, err := l.Scan(t.Context(), kind, "", 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rs {
			fmt.Fprintf(&b, "%+v\n", r)
		}
	}
	return b.String()
}

// rotation changes the log's key: the old one is worth nothing from then on,
// and what it signed stays.
func rotation(t *testing.T, d Database) {
	l := start(t, d, ledger.Config{})
	commit(t, l, admin())
	old, trust := proves(t, l, 1, 2), Trust(l)
	behind := start(t, d, ledger.Config{}) // another process, that knows nothing of it
	next := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	r, err := l.Rotate(t.Context(), &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeKey, Note: map[string]string{"why": "stolen"}}, User: "ana"}, next)
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Prove(t.Context(), r.Index())
	if err != nil {
		t.Fatal(err)
	}
	if v, err := ledger.Verify(b, trust); err != nil || v.Leaf.Type != ledger.TypeKey || v.Leaf.Note["log"] != l.VerifierKey() {
		t.Errorf("the old key does not vouch for the change: %+v, %v", v, err)
	}
	if _, err := behind.Commit(t.Context(), admin()); !errors.Is(err, ledger.ErrFatal) {
		t.Errorf("a process with the old key commits: %v", err)
	}
	commit(t, l, admin())
	b = proves(t, l, 3, 4)
	if _, err := ledger.Verify(b, trust); err == nil {
		t.Error("a receipt under the new key verifies with the old one")
	}
	trust.Logs = append(trust.Logs, l.VerifierKey())
	for _, b := range [][]byte{old, b} {
		if _, err := ledger.Verify(b, trust); err != nil {
			t.Errorf("with both keys trusted: %v", err)
		}
	}
	verifyAll(t, l)
	mustClose(t, l)
	s := store(t, d)
	if _, err := ledger.Open(t.Context(), s, fill(ledger.Config{})); err == nil {
		t.Error("opened with the old key")
	}
	k := Keys()
	k.Log = next
	l = Open(t, s, ledger.Config{Keys: k})
	commit(t, l, admin())
	verifyAll(t, l)
}

// filters compares what filters select with what they should.
func filters(t *testing.T, d Database) {
	l := start(t, d, ledger.Config{})
	rnd := rand.New(rand.NewPCG(4, 5))
	calls := []writ.CallID{"", newCall(), newCall(), newCall()}
	tasks := []writ.TaskID{"", "task_a", "task_b"}
	types := []string{"", ledger.TypeAdmin, ledger.TypeDecision, ledger.TypeIntent, ledger.TypeOutcome, ledger.TypeLease}
	for _, c := range calls[1:] {
		commit(t, l, intent(c), outcome(c))
	}
	for range 60 {
		typ := []string{ledger.TypeAdmin, ledger.TypeDecision, ledger.TypeLease}[rnd.IntN(3)]
		commit(t, l, &ledger.Entry{Leaf: ledger.Leaf{Type: typ, Call: calls[rnd.IntN(4)], Task: tasks[rnd.IntN(3)]}})
	}
	all, err := l.Records(t.Context(), ledger.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	n := int64(len(all))
	for range 600 {
		f := ledger.Filter{
			Call: calls[rnd.IntN(4)], Task: tasks[rnd.IntN(3)], Type: types[rnd.IntN(6)],
			From: rnd.Int64N(n) * rnd.Int64N(2), To: rnd.Int64N(n+3) * rnd.Int64N(2), Limit: rnd.IntN(2) * (1 + rnd.IntN(9)), Reverse: rnd.IntN(2) == 0,
		}
		var want []int64
		for _, r := range all {
			if r.Index >= f.From && (f.To == 0 || r.Index < f.To) && (f.Call == "" || f.Call == r.Leaf.Call) &&
				(f.Task == "" || f.Task == r.Leaf.Task) && (f.Type == "" || f.Type == r.Leaf.Type) {
				want = append(want, r.Index)
			}
		}
		if f.Reverse {
			slices.Reverse(want)
		}
		if f.Limit > 0 && len(want) > f.Limit {
			want = want[:f.Limit]
		}
		rs, err := l.Records(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		var got []int64
		for _, r := range rs {
			got = append(got, r.Index)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%+v selects %v, want %v", f, got, want)
		}
	}
}

func scan(t *testing.T, d Database) {
	l := start(t, d, ledger.Config{})
	keys := []string{"", "a", "a\x01", "aa", "b", "B", "é", "z", "\xc3\xbf", "a/b", "%", "_"}
	var es []*ledger.Entry
	for _, k := range keys[1:] {
		es = append(es, admin(put("k", k, k), put("kk", k, "other")))
	}
	commit(t, l, es...)
	want := slices.Sorted(slices.Values(keys[1:]))
	for _, from := range keys {
		for limit := range len(keys) + 1 {
			rs, err := l.Scan(t.Context(), "k", from, limit)
			if err != nil {
				t.Fatal(err)
			}
			var got, all []string
			for _, r := range rs {
				got = append(got, r.Key)
				if string(r.Value) != r.Key {
					t.Errorf("row %q holds %q", r.Key, r.Value)
				}
			}
			for _, k := range want {
				if k >= from && (limit == 0 || len(all) < limit) {
					all = append(all, k)
				}
			}
			if !slices.Equal(got, all) {
				t.Errorf("from %q, at most %d: %q, want %q", from, limit, got, all)
			}
		}
	}
}

// sweep lets ids expire.
func sweep(t *testing.T, d Database) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	s := store(t, d)
	l := Open(t, s, ledger.Config{Now: func() time.Time { return now }})
	once := func(key string, after time.Duration) *ledger.Entry {
		return admin(ledger.Change{Op: ledger.Once, Kind: "jti", Key: key, Until: now.Add(after).UnixMilli()})
	}
	commit(t, l, once("short", time.Second), once("long", time.Hour), admin(ledger.Change{Op: ledger.Once, Kind: "jti", Key: "forever"}))
	now = now.Add(time.Second) // its last millisecond
	if _, err := l.Commit(t.Context(), once("short", time.Second)); !errors.Is(err, ledger.ErrUsed) {
		t.Errorf("an id in its last millisecond: %v", err)
	}
	now = now.Add(time.Millisecond)
	commit(t, l, once("short", 3*time.Second))
	if _, err := l.Commit(t.Context(), once("short", time.Second)); !errors.Is(err, ledger.ErrUsed) {
		t.Errorf("an id that was used anew: %v", err)
	}
	for range 4 {
		now = now.Add(2 * time.Second)
		commit(t, l, admin())
	}
	for key, want := range map[string]bool{"short": false, "long": true, "forever": true} {
		_, ok, err := l.Get(t.Context(), "jti", key)
		if err != nil || ok != want {
			t.Errorf("id %q is there: %v, %v; want %v", key, ok, err, want)
		}
	}
	var left int
	err := s.View(t.Context(), func(v ledger.View) error {
		rs, err := v.Scan(t.Context(), "jti", "", 0)
		left = len(rs)
		return err
	})
	if err != nil || left != 2 {
		t.Errorf("%d ids are stored, %v; want 2", left, err)
	}
	verifyAll(t, l)
}
