package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"
)

// A benchCmd compares calls through the gateway with calls that nobody
// governs.
type benchCmd struct {
	Rounds  int     `default:"11" help:"How often each target is measured, in turn with the others."`
	Seconds float64 `default:"0.75" help:"How long, each time."`
	Callers []int   `default:"1,16,64" help:"How many callers at once."`
	Calls   int     `default:"100000" help:"How many calls each gateway has carried at least before its memory is read."`
	Data    string  `type:"path" placeholder:"DIR" help:"Where the gateways keep their logs meanwhile. In memory, durable would mean nothing."`
	Profile string  `type:"path" placeholder:"DIR" help:"Write CPU and allocation profiles of every target there."`
}

// Help says what is compared, and how fairly.
func (benchCmd) Help() string {
	return `Every target is a process of its own, and they are measured in turn: a tool server that answers at once (direct); the same through httputil.ReverseProxy, which keeps its connections (reverseproxy); through the gateway with a fresh DPoP proof of every request, body included (writ-dpop); and through the gateway over mutual TLS (writ-mtls). A call has 1 KiB of arguments, never the same twice. The gateways leave nothing out: a thousand policies, tasks that an operator opened, each of them for one turn, an intent and an outcome that are durable, everything over TLS; the other two have no TLS.

Proofs are signed before the clock runs, for agents sign on their own machines. CPU, allocations and memory are those of the target's process alone. The ratios are of one round each, and their median is what counts: machines are noisy. With -o json there is one object for each target and number of callers; the verdict goes to the standard error.`
}

// A benchTarget is one target as it is measured.
type benchTarget struct {
	name string
	*benchProcess
	lines []*benchLine
	cells map[int][]benchCell // by the number of callers, a cell a round
	rps   map[int]float64     // by the number of callers, in the newest round
	calls int
	last  benchUsage
	log   benchLogged
}

// A benchCell is one target under so many callers in one round.
type benchCell struct {
	rps           float64
	p50, p99, cpu time.Duration // cpu and alloc are for each call
	alloc         float64
	load          time.Duration // the CPU that making a call costs this process
}

// Run measures, and reports.
func (c *benchCmd) Run(s *session) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(c.Data, "writ-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	tool, err := c.start(s, dir, "direct", "tool", "")
	if err != nil {
		return err
	}
	targets := []*benchTarget{tool}
	defer func() {
		for _, t := range slices.Backward(targets) {
			err = errors.Join(err, t.end())
		}
	}()
	for _, t := range []struct{ name, kind string }{{"reverseproxy", "proxy"}, {"writ-dpop", "gateway"}, {"writ-mtls", "gateway"}} {
		next, err := c.start(s, dir, t.name, t.kind, tool.place.Addr)
		if err != nil {
			return fmt.Errorf("starting %s: %w", t.name, err)
		}
		targets = append(targets, next)
	}
	if err := c.measure(s, targets); err != nil {
		return err
	}
	decided, err := benchDecide(c.Rounds, 10, 10_000)
	if err != nil {
		return err
	}
	return c.report(s, targets, decided)
}

func (c *benchCmd) check() error {
	if c.Rounds < 1 || c.Seconds <= 0 || len(c.Callers) == 0 || slices.Min(c.Callers) < 1 || slices.Max(c.Callers) > 1024 {
		return &usageError{"at least one round, a time, and from 1 to 1024 callers"}
	}
	slices.Sort(c.Callers)
	c.Callers = slices.Compact(c.Callers)
	return nil
}

// benchLines is how many connections there are to each target, at least:
// however few callers there are, they call on all of them in turn. Every one
// has a key of its own, and a key may not call as fast as it can.
const benchLines = 64

// start starts a target.
func (c *benchCmd) start(s *session, dir, name, kind, to string) (*benchTarget, error) {
	t := &benchTarget{name: name, cells: map[int][]benchCell{}, rps: map[int]float64{}}
	lines := max(benchLines, slices.Max(c.Callers))
	args := []string{"bench-target", kind, "--dir", filepath.Join(dir, name), "--to", to, "--agents", strconv.Itoa(lines)}
	if c.Profile != "" {
		args = append(args, "--profile", filepath.Join(c.Profile, name))
	}
	var err error
	if t.benchProcess, err = startBench(s, args); err != nil {
		return nil, err
	}
	for i := range lines {
		l := &benchLine{place: &t.place, proof: name == "writ-dpop"}
		if len(t.place.Agents) > 0 {
			l.agent = &t.place.Agents[i]
		}
		t.lines = append(t.lines, l)
	}
	return t, nil
}

// measure makes the rounds, and then the calls that are still missing.
func (c *benchCmd) measure(s *session, targets []*benchTarget) error {
	for _, t := range targets { // to warm up, and to see how many proofs a moment takes
		if err := t.connect(); err != nil {
			return err
		}
		for _, callers := range c.Callers {
			if err := t.round(callers, c.moment()/2); err != nil {
				return err
			}
		}
	}
	for _, t := range targets {
		clear(t.cells)
	}
	if err := c.profile(targets); err != nil {
		return err
	}
	for round := range c.Rounds {
		for _, callers := range c.Callers {
			for i := range targets {
				if err := targets[(i+round)%len(targets)].round(callers, c.moment()); err != nil {
					return err
				}
				if err := s.ctx.Err(); err != nil {
					return err
				}
			}
		}
		fprintf(s.errs, "round %d of %d\n", round+1, c.Rounds)
	}
	if err := c.profile(targets); err != nil {
		return err
	}
	for _, t := range targets {
		if err := t.finish(slices.Max(c.Callers), c.Calls); err != nil {
			return err
		}
	}
	return nil
}

