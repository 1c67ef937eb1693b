package ledger_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/ledger/ledgertest"
	"github.com/writgate/writ/ledger/sqlite"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) {
	if _, err := os.Stat("/dev/shm"); err == nil { // there a sync costs nothing
		os.Setenv("TMPDIR", "/dev/shm")
	}
	flag.Parse()
	for name, value := range map[string]string{"rapid.checks": "20", "rapid.nofailfile": "true"} {
		if f := flag.Lookup(name); f.Value.String() == f.DefValue {
			flag.Set(name, value)
		}
	}
	os.Exit(m.Run())
}

// A row of the model.
type row struct {
	value string
	count int64
	until int64 // 0: not made by Once
}

// A model is what state should be.
type model map[string]row

func (m model) live(key string, now int64) (row, bool) {
	r, ok := m[key]
	if !ok || r.until != 0 && r.until < now {
		return row{}, false
	}
	return r, true
}

// apply is the four operations, written down a second time.
func (m model) apply(c *ledger.Change, now int64) error {
	r, ok := m.live(c.Key, now)
	if ok && r.until != 0 {
		return ledger.ErrUsed
	}
	switch c.Op {
	case ledger.Put:
		m[c.Key] = row{value: string(c.Value), count: r.count}
	case ledger.Delete:
		delete(m, c.Key)
	case ledger.Once:
		if ok {
			return ledger.ErrUsed
		}
		m[c.Key] = row{value: string(c.Value), until: c.Until}
		if c.Until == 0 {
			m[c.Key] = row{value: string(c.Value), until: 1<<63 - 1}
		}
	case ledger.Add:
		if n := r.count + c.Delta; n < 0 || c.Delta > 0 && n > c.Limit {
			return ledger.ErrExceeded
		}
		m[c.Key] = row{value: r.value, count: r.count + c.Delta}
	}
	return nil
}

// TestStateIsTheModel makes commits of any changes, erasures, restarts and
// jumps of the clock, and finds after each that state is what a simple model
// says, and at the end that the records say the same.
func TestStateIsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "model")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		open := func() *ledger.Ledger {
			s, err := sqlite.Open(filepath.Join(dir, "db"))
			if err != nil {
				t.Fatal(err)
			}
			l, err := ledger.Open(context.Background(), s, ledger.Config{Origin: ledgertest.Origin, Keys: ledgertest.Keys(), Now: func() time.Time { return now }})
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		l := open()
		defer func() { l.Close() }()
		m, size, newest := model{}, int64(1), now.UnixMilli()
		t.Repeat(map[string]func(*rapid.T){
			"commit": func(t *rapid.T) {
				at := max(now.UnixMilli(), newest)
				next, want := maps.Clone(m), error(nil)
				var all []*ledger.Entry
				for range rapid.IntRange(1, 3).Draw(t, "entries") {
					e := entry()
					for range rapid.IntRange(0, 3).Draw(t, "changes") {
						c := genChange(t, at)
						e.Changes = append(e.Changes, c)
						if want == nil {
							want = next.apply(&c, at)
						}
					}
					all = append(all, e)
				}
				_, err := l.Commit(context.Background(), all...)
				if !errors.Is(err, want) {
					t.Fatalf("commit: %v, want %v", err, want)
				}
				if want == nil {
					m, size, newest = next, size+int64(len(all)), at
				}
			},
			"erase": func(t *rapid.T) {
				i := rapid.Int64Range(1, size).Draw(t, "record")
				if i == size {
					return
				}
				rs, err := l.Erase(context.Background(), &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeErasure}}, i)
				if err != nil && !errors.Is(err, ledger.ErrInUse) {
					t.Fatalf("erase: %v", err)
				}
				if size += int64(len(rs)); len(rs) != 0 {
					newest = max(now.UnixMilli(), newest)
				}
			},
			"clock": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(-1500, 4000).Draw(t, "ms")) * time.Millisecond)
			},
			"restart": func(t *rapid.T) {
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				l = open()
			},
			"": func(t *rapid.T) { same(t, l, m, max(now.UnixMilli(), newest)) },
		})
		if n, err := l.VerifyAll(context.Background()); err != nil || n != size {
			t.Fatalf("VerifyAll: %d records of %d, %v", n, size, err)
		}
		if _, err := l.Rebuild(context.Background(), entry()); err != nil {
			t.Fatal(err)
		}
		same(t, l, m, max(now.UnixMilli(), newest))
	})
}

