package approval_test

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/approval"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/ledger/ledgertest"
	"github.com/writgate/writ/ledger/sqlite"
	"pgregory.net/rapid"
)

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.t }

func (c *clock) advance(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.t = c.t.Add(d) }

func open(t testing.TB) (*approval.Book, *clock) {
	t.Helper()
	c := &clock{t: time.UnixMilli(1_764_000_000_000)}
	s, err := sqlite.Open(filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	l := ledgertest.Open(t, s, ledger.Config{Now: c.now})
	return &approval.Book{Ledger: l, Now: c.now, MAC: [32]byte{1}}, c
}

func refused(t *testing.T, err error, want writ.Code) {
	t.Helper()
	d, ok := errors.AsType[*writ.Denial](err)
	if !ok || d.Code != want {
		t.Errorf("got %v, want a refusal with %q", err, want)
	}
}

func payment(c *clock) *writ.Query {
	return &writ.Query{
		Version: 1, Call: "call_1",
		Caller: writ.Caller{Agent: "spiffe://acme.example/agent/billing", Key: "agent-key", User: "lena", Chain: []writ.Hop{{Key: "parent-key"}}},
		Agent:  writ.Agent{ID: "spiffe://acme.example/agent/billing", Owner: "maya"},
		Task:   writ.Task{ID: "task_1", User: "lena", Expires: c.now().Add(time.Hour).UnixMilli()},
		Tool:   writ.Tool{Name: "bank.pay", Definition: "sha256:d"},
		Action: writ.Action{Kind: writ.KindTool, Upstream: "bank", Name: "pay", Definition: "sha256:d", Arguments: `{"amount":100,"to":"acme"}`},
	}
}

// ask makes a request that is on record.
func ask(t *testing.T, b *approval.Book, q *writ.Query, requires writ.Assurance) *approval.Request {
	t.Helper()
	r, e, err := b.Ask(t.Context(), q, requires)
	if err != nil {
		t.Fatal(err)
	}
	if e != nil {
		if _, err := b.Ledger.Commit(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func yes(by writ.UserID) approval.Answer {
	return approval.Answer{By: by, Key: writ.Thumbprint("key-of-" + string(by)), Yes: true}
}

func TestApprovalIsOfOneActionOnce(t *testing.T) {
	ctx := t.Context()
	b, c := open(t)
	q := payment(c)
	r := ask(t, b, q, writ.OneReviewer)
	if again := ask(t, b, q, writ.OneReviewer); again.ID != r.ID {
		t.Error("the same question was asked twice")
	}
	got, err := b.Answer(ctx, r.ID, q.Action.Digest(), yes("omar"))
	if err != nil || got.State != approval.Approved || got.Assurance() != writ.OneReviewer {
		t.Fatalf("Answer = %+v, %v", got, err)
	}
	found, err := b.Find(ctx, "task_1", q.Action.Digest())
	if err != nil || found.State != approval.Approved {
		t.Fatalf("Find = %+v, %v", found, err)
	}
	for range 2 { // H38, H41: used once, however often it is tried
		expect, used, err := found.Use()
		if err != nil {
			t.Fatal(err)
		}
		_, err = b.Ledger.Commit(ctx, &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeAdmin}, Expect: expect, Changes: []ledger.Change{used}})
		if now, _ := b.Get(ctx, r.ID); now.State != approval.Used {
			t.Fatalf("after its use an approval is %q (%v)", now.State, err)
		}
	}
	_, err = b.Answer(ctx, r.ID, q.Action.Digest(), yes("olga"))
	refused(t, err, writ.AlreadyDecided)
}

// TestH30EveryByteCounts changes any part of an action.
func TestH30EveryByteCounts(t *testing.T) {
	base := writ.Action{Kind: writ.KindTool, Upstream: "bank", Name: "pay", Definition: "sha256:d", Arguments: `{"amount":100}`}
	want := base.Digest()
	rapid.Check(t, func(t *rapid.T) {
		a := base
		s := rapid.StringN(1, 8, -1).Draw(t, "text")
		field := rapid.IntRange(0, 7).Draw(t, "field")
		change := []func(){
			func() { a.Kind = writ.Kind(s) }, func() { a.Upstream = s }, func() { a.Name = s }, func() { a.Definition = writ.Digest(s) },
			func() { a.Arguments = writ.JSON(s) }, func() { a.Inputs = writ.JSON(s) }, func() { a.State = s }, func() { a.Preconditions = writ.JSON(s) },
		}
		change[field]()
		if a != base && a.Digest() == want {
			t.Fatalf("%+v has the digest of %+v", a, base)
		}
	})
}

func TestH32NumbersThatLookAlike(t *testing.T) {
	digest := func(args writ.JSON) writ.Digest { return (&writ.Action{Arguments: args}).Digest() }
	if digest(`{"n":9007199254740993}`) == digest(`{"n":9007199254740992}`) || digest(`{"n":1.0}`) == digest(`{"n":1}`) {
		t.Error("two numbers, one digest")
	}
}

func TestApprovalOfAnotherActionDoesNotCount(t *testing.T) {
	ctx := t.Context()
	b, c := open(t)
	q := payment(c)
	r := ask(t, b, q, writ.OneReviewer)
	other := q.Action
	other.Arguments = `{"amount":9000,"to":"acme"}`
	_, err := b.Answer(ctx, r.ID, other.Digest(), yes("omar"))
	refused(t, err, writ.ApprovalMismatch)
	if now, _ := b.Get(ctx, r.ID); now.State != approval.Pending {
		t.Errorf("a mismatch left the request %q", now.State)
	}
	if found, err := b.Find(ctx, "task_1", other.Digest()); err != nil || found != nil {
		t.Errorf("H33: an approval of another action was found: %v, %v", found, err)
	}
	if found, err := b.Find(ctx, "task_2", q.Action.Digest()); err != nil || found != nil {
		t.Errorf("H44: an approval of another task was found: %v, %v", found, err)
	}
}

func TestH36WhoMayApprove(t *testing.T) {
	ctx := t.Context()
	b, c := open(t)
	q := payment(c)
	r := ask(t, b, q, writ.OneReviewer)
	shown := q.Action.Digest()
	for name, x := range map[string]struct {
		a    approval.Answer
		want writ.Code
	}{
		"the agent itself":    {approval.Answer{By: "spiffe://acme.example/agent/billing", Key: "k", Yes: true}, writ.SelfApproval},
		"the agent's key":     {approval.Answer{By: "omar", Key: "agent-key", Yes: true}, writ.SelfApproval},
		"its delegator's key": {approval.Answer{By: "omar", Key: "parent-key", Yes: true}, writ.SelfApproval},
		"the user":            {yes("lena"), writ.SelfApproval},
		"the agent's owner":   {yes("maya"), writ.SelfApproval},
		"in other letters":    {yes("Maya"), writ.SelfApproval},
		"nobody":              {approval.Answer{Key: "k", Yes: true}, writ.NotEntitled},
		"no key":              {approval.Answer{By: "omar", Yes: true}, writ.NotEntitled},
	} {
		_, err := b.Answer(ctx, r.ID, shown, x.a)
		t.Run(name, func(t *testing.T) { refused(t, err, x.want) })
	}
	// The user may confirm where confirming is what is asked for.
	q.Action.Arguments = `{"amount":5,"to":"acme"}`
	r = ask(t, b, q, writ.UserConfirmed)
	if got, err := b.Answer(ctx, r.ID, q.Action.Digest(), yes("lena")); err != nil || got.Assurance() != writ.UserConfirmed {
		t.Errorf("the user's confirmation = %+v, %v", got, err)
	}
}

// TestListGivesWhatWaits lists requests until their time is over, answered
// ones aside, to the millisecond.
func TestListGivesWhatWaits(t *testing.T) {
	ctx := t.Context()
	b, c := open(t)
	q := payment(c)
	first := ask(t, b, q, writ.OneReviewer)
	c.advance(time.Minute)
	q.Action.Arguments = `{"amount":5,"to":"acme"}`
	second := ask(t, b, q, writ.OneReviewer)
	q.Action.Arguments = `{"amount":6,"to":"acme"}`
	answered := ask(t, b, q, writ.OneReviewer)
	if _, err := b.Answer(ctx, answered.ID, q.Action.Digest(), yes("omar")); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		pass time.Duration
		want []writ.ApprovalID
	}{
		{0, []writ.ApprovalID{first.ID, second.ID}},
		{14*time.Minute - time.Millisecond, []writ.ApprovalID{first.ID, second.ID}},
		{time.Millisecond, []writ.ApprovalID{second.ID}},
		{time.Minute, nil},
	} {
		c.advance(x.pass)
		waiting, err := b.List(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var got []writ.ApprovalID
		for _, r := range waiting {
			got = append(got, r.ID)
		}
		if !slices.Equal(got, x.want) {
			t.Errorf("at %v: %v wait, want %v", c.now(), got, x.want)
		}
	}
}

func TestH36ApproverWhoLostTheRole(t *testing.T) {
	ctx := t.Context()
	b, c := open(t)
	q := payment(c)
	r := ask(t, b, q, writ.OneReviewer)
	reads := ledger.Expect{Kind: "operator", Key: "omar", At: ledger.Absent}
	if _, err := b.Answer(ctx, r.ID, q.Action.Digest(), yes("omar"), reads); err != nil {
		t.Fatal(err)
	}
	_, err := b.Ledger.Commit(ctx, &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeAdmin}, Changes: []ledger.Change{{Op: ledger.Put, Kind: "operator", Key: "omar", Value: []byte("suspended")}}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := b.Get(ctx, r.ID)
	if err != nil || got.State != approval.Expired {
		t.Errorf("after its author was suspended an approval is %q, %v", got.State, err)
	}
	if again := ask(t, b, q, writ.OneReviewer); again.ID == r.ID {
		t.Error("nobody is asked anew")
	}
}

func TestTimeoutDenies(t *testing.T) {
	ctx := t.Context()
	b, c := open(t)
	q := payment(c)
	r := ask(t, b, q, writ.OneReviewer)
	c.advance(16 * time.Minute)
	_, err := b.Answer(ctx, r.ID, q.Action.Digest(), yes("omar"))
	refused(t, err, writ.AlreadyDecided)
	if waiting, err := b.List(ctx); err != nil || len(waiting) != 0 {
		t.Errorf("an expired request is still listed: %v, %v", waiting, err)
	}
}

func TestNoIsNo(t *testing.T) {
	ctx := t.Context()
	b, c := open(t)
	q := payment(c)
	r := ask(t, b, q, writ.OneReviewer)
	no := approval.Answer{By: "uid:1000", Reason: "wrong payee"} // no key: saying no takes authority away
	got, err := b.Answer(ctx, r.ID, q.Action.Digest(), no)
	if err != nil || got.State != approval.Denied || got.Assurance() != writ.NoAssurance {
		t.Fatalf("Answer = %+v, %v", got, err)
	}
	if reason, ok := got.Refused(); !ok || reason != "wrong payee" {
		t.Errorf("Refused = %q, %v", reason, ok)
	}
	_, err = b.Answer(ctx, r.ID, q.Action.Digest(), yes("olga"))
	refused(t, err, writ.AlreadyDecided)
	no.Reason = strings.Repeat("x", 2000)
	q.Action.Name = "refund"
	r = ask(t, b, q, writ.OneReviewer)
	_, err = b.Answer(ctx, r.ID, q.Action.Digest(), no)
	refused(t, err, writ.TooLarge)
}

func TestF14OneAnswerWins(t *testing.T) {
	ctx := t.Context()
	b, c := open(t)
	q := payment(c)
	r := ask(t, b, q, writ.OneReviewer)
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for _, by := range []writ.UserID{"a", "b", "c", "d", "e", "f", "g", "h"} {
		wg.Go(func() {
			if _, err := b.Answer(ctx, r.ID, q.Action.Digest(), yes(by)); err == nil {
				mu.Lock()
				won++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d answers won", won)
	}
}

func TestF17PendingRequestsSurviveARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	c := &clock{t: time.UnixMilli(1_764_000_000_000)}
	for i := range 2 {
		s, err := sqlite.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		l, err := ledger.Open(t.Context(), s, ledger.Config{Origin: ledgertest.Origin, Keys: ledgertest.Keys(), Now: c.now})
		if err != nil {
			t.Fatal(err)
		}
		b := &approval.Book{Ledger: l, Now: c.now, MAC: [32]byte{1}}
		q := payment(c)
		if i == 0 {
			for n := range 100 {
				q.Action.Name = "pay" + strings.Repeat("x", n)
				ask(t, b, q, writ.OneReviewer)
			}
		} else if waiting, err := b.List(t.Context()); err != nil || len(waiting) != 100 {
			t.Errorf("after a restart %d requests wait, %v", len(waiting), err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestVoidEndsATasksRequests(t *testing.T) {
	ctx := t.Context()
	b, c := open(t)
	q := payment(c)
	r := ask(t, b, q, writ.OneReviewer)
	other := payment(c)
	other.Task.ID = "task_2"
	kept := ask(t, b, other, writ.OneReviewer)
	if err := b.Void(ctx, "task_1"); err != nil {
		t.Fatal(err)
	}
	_, err := b.Answer(ctx, r.ID, q.Action.Digest(), yes("omar"))
	refused(t, err, writ.AlreadyDecided)
	if waiting, _ := b.List(ctx); len(waiting) != 1 || waiting[0].ID != kept.ID {
		t.Errorf("after Void these wait: %v", waiting)
	}
}

// TestMoreIsAskedThanOneSays asks for more than a reviewer without a passkey is
// worth: it goes on waiting, and the same person, or key, does not count twice.
func TestMoreIsAskedThanOneSays(t *testing.T) {
	ctx := t.Context()
	b, c := open(t)
	q := payment(c)
	r := ask(t, b, q, writ.OnePasskey)
	got, err := b.Answer(ctx, r.ID, q.Action.Digest(), yes("omar"))
	if err != nil || got.State != approval.Pending {
		t.Fatalf("after one reviewer: %+v, %v", got, err)
	}
	for name, again := range map[string]approval.Answer{
		"the same person": yes("omar"), "under another key": {By: "omar", Key: "other", Yes: true}, "under another name": {By: "olga", Key: "key-of-omar", Yes: true},
	} {
		_, err := b.Answer(ctx, r.ID, q.Action.Digest(), again)
		t.Run(name, func(t *testing.T) { refused(t, err, writ.AlreadyDecided) })
	}
	if got, err := b.Find(ctx, q.Task.ID, q.Action.Digest()); err != nil || got.State != approval.Pending || got.Assurance() != writ.OneReviewer {
		t.Errorf("found %+v, %v", got, err)
	}
}

// TestH36RoleIsReadAgain takes the role away between what was read and what is
// committed: of the answer, and of the call.
func TestH36RoleIsReadAgain(t *testing.T) {
	ctx := t.Context()
	suspend := func(b *approval.Book) {
		t.Helper()
		_, err := b.Ledger.Commit(ctx, &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeAdmin}, Changes: []ledger.Change{{Op: ledger.Put, Kind: "operator", Key: "omar", Value: []byte("suspended")}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	reads := ledger.Expect{Kind: "operator", Key: "omar", At: ledger.Absent}

	b, c := open(t)
	q := payment(c)
	r := ask(t, b, q, writ.OneReviewer)
	suspend(b)
	_, err := b.Answer(ctx, r.ID, q.Action.Digest(), yes("omar"), reads)
	refused(t, err, writ.AlreadyDecided)

	b, c = open(t)
	q = payment(c)
	r = ask(t, b, q, writ.OneReviewer)
	if _, err := b.Answer(ctx, r.ID, q.Action.Digest(), yes("omar"), reads); err != nil {
		t.Fatal(err)
	}
	if r, err = b.Find(ctx, q.Task.ID, q.Action.Digest()); err != nil || r.State != approval.Approved {
		t.Fatalf("found %+v, %v", r, err)
	}
	expect, used, err := r.Use()
	if err != nil {
		t.Fatal(err)
	}
	suspend(b)
	_, err = b.Ledger.Commit(ctx, &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeIntent, Call: "call_1"}, Expect: expect, Changes: []ledger.Change{used}})
	if !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("using what a suspended operator approved: %v", err)
	}
}

// TestRequestEndsWithItsTask asks in a task that is nearly over.
func TestRequestEndsWithItsTask(t *testing.T) {
	b, c := open(t)
	q := payment(c)
	q.Task.Expires = c.now().Add(time.Minute).UnixMilli()
	if r := ask(t, b, q, writ.OneReviewer); r.Expires != q.Task.Expires {
		t.Errorf("waits until %d, and its task until %d", r.Expires, q.Task.Expires)
	}
}
