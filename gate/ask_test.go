package gate_test

import (
	"sync"
	"testing"

	"github.com/writgate/writ"
	"github.com/writgate/writ/approval"
	"github.com/writgate/writ/writtest"
)

// TestF14OneActionOneQuestion asks about one action from two gateways, many
// times at once. A person is asked once, and that answer is the one that
// counts.
func TestF14OneActionOneQuestion(t *testing.T) {
	w := writtest.New(t, writtest.Setup{Directory: t.TempDir(), Gateway: "one", Tools: []writtest.Tool{pay}})
	other := w.Beside(t, "two")
	a := w.Agent("billing")
	a.Open(everything())
	var mu sync.Mutex
	told := map[writ.ApprovalID]bool{}
	together(32, func(i int) {
		g := w.Gate
		if i%2 == 1 {
			g = other.Gate
		}
		_, err := g.Do(t.Context(), a.Request("bank.pay", `{"amount":7}`))
		d := writ.AsDenial(err)
		if d.Code != writ.ApprovalRequired {
			t.Error(err)
		}
		mu.Lock()
		told[d.Approval] = true
		mu.Unlock()
	})
	waiting, err := w.Gate.Approvals.List(t.Context())
	if err != nil || len(waiting) != 1 || len(told) != 1 || !told[waiting[0].ID] {
		t.Errorf("%d questions, %v; the agents were told of %v", len(waiting), err, told)
	}
	approveAll(t, w)
	if _, err := a.Call("bank.pay", `{"amount":7}`); err != nil {
		t.Errorf("the approved call: %v", err)
	}
}

// TestAnswersElsewhereAreSeen has a person answer through another gateway,
// while the one that asked commits nothing of its own.
func TestAnswersElsewhereAreSeen(t *testing.T) {
	w := writtest.New(t, writtest.Setup{Directory: t.TempDir(), Gateway: "one", Tools: []writtest.Tool{pay}})
	other := w.Beside(t, "two")
	a := w.Agent("billing")
	a.Open(everything())
	_, err := a.Call("bank.pay", `{"amount":7}`)
	id := writ.AsDenial(err).Approval
	if r, err := w.Gate.Approvals.Get(t.Context(), id); err != nil || r.State != approval.Pending {
		t.Fatalf("asked: %+v, %v", r, err)
	}
	approveAll(t, other)
	if r, err := w.Gate.Approvals.Get(t.Context(), id); err != nil || r.State != approval.Approved {
		t.Errorf("answered through another gateway: %+v, %v", r, err)
	}
	if _, err := a.Call("bank.pay", `{"amount":7}`); err != nil {
		t.Errorf("the approved call: %v", err)
	}
}
