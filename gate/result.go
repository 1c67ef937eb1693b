package gate

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/mcp"
	"github.com/writgate/writ/replay"
	"golang.org/x/mod/sumdb/tlog"
)

// A Result is what may be released: the tool's own result, or the error it
// answered with, clean of secrets and on record.
type Result struct {
	Call     writ.CallID
	Body     *mcp.Result // nil if Err is set
	Err      *mcp.Error
	Decision writ.JSON // for _meta: what was decided
	Receipt  writ.JSON // for _meta: which record says so

	bytes  []byte // of Body, or of Err, as recorded
	label  writ.Label
	echoed bool // the tool gave its credential back, and it was taken out
}

// The kinds of outcomes, in the leaf's note "outcome".
const (
	outcomeResult = "result"
	outcomeError  = "error" // a JSON-RPC error of the upstream
	partResult    = "result"
)

// note writes the result into its record.
func (r *Result) note(e *ledger.Entry) {
	e.Leaf.Note["outcome"] = outcomeResult
	if r.Err != nil {
		e.Leaf.Note["outcome"] = outcomeError
	}
	e.Leaf.Note["integrity"], e.Leaf.Note["class"] = r.label.Integrity.String(), r.label.Class.String()
	if r.echoed {
		e.Leaf.Note["credential_echo"] = "redacted"
	}
	e.Parts = []ledger.Part{{Name: partResult, Bytes: r.bytes}}
}

// seal adds what proves the result, once its record is durable.
func (r *Result) seal(c *carried, outcome ledger.Receipt) {
	hash := tlog.RecordHash(outcome.Leaf())
	r.Decision = decisionBlock{Call: r.Call, Effect: writ.Permit.String()}.json()
	r.Receipt = writ.JSON(fmt.Sprintf(`{"call":%s,"index":%d,"leaf":"sha256:%s"}`, encode(r.Call), outcome.Index(), hex.EncodeToString(hash[:])))
}

// A decisionBlock is the machine-readable decision in _meta.
type decisionBlock struct {
	Call     writ.CallID     `json:"call"`
	Effect   string          `json:"effect"`
	Code     writ.Code       `json:"code,omitempty"`
	Reason   string          `json:"reason,omitempty"`
	Argument string          `json:"argument,omitempty"`
	Bounds   []writ.Bound    `json:"bounds,omitempty"`
	Remedy   writ.Remedy     `json:"remedy,omitempty"`
	Approval writ.ApprovalID `json:"approval,omitempty"`
}

func (b decisionBlock) json() writ.JSON { return writ.JSON(encode(b)) }

// DecisionMeta is what an agent is told of a refusal, for a program to read:
// the value of _meta "io.github.writgate/decision".
func DecisionMeta(call writ.CallID, d *writ.Denial) writ.JSON {
	effect := writ.Deny
	switch d.Code {
	case writ.ApprovalRequired:
		effect = writ.StepUp
	case writ.Deferred:
		effect = writ.Defer
	}
	remedy := d.Remedy
	if remedy == "" {
		remedy = writ.RemedyStop
	}
	return decisionBlock{call, effect.String(), d.Code, d.Reason, d.Argument, d.Bounds, remedy, d.Approval}.json()
}

// MayName says whether a request may go by the name of a call: a new one, one
// that was made, or one that this key has asked for in the same words. Else a
// caller could hide what it asked for behind what it asks for next.
func (g *Gate) MayName(ctx context.Context, call writ.CallID, key writ.Thumbprint, ask writ.Action) (bool, error) {
	records, err := g.Ledger.Records(ctx, ledger.Filter{Call: call})
	if err != nil {
		return false, writ.Refuse(writ.Unavailable, "the records of the call could not be read", err)
	}
	if placed, err := g.Catalog.Place(ask); err == nil {
		ask = placed.Action
	}
	same := true
	for _, r := range records {
		switch r.Leaf.Type {
		case ledger.TypeIntent:
			return true, nil // nothing else is made by that name, and it stays in sight
		case ledger.TypeDecision:
			q, err := replay.Query(r)
			same = same && err == nil && r.Leaf.Key == key && q.Action.Digest() == ask.Digest()
		}
	}
	return same, nil
}

// Recall gives the outcome of a call that was made, to the key that made it
// and asks for the same action again; nil if there is none, or none yet. A call
// whose outcome was no result is refused again, as it was. What an agent may
// not act on any more it is not told either.
func (g *Gate) Recall(ctx context.Context, call writ.CallID, key writ.Thumbprint, ask writ.Action) (*Result, error) {
	records, err := g.Ledger.Records(ctx, ledger.Filter{Call: call, Type: ledger.TypeOutcome})
	if err != nil {
		return nil, writ.Refuse(writ.Unavailable, "the call's outcome could not be read", err)
	}
	if len(records) == 0 || records[0].Leaf.Key != key || key == "" {
		return nil, nil
	}
	if same, err := g.asked(ctx, call, ask); err != nil || !same {
		return nil, writ.Refuse(writ.AlreadyUsed, "this call was made before, for another action", err)
	}
	r := records[0]
	if _, _, err := g.Catalog.Agent(ctx, r.Leaf.Agent); err != nil {
		return nil, err
	}
	held, err := g.Tasks.Get(ctx, r.Leaf.Task)
	if err != nil {
		return nil, writ.Refuse(writ.Unavailable, "the call's task could not be read", err)
	}
	if held.Task.State != writ.Open || g.Ledger.Time() >= held.Task.Expires {
		return nil, writ.Refuse(writ.ResultWithheld, "the task of this call is over; its result is withheld", nil)
	}
	if r.Leaf.Code != "" {
		return nil, writ.Refuse(r.Leaf.Code, "this call was made before, and this is what became of it", nil)
	}
	body, ok := r.Part(partResult)
	if !ok {
		return nil, writ.Refuse(writ.ResultWithheld, "the result of this call has been erased", nil)
	}
	v, err := canon.Parse(body, resultLimits)
	if err != nil {
		return nil, writ.Refuse(writ.InternalError, "the recorded result could not be read", err)
	}
	res := &Result{Call: call}
	if r.Leaf.Note["outcome"] == outcomeError {
		code, _ := v.Get("code").Number()
		n, _ := canon.Int64(code)
		res.Err = &mcp.Error{Code: int(n)}
		res.Err.Message, _ = v.Get("message").Str()
	} else if res.Body, err = mcp.NewResult(v); err != nil {
		return nil, writ.Refuse(writ.InternalError, "the recorded result could not be read", err)
	}
	hash := tlog.RecordHash(r.LeafBytes)
	res.Decision = decisionBlock{Call: call, Effect: writ.Permit.String()}.json()
	res.Receipt = writ.JSON(fmt.Sprintf(`{"call":%s,"index":%d,"leaf":"sha256:%s"}`, encode(call), r.Index, hex.EncodeToString(hash[:])))
	return res, nil
}

// asked says whether a call was made for this action.
func (g *Gate) asked(ctx context.Context, call writ.CallID, ask writ.Action) (bool, error) {
	records, err := g.Ledger.Records(ctx, ledger.Filter{Call: call, Type: ledger.TypeIntent})
	if err != nil || len(records) == 0 {
		return false, err
	}
	q, err := replay.Query(records[0])
	if err != nil {
		return false, err
	}
	placed, err := g.Catalog.Place(ask)
	return err == nil && placed.Action.Digest() == q.Action.Digest(), err
}
