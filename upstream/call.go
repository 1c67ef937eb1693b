package upstream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/mcp"
)

const (
	holdTime = 5 * time.Minute // that a call waits for what its upstream has asked for
	maxHolds = 128             // calls of one upstream that wait so
)

var (
	errTime    = errors.New("the time for the call is over")
	errChanged = notSent(errors.New("what the upstream offers now is not the definition that was reviewed"))
	errFull    = errors.New("too many calls wait for what this upstream has asked for")
	errLost    = notSent(errors.New("the call that waited for this is gone"))
)

// A trip is one order on its way.
type trip struct {
	*Order
	lease   *broker.Lease
	request *request
	secret  bool // the lease has a credential in it
	dress   dress
}

// call carries out one order.
func (p *peer) call(ctx context.Context, lease *broker.Lease, o *Order) (*Answer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.Timeout, errTime)
	defer cancel()
	if err := lease.Check(); err != nil {
		return nil, notSent(err)
	}
	if o.Task == "" || o.Action == nil {
		return nil, notSent(errors.New("an order is an action of a task"))
	}
	def, err := p.reviewed(ctx, o.Action)
	if err != nil {
		return nil, err
	}
	r, err := compose(o.Action, o.Arguments)
	if err != nil {
		return nil, notSent(err)
	}
	r.mirror = def.mirror
	r.meta = mcp.Meta{Capabilities: p.admitted(o.Meta.Capabilities), Traceparent: o.Meta.Traceparent, Tracestate: o.Meta.Tracestate}
	if o.Progress != nil {
		r.meter = &meter{to: o.Progress}
	}
	t := &trip{Order: o, lease: lease, request: r}
	if err := p.clothe(t); err != nil {
		return nil, notSent(err)
	}
	answer, again, err := p.attempt(ctx, t)
	if again {
		answer, _, err = p.attempt(ctx, t)
	}
	return answer, err
}

// clothe finds out whether the lease has a credential in it, and how it gets
// onto a request. A process is given it when it starts.
func (p *peer) clothe(t *trip) error {
	if p.http == nil {
		env, args, err := t.lease.Process()
		t.secret = len(env)+len(args) > 0
		return err
	}
	probe := http.Header{}
	if err := t.lease.Apply(probe); err != nil {
		return err
	}
	t.secret = len(probe) > 0
	t.dress = func(h http.Header, action bool) error {
		if action && p.Capability && t.Present != nil {
			shown, err := t.Present(http.MethodPost, p.http.url.String())
			if err != nil {
				return fmt.Errorf("presenting the capability: %w", err)
			}
			for name, values := range shown {
				h[http.CanonicalHeaderKey(name)] = values
			}
		}
		return t.lease.Apply(h)
	}
	return nil
}

// attempt makes the call once. Again says that the peer refused it before it
// could act, for a reason that may be gone now.
func (p *peer) attempt(ctx context.Context, t *trip) (_ *Answer, again bool, _ error) {
	if p.http == nil {
		answer, err := p.converse(ctx, t)
		return answer, false, err
	}
	e, err := p.era(ctx, t.dress)
	if err != nil {
		return nil, false, err
	}
	if !e.modern {
		answer, err := p.converse(ctx, t)
		return answer, errors.Is(err, errGone), err
	}
	r := *t.request
	if err := r.answering(t.Action); err != nil {
		return nil, false, notSent(err)
	}
	m, err := p.modern(ctx, &r, t.dress)
	if err != nil {
		if _, refused := errors.AsType[statusError](err); refused {
			p.forget()
		}
		return nil, false, err
	}
	answer, err := settle(m, r.meta.Capabilities)
	switch {
	case m.Err == nil:
	case m.Err.Code == mcp.CodeHeaderMismatch:
		// Its schema may have changed under us, and then so has the tool.
		if err := p.relist(ctx, 0); err != nil {
			return answer, false, nil
		}
		def, err := p.reviewed(ctx, t.Action)
		if err != nil {
			return nil, false, err
		}
		t.request.mirror = def.mirror
		return answer, true, nil
	case m.Err.Code == mcp.CodeUnsupportedVersion:
		p.forget()
		return answer, true, nil
	}
	return answer, false, err
}

