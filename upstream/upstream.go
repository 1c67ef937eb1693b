// Package upstream carries an action to the tool it is for, and brings back
// what the tool said, byte for byte.
//
// An upstream is a Model Context Protocol server of either era, over HTTP or
// as a process on stdio. All of them are strangers. A request is built here,
// from the canonical bytes that were judged and from nothing that a caller
// sent beside them; it goes out through a dialer that checks the address it
// connects to, never follows a redirect, and carries no credential but that of
// the lease. An answer is read within bounds of size, number and time, and
// only what belongs to the request is read: its progress, as numbers, and its
// response.
//
// An error says what is known about the world. ErrNotSent: nothing of the
// action left this process, or the peer said before it could act that it would
// not. Every other error: the tool may have acted.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/mcp"
)

var (
	// ErrNotSent is wrapped by an error after which nothing has reached the
	// tool.
	ErrNotSent = errors.New("nothing was sent")

	// ErrTooLarge is wrapped by an error about an answer that is larger than
	// what is read of one. The tool has acted.
	ErrTooLarge = errors.New("the answer is too large")

	// ErrPartial is wrapped by an error that comes beside a list which is
	// right as far as it goes.
	ErrPartial = errors.New("the list is incomplete")
)

// An Order is one action to be carried out.
type Order struct {
	Call   writ.CallID
	Task   writ.TaskID
	Action *writ.Action
	Meta   mcp.Meta // of the caller: the trace context goes up, and the capabilities that are let through

	Arguments *canon.Value // the action's, if they were read before; nil, or others, and they are read again

	// Present gives the headers of the call's capability for a request; nil
	// if there is none. It is asked only where the operator configured it.
	Present func(method, url string) (http.Header, error)

	// Progress is told of progress, as JSON numbers; nil if nobody wants it.
	// It is called one at a time, and holds up the answer until it returns.
	Progress func(progress, total string)
}

// An Answer is what came back: one of the two.
type Answer struct {
	Body []byte     // the result object, its own bytes
	Err  *mcp.Error // the JSON-RPC error it answered with
}

// An Offer is something an upstream has: a tool, or one of the two actions
// that stand for its resources and its prompts.
type Offer struct {
	Kind writ.Kind
	Name string
	Raw  writ.JSON // the whole definition, canonical
}

// A Set is the upstreams of a gateway. What runs for its calls, processes and
// sessions, it ends itself: a task's when CloseTask says that the task is over,
// a credential's when its lease is over, and everything in Close.
type Set struct {
	peers   map[string]*peer
	stop    context.CancelFunc
	ctx     context.Context // of everything that outlives a call
	once    sync.Once       // for watching
	changed chan string
}

// A peer is one upstream.
type peer struct {
	Config
	http    *endpoint       // nil: a process on stdio
	ctx     context.Context // of the Set
	running sync.WaitGroup
	ids     atomic.Int64
	probing chan struct{} // who finds out the era
	listing chan struct{} // who discovers
	poke    chan struct{} // its lists may have changed

	mu      sync.Mutex
	learned era
	offers  map[offerKey]definition
	listed  time.Time
	kept    map[key]*kept
	holds   map[string]*hold
}

// nextID is a request id: an integer, never the same twice.
func (p *peer) nextID() string { return strconv.FormatInt(p.ids.Add(1), 10) }

