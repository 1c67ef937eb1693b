package upstream

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/mcp"
)

// What is read of one answer.
const (
	maxResult = 8 << 20            // bytes of a result
	maxFrame  = maxResult + 64<<10 // bytes of the message around it
	maxStream = 4 * maxResult      // bytes of a stream of events
	maxEvents = 10_000             // events of it, or messages between two answers of a process
	maxSilent = 5 * time.Minute    // between two bytes of a stream
)

var limits = canon.Limits{Bytes: maxFrame, Depth: 130, Nodes: 1 << 20}

// clientInfo is how we introduce ourselves. What the agent calls itself is its
// own word, and stays here.
const clientInfo = `{"name":"writ","version":"1"}`

// notSent says that nothing has reached the tool.
func notSent(err error) error {
	if errors.Is(err, ErrNotSent) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNotSent, err)
}

// A request is a JSON-RPC request, its id and era aside.
type request struct {
	method string
	name   string            // what Mcp-Name mirrors
	rest   []byte            // the members of params beside _meta, each with a comma before it
	mirror []mcp.HeaderParam // arguments that headers mirror, by the pinned schema
	args   *canon.Value
	meta   mcp.Meta // capabilities and trace context
	action bool     // it makes the tool act
	meter  *meter   // nil: no progress is wanted
}

// body is the request with its metadata for an era: all there is in it is
// either judged or made here.
func (r *request) body(id string, modern bool) []byte {
	meta := mcp.Meta{Traceparent: r.meta.Traceparent, Tracestate: r.meta.Tracestate}
	if modern {
		meta.Version, meta.Client, meta.Capabilities = mcp.Modern, clientInfo, r.meta.Capabilities
		if meta.Capabilities == "" {
			meta.Capabilities = "{}"
		}
	}
	if r.meter != nil {
		r.meter.token = id
		meta.ProgressToken = id
	}
	params := make([]byte, 0, 320+len(r.rest))
	params = append(params, `{"_meta":`...)
	params = meta.Append(params)
	params = append(append(params, r.rest...), '}')
	return mcp.Call(id, r.method, params)
}

// exact reads a part of an action. What is not canonical is not what was
// judged; it could also hold a newline, which ends a message on stdio.
func exact(what string, j writ.JSON) (*canon.Value, error) {
	v, err := canon.ParseObject([]byte(j), canon.Limits{})
	if err == nil && v.JSON() != j {
		err = errors.New("not canonical")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return v, nil
}

// compose makes the request for an action. Its arguments may have been read
// before: what has the same canonical text is the same.
func compose(a *writ.Action, args *canon.Value) (*request, error) {
	var err error
	if args.Kind() != canon.Object || args.JSON() != a.Arguments {
		if args, err = exact("arguments", a.Arguments); err != nil {
			return nil, err
		}
	}
	if a.Preconditions != "" {
		return nil, errors.New("no way to hold a tool to preconditions")
	}
	r := &request{args: args, action: true}
	switch a.Kind {
	case writ.KindTool:
		r.method, r.name = "tools/call", a.Name
		if r.rest, err = jsontext.AppendQuote(append(r.rest, `,"name":`...), a.Name); err != nil {
			return nil, errors.New("the name is not UTF-8")
		}
		r.member("arguments", []byte(a.Arguments))
	case writ.KindResource:
		r.method = "resources/read"
		r.name, _ = args.Get("uri").Str()
		r.member("uri", args.Get("uri").Raw())
	case writ.KindPrompt:
		r.method = "prompts/get"
		r.name, _ = args.Get("name").Str()
		r.member("name", args.Get("name").Raw())
		r.member("arguments", args.Get("arguments").Raw())
	default:
		return nil, fmt.Errorf("an action of kind %q is not for an upstream", a.Kind)
	}
	if r.name == "" {
		return nil, errors.New("the action names nothing")
	}
	return r, nil
}

func (r *request) member(name string, value []byte) {
	if value == nil {
		return
	}
	r.rest = append(append(append(r.rest, `,"`...), name...), `":`...)
	r.rest = append(r.rest, value...)
}

// answering adds what goes back up when an upstream has asked for more.
func (r *request) answering(a *writ.Action) error {
	if a.Inputs != "" {
		if _, err := exact("input responses", a.Inputs); err != nil {
			return err
		}
		r.member("inputResponses", []byte(a.Inputs))
	}
	if a.State != "" {
		state, err := jsontext.AppendQuote(nil, a.State)
		if err != nil {
			return errors.New("the state is not UTF-8")
		}
		r.member("requestState", state)
	}
	return nil
}

// A meter passes on the progress of one request: numbers that grow, and
// nothing else. What a tool writes beside them is untrusted text that nobody
// has labelled yet.
type meter struct {
	token string // the request's id

	mu   sync.Mutex
	last string
	to   func(progress, total string) // nil while nobody listens
}

// listener changes who is told.
func (m *meter) listener(to func(progress, total string)) {
	if m != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.to = to
	}
}

