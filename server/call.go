package server

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/approval"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/gate"
	"github.com/writgate/writ/mcp"
)

const (
	pollApproval = 250 * time.Millisecond // how often a waiting call looks
	maxTTL       = 5 * time.Minute        // for what an upstream says may be cached
)

// action is what a request asks for, as it was sent: the registry places and
// completes it. Where the tools of all upstreams are listed together, names
// say which upstream they are of, and so do addresses of resources.
func (x *exchange) action() (writ.Action, error) {
	a := writ.Action{Arguments: "{}"}
	req := x.req
	var err error
	switch req.Method {
	case "tools/call":
		a.Kind = writ.KindTool
		a.Upstream, a.Name = x.split(req.Name)
		if args := req.Params.Get("arguments"); args != nil {
			a.Arguments = args.JSON()
		}
	case "prompts/get":
		a.Kind = writ.KindPrompt
		a.Upstream, a.Name = x.split(req.Name)
		var b canon.Builder
		b.Text("name", a.Name)
		if args := req.Params.Get("arguments"); args != nil {
			b.Value("arguments", args.JSON())
		}
		a.Arguments, err = b.JSON()
	case "resources/read":
		a.Kind = writ.KindResource
		a.Upstream, a.Name = x.splitURI(req.Name)
		var b canon.Builder
		b.Text("uri", a.Name)
		a.Arguments, err = b.JSON()
	}
	if err != nil {
		return a, fault(http.StatusBadRequest, "invalid_request", "the request could not be read")
	}
	return a, nil
}

// splitURI finds the upstream in a resource's address as we list it,
// "files+file:///a": still an address, of a scheme of its own.
func (x *exchange) splitURI(listed string) (upstream, uri string) {
	if x.upstream != "" {
		return x.upstream, listed
	}
	upstream, uri, ok := strings.Cut(listed, "+")
	if !ok {
		return "", listed
	}
	return upstream, uri
}

// invoke takes a call to the gate, and what comes of it to the client.
func (x *exchange) invoke() error {
	a, err := x.action()
	if err != nil {
		return err
	}
	ctx, r := x.r.Context(), x.call
	ask := askOf(x.req.Method, &a)
	r.Action, r.Claim, r.Meta, r.Progress = a, x.req.Meta.Claim, x.req.Meta, x.progress()
	h, err := x.resume(ask)
	if err != nil {
		return err
	}
	defer x.out.keepAlive()()
	if r.Call != "" && h == nil { // the client says which
		may, err := x.m.config.Gate.MayName(ctx, r.Call, x.who.Caller.Key, r.Action)
		if err != nil {
			return err
		}
		if !may {
			r.Call = "" // it gets a name of its own
		}
	}
	if r.Call != "" { // it may have been made
		res, err := x.m.config.Gate.Recall(ctx, r.Call, x.who.Caller.Key, r.Action)
		if d, ok := errors.AsType[*writ.Denial](err); ok && d.Code == writ.AlreadyUsed {
			res, err = nil, nil // for another action: the gate refuses this one, and records that
		}
		if res != nil || err != nil {
			return x.deliver(ask, res, err)
		}
	} else {
		r.Call = writ.NewID[writ.CallID](x.m.config.Now())
	}
	if h != nil && h.Approval != "" {
		x.await(ctx, h.Approval)
		if ctx.Err() != nil {
			return nil // nobody asks any more
		}
	}
	res, err := x.m.do(ctx, r, x.who.Caller.Key)
	if d, ok := errors.AsType[*writ.Denial](err); ok && d.Code == writ.AlreadyUsed {
		if made, recalled := x.m.config.Gate.Recall(ctx, r.Call, x.who.Caller.Key, r.Action); made != nil || recalled != nil {
			res, err = made, recalled
		}
	}
	return x.deliver(ask, res, err)
}

// resume finds the call that a request goes on with. It is nil for a new one.
func (x *exchange) resume(ask writ.Digest) (*handle, error) {
	state, ok := x.req.Params.Get("requestState").Str()
	if !ok {
		// Answers without a state answer nothing that was asked through here:
		// they are dropped, and the tool asks again (2026-07-28, patterns,
		// "Multi Round-Trip Requests").
		x.call.Call = x.req.Meta.Call
		return nil, nil
	}
	inputs := x.req.Params.Get("inputResponses")
	h, err := x.m.open(state, x.who.Caller.Key, ask)
	if err != nil {
		return nil, err
	}
	x.call.Call = h.Call
	if h.Answer {
		x.call.Action.Inputs, x.call.Action.State = inputs.JSON(), h.Upstream
		return h, nil
	}
	for _, answer := range inputs.Members() {
		if act, _ := answer.Get("action").Str(); act != "accept" {
			d := writ.Refuse(writ.ApprovalRequired, "the user did not go on to have this approved", nil)
			d.Approval, d.Remedy = h.Approval, writ.RemedyAskUser
			return nil, d
		}
	}
	return h, nil
}

