package main

import (
	"fmt"
	"slices"
	"time"
)

// A benchResult is what is printed of one target under so many callers: the
// medians of all rounds.
type benchResult struct {
	Target  string  `json:"target"`
	Callers int     `json:"callers"`
	RPS     float64 `json:"rps"`
	P50     float64 `json:"p50_us"`
	P99     float64 `json:"p99_us"`
	CPU     float64 `json:"cpu_us"`      // of the target, for each call
	Alloc   float64 `json:"alloc_bytes"` // by the target, for each call
	RSS     uint64  `json:"rss_bytes"`   // of the target, after all calls

	load float64 // CPU of the load, for each call
}

func (t *benchTarget) result(callers int) benchResult {
	cells := t.cells[callers]
	us := func(f func(benchCell) time.Duration) float64 {
		return median(cells, func(c benchCell) float64 { return float64(f(c).Nanoseconds()) / 1e3 })
	}
	return benchResult{
		Target: t.name, Callers: callers, RSS: t.last.RSS,
		RPS:   median(cells, func(c benchCell) float64 { return c.rps }),
		P50:   us(func(c benchCell) time.Duration { return c.p50 }),
		P99:   us(func(c benchCell) time.Duration { return c.p99 }),
		CPU:   us(func(c benchCell) time.Duration { return c.cpu }),
		Alloc: median(cells, func(c benchCell) float64 { return c.alloc }),
		load:  us(func(c benchCell) time.Duration { return c.load }),
	}
}

// report prints what was measured, and how that stands to the floors.
func (c *benchCmd) report(s *session, targets []*benchTarget, decided []time.Duration) error {
	rows := [][]string{{"target", "callers", "calls/s", "p50 µs", "p99 µs", "CPU µs", "allocated", "load CPU µs"}}
	for _, callers := range c.Callers {
		for _, t := range targets {
			r := t.result(callers)
			if s.wantsJSON() {
				if err := s.json(r); err != nil {
					return err
				}
				continue
			}
			rows = append(rows, []string{
				r.Target, fmt.Sprint(r.Callers), fmt.Sprintf("%.0f", r.RPS), fmt.Sprintf("%.0f", r.P50), fmt.Sprintf("%.0f", r.P99),
				fmt.Sprintf("%.0f", r.CPU), fmt.Sprintf("%.1f KB", r.Alloc/1e3), fmt.Sprintf("%.0f", r.load),
			})
		}
	}
	verdict := *s
	if s.wantsJSON() {
		verdict.out = s.errs
	} else {
		s.table(rows)
		s.printf("\n")
	}
	verdict.table(c.floors(targets, decided))
	for _, t := range targets {
		if t.log.Intents > 0 {
			verdict.printf("%s: %d calls, %d intents and %d outcomes on record\n", t.name, t.calls, t.log.Intents, t.log.Outcomes)
		}
	}
	return nil
}

// A benchFloor is something that is promised of the gateway: what was
// measured, in every round or once, what it has to be, and what it should be.
type benchFloor struct {
	what     string
	measured []float64
	least    bool // rather than most
	floor    float64
	aim      float64 // none if it is 0
}

func (f *benchFloor) row() []string {
	all := slices.Sorted(slices.Values(f.measured))
	if len(all) == 0 {
		return []string{f.what, "not measured"}
	}
	q := func(i int) float64 { return all[i*(len(all)-1)/4] }
	got, word, is := fmt.Sprintf("%.2f", q(2)), "at most", func(limit float64) bool { return q(2) <= limit }
	if len(all) > 1 {
		got += fmt.Sprintf(" [%.2f–%.2f]", q(1), q(3))
	}
	if f.least {
		word, is = "at least", func(limit float64) bool { return q(2) >= limit }
	}
	said := "MISSED"
	switch {
	case f.aim != 0 && is(f.aim):
		said = fmt.Sprintf("held, and %g too", f.aim)
	case is(f.floor):
		said = "held"
	}
	return []string{f.what, got, fmt.Sprintf("%s %g", word, f.floor), said}
}

// floors are what is promised, in the ratios of one round to the reverse proxy
// of the same round.
func (c *benchCmd) floors(targets []*benchTarget, decided []time.Duration) [][]string {
	direct, proxy := targets[0], targets[1]
	most := slices.Max(c.Callers)
	paired := func(t *benchTarget, callers int, ratio func(direct, proxy, t benchCell) float64) (all []float64) {
		for i := range t.cells[callers] {
			all = append(all, ratio(direct.cells[callers][i], proxy.cells[callers][i], t.cells[callers][i]))
		}
		return all
	}
	rows := [][]string{{"to the reverse proxy, round by round", "median [quartiles]", "floor", ""}}
	for _, t := range targets[2:] {
		throughput, cpu := [2]float64{0.33, 0.40}, [2]float64{4, 3}
		if !t.lines[0].proof {
			throughput, cpu = [2]float64{0.45, 0.60}, [2]float64{3, 2}
		}
		for _, f := range []benchFloor{
			{fmt.Sprintf("%s: latency added at %d", t.name, c.Callers[0]), paired(t, c.Callers[0], func(d, p, t benchCell) float64 {
				return float64(t.p50-d.p50) / float64(p.p50-d.p50)
			}), false, 5.5, 3.5},
			{fmt.Sprintf("%s: throughput at %d", t.name, most), paired(t, most, func(_, p, t benchCell) float64 { return t.rps / p.rps }), true, throughput[0], throughput[1]},
			{fmt.Sprintf("%s: CPU of a call at %d", t.name, most), paired(t, most, func(_, p, t benchCell) float64 {
				return float64(t.cpu) / float64(p.cpu)
			}), false, cpu[0], cpu[1]},
			{fmt.Sprintf("%s: KB allocated by a call at %d", t.name, most), paired(t, most, func(_, _, t benchCell) float64 { return t.alloc / 1e3 }), false, 100, 0},
			{fmt.Sprintf("%s: MB resident after %d calls", t.name, t.calls), []float64{float64(t.last.RSS) / 1e6}, false, 100, 0},
		} {
			rows = append(rows, f.row())
		}
	}
	few, many := decided[0], decided[1]
	decide := benchFloor{fmt.Sprintf("a decision among 10,000 policies (%v) to one among 10 (%v)", many, few), []float64{float64(many) / float64(few)}, false, 1.5, 0}
	return append(rows, decide.row())
}

func median(cells []benchCell, f func(benchCell) float64) float64 {
	if len(cells) == 0 {
		return 0
	}
	all := make([]float64, len(cells))
	for i, c := range cells {
		all[i] = f(c)
	}
	slices.Sort(all)
	return all[len(all)/2]
}
