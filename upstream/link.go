package upstream

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/mcp"
)

const maxResumes = 16 // of one stream that the server breaks off

// A httpLink is a legacy session over HTTP: each request is a POST with an
// answer of its own, and the session's id ties them together.
type httpLink struct {
	s      *session
	ctx    context.Context // ends with the link
	cancel context.CancelFunc
	posts  sync.WaitGroup

	mu sync.Mutex
	id string // Mcp-Session-Id; empty if the server has given none
}

// legacy opens a session with a legacy server over HTTP. Every error wraps
// ErrNotSent.
func (p *peer) legacy(ctx context.Context, declared writ.JSON, d dress) (*session, error) {
	s := newSession(p, declared)
	l := &httpLink{s: s}
	l.ctx, l.cancel = context.WithCancel(p.ctx)
	s.link = l
	if e := p.knownEra(); e.sessionless != "" {
		s.version = e.sessionless
		return s, nil
	}
	if err := s.initialize(ctx, d); err != nil {
		s.close(d)
		return nil, notSent(err)
	}
	switch {
	case l.sessionID() == "":
		p.mu.Lock()
		p.learned.sessionless = s.version
		p.mu.Unlock()
	case declared != "{}":
		l.posts.Go(func() { l.listen(l.ctx, d) })
	}
	return s, nil
}

func (l *httpLink) sessionID() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id
}

func (l *httpLink) opened(h http.Header) {
	if id := h.Get(mcp.HeaderSession); id != "" && len(id) <= 1024 {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.id = id
	}
}

func (l *httpLink) header(d dress, action bool) (http.Header, error) {
	h := l.s.peer.http.header()
	if l.s.version != "" {
		h[mcp.HeaderVersion] = []string{l.s.version}
	}
	if id := l.sessionID(); id != "" {
		h[mcp.HeaderSession] = []string{id}
	}
	return h, d.put(h, action)
}

func (l *httpLink) request(f *flight, body []byte, action bool) {
	h, err := l.header(f.worn(), action)
	if err != nil {
		l.s.finish(f, nil, notSent(err))
		return
	}
	x := &exchange{header: h, body: body, each: func(m *mcp.Message) bool { return l.s.receive(m, f) }}
	if l.s.version == "" {
		x.opened = l.opened // of initialize
	}
	l.posts.Go(func() {
		stop := context.AfterFunc(l.ctx, func() { f.cancel(errClosed) })
		defer stop()
		err := l.s.peer.http.exchange(f.ctx, x)
		for range maxResumes {
			if err == nil || x.last == "" || f.ctx.Err() != nil {
				break
			}
			err = l.resume(f, x)
		}
		var status statusError
		switch {
		case errors.As(err, &status) && status == http.StatusNotFound && l.sessionID() != "":
			l.s.end(errGone)
		case err != nil:
			l.s.finish(f, nil, err)
		}
	})
}

// resume goes on with a stream that the server broke off after an event with
// an id (2025-11-25, transports, "Resumability and Redelivery"). The request
// is not made again.
func (l *httpLink) resume(f *flight, x *exchange) error {
	t := time.NewTimer(min(max(x.retry, 100*time.Millisecond), 5*time.Second))
	defer t.Stop()
	select {
	case <-t.C:
	case <-f.ctx.Done():
		return context.Cause(f.ctx)
	}
	h, err := l.header(f.worn(), false)
	if err != nil {
		return err
	}
	h["Accept"] = []string{"text/event-stream"}
	h["Last-Event-Id"] = []string{x.last}
	x.header, x.body = h, nil
	return l.s.peer.http.exchange(f.ctx, x)
}

// listen reads what the server says outside of any answer, until it stops, and
// says whether there was such a stream.
func (l *httpLink) listen(ctx context.Context, d dress) bool {
	h, err := l.header(d, false)
	if err != nil {
		return false
	}
	h["Accept"] = []string{"text/event-stream"}
	x := &exchange{header: h, patient: true, each: func(m *mcp.Message) bool {
		l.s.receive(m, nil)
		return false
	}}
	l.s.peer.http.exchange(ctx, x) // it ends with an error, always
	return x.began
}

func (l *httpLink) post(ctx context.Context, body []byte, d dress) error {
	h, err := l.header(d, false)
	if err != nil {
		return err
	}
	return l.s.peer.http.notify(ctx, h, body)
}

// close tells the server that the session is over, if there is one and it
// will hear it.
func (l *httpLink) close(d dress) {
	l.cancel()
	if h, err := l.header(d, false); err == nil && l.sessionID() != "" {
		ctx, cancel := context.WithTimeout(context.Background(), sideTime)
		defer cancel()
		if resp, err := l.s.peer.http.do(ctx, http.MethodDelete, h, nil); err == nil {
			resp.Body.Close()
		}
	}
	l.posts.Wait()
}