// await waits for a person, for a while: a client that was told where to look
// comes back at once.
func (x *exchange) await(ctx context.Context, id writ.ApprovalID) {
	ctx, cancel := context.WithTimeout(ctx, x.m.config.Limits.Patience)
	defer cancel()
	tick := time.NewTicker(pollApproval)
	defer tick.Stop()
	for {
		r, err := x.m.config.Gate.Approvals.Get(ctx, id)
		if err != nil || r.State != approval.Pending {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// deliver sends what came of a call.
func (x *exchange) deliver(ask writ.Digest, res *gate.Result, err error) error {
	d, ok := errors.AsType[*writ.Denial](err)
	switch {
	case ok && d.Code == writ.ApprovalRequired && x.session == nil && !x.call.Action.Answers() && x.m.config.Status != "" && x.declares("elicitation", "url"):
		return x.wait(ask, d) // an answer to a tool has a state of its own, and is given again with it
	case err != nil:
		return err
	case res.Err != nil:
		down, status := passed(res.Err, x.req.ID), http.StatusOK
		if down.HTTP != 0 && x.session == nil {
			status = down.HTTP
		}
		x.out.answer(status, down.Response())
		return nil
	case res.Body.Type() == mcp.InputRequired:
		return x.inputRequired(ask, res)
	}
	return x.complete(res)
}

// complete sends a tool's own result, with what its wire demands beside it.
func (x *exchange) complete(res *gate.Result) error {
	v := res.Body.Value()
	var changes []canon.Change
	if x.session == nil && v.Get("resultType") == nil {
		changes = append(changes, canon.Change{In: v, Name: "resultType", Value: `"complete"`})
	}
	if x.session == nil && x.req.Method == "resources/read" {
		// What one caller was given is not for another to find in a cache.
		if scope, _ := v.Get("cacheScope").Str(); scope != "private" {
			changes = append(changes, canon.Change{In: v, Name: "cacheScope", Value: `"private"`})
		}
		lexeme, ok := v.Get("ttlMs").Number()
		switch ttl, whole := canon.Int64(lexeme); {
		case !ok || !whole || ttl < 0:
			changes = append(changes, canon.Change{In: v, Name: "ttlMs", Value: "0"})
		case ttl > maxTTL.Milliseconds():
			changes = append(changes, canon.Change{In: v, Name: "ttlMs", Value: "300000"})
		}
	}
	b, err := res.Body.Stamp(own(res), changes...)
	if err != nil {
		return err
	}
	x.out.result(b)
	return nil
}

// own is what we say about a result.
func own(res *gate.Result) map[string]writ.JSON {
	return map[string]writ.JSON{mcp.KeyDecision: res.Decision, mcp.KeyReceipt: res.Receipt}
}

// passed is an upstream's error as it goes down. What it says about our
// requests to it, it does not say about the client's.
func passed(e *mcp.Error, id string) *mcp.Error {
	down := *e
	down.ID, down.HTTP = id, 0
	switch e.Code {
	case mcp.CodeParse, mcp.CodeInvalidRequest, mcp.CodeHeaderMismatch, mcp.CodeUnsupportedVersion:
		down.Code, down.Data = mcp.CodeInternal, ""
	case mcp.CodeMissingCapability: // it is about the client's capabilities, which went up
		down.HTTP = http.StatusBadRequest
	}
	return &down
}

// wait tells a client that a person has to approve, and where the user can see
// how that stands. The page shows the state and takes no answer: who approves
// signs in elsewhere, as themselves.
func (x *exchange) wait(ask writ.Digest, d *writ.Denial) error {
	state := x.m.seal(&handle{
		Call: x.call.Call, Key: x.who.Caller.Key, Ask: ask, Approval: d.Approval,
		Expires: x.m.config.Now().Add(stateLife).UnixMilli(),
	})
	var params, request, requests, meta, result canon.Builder
	params.Text("mode", "url")
	params.Text("url", x.m.config.Status+string(d.Approval))
	params.Text("message", "A person has to approve this action before it is carried out. This page shows whether they have.")
	request.Text("method", "elicitation/create")
	value(&request, "params", &params)
	value(&requests, "approval", &request)
	meta.Value(mcp.KeyDecision, x.decision(d))
	result.Text("resultType", mcp.InputRequired)
	value(&result, "inputRequests", &requests)
	result.Text("requestState", state)
	value(&result, "_meta", &meta)
	b, err := result.JSON()
	if err != nil {
		return err
	}
	x.out.result([]byte(b))
	return nil
}

// value adds an object that is being built to another. What is wrong with it
// shows when the whole is read back.
func value(to *canon.Builder, name string, b *canon.Builder) {
	j, err := b.JSON()
	if err != nil {
		j = "\x00"
	}
	to.Value(name, j)
}

// declares says whether the client declared a capability, and in it a mode,
// for this request.
func (x *exchange) declares(capability, mode string) bool {
	text := x.req.Meta.Capabilities
	if x.session != nil {
		text = x.session.capabilities
	}
	v, err := canon.Parse([]byte(text), canon.Limits{})
	if err != nil {
		return false
	}
	c := v.Get(capability)
	if mode == "" || c == nil {
		return c.Kind() == canon.Object
	}
	// An elicitation without modes is one of forms (client, elicitation).
	return c.Get(mode).Kind() == canon.Object || mode == "form" && c.Get("url") == nil
}
