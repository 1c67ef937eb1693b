package main

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"runtime/metrics"
	"runtime/pprof"
	"time"
)

// A benchTargetCmd is one of the processes that bench measures. It says on its
// standard output where it is, answers the questions that come on its standard
// input, a word a line, with one JSON value each, and ends when no more come.
type benchTargetCmd struct {
	Kind    string `arg:"" enum:"tool,proxy,gateway"`
	To      string `help:"The tool server's address."`
	Agents  int    `help:"How many keys call."`
	Profile string `help:"What the names of profiles begin with."`
}

// A benchPlace is where a target is, and what its callers need to be let in.
type benchPlace struct {
	Addr   string       `json:"addr"`
	URL    string       `json:"url"`
	CA     []byte       `json:"ca,omitempty"` // PEM; empty: it serves without TLS
	Agents []benchAgent `json:"agents,omitempty"`
}

// A benchUsage is what a process has used since it began.
type benchUsage struct {
	CPU   time.Duration `json:"cpu"`   // user and system
	Alloc uint64        `json:"alloc"` // bytes that were ever allocated on its heap
	RSS   uint64        `json:"rss"`   // bytes that are resident now
}

// benchUse is what this process has used.
func benchUse() benchUsage {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return benchUsage{CPU: processCPU(), Alloc: sample[0].Value.Uint64(), RSS: residentBytes()}
}

// Run serves until the questions end.
func (c *benchTargetCmd) Run(s *session) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	if c.Kind == "gateway" {
		return c.gateway(s, l)
	}
	handler := http.Handler(http.HandlerFunc(benchTool))
	if c.Kind == "proxy" {
		handler = benchProxy(c.To)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(l)
	defer server.Close()
	return c.answer(s, benchPlace{Addr: l.Addr().String(), URL: "http://" + l.Addr().String() + "/mcp/" + benchUpstream}, nil)
}

// answer says where the target is, and then what it is asked.
func (c *benchTargetCmd) answer(s *session, place benchPlace, more map[string]func() (any, error)) error {
	if err := s.json(place); err != nil {
		return err
	}
	questions := map[string]func() (any, error){
		"usage":   func() (any, error) { return benchUse(), nil },
		"profile": c.profile(),
	}
	maps.Copy(questions, more)
	for lines := bufio.NewScanner(s.in); lines.Scan(); {
		ask := questions[lines.Text()]
		if ask == nil {
			return fmt.Errorf("%q is no question", lines.Text())
		}
		said, err := ask()
		if err == nil {
			err = s.json(said)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// profile begins to profile when it is first called, and writes the profiles
// when it is called again.
func (c *benchTargetCmd) profile() func() (any, error) {
	var cpu *os.File
	return func() (any, error) {
		var err error
		if cpu == nil {
			if cpu, err = os.Create(c.Profile + ".cpu.pprof"); err == nil {
				err = pprof.StartCPUProfile(cpu)
			}
			return true, err
		}
		pprof.StopCPUProfile()
		mem, err := os.Create(c.Profile + ".mem.pprof")
		if err == nil {
			err = errors.Join(pprof.Lookup("allocs").WriteTo(mem, 0), mem.Close())
		}
		return true, errors.Join(err, cpu.Close())
	}
}
