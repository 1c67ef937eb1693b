package upstream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/mcp"
)

const (
	exitTime  = time.Second            // between asking a process to end and ending it
	drainTime = 200 * time.Millisecond // for what a process has said before it ended
	maxStderr = 16 << 20               // bytes; a process that writes more is ended
	maxTail   = 512                    // bytes of it that are kept
)

var (
	errFlood = fmt.Errorf("%w: the process says more than is read of one", ErrTooLarge)
	errNoise = errors.New("the process writes more to its standard error than is read")
)

// A process is a stdio server: a process group of its own, with an
// environment of its own, that ends as a whole.
type process struct {
	s    *session
	cmd  *exec.Cmd
	in   *os.File      // its standard input
	out  *os.File      // its standard output
	turn chan struct{} // who may write
	gone chan struct{} // closed when the process has ended
	work sync.WaitGroup
	tail tail

	mu    sync.Mutex
	ended bool // its number may be another's by now
}

// spawn starts a stdio server and opens the session with it. Every error wraps
// ErrNotSent.
func (p *peer) spawn(ctx context.Context, declared writ.JSON, env, args []string) (*session, error) {
	e := p.knownEra()
	s, err := p.run(declared, env, args)
	if err != nil {
		return nil, notSent(err)
	}
	if !e.known || e.modern {
		e = s.probe(ctx, probeTime)
		if s.over() {
			// Some servers end when they are asked before initialize.
			s.close(nil)
			if s, err = p.run(declared, env, args); err != nil {
				return nil, notSent(err)
			}
		}
	}
	if !e.modern {
		if err = s.initialize(ctx, nil); isMessageError(err) {
			e = s.probe(ctx, p.Timeout) // it was only slow to start
		}
	}
	switch {
	case e.modern:
		s.modern, s.version, s.capabilities = true, mcp.Modern, e.capabilities
	case err != nil:
		p.forget()
		s.close(nil)
		return nil, notSent(fmt.Errorf("%w%s", err, s.said()))
	}
	p.mu.Lock()
	p.learned = e
	p.mu.Unlock()
	return s, nil
}

// over says whether the session has ended.
func (s *session) over() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// probe asks a process whether it is modern. One that answers anything else,
// or nothing in time, is not.
func (s *session) probe(ctx context.Context, limit time.Duration) era {
	e := era{known: true, until: time.Now().Add(eraLife)}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	s.modern = true
	m, err := s.ask(ctx, &request{method: "server/discover"}, nil)
	s.modern = false
	if err == nil {
		e.modern, e.capabilities = speaksModern(m)
	}
	return e
}

// run starts the process.
func (p *peer) run(declared writ.JSON, env, args []string) (*session, error) {
	if err := p.checkPins(); err != nil {
		return nil, err
	}
	cmd := exec.Command(p.Command[0], append(p.Command[1:len(p.Command):len(p.Command)], args...)...)
	cmd.Dir = "/"
	cmd.Env = []string{}
	for _, name := range p.Env {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	for _, v := range env {
		if loads(v) {
			return nil, errors.New("the credential's variable would load code")
		}
		cmd.Env = append(cmd.Env, v)
	}
	s := newSession(p, declared)
	proc := &process{s: s, cmd: cmd, turn: make(chan struct{}, 1), gone: make(chan struct{})}
	s.link, s.leased = proc, len(env)+len(args) > 0
	if err := proc.begin(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.Command[0], err)
	}
	return s, nil
}

// checkPins compares the files that the operator pinned with what they are
// now.
func (p *peer) checkPins() error {
	for path, pin := range p.Pins {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return err
		}
		if got := hex.EncodeToString(h.Sum(nil)); !strings.EqualFold(got, pin) {
			return fmt.Errorf("%s is not the file that was pinned: its SHA-256 is %s", path, got)
		}
	}
	return nil
}

