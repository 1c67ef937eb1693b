package gate

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/mcp"
	"github.com/writgate/writ/upstream"
)

// lease has the credential minted, unless everything was stopped meanwhile. A
// tool that needs none waits for nothing here.
func (g *Gate) lease(ctx context.Context, c *carried) (*broker.Lease, error) {
	if c.row.Backend != "" {
		if err := g.mayGo(ctx, c); err != nil {
			return nil, err
		}
	}
	return g.Broker.Lease(ctx, c.row, c.intent)
}

// fresh is how long what a commit found is taken to hold.
const fresh = 100 * time.Millisecond

// mayGo says why a call whose intent is on record is not made all the same.
// One that was held up on its way, by the backend of its credential or because
// its process or its machine stood still, looks again at what it was decided
// on: others may have ended its task long ago.
func (g *Gate) mayGo(ctx context.Context, c *carried) error {
	if g.HaltedByFile() {
		return writ.Refuse(writ.Halted, "an operator has stopped all calls", nil)
	}
	if g.Ledger.Time() >= c.until {
		return writ.Refuse(writ.StateChanged, "the time of the task, or of what permits this call, was over before it was made; nothing was done", nil)
	}
	if ctx.Err() != nil {
		return writ.Refuse(writ.StateChanged, "the call was cancelled before it was made; nothing was done", ctx.Err())
	}
	if time.Since(c.begun) < fresh {
		return nil
	}
	for _, x := range c.expect {
		rows, err := g.Ledger.Scan(ctx, x.Kind, x.Key, 1) // Get may remember
		if err != nil {
			return writ.Refuse(writ.Unavailable, "the gateway's state could not be read; nothing was done", err)
		}
		at := ledger.Absent
		if len(rows) == 1 && rows[0].Key == x.Key {
			at = rows[0].At
		}
		if at != x.At && at != c.intent.Index() {
			return writ.Refuse(writ.StateChanged, "what this call depends on changed before it was made; nothing was done",
				fmt.Errorf("%s %s has changed", x.Kind, x.Key))
		}
	}
	return nil
}

// execute sends the action. Whatever is not known to have failed before it was
// sent may have happened.
func (g *Gate) execute(ctx context.Context, c *carried, lease *broker.Lease) (*upstream.Answer, error) {
	if err := g.mayGo(ctx, c); err != nil {
		return nil, err
	}
	g.sent(c.query, c.attempt.args, c.attempt.inputs)
	answer, err := g.Upstream.Call(ctx, lease, upstream.Order{
		Call: c.query.Call, Task: c.query.Task.ID, Action: &c.query.Action, Arguments: c.attempt.args, Meta: c.attempt.Meta,
		Present:  func(method, url string) (http.Header, error) { return c.token.Present(method, url) },
		Progress: c.attempt.Progress,
	})
	switch {
	case err == nil && (answer == nil || answer.Err == nil && answer.Body == nil):
		err = errors.New("neither an answer nor an error")
	case errors.Is(err, upstream.ErrNotSent):
		return nil, writ.Refuse(writ.UpstreamUnavailable, "the tool could not be reached; nothing was done", lease.ScrubError(err))
	case errors.Is(err, upstream.ErrTooLarge):
		return nil, writ.Refuse(writ.ResultTooLarge, "the tool was called, and its answer is too large to pass on", lease.ScrubError(err))
	}
	if err != nil {
		return nil, unknown(lease.ScrubError(err))
	}
	return answer, nil
}

// panicked is the error of a panic. What it panicked with may hold anything,
// so only its type is told, and the digest of the stack.
func panicked(p any) error {
	stack := sha256.Sum256(debug.Stack())
	return fmt.Errorf("panic with a %T, stack %x", p, stack)
}

func unknown(err error) *writ.Denial {
	d := writ.Refuse(writ.OutcomeUnknown, "the tool was called and did not answer: what was asked may have been done; check before you try again", err)
	d.Remedy = writ.RemedyAskUser
	return d
}

// resultLimits is what a tool may answer with.
var resultLimits = canon.Limits{Bytes: 8 << 20, Depth: 128, Nodes: 1 << 20}

