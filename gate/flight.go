package gate

import (
	"context"
	"sync"
	"time"

	"github.com/writgate/writ"
)

// flights are the calls of this process that are between their decision and
// their outcome. A call is among them before its intent is committed, so that
// the end of a task, which comes after that in the log, finds it.
type flights struct {
	mu     sync.Mutex
	byTask map[writ.TaskID]map[*flight]bool
}

type flight struct{ cancel context.CancelFunc }

// begin gives the context a call is carried out under, and what ends it. A
// call that may change something outlives its caller by grace, so that its
// outcome is known; the end of its task stops it either way.
func (f *flights) begin(ctx context.Context, q *writ.Query) (context.Context, func()) {
	caller := ctx
	if q.Tool.Tier != writ.ReadOnly {
		ctx = context.WithoutCancel(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := func() bool { return true }
	if q.Tool.Tier != writ.ReadOnly {
		stop = context.AfterFunc(caller, func() {
			t := time.NewTimer(grace)
			defer t.Stop()
			select {
			case <-t.C:
				cancel()
			case <-ctx.Done():
			}
		})
	}
	one, task := &flight{cancel}, q.Task.ID
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byTask == nil {
		f.byTask = map[writ.TaskID]map[*flight]bool{}
	}
	if f.byTask[task] == nil {
		f.byTask[task] = map[*flight]bool{}
	}
	f.byTask[task][one] = true
	return ctx, func() {
		stop()
		cancel()
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.byTask[task], one)
		if len(f.byTask[task]) == 0 {
			delete(f.byTask, task)
		}
	}
}

// cancel stops every call of a task that is under way here, and says how many.
func (f *flights) cancel(task writ.TaskID) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	for one := range f.byTask[task] {
		one.cancel()
	}
	return len(f.byTask[task])
}
