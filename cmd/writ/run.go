package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/server/admin/api"
)

// A runCmd starts an agent behind a sidecar.
type runCmd struct {
	Agent   writ.AgentID    `default:"spiffe://writ.localhost/agent/local" help:"Which registered agent of the development domain this is."`
	Task    string          `short:"t" placeholder:"PURPOSE" help:"What the agent is to do, in your words: they are the prompt that its calls are judged by. It needs your operator key. Without it the agent may only read, for a few minutes."`
	Data    string          `placeholder:"FILE" type:"existingfile" help:"A file that goes with the purpose and is nobody's instruction, such as a mail."`
	Tools   []writ.ToolName `placeholder:"TOOL" help:"The tools the task may use; every tool that policy permits, if none are named."`
	Grant   string          `placeholder:"FILE" type:"existingfile" help:"In place of --tools, a YAML file with the tools, the bounds of their arguments, and budgets."`
	Minutes int64           `placeholder:"N" help:"How long the task may last."`
	As      string          `placeholder:"USER" help:"Run the agent as another user of this machine, who cannot read your files or trace your processes. Needs root."`
	Keep    []string        `placeholder:"NAME" help:"Variables that look like credentials and that the agent gets all the same."`
	Only    string          `placeholder:"UPSTREAM" help:"Serve the tools of one upstream, under their own names."`
	Stdio   bool            `help:"Speak MCP on standard input and output instead of starting a command."`
	Command []string        `arg:"" optional:"" passthrough:"" help:"The agent. It finds its MCP endpoint in WRIT_MCP_URL."`
}

// ask opens the run for a key.
func (c *runCmd) ask(s *session, isolation writ.Isolation) func(*api.Client, writ.Thumbprint) (*api.Run, error) {
	return func(client *api.Client, key writ.Thumbprint) (*api.Run, error) {
		q := map[string]any{"agent": c.Agent, "key": key}
		run := new(api.Run)
		if c.Task == "" {
			if c.Data != "" || c.Grant != "" || len(c.Tools) > 0 || c.Minutes != 0 {
				return nil, &usageError{"--data, --tools, --grant and --minutes say something of a --task"}
			}
			return run, client.Post(s.ctx, "/runs", q, run)
		}
		q["for"], q["isolation"] = c.Task, isolation
		if c.Data != "" {
			text, err := os.ReadFile(c.Data)
			if err != nil {
				return nil, err
			}
			q["data"] = string(text)
		}
		g, err := granted(c.Tools, c.Grant)
		if err != nil {
			return nil, err
		}
		g.fill(q)
		if c.Minutes != 0 {
			q["minutes"] = c.Minutes
		}
		return run, s.act("/runs", q, run)
	}
}

// An exited is the status of an agent that did not exit well.
type exited int

func (e exited) Error() string { return fmt.Sprintf("the agent exited with status %d", int(e)) }

// Help says what the agent gets, and what it does not.
func (runCmd) Help() string {
	return `The agent gets an MCP endpoint (WRIT_MCP_URL, or its standard input and output) and no key, no token and no credential. The sidecar proves the run's key for every request. When the agent exits its task ends, and with it everything it was given; what was not permitted is listed. The exit code is the agent's.

Without --as the agent runs as you: it can read what you can read, your operator key's file included, though not what is in it without the passphrase. What it can still reach is listed.`
}

// Run starts the agent, and exits as it does.
func (c *runCmd) Run(s *session) error {
	if len(c.Command) > 0 && c.Command[0] == "--" {
		c.Command = c.Command[1:]
	}
	if c.Stdio == (len(c.Command) > 0) {
		return &usageError{"either --stdio, or a command to start, after --"}
	}
	if !c.Stdio {
		if _, err := exec.LookPath(c.Command[0]); err != nil { // before anybody is asked for a passphrase
			return &usageError{err.Error()}
		}
	}
	hideMemory() // from whoever runs as the same user: the key is in it
	as, isolation, err := isolate(c.As)
	if err != nil {
		return err
	}
	car, err := newSidecar(s.Dir, s.client, c.ask(s, isolation))
	if err != nil {
		return err
	}
	below := ""
	if c.Only != "" {
		below = "/" + c.Only
	}
	var status int
	if c.Stdio {
		b := &bridge{sidecar: car, below: below, to: s.out}
		err = b.serve(s.ctx, s.in)
	} else {
		status, err = c.start(s, car, below, as)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), 30*time.Second)
	defer cancel()
	err = errors.Join(err, c.end(ctx, s, car))
	if err == nil && status != 0 {
		return exited(status)
	}
	return err
}

// start runs the agent until it exits.
func (c *runCmd) start(s *session, car *sidecar, below string, as *osUser) (int, error) {
	secret := make([]byte, 32)
	rand.Read(secret)
	name := base64.RawURLEncoding.EncodeToString(secret)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	d := &door{sidecar: car, host: ln.Addr().String(), secret: sha256.Sum256([]byte(name)), allowed: peerCheck(as)}
	server := &http.Server{Handler: d, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	defer func() { server.Close(); <-served }()

	env, dropped := childEnv(os.Environ(), c.Keep)
	env = append(env, "WRIT_MCP_URL=http://"+ln.Addr().String()+"/"+name+below)
	if len(dropped) > 0 {
		fprintf(s.errs, "writ: not given to the agent: %s\n", strings.Join(dropped, ", "))
	}
	if home, err := os.UserHomeDir(); err == nil && as == nil {
		if found := reachable(home); len(found) > 0 {
			fprintf(s.errs, "writ: the agent runs as you, and can still reach: %s (--as USER keeps it from that)\n", strings.Join(found, ", "))
		}
	}
	cmd := exec.Command(c.Command[0], c.Command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = os.Stdin, os.Stdout, os.Stderr, env
	if err := runAs(cmd, as); err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	// The agent gets the signals, and decides when it is over.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	over := make(chan error, 1)
	go func() { over <- cmd.Wait() }()
	for {
		select {
		case sig := <-signals:
			cmd.Process.Signal(sig)
		case err := <-over:
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				return max(exit.ExitCode(), 1), nil
			}
			return 0, err
		}
	}
}

// end ends the task, and says what was decided under it.
func (c *runCmd) end(ctx context.Context, s *session, car *sidecar) error {
	task, err := car.task(ctx)
	if err != nil || task == "" {
		return err
	}
	var page api.Page[api.Call]
	if err := s.client.Get(ctx, "/calls?limit=1000&task="+string(task), &page); err != nil {
		return err
	}
	var revoked api.Revocation
	if err := s.client.Post(ctx, "/tasks/"+string(task)+"/end", map[string]string{"reason": "the agent exited"}, &revoked); err != nil {
		return err
	}
	// An agent that waits for a person asks again and again; only the first
	// time somebody was asked.
	again := func(c api.Call) bool { return c.Effect == "step-up" && c.Approval == "" }
	effects := map[string]int{}
	for _, call := range page.Items {
		if !again(call) {
			effects[call.Effect]++
		}
	}
	fprintf(s.errs, "writ: %s is over: %d permitted, %d denied, %d asked about\n", task, effects["permit"], effects["deny"], effects["step-up"])
	for _, call := range page.Items {
		if call.Effect != "permit" && !again(call) {
			fprintf(s.errs, "  %-8s %-30s %-18s writ calls explain %s\n", call.Effect, call.Tool, call.Code, call.ID)
		}
	}
	return nil
}
