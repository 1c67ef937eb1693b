package capability_test

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/capability"
	"pgregory.net/rapid"
)

// TestH41OneUse: of many who present one capability at once, one gets through.
func TestH41OneUse(t *testing.T) {
	v := verifier(t)
	for range 20 {
		r := request(t, mint(t, gateway, paying(t)), holder)
		var through, used atomic.Int64
		var all sync.WaitGroup
		gun := make(chan struct{})
		for range 32 {
			all.Go(func() {
				<-gun
				switch _, err := v.Verify(t.Context(), r); codeOf(t, err) {
				case "":
					through.Add(1)
				case writ.AlreadyUsed:
					used.Add(1)
				}
			})
		}
		close(gun)
		all.Wait()
		if through.Load() != 1 || used.Load() != 31 {
			t.Fatalf("%d got through and %d were told it was used, want 1 and 31", through.Load(), used.Load())
		}
	}
}

// TestH42Replay: used is used, with whatever proof, and after a restart too.
func TestH42Replay(t *testing.T) {
	v := verifier(t)
	token := mint(t, gateway, paying(t))
	if _, err := v.Verify(t.Context(), request(t, token, holder)); err != nil {
		t.Fatal(err)
	}
	again := request(t, token, holder) // with a proof of its own
	if _, err := v.Verify(t.Context(), again); codeOf(t, err) != writ.AlreadyUsed {
		t.Errorf("with a new proof: %v", err)
	}
	again.Header.Del(capability.ProofHeader)
	again.Peer = certificate(t, holder)
	if _, err := v.Verify(t.Context(), again); codeOf(t, err) != writ.AlreadyUsed {
		t.Errorf("over mutual TLS: %v", err)
	}
	v.Uses = capability.NewOnce(v.Now)
	if _, err := v.Verify(t.Context(), request(t, token, holder)); codeOf(t, err) != writ.AlreadyUsed {
		t.Errorf("after a restart: %v", err)
	}
}

// TestOnceExact holds a Once to what it promises, with clocks that jump and
// capabilities of any age: nothing is permitted twice before it has expired
// by every time the clock ever showed, and nothing fresh is refused.
func TestOnceExact(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		now := start
		o := capability.NewOnce(func() time.Time { return now })
		var issued []*capability.Capability
		permitted := map[writ.CapabilityID]bool{}
		forward := true
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			step := time.Duration(rapid.IntRange(-40, 120).Draw(rt, "clock")) * time.Second
			forward = forward && step >= 0
			now = now.Add(step)
			if len(issued) == 0 || rapid.Bool().Draw(rt, "fresh") {
				life := time.Duration(rapid.IntRange(1, 300).Draw(rt, "life")) * time.Second
				issued = append(issued, &capability.Capability{ID: writ.NewID[writ.CapabilityID](now), Issued: now, Expires: now.Add(life)})
			}
			c := rapid.SampledFrom(issued).Draw(rt, "presented")
			if !now.Before(c.Expires) {
				continue // Verify has refused it
			}
			err := o.Use(context.Background(), c)
			switch {
			case err == nil && permitted[c.ID]:
				rt.Fatalf("%s was permitted twice", c.ID)
			case err != nil && forward && !permitted[c.ID]:
				rt.Fatalf("a fresh capability was refused: %v", err)
			}
			permitted[c.ID] = permitted[c.ID] || err == nil
		}
	})
}

// TestOnceIsBounded: a full memory refuses, forgets nothing, and is empty
// again when all that it held has expired.
func TestOnceIsBounded(t *testing.T) {
	now := start
	o := capability.NewOnce(func() time.Time { return now })
	fresh := func() *capability.Capability {
		return &capability.Capability{ID: writ.NewID[writ.CapabilityID](now), Issued: now, Expires: now.Add(time.Minute)}
	}
	first := fresh()
	c, n := first, 0
	for err := error(nil); err == nil; c, n = fresh(), n+1 {
		if err = o.Use(t.Context(), c); err != nil && codeOf(t, err) != writ.Unavailable {
			t.Fatal(err)
		}
		if n > 1<<20 {
			t.Fatal("a million capabilities were remembered")
		}
	}
	if err := o.Use(t.Context(), first); codeOf(t, err) != writ.AlreadyUsed {
		t.Errorf("the first of many: %v", err)
	}
	now = now.Add(time.Minute)
	for range 2 {
		if err := o.Use(t.Context(), fresh()); err != nil {
			t.Errorf("after all has expired: %v", err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	v := verifier(b)
	requests := make([]capability.Request, b.N)
	for i := range requests {
		requests[i] = request(b, mint(b, gateway, paying(b)), holder)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, r := range requests {
		if _, err := v.Verify(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkIssue(b *testing.B) {
	c := paying(b)
	b.ReportAllocs()
	for b.Loop() {
		prove(b, holder, mint(b, gateway, c))
	}
}

// unlimited lets everything be used forever.
type unlimited struct{}

func (unlimited) Use(context.Context, *capability.Capability) error { return nil }

// FuzzVerify: whatever is sent, nothing but what was issued gets through.
func FuzzVerify(f *testing.F) {
	c := paying(f)
	c.ID, c.Call, c.Task, c.Approval = "cap_06c7msxzh5r3r9hjqk4g8fbvd4", "call_x", "task_x", "appr_x" // the same in every process
	token := mint(f, gateway, c)
	proof := prove(f, holder, token)
	f.Add(token, proof, arguments, target)
	f.Add(token, "", "{}", "")
	f.Add("a.b.c", "a.b.c", "[]", "::")
	ec := ecdsaKey(f, p256)
	f.Add(token, prove(f, ec, token), arguments, target)
	v := verifier(f)
	v.Uses = unlimited{}
	f.Fuzz(func(t *testing.T, sent, proven, args, url string) {
		h := http.Header{}
		h[capability.Header], h[capability.ProofHeader] = []string{sent}, []string{proven}
		r := capability.Request{Header: h, Method: http.MethodPost, URL: url, Name: "pay", Arguments: []byte(args)}
		c, err := v.Verify(t.Context(), r)
		if (c == nil) == (err == nil) {
			t.Fatalf("capability %v, error %v", c, err)
		}
		if err == nil && sent != token {
			t.Fatal("something else than what was issued got through")
		}
	})
}
