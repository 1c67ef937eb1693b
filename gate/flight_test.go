package gate

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/writgate/writ"
)

// TestF10GraceEnds hangs up on calls: a read ends at once, a write after a
// while, and either with its task.
func TestF10GraceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f flights
		for tier, after := range map[writ.Tier]time.Duration{writ.ReadOnly: 0, writ.BoundedWrite: grace, writ.Privileged: grace} {
			caller, hangUp := context.WithCancel(t.Context())
			q := &writ.Query{Task: writ.Task{ID: "task_1"}, Tool: writ.Tool{Tier: tier}}
			ctx, landed := f.begin(caller, q)
			hangUp()
			if after > 0 {
				time.Sleep(after - time.Millisecond)
				if ctx.Err() != nil {
					t.Errorf("%v: over before its time", tier)
				}
				time.Sleep(2 * time.Millisecond)
			}
			synctest.Wait()
			if ctx.Err() == nil {
				t.Errorf("%v: goes on after %v", tier, after)
			}
			landed()

			caller, hangUp = context.WithCancel(t.Context())
			ctx, landed = f.begin(caller, q)
			if n := f.cancel("task_1"); n != 1 || ctx.Err() == nil {
				t.Errorf("%v: the end of its task cancelled %d, and %v", tier, n, ctx.Err())
			}
			landed()
			hangUp()
		}
		if len(f.byTask) != 0 {
			t.Errorf("%d tasks have calls that are over", len(f.byTask))
		}
	})
}
