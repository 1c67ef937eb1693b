package server

import (
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/writgate/writ/mcp"
)

const (
	writeTimeout = 10 * time.Second // for one message
	quiet        = 15 * time.Second // after which a stream says that it is alive
)

// A reply is the answer to one request: one JSON object or, once something has
// been said before the answer, a stream of events that ends with it.
type reply struct {
	w            http.ResponseWriter
	json, events bool   // what the client accepts
	id           string // of the request, as JSON; empty if there is none

	mu     sync.Mutex
	stream *mcp.EventWriter // nil until there is one
	begun  bool             // something was sent
	over   bool             // the answer was
	alive  *time.Timer
}

func newReply(w http.ResponseWriter, h http.Header) *reply {
	r := &reply{w: w}
	values := h.Values("Accept")
	if len(values) == 0 {
		r.json = true
	}
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			switch typ, _, err := mime.ParseMediaType(part); {
			case err != nil:
			case typ == "*/*" || typ == "application/*" || typ == "application/json":
				r.json = true
			case typ == "text/event-stream":
				r.events = true
			}
		}
	}
	return r
}

// say sends a message before the answer, if the client accepts a stream.
func (r *reply) say(message []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.events || r.over {
		return nil
	}
	return r.event(message)
}

// event sends one message as an event.
func (r *reply) event(message []byte) error {
	r.open()
	r.deadline()
	return r.stream.Message(message)
}

// breathe opens the stream, or keeps it from looking dead.
func (r *reply) breathe() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open()
	r.deadline()
	return r.stream.KeepAlive()
}

func (r *reply) open() {
	if r.stream == nil {
		r.begun, r.stream = true, &mcp.EventWriter{W: r.w}
	}
}

// answer sends the response, as the last thing. A stream that has begun has
// its status already.
func (r *reply) answer(status int, response []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.quiet()
	if r.over {
		return
	}
	r.over = true
	if r.stream != nil || status == http.StatusOK && !r.json {
		r.event(response) // whoever is gone hears nothing
		return
	}
	r.begun = true
	r.deadline()
	h := r.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	r.w.WriteHeader(status)
	r.w.Write(response)
}

// started says whether something was sent.
func (r *reply) started() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.begun
}

// result answers with a result.
func (r *reply) result(result []byte) {
	r.answer(http.StatusOK, mcp.Response(r.id, result))
}

// deadline bounds how long a client may take to read the next message.
func (r *reply) deadline() {
	http.NewResponseController(r.w).SetWriteDeadline(time.Now().Add(writeTimeout)) // where there is none to set, nobody is slow
}

// keepAlive makes a stream of an answer that takes its time, and keeps it from
// looking dead. The answer stops it; so does the function it gives.
func (r *reply) keepAlive() (stop func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.events {
		return func() {}
	}
	r.alive = time.AfterFunc(quiet, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.alive == nil {
			return
		}
		r.open()
		r.deadline()
		if r.stream.KeepAlive() == nil {
			r.alive.Reset(quiet)
		}
	})
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.quiet()
	}
}

func (r *reply) quiet() {
	if r.alive != nil {
		r.alive.Stop()
		r.alive = nil
	}
}

// progress gives what tells the client of progress; nil if it did not ask, or
// could not hear it.
func (x *exchange) progress() func(progress, total string) {
	token := x.req.Meta.ProgressToken
	if token == "" || !x.out.events {
		return nil
	}
	return func(progress, total string) {
		params := `{"progressToken":` + token + `,"progress":` + progress
		if total != "" {
			params += `,"total":` + total
		}
		x.out.say(mcp.Call("", "notifications/progress", []byte(params+"}"))) // whoever is gone hears nothing
	}
}
