//go:build unix

package crash_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A world is a directory with a ledger, and the tools outside.
type world struct {
	dir    string
	mutant string
	diary  *diary
	door   net.Listener
	served chan struct{} // closed when nobody serves at the door any more

	lives  atomic.Int64
	kills  atomic.Int64
	failed atomic.Int64 // system calls that were made to fail

	mu    sync.Mutex
	found []violation
}

func newWorld(t *testing.T, mutant string) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "crash") // short: a socket's path is
	if err != nil {
		t.Fatal(err)
	}
	w := &world{dir: dir, mutant: mutant, served: make(chan struct{})}
	if err := build(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	var calls []string
	for range closings {
		calls = append(calls, string(newCall()))
	}
	if err := os.WriteFile(filepath.Join(dir, "calls"), []byte(strings.Join(calls, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	if w.diary, err = openDiary(dir); err != nil {
		t.Fatal(err)
	}
	if w.door, err = net.Listen("unix", filepath.Join(dir, "socket")); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(w.served)
		serve(w.door, w.diary)
	}()
	return w
}

// close ends a world. What is left of one in which a promise was broken is
// kept, to be looked at.
func (w *world) close() {
	w.door.Close()
	<-w.served
	w.diary.file.Close()
	if len(w.found) == 0 || w.mutant != "" {
		os.RemoveAll(w.dir)
	}
}

func (w *world) say(k kind, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.found = append(w.found, violation{k, fmt.Sprintf(format, args...)})
}

var gateways = []string{"one", "two"}

// iterate gives each worker some lives with faults, then one in which all
// recover and finish, and then holds everything against the ledger.
func (w *world) iterate(ctx context.Context, p plan, lives int) tally {
	// Together: all of them end before any begins again, so that nobody but
	// the file remembers anything.
	together := rand.IntN(2) == 0
	rounds := 1
	if together {
		rounds, lives = lives, 1
	}
	for range rounds {
		var all sync.WaitGroup
		for _, role := range append([]string{operator}, gateways...) {
			all.Go(func() {
				for range lives {
					w.live(role, p())
				}
			})
		}
		all.Wait()
	}
	w.finish()
	sums, found := audit(ctx, w.dir)
	w.found = append(w.found, found...)
	sums.kills, sums.failed = int(w.kills.Load()), int(w.failed.Load())
	return sums
}

// live is one life, with a fault. An operator's has no end of its own.
func (w *world) live(role string, f fault) {
	if role == operator && f.kill == 0 {
		f.kill = slower * 150 * time.Millisecond
	}
	p, err := w.start(role, f.inject)
	if err != nil {
		w.say(cameNotBack, "%s: %v", role, err)
		return
	}
	begun := p.ready
	if f.early {
		begun = closed
	}
	if f.kill != 0 {
		select {
		case <-begun:
		case <-p.done:
		}
		if f.pause[1] != 0 {
			time.Sleep(f.pause[0])
			p.signal(syscall.SIGSTOP)
			time.Sleep(f.pause[1])
			p.signal(syscall.SIGCONT)
		}
		select {
		case <-time.After(f.kill):
			p.signal(syscall.SIGKILL)
		case <-p.done:
		}
	}
	if err := p.wait(); err != nil {
		w.say(cameNotBack, "%s, with %+v: %v", role, f, err)
	}
	if p.exit < 0 || p.exit > 128 {
		w.kills.Add(1)
	}
	n, database := p.injected()
	w.failed.Add(int64(n))
	if f.fatal && database && p.exit == exitDone {
		w.say(wentOn, "%s, with %s", role, f.inject)
	}
}

var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// finish is a life without faults for everybody.
func (w *world) finish() {
	var ps []*process
	for _, role := range append([]string{operator}, gateways...) {
		p, err := w.start(role, "", envJob+"="+jobFinish)
		if err != nil {
			w.say(cameNotBack, "%s: %v", role, err)
			return
		}
		ps = append(ps, p)
	}
	for i, p := range ps[1:] {
		if err := p.wait(); err != nil || p.exit != exitDone {
			w.say(cameNotBack, "%s ended with %d, %v\n%s", gateways[i], p.exit, err, p.stderr.Bytes())
		}
	}
	ps[0].stdin.Close()
	if err := ps[0].wait(); err != nil || ps[0].exit != exitDone {
		w.say(cameNotBack, "%s ended with %d, %v\n%s", operator, ps[0].exit, err, ps[0].stderr.Bytes())
	}
}