// converse makes the call in a session.
func (p *peer) converse(ctx context.Context, t *trip) (*Answer, error) {
	answers := t.Action.State != "" || t.Action.Inputs != ""
	if answers {
		if h := p.taken(t); h != nil {
			return p.resume(ctx, h, t)
		}
		if p.http != nil {
			return nil, errLost
		}
	}
	s, release, err := p.session(ctx, t)
	if err != nil {
		return nil, notSent(err)
	}
	r := *t.request
	if s.modern {
		err = r.answering(t.Action)
	} else if answers {
		err = errLost
	}
	if err != nil {
		release(t.dress)
		return nil, notSent(err)
	}
	r.meter.listener(t.Progress)
	f, err := s.send(&r, t.dress)
	if err != nil {
		release(t.dress)
		return nil, err
	}
	return p.await(ctx, &hold{session: s, flight: f, release: release}, t)
}

// A hold is a call of a legacy upstream that waits for an answer upward.
type hold struct {
	session *session
	flight  *flight
	release func(dress)
	task    writ.TaskID
	action  writ.Action
	asks    []*mcp.Message
	timer   *time.Timer
}

// await gives the answer of a call, or holds it and gives what it asks for.
func (p *peer) await(ctx context.Context, h *hold, t *trip) (*Answer, error) {
	m, asks, err := h.session.wait(ctx, h.flight)
	h.flight.meter.listener(nil)
	if asks != nil {
		if answer := p.hold(h, t, asks); answer != nil {
			return answer, nil
		}
		h.session.abandon(h.flight, errFull)
		err = errFull
	}
	h.release(t.dress)
	if err != nil {
		return nil, err
	}
	capabilities := t.request.meta.Capabilities
	if !h.session.modern {
		capabilities = "" // this era has no such results
	}
	return settle(m, capabilities)
}

// hold suspends a call, and makes an input_required result of what its
// upstream has asked for; nil if too many wait already. The state names the
// call, in this process only.
func (p *peer) hold(h *hold, t *trip, asks []*mcp.Message) *Answer {
	h.task, h.action, h.asks = t.Task, *t.Action, asks
	handle := "held_" + rand.Text()
	body := []byte(`{"resultType":"input_required","inputRequests":{`)
	for i, ask := range asks {
		if i > 0 {
			body = append(body, ',')
		}
		body = fmt.Appendf(body, `"%d":{"method":%q`, i+1, ask.Method)
		if ask.Params != nil {
			body = append(append(body, `,"params":`...), ask.Params.Raw()...)
		}
		body = append(body, '}')
	}
	body = fmt.Appendf(body, `},"requestState":%q}`, handle)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.holds) >= maxHolds {
		return nil
	}
	p.holds[handle] = h
	h.timer = time.AfterFunc(holdTime, func() {
		p.mu.Lock()
		gone := p.holds[handle] != h
		delete(p.holds, handle)
		p.mu.Unlock()
		if !gone {
			p.drop(h)
		}
	})
	return &Answer{Body: body}
}

// drop gives a held call up.
func (p *peer) drop(h *hold) {
	h.timer.Stop()
	h.session.abandon(h.flight, errTime)
	h.release(h.flight.worn())
}

// taken gives the held call that an action goes on with, once, and only to
// the same action of the same task.
func (p *peer) taken(t *trip) *hold {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.holds[t.Action.State]
	if h == nil || h.task != t.Task || h.action.Kind != t.Action.Kind || h.action.Name != t.Action.Name ||
		h.action.Definition != t.Action.Definition || h.action.Arguments != t.Action.Arguments {
		return nil
	}
	delete(p.holds, t.Action.State)
	h.timer.Stop()
	return h
}

// resume delivers what the upstream has asked for, under the lease of today,
// and waits on.
func (p *peer) resume(ctx context.Context, h *hold, t *trip) (*Answer, error) {
	h.flight.wear(t.dress)
	h.flight.meter.listener(t.Progress)
	inputs, err := exact("input responses", t.Action.Inputs)
	if err != nil {
		inputs = nil // every question stays without an answer
	}
	for i, ask := range h.asks {
		reply := (&mcp.Error{Code: mcp.CodeInvalidRequest, Message: "no answer was given", ID: ask.ID}).Response()
		if v := inputs.Get(strconv.Itoa(i + 1)); v.Kind() == canon.Object {
			reply = mcp.Response(ask.ID, v.Raw())
		}
		if err := h.session.link.post(ctx, reply, t.dress); err != nil {
			p.drop(h)
			return nil, fmt.Errorf("answering the upstream: %w", err)
		}
	}
	return p.await(ctx, h, t)
}
