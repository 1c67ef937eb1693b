package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/writgate/writ/demo"
	"github.com/writgate/writ/server/admin/api"
)

// demoCmds are the demo, and the parts of it that are processes of their own.
type demoCmds struct {
	Demo        demoCmd        `cmd:"" group:"gateway" help:"Play a story that shows what Writ does, with everything real in it."`
	DemoServer  demoServerCmd  `cmd:"" hidden:""`
	DemoGateway demoGatewayCmd `cmd:"" hidden:""`
	DemoReview  demoReviewCmd  `cmd:"" hidden:""`
	DemoAgent   demoAgentCmd   `cmd:"" hidden:""`
}

// A demoCmd plays the demo's story.
type demoCmd struct {
	Keep bool `help:"When the story is over leave everything up, to look around in, until you interrupt it."`
}

// Help says what is real.
func (demoCmd) Help() string {
	return `Starts a gateway, four tool servers, an authorization server and an agent, each a process of its own, in a temporary directory and on loopback alone. Two operators have keys of their own, and act with the commands that you would use. What is said to have happened is looked up where it happened.

It exits with 0 if every step was as promised, and with 1 if one was not. Nothing is left behind.`
}

// demoPatience is how long the whole story may take.
const demoPatience = 60 * time.Second

// Run plays it, and clears the stage however it went.
func (c demoCmd) Run(s *session) (err error) {
	began := time.Now()
	ctx, stop := signal.NotifyContext(s.ctx, syscall.SIGHUP, syscall.SIGPIPE) // a terminal that is closed, a reader who has seen enough
	defer stop()
	st, err := newStage()
	if err != nil {
		return err
	}
	defer func() {
		if closed := st.close(); closed != nil {
			err = errors.Join(verdict(exitNo), s.complain(closed))
		}
	}()
	p := &play{session: s, teller: newTeller(s), world: world{stage: st}}
	playing, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	err = p.all(playing)
	if err == nil {
		p.closing(time.Since(began), c.Keep)
	} else if err = p.failed(ctx, err); ctx.Err() != nil {
		return err
	}
	if c.Keep && p.up != nil {
		p.invite()
		<-ctx.Done()
	}
	return err
}

// complain prints an error that is not the one that the command ends with.
func (s *session) complain(err error) error {
	fprintf(s.errs, "writ: %s\n", err)
	return nil
}

// whileOpen is a context that ends when in does: a part of the demo does not
// outlive whoever started it, however that one ends.
func whileOpen(ctx context.Context, in io.Reader) (context.Context, context.CancelFunc) {
	ctx, stop := context.WithCancel(ctx)
	go func() { // until the process ends
		io.Copy(io.Discard, in)
		stop()
	}()
	return ctx, stop
}

// A demoServerCmd is one server of the demo's world. It is told on its
// standard input what it needs, for there are secrets in that.
type demoServerCmd struct {
	Name string `arg:""`
}

// serverNeeds is what a server is told.
type serverNeeds struct {
	Secret        string `json:"secret"`
	Authorization string `json:"authorization"`
	Keys          string `json:"keys"`
	Issuer        string `json:"issuer"`
}

// Run serves until its input ends.
func (c demoServerCmd) Run(s *session) error {
	var n serverNeeds
	if err := json.NewDecoder(s.in).Decode(&n); err != nil {
		return err
	}
	ctx, stop := whileOpen(s.ctx, s.in)
	defer stop()
	return demo.Serve(ctx, c.Name, demo.Options{
		Dir: s.Dir, HTTP: true, Out: nopCloser{s.out}, Secret: n.Secret, Authorization: n.Authorization, Keys: n.Keys, Issuer: n.Issuer,
	})
}

type nopCloser struct{ io.Writer }

// Close leaves it open.
func (nopCloser) Close() error { return nil }

// A demoGatewayCmd is "writ up" as a part of the demo.
type demoGatewayCmd struct{ upCmd }

// Run serves until its input ends.
func (c demoGatewayCmd) Run(s *session) error {
	ctx, stop := whileOpen(s.ctx, s.in)
	defer stop()
	s.ctx = ctx
	return c.upCmd.Run(s)
}

// A demoReviewCmd is the operator who says what each tool of the demo is.
type demoReviewCmd struct{}

// Run reviews all of them, in one act.
func (demoReviewCmd) Run(s *session) error {
	offered, err := s.tools("", "")
	if err != nil {
		return err
	}
	reviews := demo.Reviews()
	if len(offered.Items) != len(reviews) {
		return fmt.Errorf("the servers offer %d tools, and the story knows %d", len(offered.Items), len(reviews))
	}
	for _, t := range offered.Items {
		r, ok := reviews[t.Name]
		if !ok {
			return fmt.Errorf("the story does not know %s", t.Name)
		}
		whole, err := s.tool(t.Name)
		if err == nil {
			err = checkTool(whole)
		}
		if err != nil {
			return err
		}
		r.Definition = whole.Definition
		reviews[t.Name] = r
	}
	var reviewed api.Page[api.Tool]
	if err := s.act("/tools/review", map[string]any{"reviews": reviews}, &reviewed); err != nil {
		return err
	}
	return s.json(reviewed)
}

// A demoAgentCmd is the agent, which holds no key and knows one address.
type demoAgentCmd struct{}

// Run does what its input says until that ends.
func (demoAgentCmd) Run(s *session) error {
	return demo.Perform(s.ctx, os.Getenv("WRIT_MCP_URL"), s.in, s.out)
}
