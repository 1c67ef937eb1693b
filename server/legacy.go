package server

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/mcp"
)

// sessionIdle is how long a session is kept that nobody uses. Whoever comes
// back later is told 404 and begins a new one.
const sessionIdle = time.Hour

// maxCapabilities bounds what a session keeps of what its client declared.
const maxCapabilities = 16 << 10

// A session is what the legacy wire remembers between requests: what a client
// declared when it began, what it has under way, and what it was asked. It is
// no proof of anything: every request in it proves its sender, who must hold
// the key that began it.
type session struct {
	id           string
	key          writ.Thumbprint
	version      string
	upstream     string
	capabilities writ.JSON

	mu        sync.Mutex
	used      time.Time
	calls     map[string]context.CancelFunc // under way, by the request's id
	questions map[string]chan *mcp.Message  // asked of the client, by our id
	listening bool
}

// sessions are those of this process. In a fleet, requests of a session go to
// the gateway that began it, or begin it anew.
type sessions struct {
	mu   sync.Mutex
	byID map[string]*session
}

// begin makes a session. Idle ones make room for it.
func (s *sessions) begin(n *session, now time.Time, l Limits) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ofKey := 0
	for id, old := range s.byID {
		switch {
		case old.idle(now):
			delete(s.byID, id)
		case old.key == n.key:
			ofKey++
		}
	}
	if ofKey >= l.KeySessions || len(s.byID) >= l.Sessions {
		return tooMany("too many sessions are open")
	}
	var random [16]byte
	rand.Read(random[:])
	n.id, n.used = hex.EncodeToString(random[:]), now
	n.calls, n.questions = map[string]context.CancelFunc{}, map[string]chan *mcp.Message{}
	if s.byID == nil {
		s.byID = map[string]*session{}
	}
	s.byID[n.id] = n
	return nil
}

func (n *session) idle(now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return now.Sub(n.used) > sessionIdle && len(n.calls) == 0 && !n.listening
}

// end forgets a session, and stops what it has under way.
func (s *sessions) end(n *session) {
	s.mu.Lock()
	delete(s.byID, n.id)
	s.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, cancel := range n.calls {
		cancel()
	}
}

// find gives the session that a request names. To another key than the one
// that began it, it does not exist.
func (x *exchange) find() (*session, error) {
	ids := x.r.Header.Values(mcp.HeaderSession)
	if len(ids) != 1 {
		return nil, fault(http.StatusBadRequest, "no_session", "send "+mcp.HeaderSession+", or begin with initialize")
	}
	x.m.sessions.mu.Lock()
	n := x.m.sessions.byID[ids[0]]
	x.m.sessions.mu.Unlock()
	if n == nil || subtle.ConstantTimeCompare([]byte(n.key), []byte(x.who.Caller.Key)) != 1 || n.upstream != x.upstream {
		return nil, fault(http.StatusNotFound, "unknown_session", "there is no such session; begin with initialize")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.used = x.m.config.Now()
	return n, nil
}

// legacy answers a request of a revision with sessions.
func (x *exchange) legacy() error {
	if x.req.Method == "initialize" {
		return x.initialize()
	}
	n, err := x.find()
	if err != nil {
		return err
	}
	if x.r.Header.Get(mcp.HeaderVersion) != n.version {
		return fault(http.StatusBadRequest, "wrong_version", "this session speaks "+n.version)
	}
	x.session = n
	x.req.Meta.Capabilities = n.capabilities
	switch x.req.Method {
	case "ping", "logging/setLevel": // we log nothing to clients, at any level
		x.out.result([]byte("{}"))
		return nil
	}
	ctx, cancel := context.WithCancel(x.r.Context())
	defer cancel()
	if !n.start(x.req.ID, cancel) {
		return fault(http.StatusBadRequest, "duplicate_id", "a request with this id is under way")
	}
	defer n.finish(x.req.ID)
	x.r = x.r.WithContext(ctx)
	return x.common()
}

// initialize begins a session, in the revision that the client asked for or
// else the newest that has sessions.
func (x *exchange) initialize() error {
	p := x.req.Params
	version, ok := p.Get("protocolVersion").Str()
	capabilities := p.Get("capabilities")
	if !ok || capabilities.Kind() != canon.Object || len(capabilities.JSON()) > maxCapabilities {
		return &mcp.Error{Code: mcp.CodeInvalidParams, HTTP: http.StatusBadRequest, Message: "initialize needs protocolVersion and capabilities, of at most 16 KiB"}
	}
	if version >= mcp.Modern || !slices.Contains(x.m.config.Versions, version) {
		version = x.m.newestLegacy()
	}
	n := &session{key: x.who.Caller.Key, version: version, upstream: x.upstream, capabilities: capabilities.JSON()}
	if err := x.m.sessions.begin(n, x.m.config.Now(), x.m.config.Limits); err != nil {
		return err
	}
	var b canon.Builder
	b.Text("protocolVersion", version)
	b.Value("capabilities", x.m.capabilities(true))
	b.Value("serverInfo", x.m.serverInfo())
	b.Text("instructions", instructions)
	j, err := b.JSON()
	if err != nil {
		return err
	}
	x.w.Header().Set(mcp.HeaderSession, n.id)
	x.out.result([]byte(j))
	return nil
}

func (n *session) start(id string, cancel context.CancelFunc) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.calls[id] != nil {
		return false
	}
	n.calls[id] = cancel
	return true
}

