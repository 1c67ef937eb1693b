// Package server is the door that agents come in by: the Model Context
// Protocol over Streamable HTTP, revision 2026-07-28 and, where they are
// enabled, the revisions before it that open a session.
//
// It knows the protocol and how to wait; it decides nothing. Every request
// proves who sends it, whatever it asks for and whichever session it names:
// there is no route that answers a stranger with more than a refusal. A call
// becomes a writ.Action and goes through package gate; what comes back keeps
// its bytes, with our decision and receipt in its _meta. A *writ.Denial
// becomes something on the wire in one place, deny.go.
//
// A request is read whole before anything is done about it, at most 1 MiB, and
// a new one is built for the upstream: no byte of a client's framing, headers
// or envelope goes up.
package server

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/gate"
	"github.com/writgate/writ/identity"
	"github.com/writgate/writ/mcp"
)

const (
	maxBody     = 1 << 20
	bodyTimeout = 10 * time.Second
)

// A Config says how an MCP handler serves. Gate, State, URL and Now are
// required.
type Config struct {
	Gate     *gate.Gate
	State    [32]byte // seals requestState; the same for every gateway of a fleet
	URL      string   // how agents reach the handler, such as "https://writ.example": its paths are /mcp and /mcp/{upstream} below it
	Hosts    []string // values of Host besides URL's that are taken
	Origins  []string // values of Origin that are taken; a request without one is always
	Versions []string // protocol revisions; 2026-07-28 and 2025-11-25 if empty
	Metadata string   // URL of the protected resource metadata (RFC 9728), for challenges
	Status   string   // URL below which Status is served, with a slash at the end; empty: agents are told to call again
	Limits   Limits
	Noise    *Noise
	Now      func() time.Time
	Version  string // of this software

	// Refused is told of every refusal, with what only operators may see;
	// nil: nobody is.
	Refused func(writ.CallID, *writ.Denial)

	// Lists gives the items of resources/list, resources/templates/list or
	// prompts/list of an upstream; nil: there are none. An error that comes
	// beside items says that there are more.
	Lists func(ctx context.Context, upstream, method string) ([]writ.JSON, error)
}

// MCP serves agents. It is an http.Handler for a listener of its own; see
// Front.
type MCP struct {
	config       Config
	scheme, base string
	meter        meter
	room         room
	sessions     sessions
	listeners    listeners
	shown        shown
}

// New makes a handler. It refuses a configuration that would leave a door
// open.
func New(c Config) (*MCP, error) {
	u, err := url.Parse(c.URL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("server URL: %w", err)
	case u.Scheme != "https" && u.Scheme != "http", u.Host == "", u.RawQuery != "", u.Fragment != "", u.User != nil:
		return nil, fmt.Errorf("server URL %q is not a scheme, a host and perhaps a path", c.URL)
	case subtle.ConstantTimeCompare(c.State[:], make([]byte, len(c.State))) == 1:
		return nil, errors.New("server needs a key for request states")
	case c.Gate == nil || c.Now == nil:
		return nil, errors.New("server needs a gate and a clock")
	}
	if len(c.Versions) == 0 {
		c.Versions = []string{mcp.Modern, mcp.Legacy}
	}
	for _, v := range c.Versions {
		if !slices.Contains([]string{mcp.Modern, mcp.Legacy, mcp.Legacy3, mcp.Legacy2}, v) {
			return nil, fmt.Errorf("protocol revision %q is not served", v)
		}
	}
	c.Versions = slices.Sorted(slices.Values(c.Versions)) // newest first, as a client should choose
	slices.Reverse(c.Versions)
	c.Hosts = append([]string{u.Host}, c.Hosts...)
	c.Limits = c.Limits.withDefaults()
	return &MCP{config: c, scheme: u.Scheme, base: strings.TrimSuffix(u.EscapedPath(), "/")}, nil
}

// An exchange is one HTTP request and its answer.
type exchange struct {
	m        *MCP
	w        http.ResponseWriter
	r        *http.Request
	upstream string // the only one asked for; empty: all
	call     *gate.Request
	who      *identity.Proven
	req      *mcp.Request
	session  *session // nil on the modern wire
	out      *reply
	leave    func() // gives its places among the requests under way back
}

// ServeHTTP answers one request.
func (m *MCP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{m: m, w: w, r: r, leave: func() {}, out: newReply(w, r.Header)}
	defer func() { x.leave() }()
	defer x.recover()
	if err := x.serve(); err != nil {
		x.refuse(err)
	}
}

