package writ_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/writgate/writ"
	"pgregory.net/rapid"
)

func TestZeroValuesRefuse(t *testing.T) {
	if got := (writ.Decision{}).Effect; got != writ.Deny {
		t.Errorf("zero decision = %v, want deny", got)
	}
	if got := (writ.Tool{}).Tier; got != writ.Privileged {
		t.Errorf("zero tier = %v, want privileged", got)
	}
	if got, want := (writ.Label{}), (writ.Label{Integrity: writ.Untrusted, Class: writ.Restricted}); got != want {
		t.Errorf("zero label = %v, want %v", got, want)
	}
	if got := (writ.Provenance{}).Origin; got != writ.FromUntrusted {
		t.Errorf("zero origin = %v, want untrusted", got)
	}
	if got := (writ.Query{}).Assurance; got != writ.NoAssurance {
		t.Errorf("zero assurance = %v, want none", got)
	}
	if got := (writ.Agent{}).State; got == writ.Active {
		t.Error("zero agent is active")
	}
	if got := (writ.Task{}).State; got == writ.Open {
		t.Error("zero task is open")
	}
}

func TestAgentsWordIsNoPrompt(t *testing.T) {
	p := writ.Purpose{Instructions: "pay the invoice"}
	if got := p.Prompt(); got != "" {
		t.Errorf("Prompt() of an agent's own purpose = %q, want none", got)
	}
	p.Origin = writ.OriginUser
	if got := p.Prompt(); got != p.Instructions {
		t.Errorf("Prompt() of a user's purpose = %q, want its instructions", got)
	}
}

func TestIDs(t *testing.T) {
	now := time.UnixMilli(1_764_000_000_000)
	var ids []string
	var last writ.CallID
	for i := range 50 {
		id := writ.NewID[writ.CallID](now.Add(time.Duration(i) * time.Millisecond))
		if got, err := writ.ParseID[writ.CallID](string(id)); err != nil || got != id {
			t.Errorf("ParseID(%q) = %q, %v", id, got, err)
		}
		if first := writ.FirstID[writ.CallID](now.Add(time.Duration(i) * time.Millisecond)); first > id || i > 0 && first <= last {
			t.Errorf("FirstID = %q is not between %q and %q", first, last, id)
		}
		last = id
		if _, err := writ.ParseID[writ.TaskID](string(id)); err == nil {
			t.Errorf("ParseID took %q for a task", id)
		}
		ids = append(ids, string(id))
	}
	if !slices.IsSorted(ids) {
		t.Error("identifiers do not sort by time")
	}
	for _, bad := range []string{"", "call_", "call_0", "call_" + fmt.Sprintf("%026d", 0) + "0", "call_UUUUUUUUUUUUUUUUUUUUUUUUUU", "call_zzzzzzzzzzzzzzzzzzzzzzzzzz"} {
		if _, err := writ.ParseID[writ.CallID](bad); err == nil {
			t.Errorf("ParseID(%q) was accepted", bad)
		}
	}
}

func TestHashSeparatesDomains(t *testing.T) {
	if writ.Hash("action", []byte("x")) == writ.Hash("payload", []byte("x")) {
		t.Error("two domains, one digest")
	}
	if writ.Hash("a", []byte("b/v1\x00c")) == writ.Hash("a/v1\x00b", []byte("c")) {
		t.Log("domains never hold a zero byte; this pair is not a collision in use")
	}
}

func TestJoinIsASemilattice(t *testing.T) {
	label := rapid.Custom(func(t *rapid.T) writ.Label {
		return writ.Label{
			Integrity: writ.Integrity(rapid.IntRange(0, 1).Draw(t, "integrity")),
			Class:     writ.Class(rapid.IntRange(0, 3).Draw(t, "class")),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := label.Draw(t, "a"), label.Draw(t, "b"), label.Draw(t, "c")
		if a.Join(b) != b.Join(a) || a.Join(a) != a || a.Join(b).Join(c) != a.Join(b.Join(c)) {
			t.Fatalf("Join is not a semilattice at %v %v %v", a, b, c)
		}
		if a.Join(writ.Clean) != a {
			t.Fatalf("Clean is not the identity at %v", a)
		}
		if j := a.Join(b); j.Integrity > a.Integrity || j.Class > b.Class {
			t.Fatalf("Join(%v, %v) = %v raises a label", a, b, j)
		}
	})
}

func TestNamesSurvive(t *testing.T) {
	q := writ.Query{Version: 1, Tool: writ.Tool{Tier: writ.ReadOnly, Result: writ.Clean}, Assurance: writ.OnePasskey,
		Provenance: []writ.Provenance{{Argument: "/to", Origin: writ.FromPrompt}}}
	b, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	var back writ.Query
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	again, _ := json.Marshal(back)
	if string(again) != string(b) {
		t.Errorf("query changed on the way:\n%s\n%s", b, again)
	}
	var tier writ.Tier
	if err := tier.UnmarshalText([]byte("Read-Only")); err == nil {
		t.Error("a tier in other letters was accepted")
	}
}

func TestUnclassifiedErrorRefuses(t *testing.T) {
	cause := errors.New("disk on fire")
	d := writ.AsDenial(cause)
	if d.Code != writ.InternalError || !errors.Is(d, cause) {
		t.Errorf("AsDenial(plain error) = %v", d)
	}
	if got := writ.AsDenial(fmt.Errorf("deciding: %w", writ.Refuse(writ.Forbidden, "no", nil))); got.Code != writ.Forbidden {
		t.Errorf("AsDenial lost the code: %v", got)
	}
}
