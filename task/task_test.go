package task_test

import (
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/ledger/ledgertest"
	"github.com/writgate/writ/ledger/sqlite"
	"github.com/writgate/writ/task"
)

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.t }

func (c *clock) advance(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.t = c.t.Add(d) }

func open(t *testing.T) (*task.Book, *ledger.Ledger, *clock) {
	t.Helper()
	c := &clock{t: time.UnixMilli(1_764_000_000_000)}
	s, err := sqlite.Open(filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	l := ledgertest.Open(t, s, ledger.Config{Now: c.now})
	return &task.Book{Ledger: l, Now: c.now}, l, c
}

func refused(t *testing.T, err error, want writ.Code) {
	t.Helper()
	d, ok := errors.AsType[*writ.Denial](err)
	if !ok || d.Code != want {
		t.Errorf("got %v, want a refusal with %q", err, want)
	}
}

func billing(key writ.Thumbprint) writ.Task {
	return writ.Task{
		Agent: "spiffe://acme.example/agent/billing", User: "lena", Key: key, Environment: "production",
		Purpose: writ.Purpose{Instructions: "pay invoice 4711", Origin: writ.OriginUser},
		Grant:   writ.Grant{{Tool: "bank.pay"}},
	}
}

func caller(key writ.Thumbprint) writ.Caller {
	return writ.Caller{Agent: "spiffe://acme.example/agent/billing", Key: key, Proof: writ.ProofDPoP}
}

func TestOneKeyOneOpenTask(t *testing.T) {
	ctx := t.Context()
	b, _, c := open(t)
	h, err := b.Open(ctx, billing("k1"))
	if err != nil {
		t.Fatal(err)
	}
	if h.Task.State != writ.Open || h.Task.Expires != c.now().Add(task.MaxLife).UnixMilli() {
		t.Errorf("opened %+v", h.Task)
	}
	_, err = b.Open(ctx, billing("k1"))
	refused(t, err, writ.AlreadyUsed)
	if got, err := b.OfKey(ctx, caller("k1"), "production"); err != nil || got.Task.ID != h.Task.ID {
		t.Errorf("OfKey = %v, %v, want %s", got.Task.ID, err, h.Task.ID)
	}
	if _, err := b.End(ctx, h.Task.ID, "done", "lena"); err != nil {
		t.Fatal(err)
	}
	again, err := b.Open(ctx, billing("k1"))
	if err != nil || again.Task.ID == h.Task.ID {
		t.Errorf("after its task ended, a key = %v, %v, want a new task", again.Task.ID, err)
	}
}

func TestEndedTaskGivesItsKeyNothing(t *testing.T) {
	ctx := t.Context()
	b, _, c := open(t)
	h, err := b.Open(ctx, billing("k1"))
	if err != nil {
		t.Fatal(err)
	}
	ended, err := b.End(ctx, h.Task.ID, "done", "lena")
	if err != nil || ended.State != writ.Ended || ended.Purpose.Instructions != "" {
		t.Errorf("End = %+v, %v", ended, err)
	}
	got, err := b.OfKey(ctx, caller("k1"), "production")
	if err != nil || got.Task.State != writ.Ended {
		t.Errorf("the key of an ended task got %+v, %v: it must not slide into an unattended task", got.Task, err)
	}
	h2, err := b.Open(ctx, billing("k2"))
	if err != nil {
		t.Fatal(err)
	}
	c.advance(task.MaxLife + time.Second)
	if got, err := b.OfKey(ctx, caller("k2"), "production"); err != nil || got.Task.ID != h2.Task.ID {
		t.Errorf("the key of an expired task got %+v, %v", got.Task, err)
	}
}

func TestKeyWithoutATaskGetsAnUnattendedOne(t *testing.T) {
	ctx := t.Context()
	b, _, c := open(t)
	h, err := b.OfKey(ctx, caller("k1"), "production")
	if err != nil {
		t.Fatal(err)
	}
	got := h.Task
	if !got.Unattended || got.Purpose.Origin != writ.OriginAgent || len(got.Budgets) != 1 || got.Expires-got.Opened > (10*time.Minute).Milliseconds() {
		t.Errorf("an unattended task = %+v", got)
	}
	if again, _ := b.OfKey(ctx, caller("k1"), "production"); again.Task.ID != got.ID {
		t.Error("a second call opened a second unattended task")
	}
	c.advance(11 * time.Minute)
	if later, err := b.OfKey(ctx, caller("k1"), "production"); err != nil || later.Task.ID == got.ID {
		t.Errorf("after ten minutes: %v, %v, want a new one", later.Task.ID, err)
	}
}

func TestEndIsFeltByACommitThatReadBefore(t *testing.T) {
	ctx := t.Context()
	b, l, _ := open(t)
	h, err := b.Open(ctx, billing("k1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.End(ctx, h.Task.ID, "done", "lena"); err != nil {
		t.Fatal(err)
	}
	_, err = l.Commit(ctx, &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeIntent, Call: "call_1"}, Expect: h.Reads})
	if !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("a commit that read the task as open = %v, want a conflict", err)
	}
}