// label takes secrets out of an answer, says what it is worth, and remembers
// it for the next call of the task. What a tool says when it fails, and what
// it says after it changed something, is worth nothing: both repeat what they
// were told.
func (g *Gate) label(c *carried, lease *broker.Lease, answer *upstream.Answer) (*Result, error) {
	q := c.query
	res := &Result{Call: q.Call, label: q.Tool.Result}
	obligations := c.attempt.decision.Obligations
	if answer.Err != nil && len(obligations) > 0 {
		answer.Err = &mcp.Error{Code: answer.Err.Code, Message: "the tool failed; policy withholds what it said"}
	}
	if answer.Err != nil {
		res.Err, res.label.Integrity = answer.Err, writ.Untrusted
		text := encode(answer.Err.Message)
		data := []byte(answer.Err.Data)
		if len(data) == 0 {
			data = []byte("null")
		}
		body, echoed := lease.Scrub(fmt.Appendf(nil, `{"code":%d,"message":%s,"data":%s}`, answer.Err.Code, text, data))
		v, err := canon.Parse(body, resultLimits)
		if err != nil {
			return nil, unknown(err)
		}
		res.Err.Message, _ = v.Get("message").Str()
		if answer.Err.Data != "" {
			res.Err.Data = writ.JSON(v.Get("data").Raw())
		}
		res.echoed, res.bytes = echoed, body
		g.Flow.Remember(q.Task.ID, q.Call, res.label, c.attempt.asked(), v)
		return res, nil
	}
	scrubbed, echoed := lease.Scrub(answer.Body)
	var err error
	if res.bytes, err = redact(scrubbed, obligations); err != nil {
		return nil, writ.Refuse(writ.ResultWithheld, "policy allows this result only in part, and it cannot be taken apart; it is withheld", err)
	}
	res.echoed = echoed
	v, err := canon.Parse(res.bytes, resultLimits)
	if err != nil {
		return nil, unknown(err)
	}
	if res.Body, err = mcp.NewResult(v); err != nil {
		return nil, unknown(err)
	}
	if q.Tool.Tier != writ.ReadOnly || res.Body.IsError() || res.Body.Type() != mcp.Complete {
		res.label.Integrity = writ.Untrusted
	}
	g.Flow.Remember(q.Task.ID, q.Call, res.label, c.attempt.asked(), v)
	return res, nil
}

// record makes the outcome durable, and only then gives the result out. A
// task that ended while its call ran gets nothing.
func (g *Gate) record(ctx context.Context, c *carried, res *Result, failed error) (*Result, error) {
	ctx = context.WithoutCancel(ctx)
	q := c.query
	e := &ledger.Entry{
		Leaf: ledger.Leaf{
			Type: ledger.TypeOutcome, Call: q.Call, Task: q.Task.ID, Agent: q.Caller.Agent, Key: q.Caller.Key, Tool: q.Tool.Name,
			Capability: string(c.token.ID()), Note: map[string]string{"intent": strconv.FormatInt(c.intent.Index(), 10)},
		},
		User: q.Caller.User,
	}
	var d *writ.Denial
	if failed != nil {
		d = writ.AsDenial(failed)
		e.Leaf.Code = d.Code
		e.Parts = []ledger.Part{{Name: "error", Bytes: []byte(d.Error())}}
	} else {
		res.note(e)
		// What is released is released to an open task.
		for _, x := range c.attempt.reads {
			if x.Kind == "task" {
				e.Expect = append(e.Expect, x)
			}
		}
	}
	receipts, err := g.settle(ctx, c, e)
	if errors.Is(err, ledger.ErrConflict) {
		d = writ.Refuse(writ.ResultWithheld, "the task ended while this call ran; its result is withheld", nil)
		e.Expect, e.Changes, e.Leaf.Code = nil, nil, d.Code
		receipts, err = g.Ledger.Commit(ctx, e)
	}
	if err != nil {
		if d == nil {
			d = writ.Refuse(writ.OutcomeUnrecorded, fmt.Sprintf("the tool answered, and the answer to %s could not be recorded; it is withheld", q.Call), nil)
		}
		d.Err = errors.Join(d.Err, err)
		return nil, d
	}
	if d != nil {
		return nil, d
	}
	res.seal(c, receipts[0])
	return res, nil
}

// settle commits an outcome. If another process has taken over meanwhile, this
// one does so again, and remembers what that has let be read.
func (g *Gate) settle(ctx context.Context, c *carried, e *ledger.Entry) ([]ledger.Receipt, error) {
	expect := e.Expect
	for range attempts {
		e.Expect, e.Changes = slices.Clip(expect), nil
		g.took(e, c.attempt)
		receipts, err := g.Ledger.Commit(ctx, e)
		if row, ok := errors.AsType[*ledger.Error](err); !ok || row.Err != ledger.ErrConflict || row.Kind != kindReader {
			return receipts, err
		}
		if err := g.own(ctx, c.attempt); err != nil {
			return nil, err
		}
	}
	return nil, ledger.ErrConflict
}

// revoke ends the call's credential. It does not fail the call: what cannot
// be ended now is queued, and shown until it is.
func (g *Gate) revoke(ctx context.Context, c *carried) {
	if c.row.Backend != "" {
		g.Broker.Revoke(context.WithoutCancel(ctx), c.row) // the queue holds the error
	}
}
