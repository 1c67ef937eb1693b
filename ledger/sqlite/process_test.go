package sqlite

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/ledger/ledgertest"
)

const childEnv = "LEDGER_TEST_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		if err := child(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if exists("/dev/shm") == nil { // there a sync costs nothing; what a sync is worth, the shim tests
		os.Setenv("TMPDIR", "/dev/shm")
	}
	os.Exit(m.Run())
}

const (
	childCalls  = 400 // that every process tries to make
	childBudget = 300 // that they share
)

// child is another process: it makes calls that others make too, and says
// what it was told.
func child(path string) error {
	s, err := Open(path)
	if err != nil {
		return err
	}
	c := config()
	c.Gateway, c.Anchor = fmt.Sprint("gateway-", os.Getpid()), path+".anchor"
	l, err := ledger.Open(bg, s, c)
	if err != nil {
		return err
	}
	if err := os.WriteFile(fmt.Sprint(path, ".ready", os.Getpid()), nil, 0o600); err != nil {
		return err
	}
	for exists(path+".go") != nil {
		time.Sleep(time.Millisecond)
	}
	out := bufio.NewWriter(os.Stdout)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for _, i := range rand.Perm(childCalls) {
				call := writ.CallID(fmt.Sprint("call_", i))
				said := "error"
				_, err := l.Commit(bg, &ledger.Entry{
					Leaf:    ledger.Leaf{Type: ledger.TypeIntent, Call: call},
					Parts:   []ledger.Part{{Name: "query", Bytes: make([]byte, 2000)}},
					Changes: []ledger.Change{{Op: ledger.Add, Kind: "budget", Key: "b", Delta: 1, Limit: childBudget}},
				})
				switch {
				case err == nil:
					said = "made"
				case errors.Is(err, ledger.ErrUsed):
					said = "used"
				case errors.Is(err, ledger.ErrExceeded):
					said = "exceeded"
				}
				mu.Lock()
				fmt.Fprintln(out, said, call, worker, err)
				out.Flush()
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return l.Close()
}

func exists(path string) error {
	_, err := os.Stat(path)
	return err
}

// spawn starts a child.
func spawn(t *testing.T, path string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), childEnv+"="+path)
	out := new(bytes.Buffer)
	c.Stdout, c.Stderr = out, out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c, out
}

// ready waits until a child has opened the ledger.
func ready(t *testing.T, path string, c *exec.Cmd, out *bytes.Buffer) {
	t.Helper()
	for begin := time.Now(); exists(fmt.Sprint(path, ".ready", c.Process.Pid)) != nil; time.Sleep(time.Millisecond) {
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("not ready\n%s", out)
		}
	}
}

// told sorts what children said by what they were told of each call.
func told(t *testing.T, outs ...*bytes.Buffer) map[string]map[writ.CallID]int {
	t.Helper()
	all := map[string]map[writ.CallID]int{"made": {}, "used": {}, "exceeded": {}}
	for _, out := range outs {
		for line := range strings.Lines(out.String()) {
			f := strings.Fields(line)
			if !strings.HasSuffix(line, "\n") || len(f) < 3 || all[f[0]] == nil {
				t.Errorf("a process says %q", line)
				continue
			}
			all[f[0]][writ.CallID(f[1])]++
		}
	}
	return all
}

// TestF14TwoProcesses race for every call and for one budget.
func TestF14TwoProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	a, outA := spawn(t, path)
	b, outB := spawn(t, path)
	ready(t, path, a, outA)
	ready(t, path, b, outB)
	if err := os.WriteFile(path+".go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.Wait(), b.Wait()); err != nil {
		t.Fatalf("%v\n%s\n%s", err, outA, outB)
	}
	all := told(t, outA, outB)
	if n := len(all["made"]); n != childBudget {
		t.Errorf("%d calls were made of a budget of %d", n, childBudget)
	}
	for call, n := range all["made"] {
		if n != 1 {
			t.Errorf("%s was made %d times", call, n)
		}
	}
	t.Log(audited(t, path, all["made"]))
}

// audited opens what processes left, verifies it, and makes sure that every
// call that was acknowledged is there once.
func audited(t *testing.T, path string, made map[writ.CallID]int) map[string]int {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	c := config()
	c.Anchor = path + ".anchor"
	l := ledgertest.Open(t, s, c)
	if _, err := l.VerifyAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	rs, err := l.Records(t.Context(), ledger.Filter{Type: ledger.TypeIntent})
	if err != nil {
		t.Fatal(err)
	}
	gateways, found := map[string]int{}, map[writ.CallID]int{}
	for _, r := range rs {
		gateways[r.Leaf.Gateway]++
		found[r.Leaf.Call]++
	}
	for call := range made {
		if found[call] != 1 {
			t.Errorf("%s was acknowledged, and is there %d times", call, found[call])
		}
	}
	row, _, err := l.Get(t.Context(), "budget", "b")
	if err != nil || row.Count != int64(len(rs)) || row.Count > childBudget {
		t.Errorf("the budget says %d (%v), the log %d", row.Count, err, len(rs))
	}
	return gateways
}

// TestF02KilledProcesses kills processes, two at a time, wherever they are.
// What they were told stays so, and the next ones go on.
func TestF02KilledProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	if err := os.WriteFile(path+".go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var outs []*bytes.Buffer
	rnd := rand.New(rand.NewPCG(9, 9))
	for range 12 {
		a, outA := spawn(t, path)
		b, outB := spawn(t, path)
		ready(t, path, a, outA)
		time.Sleep(time.Duration(rnd.IntN(30)) * time.Millisecond)
		if err := errors.Join(a.Process.Kill(), b.Process.Kill()); err != nil {
			t.Fatal(err)
		}
		a.Wait()
		b.Wait()
		for _, out := range []*bytes.Buffer{outA, outB} { // a line that was cut off was not told
			whole := out.Bytes()
			outs = append(outs, bytes.NewBuffer(whole[:bytes.LastIndexByte(whole, '\n')+1]))
		}
	}
	made := told(t, outs...)["made"]
	for call, n := range made {
		if n != 1 {
			t.Errorf("%s was made %d times", call, n)
		}
	}
	if len(made) < 10 {
		t.Errorf("only %d calls were made before the processes died", len(made))
	}
	audited(t, path, made)
}
