package gate_test

import (
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/gate"
	"github.com/writgate/writ/identity/devca"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/registry"
	"github.com/writgate/writ/writtest"
)

// TestF29NothingIsMadeAfterItsTime holds a call up between its intent and its
// tool, until what permits it is over: no row has changed, only the time.
func TestF29NothingIsMadeAfterItsTime(t *testing.T) {
	const held = 30 * time.Second // shorter than a lease
	for name, prepare := range map[string]func(*writtest.World, *writtest.Agent, *writ.Task, *registry.Agent){
		"of the task": func(w *writtest.World, _ *writtest.Agent, k *writ.Task, _ *registry.Agent) {
			k.Expires = w.Clock.Now().Add(held / 2).UnixMilli()
		},
		"of the agent": func(w *writtest.World, _ *writtest.Agent, _ *writ.Task, a *registry.Agent) {
			a.Expires = w.Clock.Now().Add(held / 2)
		},
		"of certification": func(w *writtest.World, _ *writtest.Agent, _ *writ.Task, a *registry.Agent) {
			a.RecertifyBy = w.Clock.Now().Add(held / 2)
		},
		"of the certificate": func(w *writtest.World, _ *writtest.Agent, _ *writ.Task, _ *registry.Agent) {
			w.Clock.Advance(devca.Lifetime - held/2)
		},
		"nothing that is over": func(*writtest.World, *writtest.Agent, *writ.Task, *registry.Agent) {},
	} {
		t.Run(name, func(t *testing.T) {
			agent := registry.Agent{ID: writtest.AgentID("billing"), Owner: "maya", Environment: writtest.Environment}
			setup := writtest.Setup{Directory: t.TempDir(), Tools: []writtest.Tool{{Name: "bank.balance", Tier: writ.ReadOnly, Credential: "vault"}}}
			w := writtest.New(t, setup)
			a := w.Agent("billing")
			task := everything()
			prepare(w, a, &task, &agent)
			if !agent.Expires.IsZero() || !agent.RecertifyBy.IsZero() {
				w.Gate.Catalog = registry.New(registry.Config{Agents: []registry.Agent{agent}}, w.Ledger, w.Clock.Now)
				w.Offer(setup.Tools...)
			}
			a.Open(task)
			w.Vault.FailMint = func() error { w.Clock.Advance(held); return nil }
			r := a.Request("bank.balance", `{}`)
			_, err := w.Gate.Do(t.Context(), r)
			if name == "nothing that is over" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if writ.AsDenial(err).Code != writ.StateChanged || len(w.Tools.Seen()) != 0 {
				t.Errorf("after its time: %v, the tool was called %d times", err, len(w.Tools.Seen()))
			}
			if types := onRecord(t, w, r.Call); len(types) < 2 || types[0] != ledger.TypeIntent || types[1] != ledger.TypeOutcome {
				t.Errorf("on record is %v", types)
			}
			if n := w.Vault.Live(); n != 0 {
				t.Errorf("%d credentials are alive", n)
			}
		})
	}
}

// TestF29ApprovalEndsWhileACallIsHeldUp is the same for what a person allowed.
func TestF29ApprovalEndsWhileACallIsHeldUp(t *testing.T) {
	tool := pay
	tool.Credential = "vault"
	w := writtest.New(t, writtest.Setup{Tools: []writtest.Tool{tool}})
	a := w.Agent("billing")
	a.Open(everything())
	if _, err := a.Call("bank.pay", `{"amount":7}`); writ.AsDenial(err).Code != writ.ApprovalRequired {
		t.Fatal(err)
	}
	approveAll(t, w)
	w.Clock.Advance(15*time.Minute - 10*time.Second)
	w.Vault.FailMint = func() error { w.Clock.Advance(30 * time.Second); return nil }
	if _, err := a.Call("bank.pay", `{"amount":7}`); writ.AsDenial(err).Code != writ.StateChanged || len(w.Tools.Seen()) != 0 {
		t.Errorf("after its approval has expired: %v, the tool was called %d times", err, len(w.Tools.Seen()))
	}
}

