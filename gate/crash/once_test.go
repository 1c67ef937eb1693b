//go:build unix

package crash_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/gate"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/registry"
)

// TestF29StoppedBetweenIntentAndDispatch stops a gateway when its intent is
// durable, lets something happen, and continues it. It must look again before
// it dispatches.
func TestF29StoppedBetweenIntentAndDispatch(t *testing.T) {
	for name, x := range map[string]struct {
		meanwhile func(*testing.T, *world, *node)
		acts      bool
	}{
		"nothing happens": {func(*testing.T, *world, *node) {}, true},
		"the lease ends": {func(t *testing.T, w *world, _ *node) {
			if err := os.WriteFile(filepath.Join(w.dir, "later"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, false},
		"the task ends": {func(t *testing.T, _ *world, n *node) {
			held, err := n.gate.Tasks.OfKey(t.Context(), writ.Caller{Agent: agentID("closer"), Key: n.keys["closer"]}, "development")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := n.gate.EndTask(t.Context(), held.Task.ID, "enough", "omar"); err != nil {
				t.Fatal(err)
			}
		}, false},
		"the agent is suspended": {func(t *testing.T, _ *world, n *node) {
			if err := n.gate.Catalog.SetState(t.Context(), registry.KindAgent, string(agentID("closer")), writ.Suspended, "omar"); err != nil {
				t.Fatal(err)
			}
		}, false},
		"everything is halted": {func(t *testing.T, _ *world, n *node) {
			_, err := n.ledger.Commit(t.Context(), &ledger.Entry{
				Leaf:    ledger.Leaf{Type: ledger.TypeHalt},
				Changes: []ledger.Change{{Op: ledger.Put, Kind: gate.KindHalt, Key: gate.HaltKey, Value: []byte("omar")}},
			})
			if err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "")
			defer w.close()
			call := newCall()
			p, err := w.start("one", "", envJob+"="+string(call))
			if err != nil {
				t.Fatal(err)
			}
			defer p.signal(syscall.SIGKILL)
			p.stopped(t)
			n, err := open(t.Context(), w.dir, setup{gateway: "two"})
			if err != nil {
				t.Fatal(err)
			}
			defer n.ledger.Close()
			x.meanwhile(t, w, n)
			time.Sleep(150 * time.Millisecond) // longer than a gate takes for granted what its commit found
			p.signal(syscall.SIGCONT)
			if err := p.wait(); err != nil || p.exit != exitDone {
				t.Fatalf("the gateway ended with %d, %v\n%s", p.exit, err, p.stderr.Bytes())
			}
			events, err := readDiary(w.dir)
			if err != nil {
				t.Fatal(err)
			}
			acted := len(events) != 0 && events[0].What == effect
			if acted != x.acts {
				t.Errorf("the tool was called: %v, want %v: %+v", acted, x.acts, events)
			}
			out, err := n.ledger.Records(t.Context(), ledger.Filter{Call: call, Type: ledger.TypeOutcome})
			if err != nil || len(out) != 1 || (out[0].Leaf.Code == "") != x.acts {
				t.Errorf("outcome on record: %+v, %v", out, err)
			}
		})
	}
}

// TestF17PendingApprovalsSurvive kills a gateway that has asked for a hundred
// approvals, twice. All of them still wait, until the same moment, and nobody
// is asked a second time.
func TestF17PendingApprovalsSurvive(t *testing.T) {
	w := newWorld(t, "")
	defer w.close()
	var before map[writ.ApprovalID]int64
	for life := range 2 {
		p, err := w.start("one", "", envJob+"="+jobAsk)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-p.asked:
		case <-p.done:
			t.Fatalf("the gateway ended with %d\n%s", p.exit, p.stderr.Bytes())
		}
		p.signal(syscall.SIGKILL)
		<-p.done

		n, err := open(t.Context(), w.dir, setup{gateway: "two"})
		if err != nil {
			t.Fatal(err)
		}
		waiting, err := n.gate.Approvals.List(t.Context())
		if err := errors.Join(err, n.ledger.Close()); err != nil {
			t.Fatal(err)
		}
		until := map[writ.ApprovalID]int64{}
		for _, r := range waiting {
			until[r.ID] = r.Expires
		}
		if life == 0 {
			before = until
		}
		if len(until) != questions || !maps.Equal(until, before) {
			t.Errorf("%d approvals wait after life %d, of %d; as before: %v", len(until), life+1, questions, maps.Equal(until, before))
		}
	}
	_, found := audit(t.Context(), w.dir)
	for _, v := range found {
		t.Error(v)
	}
}
