package ledger_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/ledger/ledgertest"
	"github.com/writgate/writ/ledger/sqlite"
)

// open opens an empty ledger in a file.
func open(t testing.TB) *ledger.Ledger {
	t.Helper()
	return reopen(t, filepath.Join(t.TempDir(), "ledger.db"), ledger.Config{})
}

func reopen(t testing.TB, path string, c ledger.Config) *ledger.Ledger {
	t.Helper()
	s, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return ledgertest.Open(t, s, c)
}

func TestCallIsProven(t *testing.T) {
	l := open(t)
	call := writ.NewID[writ.CallID](time.Now())
	intent := &ledger.Entry{
		Leaf:    ledger.Leaf{Type: ledger.TypeIntent, Call: call, Effect: "permit", Reasons: []string{"a\"b\\\x01ü"}},
		User:    "ana@acme.example",
		Parts:   []ledger.Part{{Name: "args", Bytes: []byte(`{"to":"x"}`)}},
		Expect:  []ledger.Expect{{Kind: "task", Key: "t1", At: ledger.Absent}},
		Changes: []ledger.Change{{Op: ledger.Add, Kind: "budget", Key: "t1/calls", Delta: 1, Limit: 1}},
	}
	rs, err := l.Commit(t.Context(), intent)
	if err != nil {
		t.Fatal(err)
	}
	if !rs[0].Valid() || rs[0].Call() != call || rs[0].Index() != 1 {
		t.Errorf("receipt %+v", rs[0])
	}
	if _, err := l.Commit(t.Context(), intent); !errors.Is(err, ledger.ErrUsed) && !errors.Is(err, ledger.ErrExceeded) {
		t.Errorf("the same intent twice: %v", err)
	}
	if orphans, err := l.Orphans(t.Context()); err != nil || len(orphans) != 1 {
		t.Errorf("orphans %v, %v", orphans, err)
	}
	outcome := &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeOutcome, Call: call}}
	if _, err := l.Commit(t.Context(), outcome); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Commit(t.Context(), outcome); !errors.Is(err, ledger.ErrUsed) {
		t.Errorf("the same outcome twice: %v", err)
	}
	for i := range int64(3) {
		p, err := l.Prove(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		v, err := ledger.Verify(p, ledgertest.Trust(l))
		if err != nil || v.Index != i {
			t.Fatalf("Verify: %v\n%s", err, p)
		}
	}
	r, err := l.Record(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := r.Part("args"); string(b) != `{"to":"x"}` {
		t.Errorf("args = %s", b)
	}
}
