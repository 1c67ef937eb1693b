package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"sync"

	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/mcp"
)

// A bridge is a sidecar whose agent speaks MCP on its standard input and
// output, a message a line.
type bridge struct {
	*sidecar
	below string // "/upstream", or empty for all

	out     sync.Mutex
	to      io.Writer
	mu      sync.Mutex
	session string // of the older revisions, once it is begun
	version string
	pending map[string]context.CancelFunc // by the id of the request
}

// serve carries messages until the input ends.
func (b *bridge) serve(ctx context.Context, from io.Reader) error {
	ctx, stop := context.WithCancel(ctx)
	b.pending = map[string]context.CancelFunc{}
	var calls, streams sync.WaitGroup
	defer func() { // what was asked is answered, what only listens is not waited for
		calls.Wait()
		stop()
		streams.Wait()
	}()
	r := bufio.NewReader(from)
	for {
		line, err := mcp.ReadLine(r, maxMessage)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		m, err := mcp.ParseMessage(line, canon.Limits{})
		if err != nil {
			b.tell(protocolError(err, ""))
			continue
		}
		if m.Method == "notifications/cancelled" && b.cancel(m) {
			continue
		}
		// An initialize has to be over before anything else: what follows is
		// in its session.
		if m.Method == "initialize" {
			b.carry(ctx, m, line)
			streams.Go(func() { b.listen(ctx) })
			continue
		}
		calls.Go(func() { b.carry(ctx, m, line) })
	}
}

// cancel ends a request of the modern wire, where hanging up is the way.
func (b *bridge) cancel(m *mcp.Message) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.session != "" {
		return false // it has a message for that
	}
	id := m.Params.Get("requestId")
	if id == nil {
		return true
	}
	if stop := b.pending[string(id.Raw())]; stop != nil {
		stop()
	}
	return true
}

// carry sends one message, and tells the agent what comes of it.
func (b *bridge) carry(ctx context.Context, m *mcp.Message, line []byte) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	h := http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"}}
	b.mu.Lock()
	if b.session != "" {
		h.Set("Mcp-Session-Id", b.session)
		h.Set("Mcp-Protocol-Version", b.version)
	}
	if m.ID != "" && m.Method != "" {
		b.pending[m.ID] = stop
		defer func() { b.mu.Lock(); delete(b.pending, m.ID); b.mu.Unlock() }()
	}
	b.mu.Unlock()
	if req, err := m.Request(); err == nil && req.Meta.Version != "" {
		mcp.SetHeaders(h, req.Method, req.Name, nil, nil)
		h.Set("Mcp-Protocol-Version", req.Meta.Version)
	}
	resp, err := b.send(ctx, http.MethodPost, b.below, h, line)
	if err != nil {
		if m.ID != "" && ctx.Err() == nil {
			b.tell(protocolError(err, m.ID))
		}
		return
	}
	defer resp.Body.Close()
	if id := resp.Header.Get("Mcp-Session-Id"); id != "" && m.Method == "initialize" {
		b.mu.Lock()
		b.session = id
		b.mu.Unlock()
	}
	b.answer(ctx, m, resp)
}

// answer writes what the gateway said, one message a line.
func (b *bridge) answer(ctx context.Context, m *mcp.Message, resp *http.Response) {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case resp.StatusCode == http.StatusAccepted:
	case kind == "text/event-stream":
		b.stream(resp.Body)
	case kind == "application/json":
		text, err := io.ReadAll(io.LimitReader(resp.Body, maxEvent))
		if err != nil {
			break
		}
		if m.Method == "initialize" {
			b.begun(text)
		}
		b.tell(text)
	default:
		if m.ID != "" && ctx.Err() == nil {
			text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
			b.tell(protocolError(fmt.Errorf("the gateway answered %s: %s", resp.Status, text), m.ID))
		}
	}
}

// begun notes which revision a session speaks.
func (b *bridge) begun(text []byte) {
	m, err := mcp.ParseMessage(text, canon.Limits{Bytes: maxEvent})
	if err != nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.version, _ = m.Result.Get("protocolVersion").Str()
}

// listen passes on what the gateway says of its own accord in a session.
func (b *bridge) listen(ctx context.Context) {
	b.mu.Lock()
	h := http.Header{"Accept": {"text/event-stream"}, "Mcp-Session-Id": {b.session}, "Mcp-Protocol-Version": {b.version}}
	begun := b.session != ""
	b.mu.Unlock()
	if !begun {
		return
	}
	resp, err := b.send(ctx, http.MethodGet, b.below, h, nil)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		b.stream(resp.Body)
	}
}

const maxEvent = 16 << 20

func (b *bridge) stream(from io.Reader) {
	events := mcp.EventReader{R: bufio.NewReader(from), Event: maxEvent, Events: math.MaxInt}
	for {
		text, err := events.Next()
		if err != nil {
			return
		}
		if len(text) > 0 {
			b.tell(text)
		}
	}
}

// tell writes one message. Newlines in JSON stand between tokens only.
func (b *bridge) tell(text []byte) {
	line := make([]byte, 0, len(text)+1)
	for _, c := range text {
		if c == '\n' || c == '\r' {
			c = ' '
		}
		line = append(line, c)
	}
	b.out.Lock()
	defer b.out.Unlock()
	b.to.Write(append(line, '\n'))
}

// protocolError is a JSON-RPC error for the agent.
func protocolError(err error, id string) []byte {
	e, ok := errors.AsType[*mcp.Error](err)
	if !ok {
		e = &mcp.Error{Code: mcp.CodeInternal, Message: err.Error()}
	}
	if id != "" {
		e.ID = id
	}
	return e.Response()
}
