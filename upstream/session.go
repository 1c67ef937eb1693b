package upstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/mcp"
)

const (
	sideTime    = 2 * time.Second // for a message that nobody waits for
	maxAsks     = 8               // requests of an upstream that wait in one call
	maxRefusals = 64              // requests of an upstream that are refused in one session; more are dropped
)

var (
	errClosed = errors.New("the session was closed")
	// errGone says that the peer does not know the session any more, and
	// therefore did nothing.
	errGone = notSent(errors.New("the session has ended"))
)

// A link carries the messages of one session.
type link interface {
	// request sends the request of a flight, and sees to it that the flight
	// ends when the link can bring no answer. It does not wait for one.
	request(f *flight, body []byte, action bool)

	// post sends a message that has no response.
	post(ctx context.Context, body []byte, d dress) error

	// close ends the session at the peer.
	close(d dress)
}

// A session is a conversation in which both sides may ask: with a process, or
// with a legacy server over HTTP.
type session struct {
	peer         *peer
	link         link
	modern       bool
	leased       bool // a credential was given to the process when it started
	version      string
	capabilities *canon.Value // of the server
	declared     writ.JSON    // our own
	closing      sync.Once

	mu       sync.Mutex
	flights  map[string]*flight // by request id, as JSON
	refusals int
	err      error
	ended    chan struct{} // closed when err is set
}

// A flight is one request that has no response yet.
type flight struct {
	id     string
	ctx    context.Context // ends when nobody waits any more
	cancel context.CancelCauseFunc
	meter  *meter
	may    writ.JSON         // what a legacy upstream may ask while it works
	asks   chan *mcp.Message // that it has asked
	done   chan struct{}     // closed when one of the following is set
	answer *mcp.Message
	err    error

	mu    sync.Mutex
	dress dress
}

func (f *flight) wear(d dress) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dress = d
}

func (f *flight) worn() dress {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dress
}

func newSession(p *peer, declared writ.JSON) *session {
	return &session{peer: p, declared: declared, flights: map[string]*flight{}, ended: make(chan struct{})}
}

// send begins a request. The caller waits, or abandons.
func (s *session) send(r *request, d dress) (*flight, error) {
	f := &flight{
		id: s.peer.nextID(), meter: r.meter, dress: d,
		asks: make(chan *mcp.Message, maxAsks), done: make(chan struct{}),
	}
	if r.action && !s.modern && !s.leased {
		f.may = r.meta.Capabilities
	}
	f.ctx, f.cancel = context.WithCancelCause(context.Background())
	body := r.body(f.id, s.modern)
	s.mu.Lock()
	if err := s.err; err != nil {
		s.mu.Unlock()
		return nil, notSent(err)
	}
	s.flights[f.id] = f
	s.mu.Unlock()
	s.link.request(f, body, r.action)
	return f, nil
}

// finish ends a flight, once.
func (s *session) finish(f *flight, m *mcp.Message, err error) {
	s.mu.Lock()
	if s.flights[f.id] != f {
		s.mu.Unlock()
		return
	}
	delete(s.flights, f.id)
	s.mu.Unlock()
	f.answer, f.err = m, err
	close(f.done)
	f.cancel(nil)
}

// end ends the session, and every flight with it.
func (s *session) end(err error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	close(s.ended)
	var left []*flight
	for _, f := range s.flights {
		left = append(left, f)
	}
	s.mu.Unlock()
	for _, f := range left {
		s.finish(f, nil, err)
	}
}

// close ends the session on both sides.
func (s *session) close(d dress) {
	s.closing.Do(func() {
		s.end(errClosed)
		s.link.close(d)
	})
}

// abandon gives a flight up and tells the peer.
func (s *session) abandon(f *flight, cause error) {
	s.finish(f, nil, cause)
	ctx, cancel := context.WithTimeout(context.Background(), sideTime)
	defer cancel()
	s.link.post(ctx, mcp.Call("", "notifications/cancelled", fmt.Appendf(nil, `{"requestId":%s,"reason":"cancelled"}`, f.id)), f.worn())
}