// Open makes a Set of what is configured. It reaches out to nothing yet.
func Open(configs []Config) (*Set, error) {
	s := &Set{peers: map[string]*peer{}, changed: make(chan string)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	for _, c := range configs {
		if err := c.check(); err != nil {
			return nil, fmt.Errorf("upstream %q: %w", c.Name, err)
		}
		if s.peers[c.Name] != nil {
			return nil, fmt.Errorf("upstream %q is configured twice", c.Name)
		}
		p := &peer{
			Config: c, ctx: s.ctx, probing: make(chan struct{}, 1), listing: make(chan struct{}, 1), poke: make(chan struct{}, 1),
			kept: map[key]*kept{}, holds: map[string]*hold{},
		}
		if c.URL != "" {
			var err error
			if p.http, err = newEndpoint(&c); err != nil {
				return nil, fmt.Errorf("upstream %q: %w", c.Name, err)
			}
		}
		s.peers[c.Name] = p
	}
	return s, nil
}

func (s *Set) peer(name string) (*peer, error) {
	if p := s.peers[name]; p != nil {
		return p, nil
	}
	return nil, notSent(fmt.Errorf("there is no upstream %q", clip(name, 32)))
}

// Call carries out an action. The lease is the authority to do so, with or
// without a credential in it. The action's definition must be what the
// upstream offers at this moment.
//
// The error wraps ErrNotSent or ErrTooLarge, or the outcome is unknown. It may
// hold what the upstream wrote: scrub it.
func (s *Set) Call(ctx context.Context, lease *broker.Lease, o Order) (*Answer, error) {
	if o.Action == nil {
		return nil, notSent(errors.New("an order without an action"))
	}
	p, err := s.peer(o.Action.Upstream)
	if err != nil {
		return nil, err
	}
	answer, err := p.call(ctx, lease, &o)
	if err != nil {
		return nil, fmt.Errorf("calling %s: %w", p.Name, err)
	}
	return answer, nil
}

// Discover lists what an upstream offers, tools whose names or schemas nobody
// should trust included: that is for whoever reviews them. It uses no
// credential. An error that wraps ErrPartial comes beside offers that are
// right, and says what was left out.
func (s *Set) Discover(ctx context.Context, upstream string) ([]Offer, error) {
	p, err := s.peer(upstream)
	if err != nil {
		return nil, err
	}
	offers, err := p.discover(ctx)
	if err != nil {
		return offers, fmt.Errorf("discovering %s: %w", p.Name, err)
	}
	return offers, nil
}

// lists are the methods that List knows, and the member that holds the items.
var lists = map[string]string{
	"resources/list": "resources", "resources/templates/list": "resourceTemplates", "prompts/list": "prompts",
}

// List gives the items of resources/list, resources/templates/list or
// prompts/list, each as canonical JSON. It uses no credential. An error that
// wraps ErrPartial comes beside the items before a bound.
func (s *Set) List(ctx context.Context, upstream, method string) ([]writ.JSON, error) {
	p, err := s.peer(upstream)
	if err != nil {
		return nil, err
	}
	member := lists[method]
	if member == "" {
		return nil, fmt.Errorf("%q is no list of an upstream", clip(method, 64))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, listTime, errTime)
	defer cancel()
	t, err := p.talk(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", p.Name, err)
	}
	defer t.close()
	items, err := t.list(ctx, method, member)
	var all []writ.JSON
	for _, v := range items {
		all = append(all, v.JSON())
	}
	if err != nil {
		return all, fmt.Errorf("listing %s: %w", p.Name, err)
	}
	return all, nil
}

// Changed gives the names of upstreams whose lists may have changed: because
// they say so, or because nobody has looked for minutes. The first use begins
// the watching.
func (s *Set) Changed() <-chan string {
	s.once.Do(func() {
		for _, p := range s.peers {
			p.running.Go(func() { p.watch(s.ctx, s.changed) })
		}
	})
	return s.changed
}

// CloseTask ends what runs for a task: its processes with everything they have
// started, its sessions, and its calls that wait for an answer. It returns
// when they have ended.
func (s *Set) CloseTask(task writ.TaskID) {
	if task == "" {
		return
	}
	var all sync.WaitGroup
	for _, p := range s.peers {
		all.Go(func() { p.closeTask(task) })
	}
	all.Wait()
}

// Close ends everything that runs.
func (s *Set) Close() {
	s.stop()
	var all sync.WaitGroup
	for _, p := range s.peers {
		all.Go(func() {
			p.closeTask("")
			p.running.Wait()
			if p.http != nil {
				p.http.close()
			}
		})
	}
	all.Wait()
}