func genChange(t *rapid.T, now int64) ledger.Change {
	c := ledger.Change{Op: ledger.Op(rapid.IntRange(1, 4).Draw(t, "op")), Kind: "k", Key: rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "key")}
	switch c.Op {
	case ledger.Put, ledger.Once:
		if v := rapid.SampledFrom([]string{"", "x", "yy"}).Draw(t, "value"); v != "" {
			c.Value = []byte(v)
		}
		if c.Op == ledger.Once {
			c.Until = now + rapid.Int64Range(0, 3000).Draw(t, "until")
		}
	case ledger.Add:
		c.Delta, c.Limit = rapid.Int64Range(-3, 3).Draw(t, "delta"), rapid.Int64Range(0, 5).Draw(t, "limit")
	}
	return c
}

// same holds state against the model.
func same(t *rapid.T, l *ledger.Ledger, m model, now int64) {
	for _, key := range []string{"a", "b", "c", "d"} {
		want, ok := m.live(key, now)
		got, found, err := l.Get(context.Background(), "k", key)
		if err != nil || found != ok || ok && (string(got.Value) != want.value || got.Count != want.count || got.Until != want.until) {
			t.Fatalf("row %q is %+v, %v, %v; want %+v, %v", key, got, found, err, want, ok)
		}
	}
	rows, err := l.Scan(context.Background(), "k", "", 0)
	var keys []string
	for _, r := range rows {
		keys = append(keys, r.Key)
	}
	var want []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if _, ok := m.live(key, now); ok {
			want = append(want, key)
		}
	}
	if err != nil || !slices.Equal(keys, want) {
		t.Fatalf("rows %v, %v; want %v", keys, err, want)
	}
}

// gated is a store that waits for leave to update.
type gated struct {
	ledger.Store
	leave chan struct{}
}

func (g *gated) Update(ctx context.Context, fn func(ledger.View) (*ledger.Batch, error)) error {
	<-g.leave
	return g.Store.Update(ctx, fn)
}

// TestCancelledCommit: what waits its turn is not committed, what is on its
// way is answered for, and Close waits for all of it.
func TestCancelledCommit(t *testing.T) {
	s, err := sqlite.Open(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	g := &gated{s, make(chan struct{}, 100)}
	g.leave <- struct{}{} // for the log's key
	l, err := ledger.Open(t.Context(), g, ledger.Config{Origin: ledgertest.Origin, Keys: ledgertest.Keys()})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	commit := func(ctx context.Context, want error) {
		wg.Go(func() {
			rs, err := l.Commit(ctx, entry())
			if !errors.Is(err, want) || (err == nil) != (len(rs) == 1) {
				t.Errorf("commit: %v, %v; want %v", rs, err, want)
			}
		})
	}
	first, cancelFirst := context.WithCancel(t.Context())
	second, cancelSecond := context.WithCancel(t.Context())
	commit(first, nil) // on its way: the writer has it
	time.Sleep(50 * time.Millisecond)
	commit(second, context.Canceled) // waits
	time.Sleep(50 * time.Millisecond)
	cancelFirst()
	cancelSecond()
	time.Sleep(50 * time.Millisecond)
	close(g.leave)
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Commit(t.Context(), entry()); !errors.Is(err, ledger.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := l.Rebuild(t.Context(), entry()); !errors.Is(err, ledger.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestReceiptSaysItsRecord is what others take from a commit.
func TestReceiptSaysItsRecord(t *testing.T) {
	l := open(t)
	call, task := writ.NewID[writ.CallID](time.Now()), writ.NewID[writ.TaskID](time.Now())
	rs, err := l.Commit(t.Context(), &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeIntent, Call: call, Task: task}})
	if err != nil {
		t.Fatal(err)
	}
	r := rs[0]
	if !r.Valid() || r.Call() != call || r.Task() != task || r.Type() != ledger.TypeIntent || r.Index() != 1 || r.Time() == 0 || len(r.Leaf()) == 0 {
		t.Errorf("%+v", r)
	}
	if _, err := l.Commit(t.Context()); !errors.Is(err, ledger.ErrInvalid) {
		t.Errorf("a commit of nothing: %v", err)
	}
	if _, err := l.Commit(t.Context(), slices.Repeat([]*ledger.Entry{entry()}, 65)...); !errors.Is(err, ledger.ErrInvalid) {
		t.Errorf("a commit of 65 entries: %v", err)
	}
	if _, err := l.Commit(t.Context(), &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeErasure}}); !errors.Is(err, ledger.ErrInvalid) {
		t.Errorf("an erasure without Erase: %v", err)
	}
	long := entry()
	for i := range 80 {
		long.Leaf.Note[fmt.Sprint(i)] = "a member that is rather long, so that the leaf does not fit"
	}
	if _, err := l.Commit(t.Context(), long); !errors.Is(err, ledger.ErrInvalid) {
		t.Errorf("a leaf above 4 KiB: %v", err)
	}
}
