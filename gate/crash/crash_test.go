//go:build unix

package crash_test

import (
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"
)

// envIterations is how many iterations each test makes; the long form of these
// tests sets it.
const envIterations = "WRIT_CRASH_ITERATIONS"

// iterations is how many to make: few, unless somebody asks for more.
func iterations(t *testing.T, few int) int {
	t.Helper()
	if s := os.Getenv(envIterations); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if testing.Short() {
		few /= 4
	}
	return max(1, few/slower)
}

// needStrace skips a test where system calls cannot be traced.
func needStrace(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("strace", "-f", "--seccomp-bpf", "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		t.Skipf("system calls cannot be traced here: %v %s", err, out)
	}
}

// run makes iterations under a plan, and fails the test for every violation.
func run(t *testing.T, n int, p plan, lives int) tally {
	t.Helper()
	begin := time.Now()
	var all tally
	violations := 0
	for i := range n {
		w := newWorld(t, "")
		all.add(w.iterate(t.Context(), p, lives))
		for _, v := range w.found {
			t.Errorf("iteration %d, in %s: %v", i+1, w.dir, v)
		}
		w.close()
		if violations += len(w.found); violations > 20 {
			n = i + 1
			break
		}
	}
	if all.effects == 0 {
		t.Error("no tool was ever called: nothing is proven")
	}
	t.Logf("%d iterations of %v: %v; %d violations", n, (time.Since(begin) / time.Duration(n)).Round(time.Millisecond), all, violations)
	return all
}

// TestF14TwoGatewaysRace lets two gateways race while nothing goes wrong: what
// may happen once happens once, and what a budget allows happens all.
func TestF14TwoGatewaysRace(t *testing.T) {
	for range iterations(t, 2) {
		w := newWorld(t, "")
		w.iterate(t.Context(), none, 0)
		for _, v := range w.found {
			t.Errorf("in %s: %v", w.dir, v)
		}
		events, err := readDiary(w.dir)
		if err != nil {
			t.Fatal(err)
		}
		var read, closed int
		paid, left := map[int64]bool{}, int64(mostPaid)
		for _, e := range events {
			switch {
			case e.What != effect:
			case e.Tool == toolGet:
				read++
			case e.Tool == toolClose:
				closed++
			case e.Tool == toolPay:
				paid[amount(e.Args)] = true
				left -= amount(e.Args)
			}
		}
		if read != mostRead || closed != closings {
			t.Errorf("read %d of %d, closed %d of %d", read, mostRead, closed, closings)
		}
		for a := range int64(payments) {
			if !paid[a+1] && a+1 <= left {
				t.Errorf("%d was approved, was not paid, and %d are left of the budget", a+1, left)
			}
		}
		w.close()
	}
}

// TestF01F02F03F04KilledAtAnyMoment kills gateways and the operator at random.
func TestF01F02F03F04KilledAtAnyMoment(t *testing.T) {
	n := iterations(t, 10)
	everywhere(t, n, run(t, n, atRandom, 3))
}

// TestF01F02F03F04KilledAtAnySystemCall kills them at a write or a sync.
func TestF01F02F03F04KilledAtAnySystemCall(t *testing.T) {
	needStrace(t)
	n := iterations(t, 4)
	everywhere(t, n, run(t, n, atAnyCall, 3))
}

// everywhere checks that many iterations have cut calls off at every stage.
func everywhere(t *testing.T, n int, got tally) {
	t.Helper()
	if n >= 50 && (got.before == 0 || got.after == 0 || got.kept == 0) {
		t.Error("no call was ever cut off at one of the stages: nothing is proven of it")
	}
}

// TestF05WritesFail has the disk full from some moment on, or for one write.
func TestF05WritesFail(t *testing.T) {
	needStrace(t)
	run(t, iterations(t, 3), writesFail, 2)
}

// TestF06SyncFails fails one sync. The gateway must end, and come back.
func TestF06SyncFails(t *testing.T) {
	needStrace(t)
	run(t, iterations(t, 3), syncFails, 2)
}

// TestMutantsAreFoundOut runs gateways that are wrong in one way each. Each
// must be caught at what it does, or the tests above prove nothing.
func TestMutantsAreFoundOut(t *testing.T) {
	if slower > 1 {
		t.Skip("with the race detector, gateways are killed before they have done anything wrong")
	}
	const bound = 30 // iterations; most need one or two
	for name, m := range mutants {
		t.Run(name, func(t *testing.T) {
			p := atRandom
			if m.does == wentOn {
				needStrace(t)
				p = syncFails
			}
			for i := range bound {
				w := newWorld(t, name)
				w.iterate(t.Context(), p, 3)
				w.close()
				if slices.ContainsFunc(w.found, func(v violation) bool { return v.kind == m.does }) {
					t.Logf("found out in iteration %d: %s", i+1, m.does)
					return
				}
			}
			t.Errorf("not found out in %d iterations", bound)
		})
	}
}