// wait gives a flight's response, or what the upstream has asked meanwhile.
func (s *session) wait(ctx context.Context, f *flight) (*mcp.Message, []*mcp.Message, error) {
	select {
	case <-f.done:
		return f.answer, nil, f.err
	default:
	}
	select {
	case <-f.done:
		return f.answer, nil, f.err
	case first := <-f.asks:
		asks := []*mcp.Message{first}
		for {
			select {
			case next := <-f.asks:
				asks = append(asks, next)
			default:
				return nil, asks, nil
			}
		}
	case <-ctx.Done():
		s.abandon(f, context.Cause(ctx))
		return nil, nil, context.Cause(ctx)
	}
}

// ask makes a request that is no action.
func (s *session) ask(ctx context.Context, r *request, d dress) (*mcp.Message, error) {
	f, err := s.send(r, d)
	if err != nil {
		return nil, err
	}
	m, _, err := s.wait(ctx, f)
	return m, err
}

// receive takes a message from the link. f is the flight whose own stream it
// came on; nil if the link has one stream for all. It says whether f has its
// response.
func (s *session) receive(m *mcp.Message, f *flight) bool {
	switch {
	case m.Method == "":
		s.mu.Lock()
		g := s.flights[m.ID]
		s.mu.Unlock()
		if f != nil && m.ID == "" && m.Err != nil {
			g = f // about a request that the peer could not read
		}
		if g == nil || f != nil && g != f {
			return false // nobody asked this
		}
		s.finish(g, m, nil)
		return true
	case m.ID == "":
		s.note(m, f)
	default:
		s.asked(m, f)
	}
	return false
}

func (s *session) note(m *mcp.Message, f *flight) {
	switch m.Method {
	case "notifications/tools/list_changed", "notifications/resources/list_changed", "notifications/prompts/list_changed":
		s.peer.poked()
	case "notifications/progress":
		if f == nil {
			s.mu.Lock()
			f = s.flights[string(m.Params.Get("progressToken").Raw())]
			s.mu.Unlock()
		}
		if f != nil {
			f.meter.notice(m)
		}
	}
}

// asked takes a request that the upstream makes. It waits for the agent if it
// belongs to a call for which it is admitted, and is refused otherwise. Where
// there is one stream for all, it belongs to the only call there is; but
// servers ask for roots at any time, for reasons of their own.
func (s *session) asked(m *mcp.Message, f *flight) {
	s.mu.Lock()
	if f == nil && len(s.flights) == 1 && m.Method != "roots/list" {
		for _, only := range s.flights {
			f = only
		}
	}
	s.mu.Unlock()
	if f != nil && mayAsk(f.may, m.Method, m.Params) && mayAsk(s.declared, m.Method, m.Params) {
		select {
		case f.asks <- m:
			return
		default:
		}
	}
	s.mu.Lock()
	s.refusals++
	enough := s.refusals > maxRefusals
	s.mu.Unlock()
	if enough {
		return
	}
	reply := (&mcp.Error{Code: mcp.CodeMethodNotFound, Message: "not supported", ID: m.ID}).Response()
	if m.Method == "ping" {
		reply = mcp.Response(m.ID, []byte("{}"))
	}
	ctx, cancel := context.WithTimeout(context.Background(), sideTime)
	defer cancel()
	var d dress
	if f != nil {
		d = f.worn()
	}
	s.link.post(ctx, reply, d)
}

// initialize opens a legacy session.
func (s *session) initialize(ctx context.Context, d dress) error {
	params := fmt.Appendf(nil, `,"protocolVersion":%q,"capabilities":%s,"clientInfo":%s`, mcp.Legacy, s.declared, clientInfo)
	m, err := s.ask(ctx, &request{method: "initialize", rest: params}, d)
	if err != nil {
		return fmt.Errorf("initialize: %w", err)
	}
	if m.Err != nil {
		return fmt.Errorf("initialize: %w", m.Err)
	}
	version, _ := m.Result.Get("protocolVersion").Str()
	if !slices.Contains([]string{mcp.Legacy, mcp.Legacy3, mcp.Legacy2, mcp.Legacy1}, version) {
		return fmt.Errorf("initialize: it speaks %q", clip(version, 32))
	}
	s.version, s.capabilities = version, m.Result.Get("capabilities")
	if err := s.link.post(ctx, mcp.Call("", "notifications/initialized", nil), d); err != nil {
		return fmt.Errorf("initialized: %w", err)
	}
	return nil
}