func (n *session) finish(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.calls, id)
}

// cancel stops a request under way; one that is none is over.
func (n *session) cancel(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if cancel := n.calls[id]; cancel != nil {
		cancel()
	}
}

// ask makes the id of a request to the client, and the way its answer comes.
func (n *session) ask() (id string, answer <-chan *mcp.Message) {
	var random [16]byte
	rand.Read(random[:])
	id = `"` + hex.EncodeToString(random[:]) + `"`
	c := make(chan *mcp.Message, 1)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.questions[id] = c
	return id, c
}

func (n *session) forget(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.questions, id)
}

// response takes a client's answer to what it was asked in its session. There
// is no other response that a client could send.
func (x *exchange) response(m *mcp.Message) error {
	unasked := fault(http.StatusBadRequest, "unasked", "nobody asked for this response")
	if x.r.Header.Get(mcp.HeaderVersion) >= mcp.Modern || m.ID == "" {
		return unasked
	}
	n, err := x.find()
	if err != nil {
		return err
	}
	n.mu.Lock()
	c := n.questions[m.ID]
	delete(n.questions, m.ID)
	n.mu.Unlock()
	if c == nil {
		return unasked
	}
	c <- m
	x.w.WriteHeader(http.StatusAccepted)
	return nil
}

// get opens the stream of a session, on which its client hears that lists
// have changed.
func (x *exchange) get() error {
	if len(x.r.Header.Values(mcp.HeaderSession)) == 0 {
		x.w.Header().Set("Allow", "POST")
		return fault(http.StatusMethodNotAllowed, "method_not_allowed", "use POST")
	}
	n, err := x.find()
	if err != nil {
		return err
	}
	if !x.out.events {
		return fault(http.StatusNotAcceptable, "not_acceptable", "accept text/event-stream to listen")
	}
	n.mu.Lock()
	was := n.listening
	n.listening = true
	n.mu.Unlock()
	if was {
		return fault(http.StatusConflict, "listening", "this session has its stream")
	}
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.listening = false
	}()
	methods := []string{"notifications/tools/list_changed"}
	if x.m.config.Lists != nil {
		methods = append(methods, "notifications/prompts/list_changed", "notifications/resources/list_changed")
	}
	_, err = x.stay(nil, func() error {
		for _, method := range methods {
			if err := x.out.say(mcp.Call("", method, nil)); err != nil {
				return err
			}
		}
		return nil
	}, true)
	return err
}

// end ends a session.
func (x *exchange) end() error {
	if len(x.r.Header.Values(mcp.HeaderSession)) == 0 {
		x.w.Header().Set("Allow", "POST")
		return fault(http.StatusMethodNotAllowed, "method_not_allowed", "use POST")
	}
	n, err := x.find()
	if err != nil {
		return err
	}
	x.m.sessions.end(n)
	x.w.WriteHeader(http.StatusNoContent)
	return nil
}