func TestRaceForOneKey(t *testing.T) {
	ctx := t.Context()
	b, _, _ := open(t)
	var mu sync.Mutex
	var wg sync.WaitGroup
	opened := map[writ.TaskID]bool{}
	for range 32 {
		wg.Go(func() {
			if h, err := b.Open(ctx, billing("k1")); err == nil {
				mu.Lock()
				opened[h.Task.ID] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(opened) != 1 {
		t.Errorf("%d tasks were opened for one key", len(opened))
	}
}

func TestOpenRefusesNonsense(t *testing.T) {
	ctx := t.Context()
	b, _, c := open(t)
	for name, change := range map[string]func(*writ.Task){
		"no key":                    func(w *writ.Task) { w.Key = "" },
		"no agent":                  func(w *writ.Task) { w.Agent = "" },
		"no environment":            func(w *writ.Task) { w.Environment = "" },
		"over already":              func(w *writ.Task) { w.Expires = c.now().UnixMilli() },
		"a nameless budget":         func(w *writ.Task) { w.Budgets = []writ.Budget{{Limit: 1}} },
		"a negative budget":         func(w *writ.Task) { w.Budgets = []writ.Budget{{Name: "n", Limit: -1}} },
		"two of one name":           func(w *writ.Task) { w.Budgets = []writ.Budget{{Name: "n", Limit: 1}, {Name: "n", Limit: 9}} },
		"a grant of no tool":        func(w *writ.Task) { w.Grant = writ.Grant{{Tool: "bank"}} },
		"a grant of half a name":    func(w *writ.Task) { w.Grant = writ.Grant{{Tool: "bank.pay*"}} },
		"a bound on no argument":    func(w *writ.Task) { w.Grant[0].Bounds = []writ.Bound{{Argument: "amount", Max: "5"}} },
		"a bound that is no number": func(w *writ.Task) { w.Grant[0].Bounds = []writ.Bound{{Argument: "/amount", Max: "5 EUR"}} },
		"a budget of no tool":       func(w *writ.Task) { w.Budgets = []writ.Budget{{Name: "n", Limit: 1}} },
		"a budget of half a name":   func(w *writ.Task) { w.Budgets = []writ.Budget{{Name: "n", Tool: "bank*", Limit: 1}} },
		"a budget of no argument":   func(w *writ.Task) { w.Budgets = []writ.Budget{{Name: "n", Tool: "*", Sum: "amount", Limit: 1}} },
		"a long purpose":            func(w *writ.Task) { w.Purpose.Instructions = string(make([]byte, 65<<10)) },
	} {
		w := billing("k")
		change(&w)
		_, err := b.Open(ctx, w)
		t.Run(name, func(t *testing.T) { refused(t, err, writ.InvalidRequest) })
	}
}

// TestEndedUnattendedTaskIsNotReplaced ends a task that nobody opened: its key
// gets the next one when that would have been over, and no sooner.
func TestEndedUnattendedTaskIsNotReplaced(t *testing.T) {
	ctx := t.Context()
	b, _, c := open(t)
	h, err := b.OfKey(ctx, caller("k1"), "production")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.End(ctx, h.Task.ID, "revoked", "omar"); err != nil {
		t.Fatal(err)
	}
	if got, err := b.OfKey(ctx, caller("k1"), "production"); err != nil || got.Task.ID != h.Task.ID || got.Task.State != writ.Ended {
		t.Errorf("after its task was ended, a key got %+v, %v", got.Task, err)
	}
	c.advance(11 * time.Minute)
	if got, err := b.OfKey(ctx, caller("k1"), "production"); err != nil || got.Task.ID == h.Task.ID || got.Task.State != writ.Open {
		t.Errorf("ten minutes later it got %+v, %v, want a new one", got.Task, err)
	}
}

func TestFirstCallsOfAKeyShareOneUnattendedTask(t *testing.T) {
	ctx := t.Context()
	b, _, _ := open(t)
	var mu sync.Mutex
	var wg sync.WaitGroup
	seen := map[writ.TaskID]bool{}
	for range 32 {
		wg.Go(func() {
			h, err := b.OfKey(ctx, caller("k1"), "production")
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			seen[h.Task.ID] = true
		})
	}
	wg.Wait()
	if len(seen) != 1 {
		t.Errorf("the first calls of one key ran in %d tasks", len(seen))
	}
}

// TestNoTaskLivesLonger opens a task for a week.
func TestNoTaskLivesLonger(t *testing.T) {
	b, _, c := open(t)
	w := billing("k")
	w.Expires = c.now().Add(7 * 24 * time.Hour).UnixMilli()
	if h, err := b.Open(t.Context(), w); err != nil || h.Task.Expires != c.now().Add(task.MaxLife).UnixMilli() {
		t.Errorf("ends at %d, %v", h.Task.Expires, err)
	}
}

// TestTasksEndOnce ends a task many times at once: it is on record once.
func TestTasksEndOnce(t *testing.T) {
	ctx := t.Context()
	b, l, _ := open(t)
	h, err := b.Open(ctx, billing("k1"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, err := b.End(ctx, h.Task.ID, "over", "omar"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	ends, err := l.Records(ctx, ledger.Filter{Type: ledger.TypeTaskEnd})
	if err != nil || len(ends) != 1 {
		t.Errorf("%d ends are on record, %v", len(ends), err)
	}
}
