package upstream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"github.com/writgate/writ/mcp"
)

var (
	errNoAnswer = errors.New("the answer ended without a response")
	errSilent   = errors.New("the stream went silent")
	errRedirect = errors.New("redirects are not followed")
)

// A statusError is an answer that says no and nothing else.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("status %d", int(e)) }

// untouched are statuses by which HTTP says that the request was not acted on
// (RFC 9110, 15.5; RFC 6585), whoever on the way gave them. 403 is not among
// them: who guards a tool may give it for an answer that it holds back.
var untouched = []int{
	http.StatusUnauthorized, http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType,
	http.StatusMisdirectedRequest, http.StatusTooManyRequests, http.StatusRequestHeaderFieldsTooLarge,
}

// An endpoint is the HTTP side of an upstream: one URL, one pool of
// connections.
type endpoint struct {
	url    *url.URL
	client *guarded
	lean   *lean         // nil if requests need more than it does, such as TLS
	base   http.Header   // of every request; never changed
	silent time.Duration // how long a stream may be
}

func newEndpoint(c *Config) (*endpoint, error) {
	u, g, err := aim(c.URL, c.Allow)
	if err != nil {
		return nil, err
	}
	return &endpoint{url: u, client: newGuarded(g), lean: newLean(g.plain(), u), silent: maxSilent, base: http.Header{
		"Content-Type": {"application/json"},
		"Accept":       {"application/json, text/event-stream"},
		"User-Agent":   {"writ"},
	}}, nil
}

// close lets go of every connection that is not in use.
func (e *endpoint) close() {
	e.client.CloseIdleConnections()
	if e.lean != nil {
		e.lean.close()
	}
}

// header is a new header. Nothing a caller sent is in it.
func (e *endpoint) header() http.Header {
	h := make(http.Header, len(e.base)+6)
	maps.Copy(h, e.base)
	return h
}

// do sends one request with its whole body. It is an error that wraps
// ErrNotSent if there never was a connection to send it on.
func (e *endpoint) do(ctx context.Context, method string, h http.Header, body []byte) (*http.Response, error) {
	if e.lean != nil && method == http.MethodPost && len(body) <= maxLean {
		resp, connected, err := e.lean.post(ctx, h, body)
		if err != nil && !connected {
			return nil, notSent(err)
		}
		return resp, err
	}
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	r := &http.Request{Method: method, URL: e.url, Host: e.url.Host, Header: h, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	if body != nil {
		// The transport may rewind it, but does so only while nothing is written.
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		r.Body, _ = r.GetBody()
		r.ContentLength = int64(len(body))
	}
	resp, err := e.client.RoundTrip(r.WithContext(ctx))
	switch {
	case err == nil:
		return resp, nil
	case !connected.Load():
		return nil, notSent(err)
	}
	return nil, err
}

// An exchange is one request and what is read of its answer.
type exchange struct {
	header  http.Header
	body    []byte                  // posted; nil: a GET for a stream
	opened  func(http.Header)       // told of the answer's header before anything else; may be nil
	each    func(*mcp.Message) bool // told of each message, until it is satisfied
	patient bool                    // the stream may be silent for as long as it likes
	last    string                  // the id of the last event that had one: where to go on
	retry   time.Duration           // when the server wants to be asked again
	began   bool                    // the answer is a stream
}

// exchange sends x and reads messages until x.each is satisfied.
func (e *endpoint) exchange(ctx context.Context, x *exchange) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	method := http.MethodPost
	if x.body == nil {
		method = http.MethodGet
	}
	resp, err := e.do(ctx, method, x.header, x.body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if x.opened != nil {
		x.opened(resp.Header)
	}
	return x.read(ctx, cancel, resp, e.silent)
}

// read reads an answer.
func (x *exchange) read(ctx context.Context, cancel context.CancelCauseFunc, resp *http.Response, silent time.Duration) error {
	in := &intake{r: resp.Body, left: maxFrame, hash: sha256.New()}
	typ, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case resp.StatusCode/100 == 3:
		return errRedirect
	case resp.Header.Get("Content-Encoding") != "":
		return errors.New("the answer is encoded in a way that nobody asked for")
	case resp.StatusCode != http.StatusOK:
		return refusal(resp.StatusCode, typ, in, x.each)
	case typ == "text/event-stream":
		in.left, x.began = maxStream, true
		if !x.patient {
			in.alive = time.AfterFunc(silent, func() { cancel(errSilent) })
			in.silent = silent
			defer in.alive.Stop()
		}
		return x.stream(ctx, cancel, in)
	case typ != "application/json" || x.body == nil:
		return fmt.Errorf("the answer is of type %q", clip(typ, 64))
	case resp.ContentLength > maxFrame:
		return fmt.Errorf("%w: %d bytes are announced", ErrTooLarge, resp.ContentLength)
	}
	b, err := in.all(resp.ContentLength)
	if err != nil {
		return in.failed(ctx, err)
	}
	m, err := mcp.ParseMessage(b, limits)
	if err != nil {
		return in.failed(ctx, err)
	}
	if !x.each(m) {
		return errNoAnswer
	}
	return nil
}

// refusal reads an answer whose status is no success. It may hold a JSON-RPC
// error, which is then the answer.
func refusal(status int, typ string, in *intake, each func(*mcp.Message) bool) error {
	if typ == "application/json" {
		in.left = 64 << 10
		if b, err := in.all(0); err == nil {
			if m, err := mcp.ParseMessage(b, limits); err == nil && m.Err != nil && each(m) {
				return nil
			}
		}
	}
	if slices.Contains(untouched, status) {
		return notSent(statusError(status))
	}
	return statusError(status)
}

// stream reads events until x.each has had enough. An event that is no message
// is skipped, and blamed if no response comes.
func (x *exchange) stream(ctx context.Context, cancel context.CancelCauseFunc, in *intake) error {
	r := &mcp.EventReader{R: bufio.NewReaderSize(in, 4<<10), Event: maxFrame, Events: maxEvents}
	bad := errNoAnswer
	for {
		data, err := r.Next()
		x.last, x.retry = r.LastID, r.Retry
		switch {
		case err == io.EOF:
			return in.failed(ctx, bad)
		case err != nil:
			return in.failed(ctx, err)
		case len(data) == 0:
			continue // an event that only has an id
		}
		m, err := mcp.ParseMessage(data, limits)
		if err != nil {
			bad = err
			continue
		}
		if x.each(m) {
			// The connection can be used again if this was the end. Who does
			// not end now is cut off.
			t := time.AfterFunc(20*time.Millisecond, func() { cancel(nil) })
			in.r.Read(make([]byte, 1))
			t.Stop()
			return nil
		}
	}
}

// notify posts a message that no response answers.
func (e *endpoint) notify(ctx context.Context, h http.Header, body []byte) error {
	resp, err := e.do(ctx, http.MethodPost, h, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	io.CopyN(io.Discard, resp.Body, 4<<10)
	if resp.StatusCode/100 != 2 {
		return statusError(resp.StatusCode)
	}
	return nil
}
