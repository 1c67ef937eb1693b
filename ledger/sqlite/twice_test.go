package sqlite_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/ledger/ledgertest"
	"github.com/writgate/writ/ledger/sqlite"
)

// TestF15OutcomeBesideIntentsOfTheSameCall commits the outcome of a call at the
// moment when others try to make the call again: they are refused, and it is
// not.
func TestF15OutcomeBesideIntentsOfTheSameCall(t *testing.T) {
	s, err := sqlite.Open(filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	l := ledgertest.Open(t, s, ledger.Config{})
	leaf := func(typ string, call writ.CallID) *ledger.Entry {
		return &ledger.Entry{Leaf: ledger.Leaf{Type: typ, Call: call}}
	}
	for i := range 200 {
		call := writ.CallID(fmt.Sprintf("call_%d", i))
		if _, err := l.Commit(t.Context(), leaf(ledger.TypeIntent, call)); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		start := make(chan struct{})
		for n := range 9 {
			wg.Go(func() {
				<-start
				if n == 4 {
					if _, err := l.Commit(t.Context(), leaf(ledger.TypeOutcome, call)); err != nil {
						t.Errorf("the outcome of %s: %v", call, err)
					}
				} else if _, err := l.Commit(t.Context(), leaf(ledger.TypeIntent, call)); !errors.Is(err, ledger.ErrUsed) {
					t.Errorf("%s a second time: %v", call, err)
				}
			})
		}
		close(start)
		wg.Wait()
		if t.Failed() {
			return
		}
	}
}
