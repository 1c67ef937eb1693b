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
	"net/http"

	"github.com/writgate/writ"
	"github.com/writgate/writ/broker"
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

// A Set is the upstreams of a gateway.
type Set struct {
	peers map[string]*peer
}

// Call carries out an action. The lease is the authority to do so; it may
// have no credential in it.
func (s *Set) Call(ctx context.Context, lease *broker.Lease, o Order) (*Answer, error) {
	return nil, ErrNotSent
}

// Open makes a Set of what is configured. It reaches out to nothing.
func Open(configs []Config) (*Set, error) {
	return &Set{}, nil
}

// Discover lists what an upstream offers.
func (s *Set) Discover(ctx context.Context, upstream string) ([]Offer, error) {
	return nil, ErrNotSent
}

// List gives the items of resources/list, resources/templates/list or
// prompts/list.
func (s *Set) List(ctx context.Context, upstream, method string) ([]writ.JSON, error) {
	return nil, ErrNotSent
}

// Changed gives the names of upstreams whose lists may have changed.
func (s *Set) Changed() <-chan string { return nil }

// CloseTask ends what runs for a task.
func (s *Set) CloseTask(task writ.TaskID) {}

// Close ends everything that runs.
func (s *Set) Close() error { return nil }

type peer struct{}
