package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/mcp"
)

const (
	eraLife   = 10 * time.Minute // that an upstream's era is remembered
	probeTime = 3 * time.Second  // that a process may take to say it knows server/discover
)

// An era is how an upstream speaks, as far as is known.
type era struct {
	known        bool
	modern       bool
	capabilities *canon.Value // of the server; legacy servers say it in each session
	sessionless  string       // the revision of a legacy server that opens no sessions
	until        time.Time
}

// A dress puts onto a request what shows who asks: the capability if it is
// the action itself, and the credential of the lease. It is nil where there
// is no lease.
type dress func(h http.Header, action bool) error

func (d dress) put(h http.Header, action bool) error {
	if d == nil {
		return nil
	}
	return d(h, action)
}

// era finds out, once in a while, which era an upstream over HTTP speaks. It
// asks with server/discover, which no tool can take for an order. Every error
// wraps ErrNotSent.
func (p *peer) era(ctx context.Context, d dress) (era, error) {
	select {
	case p.probing <- struct{}{}:
		defer func() { <-p.probing }()
	case <-ctx.Done():
		return era{}, notSent(context.Cause(ctx))
	}
	if e := p.knownEra(); e.known {
		return e, nil
	}
	m, err := p.modern(ctx, &request{method: "server/discover"}, d)
	e := era{known: true, until: time.Now().Add(eraLife)}
	var status statusError
	switch {
	case err == nil:
		e.modern, e.capabilities = speaksModern(m)
	case errors.As(err, &status) && status/100 == 4 && status != http.StatusUnauthorized && status != http.StatusForbidden && status != http.StatusTooManyRequests:
		// Whatever it did not understand, initialize will show.
	case errors.Is(err, errNoAnswer) || isMessageError(err):
	default:
		return era{}, notSent(fmt.Errorf("asking what it speaks: %w", err))
	}
	p.mu.Lock()
	p.learned = e
	p.mu.Unlock()
	return e, nil
}

func isMessageError(err error) bool {
	_, ok := errors.AsType[*mcp.Error](err)
	return ok
}

// speaksModern reads the answer to server/discover. Only a list of versions
// with ours in it counts; an error that only a modern server has counts too,
// but says nothing of what the server can do.
func speaksModern(m *mcp.Message) (bool, *canon.Value) {
	if m.Err != nil {
		return m.Err.Code == mcp.CodeHeaderMismatch || m.Err.Code == mcp.CodeMissingCapability, nil
	}
	for v := range m.Result.Get("supportedVersions").Elems() {
		if s, _ := v.Str(); s == mcp.Modern {
			return true, m.Result.Get("capabilities")
		}
	}
	return false, nil
}

func (p *peer) knownEra() era {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Now().After(p.learned.until) {
		return era{}
	}
	return p.learned
}

// forget makes the next call ask again.
func (p *peer) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.learned = era{}
}

// modern makes one stateless request and gives its response. What else comes
// on the stream is progress of this request, or dropped: a server of this era
// makes no requests.
func (p *peer) modern(ctx context.Context, r *request, d dress) (*mcp.Message, error) {
	id := p.nextID()
	body := r.body(id, true)
	h := p.http.header()
	mcp.SetHeaders(h, r.method, r.name, r.mirror, r.args)
	if err := d.put(h, r.action); err != nil {
		return nil, notSent(err)
	}
	var answer *mcp.Message
	err := p.http.exchange(ctx, &exchange{header: h, body: body, each: func(m *mcp.Message) bool {
		switch {
		case m.Method != "":
			r.meter.notice(m)
			return false
		case m.ID != id && (m.ID != "" || m.Err == nil):
			return false // somebody else's
		}
		answer = m
		return true
	}})
	if err != nil {
		return nil, err
	}
	return answer, nil
}
