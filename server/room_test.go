package server

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/gate"
)

var deferred error = writ.Refuse(writ.Deferred, "another call has to end first", nil)

// Calls that depend on one under way are decided again when it is over, in
// the order in which they came, and no later call passes an earlier one.
func TestDeferredCallsGoInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r room
		busy := true
		var order []int
		done := make(chan struct{})
		for i := range 4 {
			go func() {
				_, err := r.wait(t.Context(), "key", 8, func() (*gate.Permit, error) {
					if busy {
						return nil, deferred
					}
					order = append(order, i)
					return nil, nil
				}, deferred)
				if err != nil {
					t.Errorf("call %d: %v", i, err)
				}
				done <- struct{}{}
			}()
			synctest.Wait()
		}
		time.Sleep(300 * time.Millisecond)
		busy = false
		r.stir("another key")
		synctest.Wait()
		if len(order) != 0 {
			t.Fatalf("%v went on when another task's call was over", order)
		}
		began := time.Now()
		r.stir("key")
		for range 4 {
			<-done
		}
		if waited := time.Since(began); waited != 0 {
			t.Errorf("they went on %v after it was over", waited)
		}
		for i, n := range order {
			if i != n {
				t.Fatalf("they went in order %v", order)
			}
		}
		if len(r.queues) != 0 {
			t.Errorf("%d queues are left", len(r.queues))
		}
	})
}

func TestDeferralEnds(t *testing.T) {
	never := func() (*gate.Permit, error) { return nil, deferred }
	synctest.Test(t, func(t *testing.T) {
		var r room
		began := time.Now()
		if _, err := r.wait(t.Context(), "key", 8, never, deferred); err != deferred || time.Since(began) != maxDefer {
			t.Errorf("after %v: %v, want the deferral after %v", time.Since(began), err, maxDefer)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var r room
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.wait(ctx, "key", 8, never, deferred); err != deferred {
			t.Errorf("a caller who is gone: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) { // one that ends in another gateway is seen by asking
		var r room
		asked := 0
		_, err := r.wait(t.Context(), "key", 8, func() (*gate.Permit, error) {
			if asked++; asked < 3 {
				return nil, deferred
			}
			return nil, nil
		}, deferred)
		if err != nil || asked != 3 {
			t.Errorf("asked %d times: %v", asked, err)
		}
	})
	synctest.Test(t, func(t *testing.T) { // no more wait than may
		var r room
		ctx, cancel := context.WithCancel(t.Context())
		for range 8 {
			go r.wait(ctx, "key", 8, never, deferred)
		}
		synctest.Wait()
		began := time.Now()
		if _, err := r.wait(ctx, "key", 8, never, deferred); err != deferred || time.Since(began) != 0 {
			t.Errorf("the ninth: %v after %v", err, time.Since(began))
		}
		cancel()
		synctest.Wait()
	})
}