// notice reads a notification. What is not progress of this request is none
// of the agent's business.
func (m *meter) notice(n *mcp.Message) {
	if m == nil || n.Method != "notifications/progress" || string(n.Params.Get("progressToken").Raw()) != m.token {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	progress, ok := n.Params.Get("progress").Number()
	if !ok || m.to == nil {
		return
	}
	if m.last != "" {
		if order, ok := canon.Compare(progress, m.last); !ok || order <= 0 {
			return
		}
	}
	total, _ := n.Params.Get("total").Number()
	m.last = progress
	m.to(progress, total)
}

// The kinds of requests that an upstream may make while it works, by the
// capability that a client declares for them.
var continuations = map[string]string{
	"elicitation/create":     "elicitation",
	"sampling/createMessage": "sampling",
	"roots/list":             "roots",
}

// admitted is what an upstream may ask of a caller: what the caller can do,
// cut down to what the operator lets through. A page to visit is never among
// it: an upstream that could show one could ask for what Writ keeps from it.
func (c *Config) admitted(declared writ.JSON) writ.JSON {
	v, err := canon.ParseObject([]byte(declared), canon.Limits{})
	if !c.Continuations || err != nil {
		return "{}"
	}
	var parts []string
	if e := v.Get("elicitation"); e != nil && (e.Len() == 0 || e.Get("form") != nil) {
		parts = append(parts, `"elicitation":{"form":{}}`)
	}
	for _, kind := range []string{"roots", "sampling"} {
		if v.Get(kind) != nil {
			parts = append(parts, `"`+kind+`":{}`)
		}
	}
	return writ.JSON("{" + strings.Join(parts, ",") + "}")
}

// mayAsk says whether an upstream that was told capabilities may make a
// request.
func mayAsk(capabilities writ.JSON, method string, params *canon.Value) bool {
	kind := continuations[method]
	if mode := params.Get("mode"); kind == "elicitation" && mode != nil {
		if s, _ := mode.Str(); s != "form" {
			return false
		}
	}
	return kind != "" && strings.Contains(string(capabilities), `"`+kind+`":`)
}

// settle makes an Answer of a response. A result that asks for what it may
// not ask for is none.
func settle(m *mcp.Message, capabilities writ.JSON) (*Answer, error) {
	if m.Err != nil {
		return &Answer{Err: m.Err}, nil
	}
	r, err := mcp.NewResult(m.Result)
	if err != nil {
		return nil, err
	}
	if r.Type() == mcp.InputRequired {
		if capabilities == "" || capabilities == "{}" {
			return nil, errors.New("the upstream asks for more input, which the configuration does not admit")
		}
		for _, ask := range m.Result.Get("inputRequests").Members() {
			method, _ := ask.Get("method").Str()
			if !mayAsk(capabilities, method, ask.Get("params")) {
				return nil, fmt.Errorf("the upstream asks for %q, which is not admitted", clip(method, 64))
			}
		}
	}
	body := m.Result.Raw()
	if len(body) > maxResult {
		return nil, fmt.Errorf("%w: %d bytes, %s", ErrTooLarge, len(body), sum(body))
	}
	return &Answer{Body: body}, nil
}

func sum(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// An intake reads the body of an answer: so many bytes, and no longer silent
// than it may be. It knows what it has read.
type intake struct {
	r    io.Reader
	left int64
	hash hash.Hash
	read int64

	alive  *time.Timer // fires when nothing comes; nil if nobody minds
	silent time.Duration
}

// Read implements io.Reader.
func (in *intake) Read(p []byte) (int, error) {
	if in.left <= 0 {
		return 0, mcp.ErrTooMuch
	}
	p = p[:min(int64(len(p)), in.left)]
	n, err := in.r.Read(p)
	in.left -= int64(n)
	in.read += int64(n)
	in.hash.Write(p[:n])
	if in.alive != nil && n > 0 {
		in.alive.Reset(in.silent)
	}
	return n, err
}

// failed says how far the reading came.
func (in *intake) failed(ctx context.Context, err error) error {
	if errors.Is(err, mcp.ErrTooMuch) {
		err = fmt.Errorf("%w: %w", ErrTooLarge, err)
	} else if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return fmt.Errorf("reading the answer: %w (after %d bytes, sha256:%x)", err, in.read, in.hash.Sum(nil))
}

// all reads everything, with room for what the peer announced.
func (in *intake) all(announced int64) ([]byte, error) {
	buf := bytes.NewBuffer(make([]byte, 0, min(max(announced, 0)+bytes.MinRead, maxFrame)))
	_, err := buf.ReadFrom(in)
	return buf.Bytes(), err
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}