// serve takes a request through the checks in the order in which they can be
// made without believing anything: the address it was sent to, its size, who
// sends it, what it says.
func (x *exchange) serve() error {
	if err := x.admit(); err != nil {
		return err
	}
	if err := x.checkBody(); err != nil {
		return err
	}
	leave, ok := x.m.meter.enter(x.r.ContentLength, x.m.config.Limits)
	if !ok {
		return writ.Refuse(writ.Unavailable, "the gateway has too much to do; try again", nil)
	}
	x.leave = sync.OnceFunc(leave)
	body, err := x.identify()
	if err != nil {
		return err
	}
	switch x.r.Method {
	case http.MethodPost:
		return x.post(body)
	case http.MethodGet:
		return x.get()
	default:
		return x.end()
	}
}

// admit checks where a request was sent, and from what kind of page. A
// browser sends Origin; nobody has business here from another site (DNS
// rebinding: 2026-07-28, transports, "Security").
func (x *exchange) admit() error {
	r := x.r
	if !slices.Contains(x.m.config.Hosts, r.Host) || r.URL.Host != "" {
		return fault(http.StatusMisdirectedRequest, "wrong_host", "this host is not served here")
	}
	for _, origin := range r.Header.Values("Origin") {
		if !slices.Contains(x.m.config.Origins, origin) {
			return fault(http.StatusForbidden, "wrong_origin", "this origin is not allowed")
		}
	}
	var ok bool
	if x.upstream, ok = x.m.route(r.RequestURI); !ok {
		return fault(http.StatusNotFound, "not_found", "there is nothing here")
	}
	switch r.Method {
	case http.MethodPost, http.MethodGet, http.MethodDelete:
		return nil
	}
	x.w.Header().Set("Allow", "POST, GET, DELETE")
	return fault(http.StatusMethodNotAllowed, "method_not_allowed", "use POST")
}

// route finds the upstream in a request's target, byte for byte: what is
// spelled in another way, or has a query, is not found.
func (m *MCP) route(target string) (upstream string, ok bool) {
	rest, ok := strings.CutPrefix(target, m.base+"/mcp")
	if !ok || rest == "" {
		return "", ok
	}
	upstream, ok = strings.CutPrefix(rest, "/")
	return upstream, ok && isUpstream(upstream)
}

// isUpstream says whether s could be an upstream's name, as package upstream
// has them.
func isUpstream(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= 32
}

// identify finds out who sends a request, and reads its body. If the channel
// is all there is to prove it, nobody's body is read before that.
func (x *exchange) identify() (body []byte, err error) {
	x.call = &gate.Request{Evidence: x.evidence()}
	if len(x.call.Evidence.Authorization) == 0 {
		if x.who, err = x.m.config.Gate.Identify(x.r.Context(), x.call); err != nil {
			return nil, err
		}
		return x.body()
	}
	if body, err = x.body(); err != nil {
		return nil, err
	}
	x.call.Evidence.Body = body
	x.who, err = x.m.config.Gate.Identify(x.r.Context(), x.call)
	return body, err
}

// evidence is all that identity may rest on, save the body. No other header is
// looked at, however it is named or spelled.
func (x *exchange) evidence() identity.Evidence {
	e := identity.Evidence{
		Authorization: x.r.Header.Values("Authorization"), Proof: x.r.Header.Values("Dpop"),
		Method: x.r.Method, URL: x.m.scheme + "://" + x.r.Host + x.r.RequestURI,
	}
	if x.r.TLS != nil {
		e.Chain = x.r.TLS.PeerCertificates
	}
	return e
}

// checkBody refuses a body by what its headers say of it.
func (x *exchange) checkBody() error {
	r := x.r
	switch {
	case len(r.TransferEncoding) > 0 || r.ContentLength < 0:
		return fault(http.StatusLengthRequired, "length_required", "send Content-Length")
	case r.ContentLength > maxBody:
		return fault(http.StatusRequestEntityTooLarge, "too_large", "the body is larger than 1 MiB")
	case r.Method == http.MethodPost:
		return mcp.CheckMediaType(r.Header)
	case r.ContentLength != 0:
		return fault(http.StatusBadRequest, "invalid_request", r.Method+" has no body")
	}
	return nil
}

// body reads all of the body.
func (x *exchange) body() ([]byte, error) {
	if x.r.ContentLength == 0 {
		return nil, nil
	}
	c := http.NewResponseController(x.w)
	c.SetReadDeadline(time.Now().Add(bodyTimeout)) // where there is none to set, nobody is slow
	b := make([]byte, x.r.ContentLength)
	if _, err := io.ReadFull(x.r.Body, b); err != nil {
		return nil, fault(http.StatusRequestTimeout, "invalid_request", "the body did not arrive")
	}
	c.SetReadDeadline(time.Time{})
	return b, nil
}