// TestExpiredProofIsOnRecord decides about a caller whose proof has expired since
// it was verified: that is a refusal of somebody who is known.
func TestExpiredProofIsOnRecord(t *testing.T) {
	w := writtest.New(t, writtest.Setup{Tools: []writtest.Tool{{Name: "desk.get", Tier: writ.ReadOnly}}})
	a := w.Agent("billing")
	a.Open(everything())
	r := a.Request("desk.get", `{}`)
	if _, err := w.Gate.Identify(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	w.Clock.Advance(devca.Lifetime)
	if _, err := w.Gate.Do(t.Context(), r); writ.AsDenial(err).Code != writ.Unauthenticated || len(w.Tools.Seen()) != 0 {
		t.Errorf("under a proof that has expired: %v", err)
	}
	if types := onRecord(t, w, r.Call); len(types) != 1 || types[0] != ledger.TypeDecision {
		t.Errorf("on record is %v", types)
	}
	if _, err := w.Gate.Identify(t.Context(), r); writ.AsDenial(err).Code != writ.Unauthenticated {
		t.Errorf("Identify = %v", err)
	}
}

// TestP4NothingIsToldAfterTheEnd asks again for the outcome of a call, once its
// task is over or its agent may not act.
func TestP4NothingIsToldAfterTheEnd(t *testing.T) {
	for name, x := range map[string]struct {
		end  func(*writtest.World, *writtest.Agent)
		want writ.Code
	}{
		"nothing": {func(*writtest.World, *writtest.Agent) {}, ""},
		"the task ends": {func(w *writtest.World, a *writtest.Agent) {
			if _, err := w.Gate.EndTask(t.Context(), a.Task.ID, "over", "omar"); err != nil {
				t.Fatal(err)
			}
		}, writ.ResultWithheld},
		"the task's time is over": {func(w *writtest.World, _ *writtest.Agent) { w.Clock.Advance(25 * time.Hour) }, writ.ResultWithheld},
		"the agent is suspended": {func(w *writtest.World, _ *writtest.Agent) {
			if err := w.Gate.Catalog.SetState(t.Context(), registry.KindAgent, string(writtest.AgentID("billing")), writ.Suspended, "omar"); err != nil {
				t.Fatal(err)
			}
		}, writ.AgentNotActive},
	} {
		t.Run(name, func(t *testing.T) {
			w := writtest.New(t, writtest.Setup{Tools: []writtest.Tool{{Name: "desk.get", Tier: writ.ReadOnly}}})
			a := w.Agent("billing")
			a.Open(everything())
			r := a.Request("desk.get", `{}`)
			if _, err := w.Gate.Do(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			x.end(w, a)
			res, err := w.Gate.Recall(t.Context(), r.Call, a.Key, r.Action)
			if x.want == "" {
				if err != nil || res == nil {
					t.Errorf("Recall = %v, %v", res, err)
				}
			} else if res != nil || writ.AsDenial(err).Code != x.want {
				t.Errorf("Recall = %v, %v, want %v", res, err, x.want)
			}
		})
	}
}

// TestOneNameOneRequest names calls as others were named before.
func TestOneNameOneRequest(t *testing.T) {
	w := writtest.New(t, writtest.Setup{Tools: []writtest.Tool{pay, {Name: "desk.get", Tier: writ.ReadOnly}}})
	a, b := w.Agent("billing"), w.Agent("billing")
	a.Open(everything())
	asked, made, lost := a.Request("bank.pay", `{"amount":7}`), a.Request("desk.get", `{}`), a.Request("desk.none", `{}`)
	for _, r := range []*gate.Request{asked, made, lost} {
		w.Gate.Do(t.Context(), r)
	}
	for name, x := range map[string]struct {
		call  writ.CallID
		key   writ.Thumbprint
		after *gate.Request
		want  bool
	}{
		"a new one":                       {a.Request("desk.get", `{}`).Call, b.Key, made, true},
		"asked for again":                 {asked.Call, a.Key, a.Request("bank.pay", `{ "amount": 7 }`), true},
		"asked for in other words":        {asked.Call, a.Key, a.Request("bank.pay", `{"amount":8}`), false},
		"asked for, and another tool":     {asked.Call, a.Key, made, false},
		"asked for by another key":        {asked.Call, b.Key, asked, false},
		"asked for in vain, and another":  {lost.Call, a.Key, made, false},
		"made, and asked for once more":   {made.Call, a.Key, made, true},
		"made, and another":               {made.Call, a.Key, asked, true},
		"asked for in vain, and in vain":  {lost.Call, a.Key, lost, true},
		"asked for in vain by nobody yet": {lost.Call, b.Key, lost, false},
	} {
		if may, err := w.Gate.MayName(t.Context(), x.call, x.key, x.after.Action); may != x.want || err != nil {
			t.Errorf("%s: %v, %v, want %v", name, may, err, x.want)
		}
	}
}

// TestP16ClockSetBack sets the clock back behind what is on record: nothing is
// given until it is right again, and what was over stays over.
func TestP16ClockSetBack(t *testing.T) {
	w := writtest.New(t, writtest.Setup{Tools: []writtest.Tool{{Name: "desk.get", Tier: writ.ReadOnly}}})
	short, long := w.Agent("billing"), w.Agent("billing")
	task := everything()
	task.Expires = w.Clock.Now().Add(10 * time.Minute).UnixMilli()
	short.Open(task)
	long.Open(everything())
	call := func(a *writtest.Agent) writ.Code {
		_, err := a.Call("desk.get", `{}`)
		if err == nil {
			return ""
		}
		return writ.AsDenial(err).Code
	}
	for _, x := range []struct {
		move        time.Duration
		short, long writ.Code
	}{
		{0, "", ""},
		{11 * time.Minute, writ.OutsideTask, ""},
		{-5 * time.Minute, writ.Unavailable, writ.Unavailable},
		{-10 * 365 * 24 * time.Hour, writ.BadSVID, writ.BadSVID}, // from before its certificate
		{10*365*24*time.Hour + 5*time.Minute, writ.OutsideTask, ""},
		{-time.Second, writ.OutsideTask, ""}, // a moment behind: the log's time counts
	} {
		w.Clock.Advance(x.move)
		before := len(w.Tools.Seen())
		if got := call(short); got != x.short {
			t.Errorf("after %v, in the short task: %q, want %q", x.move, got, x.short)
		}
		if got := call(long); got != x.long {
			t.Errorf("after %v, in the long task: %q, want %q", x.move, got, x.long)
		}
		if called := len(w.Tools.Seen()) > before; called != (x.long == "") {
			t.Errorf("after %v: the tool was called: %v", x.move, called)
		}
	}
}