func (c *process) begin() error {
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	in, ours, err := os.Pipe()
	if err != nil {
		return err
	}
	theirs = append(theirs, in)
	out, outw, err := os.Pipe()
	if err != nil {
		return errors.Join(err, ours.Close())
	}
	theirs = append(theirs, outw)
	log, logw, err := os.Pipe()
	if err != nil {
		return errors.Join(err, ours.Close(), out.Close())
	}
	theirs = append(theirs, logw)
	c.in, c.out = ours, out
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = in, outw, logw
	if err := startGroup(c.cmd); err != nil {
		return errors.Join(err, ours.Close(), out.Close(), log.Close())
	}
	c.work.Go(c.read)
	c.work.Go(func() { c.drain(log) })
	go func() {
		c.cmd.Wait()
		c.signal(kill) // whatever it has left behind
		c.mu.Lock()
		c.ended = true
		c.mu.Unlock()
		// A process that left the group may hold the pipes: it is not heard.
		out.SetReadDeadline(time.Now().Add(drainTime))
		log.SetReadDeadline(time.Now().Add(drainTime))
		c.work.Wait()
		c.s.end(fmt.Errorf("the process has ended: %s", c.cmd.ProcessState))
		ours.Close()
		out.Close()
		log.Close()
		close(c.gone)
	}()
	return nil
}

// read takes what the process says, message by message. What it says that is
// no message is skipped.
func (c *process) read() {
	r := bufio.NewReaderSize(c.out, 64<<10)
	stray, size := 0, 0 // since the last response
	for {
		line, err := mcp.ReadLine(r, maxFrame)
		if errors.Is(err, mcp.ErrTooMuch) {
			c.s.end(fmt.Errorf("%w: %w", ErrTooLarge, err))
			c.signal(kill)
			return
		}
		if err != nil {
			return // the end of the process says why
		}
		stray, size = stray+1, size+len(line)
		if stray > maxEvents || size > maxStream {
			c.s.end(errFlood)
			c.signal(kill)
			return
		}
		m, err := mcp.ParseMessage(line, limits)
		if err != nil {
			if bytes.Contains(line, []byte(`"jsonrpc"`)) {
				c.s.unreadable(err)
			}
			continue
		}
		if c.s.receive(m, nil) {
			stray, size = 0, 0
		}
	}
}

// unreadable ends the only flight there is, if there is only one: what came
// was meant for it.
func (s *session) unreadable(err error) {
	s.mu.Lock()
	var only *flight
	for _, f := range s.flights {
		only = f
	}
	alone := len(s.flights) == 1
	s.mu.Unlock()
	if alone {
		s.finish(only, nil, fmt.Errorf("reading the answer: %w", err))
	}
}

// drain reads the process's standard error, so that it never waits for a
// reader, and keeps the last of it.
func (c *process) drain(log *os.File) {
	buf := make([]byte, 4<<10)
	total := 0
	for {
		n, err := log.Read(buf)
		c.tail.add(buf[:n])
		if total += n; total > maxStderr {
			c.s.end(errNoise)
			c.signal(kill)
			return
		}
		if err != nil {
			return
		}
	}
}

// request writes the request of a flight.
func (c *process) request(f *flight, body []byte, action bool) {
	ctx, cancel := context.WithTimeout(f.ctx, c.s.peer.Timeout)
	defer cancel()
	if sent, err := c.write(ctx, body); err != nil {
		if !sent {
			err = notSent(err)
		}
		c.s.finish(f, nil, err)
	}
}

func (c *process) post(ctx context.Context, body []byte, _ dress) error {
	_, err := c.write(ctx, body)
	return err
}

// write writes one line. A process that takes only part of it is ended: what
// it reads after that would be another message.
func (c *process) write(ctx context.Context, body []byte) (sent bool, err error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-c.s.ended:
		return false, c.s.err
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	deadline, _ := ctx.Deadline()
	c.in.SetWriteDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { c.in.SetWriteDeadline(time.Now()) })
	defer stop()
	n, err := c.in.Write(append(body, '\n'))
	if err != nil && n > 0 {
		c.s.end(fmt.Errorf("the process does not read: %w", err))
		c.signal(kill)
	}
	return n > 0, err
}

// close asks the process to end, and a second later ends it and everything it
// has started.
func (c *process) close(dress) {
	c.in.Close()
	c.signal(end)
	t := time.NewTimer(exitTime)
	defer t.Stop()
	select {
	case <-c.gone:
		return
	case <-t.C:
	}
	c.signal(kill)
	<-c.gone
}

// signal tells the whole group to end, one way or the other.
func (c *process) signal(how signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		how.send(c.cmd)
	}
}

// A tail keeps the last of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) add(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if len(t.buf) > maxTail {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-maxTail:]...)
	}
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

// said is what a process that has no credential wrote to its standard error,
// for whoever has to find out why it does not start.
func (s *session) said() string {
	if c, ok := s.link.(*process); ok && !s.leased {
		if t := c.tail.String(); t != "" {
			return fmt.Sprintf(" (it says %q)", t)
		}
	}
	return ""
}