// post reads the message, decides which wire it is of, and answers it.
func (x *exchange) post(body []byte) error {
	msg, err := mcp.ParseMessage(body, canon.Limits{})
	if err != nil {
		return err
	}
	x.out.id = msg.ID
	if msg.Method == "" {
		return x.response(msg)
	}
	if x.req, err = msg.Request(); err != nil {
		return err
	}
	if !x.out.json && !x.out.events {
		return fault(http.StatusNotAcceptable, "not_acceptable", "accept application/json and text/event-stream")
	}
	serve := x.legacy
	if x.req.Meta.Version != "" {
		serve = x.modern
	}
	if err := x.wire(); err != nil {
		return err
	}
	if x.req.ID == "" {
		return x.notification()
	}
	done, err := x.m.meter.take(x.who.Caller.Key, x.r.ContentLength, x.m.config.Now(), x.m.config.Limits)
	if err != nil {
		return err
	}
	leave := x.leave
	x.leave = sync.OnceFunc(func() { done(); leave() })
	return serve()
}

// wire checks that a request is of a revision that is enabled, complete, and
// the same in its headers as in its body.
func (x *exchange) wire() error {
	req, h := x.req, x.r.Header
	header := h.Get(mcp.HeaderVersion)
	switch {
	case req.Meta.Version != "" && header != "" && header != req.Meta.Version:
		// Which of the two is meant nobody knows: CheckHeaders says so.
	case req.Meta.Version != "":
		if req.Meta.Version < mcp.Modern || !slices.Contains(x.m.config.Versions, req.Meta.Version) {
			return mcp.UnsupportedVersion(req.Meta.Version, x.m.config.Versions...)
		}
	case header >= mcp.Modern || req.Method == "server/discover" || req.Method == "subscriptions/listen":
		return &mcp.Error{
			Code: mcp.CodeInvalidParams, HTTP: http.StatusBadRequest,
			Message: "_meta must have " + mcp.KeyVersion + " and " + mcp.KeyCapabilities,
		}
	case x.m.newestLegacy() == "":
		return mcp.UnsupportedVersion(header, x.m.config.Versions...)
	case header == "" && slices.Contains(x.m.config.Versions, mcp.Legacy2):
		h.Set(mcp.HeaderVersion, mcp.Legacy2) // that revision had no such header
	case header != "" && !slices.Contains(x.m.config.Versions, header):
		return mcp.UnsupportedVersion(header, x.m.config.Versions...)
	}
	return mcp.CheckHeaders(h, req, x.mirrored)
}

// newestLegacy is the newest revision with sessions that is enabled; empty if
// none is.
func (m *MCP) newestLegacy() string {
	for _, v := range m.config.Versions {
		if v < mcp.Modern {
			return v
		}
	}
	return ""
}

// mirrored gives the annotations of a tool's pinned schema whose headers were
// sent. The definitions we list have none, so nobody has to send them; who
// does must not say there what the body does not.
func (x *exchange) mirrored(tool string) []mcp.HeaderParam {
	sent := false
	for name := range x.r.Header {
		sent = sent || strings.HasPrefix(name, "Mcp-Param-")
	}
	if !sent {
		return nil
	}
	upstream, name := x.split(tool)
	entries, _, err := x.m.config.Gate.List(x.r.Context(), x.call)
	if err != nil {
		return nil // the call itself will be refused
	}
	for _, e := range entries {
		if e.Kind != writ.KindTool || e.Tool.Upstream != upstream || e.Name != name {
			continue
		}
		schema, err := canon.Parse([]byte(e.Input), canon.Limits{})
		if err != nil {
			return nil
		}
		params, _ := mcp.HeaderParams(schema)
		return slices.DeleteFunc(params, func(p mcp.HeaderParam) bool { return len(x.r.Header.Values("Mcp-Param-"+p.Name)) == 0 })
	}
	return nil
}

// split finds the upstream in a tool's name as we list it.
func (x *exchange) split(listed string) (upstream, name string) {
	if x.upstream != "" {
		return x.upstream, listed
	}
	upstream, name, ok := strings.Cut(listed, ".")
	if !ok {
		return "", listed
	}
	return upstream, name
}

// notification takes what asks for no answer. Only the legacy wire has any
// that mean something here.
func (x *exchange) notification() error {
	if !strings.HasPrefix(x.req.Method, "notifications/") {
		return fault(http.StatusBadRequest, "invalid_request", "a request needs an id")
	}
	if x.req.Meta.Version == "" {
		s, err := x.find()
		if err != nil {
			return err
		}
		if x.req.Method == "notifications/cancelled" {
			s.cancel(string(x.req.Params.Get("requestId").Raw()))
		}
	}
	x.w.WriteHeader(http.StatusAccepted)
	return nil
}

// Changed says that what an upstream offers may have changed. Everybody who
// listens is told, and nobody what changed: each lists again what it may see.
func (m *MCP) Changed() { m.listeners.stir() }

// Close ends the streams that only listen. Calls under way go on.
func (m *MCP) Close() { m.listeners.close() }

// from is where a request came from, for people.
func (x *exchange) from() string {
	host, _, err := net.SplitHostPort(x.r.RemoteAddr)
	if err != nil {
		return x.r.RemoteAddr
	}
	return host
}
