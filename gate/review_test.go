package gate_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/policy"
	"github.com/writgate/writ/registry"
	"github.com/writgate/writ/task"
	"github.com/writgate/writ/writtest"
)

// TestReviewDoesNotBringPoliciesBack reviews a tool while an operator puts other
// policies in force: whichever comes first, those are in force in the end.
func TestReviewDoesNotBringPoliciesBack(t *testing.T) {
	w := writtest.New(t, writtest.Setup{Tools: []writtest.Tool{{Name: "desk.get", Tier: writ.ReadOnly}}})
	e := w.Gate.Catalog.Entries("")[0]
	review := map[writ.ToolName]registry.Review{e.Tool.Name: {Definition: e.Tool.Definition, Tier: writ.ReadOnly}}
	for i := range 30 {
		want := fmt.Sprintf(`forbid (principal, action, resource) when { context.task.id == "%d" };`, i)
		together(2, func(n int) {
			var err error
			if n == 0 {
				err = w.Gate.Review(t.Context(), "omar", review)
			} else {
				time.Sleep(time.Duration(i%10) * time.Millisecond)
				_, err = w.Gate.Apply(t.Context(), append(policy.Starter(), policy.File{Name: "stop.cedar", Text: []byte(want)}), "olga")
			}
			if err != nil {
				t.Error(err)
			}
		})
		b, err := w.Gate.InForce(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range b.Files() {
			if f.Name == "stop.cedar" && string(f.Text) != want {
				t.Fatalf("in force after %q is %q", want, f.Text)
			}
		}
	}
}

// TestListIsOfOnesOwnTask lists tools for a caller whose key, or token, is
// bound to what is not its own.
func TestListIsOfOnesOwnTask(t *testing.T) {
	w := writtest.New(t, writtest.Setup{
		Registry: registry.Config{Agents: []registry.Agent{
			{ID: writtest.AgentID("billing"), Owner: "maya", Environment: writtest.Environment},
			{ID: writtest.AgentID("other"), Owner: "maya", Environment: writtest.Environment},
		}},
		Tools: []writtest.Tool{{Name: "desk.get", Tier: writ.ReadOnly}},
	})
	a := w.Agent("billing")
	a.Open(everything())
	if tools, _, err := w.Gate.List(t.Context(), a.Request("", "")); err != nil || len(tools) != 1 {
		t.Errorf("List = %v, %v", tools, err)
	}
	other := w.Agent("other")
	if _, err := w.Ledger.Commit(t.Context(), &ledger.Entry{
		Leaf:    ledger.Leaf{Type: ledger.TypeAdmin},
		Changes: []ledger.Change{{Op: ledger.Put, Kind: task.KindKey, Key: string(other.Key), Value: []byte(a.Task.ID)}},
	}); err != nil {
		t.Fatal(err)
	}
	if tools, _, err := w.Gate.List(t.Context(), other.Request("", "")); writ.AsDenial(err).Code != writ.OutsideTask {
		t.Errorf("another agent's tools: %v, %v", tools, err)
	}
	if _, err := other.Call("desk.get", `{}`); writ.AsDenial(err).Code != writ.OutsideTask || len(w.Tools.Seen()) != 0 {
		t.Errorf("a call in another agent's task: %v", err)
	}
}
