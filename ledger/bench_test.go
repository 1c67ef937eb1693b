package ledger_test

import (
	"bytes"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
)

// BenchmarkCall records calls as the gate does: an intent with a query of
// 2 KB, its decision and what it consumes, then an outcome with a result.
// A call is two records.
func BenchmarkCall(b *testing.B) {
	for _, n := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("appenders=%d", n), func(b *testing.B) { benchmarkCall(b, n) })
	}
}

func benchmarkCall(b *testing.B, appenders int) {
	b.Setenv("TMPDIR", "") // a real disk, with real syncs
	l := open(b)
	query, decision, result := bytes.Repeat([]byte("q"), 2000), bytes.Repeat([]byte("d"), 300), bytes.Repeat([]byte("r"), 600)
	b.ReportAllocs()
	var next atomic.Int64
	var wg sync.WaitGroup
	before := cpu()
	b.ResetTimer()
	for range appenders {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				now := time.Now()
				call := writ.NewID[writ.CallID](now)
				task := "task_" + strconv.FormatInt(i%100, 10)
				intent := &ledger.Entry{
					Leaf: ledger.Leaf{
						Type: ledger.TypeIntent, Call: call, Task: writ.TaskID(task), Agent: "spiffe://acme.example/agent/billing",
						Key: "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I", Tool: "github.create_issue", Definition: writ.Hash("x", query),
						Tier: "write", Environment: "prod", Bundle: writ.Hash("y", query), Effect: "permit", Reasons: []string{"issues-may-be-opened"},
						Capability: "cap_" + string(call[5:]),
					},
					User:   "ana@acme.example",
					Parts:  []ledger.Part{{Name: "query", Bytes: query}, {Name: "decision", Bytes: decision}},
					Expect: []ledger.Expect{{Kind: "agent", Key: "a", At: ledger.Absent}, {Kind: "task", Key: task, At: ledger.Absent}, {Kind: "halt", Key: "halt", At: ledger.Absent}},
					Changes: []ledger.Change{
						{Op: ledger.Once, Kind: "jti", Key: string(call), Until: now.Add(time.Minute).UnixMilli()},
						{Op: ledger.Add, Kind: "budget", Key: task + "/calls", Delta: 1, Limit: 1 << 40},
					},
				}
				if _, err := l.Commit(b.Context(), intent); err != nil {
					b.Error(err)
					return
				}
				outcome := &ledger.Entry{
					Leaf:  ledger.Leaf{Type: ledger.TypeOutcome, Call: call, Task: writ.TaskID(task), Effect: "done"},
					Parts: []ledger.Part{{Name: "result", Bytes: result}},
				}
				if _, err := l.Commit(b.Context(), outcome); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64((cpu()-before).Nanoseconds())/float64(2*b.N), "cpu-ns/record")
	b.ReportMetric(float64(2*b.N)/b.Elapsed().Seconds(), "records/s")
}

// cpu is the time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
