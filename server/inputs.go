package server

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/gate"
	"github.com/writgate/writ/mcp"
)

const (
	maxRounds    = 8               // of questions to a legacy client within one call
	inputTimeout = 5 * time.Minute // for the answers of one round
)

// capabilityOf is what a client must have declared to be asked for input.
var capabilityOf = map[string]string{
	"elicitation/create":     "elicitation",
	"sampling/createMessage": "sampling",
	"roots/list":             "roots",
}

// inputRequired passes on that a tool wants to know more. Whatever it asks is
// the tool's own text: an answer goes up to the tool, as a call of its own,
// and is never an approval.
func (x *exchange) inputRequired(ask writ.Digest, res *gate.Result) error {
	for round := 0; res.Body.Type() == mcp.InputRequired; round++ {
		if err := x.mayAsk(res.Body.Value().Get("inputRequests")); err != nil {
			return err
		}
		state, _ := res.Body.Value().Get("requestState").Str()
		answering := writ.NewID[writ.CallID](x.m.config.Now())
		if x.session == nil {
			sealed := x.m.seal(&handle{
				Call: answering, Key: x.who.Caller.Key, Ask: ask, Answer: true, Upstream: state,
				Expires: x.m.config.Now().Add(stateLife).UnixMilli(),
			})
			b, err := res.Body.Stamp(own(res), canon.Change{In: res.Body.Value(), Name: "requestState", Value: writ.JSON(strconv.Quote(sealed))})
			if err != nil {
				return err
			}
			x.out.result(b)
			return nil
		}
		if round == maxRounds {
			return writ.Refuse(writ.Forbidden, "the tool keeps asking for input", nil)
		}
		inputs, err := x.elicit(res.Body.Value().Get("inputRequests"))
		if err != nil {
			return err
		}
		x.call.Call, x.call.Action.Inputs, x.call.Action.State = answering, inputs, state
		if res, err = x.m.do(x.r.Context(), x.call, x.who.Caller.Key); err != nil || res.Err != nil {
			return x.deliver(ask, res, err)
		}
	}
	return x.complete(res)
}

// mayAsk refuses what a client cannot be asked: what it did not declare for
// this request, and to open an address that a tool chose.
func (x *exchange) mayAsk(requests *canon.Value) error {
	for _, r := range requests.Members() {
		method, _ := r.Get("method").Str()
		capability, known := capabilityOf[method]
		if !known {
			return writ.Refuse(writ.Forbidden, "the tool asked for something that is not passed on", nil)
		}
		mode, _ := r.Get("params").Get("mode").Str()
		if capability == "elicitation" && mode != "" && mode != "form" {
			return writ.Refuse(writ.Forbidden, "the tool wanted to send the user to an address, which is not passed on", nil)
		}
		want := ""
		if capability == "elicitation" {
			want = "form"
		}
		if x.declares(capability, want) {
			continue
		}
		if x.session != nil {
			return writ.Refuse(writ.Forbidden, "the tool needs "+capability+", which this client does not have", nil)
		}
		return &mcp.Error{
			Code: mcp.CodeMissingCapability, HTTP: http.StatusBadRequest, Message: "the tool needs " + capability,
			Data: writ.JSON(`{"requiredCapabilities":{"` + capability + `":{}}}`),
		}
	}
	return nil
}

// elicit asks a legacy client, on the stream of its own call, and gives its
// answers as input responses.
func (x *exchange) elicit(requests *canon.Value) (writ.JSON, error) {
	if !x.out.events {
		return "", writ.Refuse(writ.Forbidden, "the tool asks for input, and this client accepts no stream", nil)
	}
	ctx, cancel := context.WithTimeout(x.r.Context(), inputTimeout)
	defer cancel()
	type question struct {
		name   string
		answer <-chan *mcp.Message
	}
	var asked []question
	for name, r := range requests.Members() {
		method, _ := r.Get("method").Str()
		id, answer := x.session.ask()
		defer x.session.forget(id)
		if err := x.out.say(mcp.Call(id, method, r.Get("params").Raw())); err != nil {
			return "", writ.Refuse(writ.InvalidRequest, "the client is gone", nil)
		}
		asked = append(asked, question{name, answer})
	}
	var b canon.Builder
	for _, q := range asked {
		select {
		case m := <-q.answer:
			if m.Err != nil {
				return "", writ.Refuse(writ.Forbidden, "the client could not give the input that the tool asked for", nil)
			}
			b.Value(q.name, m.Result.JSON())
		case <-ctx.Done():
			return "", writ.Refuse(writ.Forbidden, "the tool asked for input, and none came", nil)
		}
	}
	return b.JSON()
}