// profile begins or ends the profiles, if they are wanted.
func (c *benchCmd) profile(targets []*benchTarget) error {
	for _, t := range targets {
		var done bool
		if c.Profile == "" {
			return nil
		}
		if err := t.ask("profile", &done); err != nil {
			return err
		}
	}
	return nil
}

func (c *benchCmd) moment() time.Duration { return time.Duration(c.Seconds * float64(time.Second)) }

// connect opens the connections to a target, and makes a call on each: one on
// which nothing is asked for is closed after a while.
func (t *benchTarget) connect() error {
	if err := t.prepare(len(t.lines)); err != nil {
		return err
	}
	for _, l := range t.lines {
		if err := l.dial(); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	r, err := benchLoad(t.lines, len(t.lines), func(calls int, _ time.Duration) bool { return calls == 1 })
	if err != nil {
		return fmt.Errorf("%s: %w", t.name, err)
	}
	t.calls += r.calls
	return nil
}

// round measures a target for a moment.
func (t *benchTarget) round(callers int, moment time.Duration) error {
	if err := t.prepare(int(1.3 * t.rps[callers] * moment.Seconds())); err != nil {
		return err
	}
	before, own, err := t.usage()
	if err != nil {
		return err
	}
	r, err := benchLoad(t.lines, callers, func(_ int, since time.Duration) bool { return since >= moment })
	if err != nil {
		return fmt.Errorf("%s: %w", t.name, err)
	}
	after, owned, err := t.usage()
	if err != nil || r.calls == 0 {
		return err
	}
	t.calls += r.calls
	t.rps[callers] = float64(r.calls) / r.took.Seconds()
	n := time.Duration(r.calls)
	t.cells[callers] = append(t.cells[callers], benchCell{
		rps: t.rps[callers], p50: r.quantile(0.5), p99: r.quantile(0.99),
		cpu: (after.CPU - before.CPU) / n, alloc: float64(after.Alloc-before.Alloc) / float64(n), load: (owned - own) / n,
	})
	return nil
}

// prepare begins new tasks, and has so many calls proven, where that is asked
// for.
func (t *benchTarget) prepare(calls int) error {
	if len(t.place.Agents) == 0 {
		return nil
	}
	var tokens []string
	if err := t.ask("tasks", &tokens); err != nil {
		return err
	}
	if !t.lines[0].proof {
		return nil
	}
	errs := make([]error, len(t.lines))
	var wg sync.WaitGroup
	for i, l := range t.lines {
		l.agent.Token = tokens[i]
		wg.Go(func() { errs[i] = l.prepare(calls/len(t.lines) + 1) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// usage is what the target has used, and this process.
func (t *benchTarget) usage() (u benchUsage, own time.Duration, err error) {
	err = t.ask("usage", &u)
	return u, processCPU(), err
}

// finish makes the calls that are missing, reads the target's memory, and
// holds its log against what was called.
func (t *benchTarget) finish(callers, calls int) error {
	if len(t.place.Agents) == 0 {
		calls = 0
	}
	for t.calls < calls {
		n := min(4096, calls-t.calls)
		if err := t.prepare(n); err != nil {
			return err
		}
		r, err := benchLoad(t.lines, callers, func(made int, _ time.Duration) bool { return made*callers >= n })
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		t.calls += r.calls
	}
	var err error
	if t.last, _, err = t.usage(); err != nil || len(t.place.Agents) == 0 {
		return err
	}
	if err := t.ask("log", &t.log); err != nil {
		return err
	}
	if t.log.Intents != t.calls || t.log.Outcomes != t.calls {
		return fmt.Errorf("%s: %d calls were made, and %d intents and %d outcomes are on record", t.name, t.calls, t.log.Intents, t.log.Outcomes)
	}
	return nil
}

// A benchProcess is the process of a target.
type benchProcess struct {
	place benchPlace
	cmd   *exec.Cmd
	to    io.WriteCloser
	from  *json.Decoder
}

func startBench(s *session, args []string) (*benchProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &benchProcess{cmd: exec.CommandContext(s.ctx, self, args...)}
	p.cmd.Stderr = s.errs
	if p.to, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.from = json.NewDecoder(out)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if err := p.from.Decode(&p.place); err != nil {
		return nil, errors.Join(fmt.Errorf("it did not begin: %w", err), p.end())
	}
	return p, nil
}

// ask asks the target something.
func (p *benchProcess) ask(question string, into any) error {
	if _, err := io.WriteString(p.to, question+"\n"); err != nil {
		return err
	}
	return p.from.Decode(into)
}

// end asks no more, and waits for the target to see that.
func (p *benchProcess) end() error {
	return errors.Join(p.to.Close(), p.cmd.Wait())
}
