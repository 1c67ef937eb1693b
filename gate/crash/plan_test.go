//go:build unix

package crash_test

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// A fault is what befalls one life of a worker: what strace is to do to it,
// or what comes after it is ready or has been started.
type fault struct {
	inject string
	fatal  bool // an injection after which the worker must not go on

	early bool             // the time counts from the start, not from when it is ready
	pause [2]time.Duration // stopped after, and continued after that; none if zero
	kill  time.Duration    // killed after; not at all if it is zero
}

// A plan chooses faults.
type plan func() fault

// atRandom kills at a moment.
func atRandom() fault {
	f := fault{kill: rand.N(slower * 30 * time.Millisecond)}
	switch rand.IntN(4) {
	case 0:
		f.early, f.kill = true, rand.N(slower*40*time.Millisecond)
	case 1:
		f.pause = [2]time.Duration{rand.N(15 * time.Millisecond), rand.N(30 * time.Millisecond)}
	}
	return f
}

// atAnyCall kills at the Nth system call that writes or syncs.
func atAnyCall() fault {
	// Strace counts for each thread and each call apart. The ranges are about
	// what one life makes of them.
	at := []struct {
		calls string
		most  int
	}{{"pwrite64", 300}, {"fsync,fdatasync", 20}, {"write", 40}, {"pwrite64,fsync,fdatasync,write", 20}}[rand.IntN(4)]
	return fault{inject: fmt.Sprintf("%s:signal=KILL:when=%d", at.calls, 1+rand.IntN(at.most))}
}

// syncFails fails the Nth sync of a file.
func syncFails() fault {
	return fault{inject: fmt.Sprintf("fsync,fdatasync:error=EIO:when=%d", 1+rand.IntN(20)), fatal: true}
}

// writesFail fails every write to the database from the Nth on, or only that
// one.
func writesFail() fault {
	how := []string{"ENOSPC:when=%d+", "ENOSPC:when=%d", "EIO:when=%d"}[rand.IntN(3)]
	return fault{inject: fmt.Sprintf("pwrite64:error="+how, 1+rand.IntN(80))}
}

// none is no fault: the worker does what it has to do, and ends.
func none() fault { return fault{} }
