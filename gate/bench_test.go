package gate_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/policy"
	"github.com/writgate/writ/writtest"
)

// BenchmarkDo is one governed call without its wire: identity over mutual TLS,
// a thousand policies, an intent and an outcome that are durable, and a tool
// that answers at once.
func BenchmarkDo(b *testing.B) {
	var text strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&text, "permit (principal in Group::\"g%d\", action == Action::\"desk.get\", resource) when { context.args.id like \"x%d*\" };\n", i, i)
	}
	for _, callers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			w := writtest.New(b, writtest.Setup{
				Tools:    []writtest.Tool{{Name: "desk.get", Tier: writ.ReadOnly, Args: map[string]string{"id": "string"}}},
				Policies: append(policy.Starter(), policy.File{Name: "many.cedar", Text: []byte(text.String())}),
			})
			a := w.Agent("billing")
			a.Open(everything())
			args := fmt.Sprintf(`{"id":%q}`, strings.Repeat("a", 1000))
			b.ReportAllocs()
			b.SetParallelism(max(1, callers/2))
			before := cpu()
			b.ResetTimer()
			defer func() { b.ReportMetric(float64((cpu()-before).Nanoseconds())/float64(b.N), "cpu-ns/op") }()
			call := func() {
				if _, err := a.Call("desk.get", args); err != nil {
					b.Error(err)
				}
			}
			if callers == 1 {
				for range b.N {
					call()
				}
				return
			}
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					call()
				}
			})
		})
	}
}

// cpu is the time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
