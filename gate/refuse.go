package gate

import (
	"context"
	"errors"

	"github.com/writgate/writ"
	"github.com/writgate/writ/approval"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/replay"
)

// refuse records that a call was not let through, and gives what its caller
// is told. A refusal that cannot be recorded is a refusal all the same.
func (g *Gate) refuse(ctx context.Context, a *attempt, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		err = writ.Refuse(writ.Unavailable, "the caller did not wait for the decision", err)
	}
	d := writ.AsDenial(err)
	entries := []*ledger.Entry{a.entry(ledger.TypeDecision, d.Code)}
	entries[0].Changes = a.who.Once
	if p, ok := errors.AsType[*parked](err); ok && p.entry != nil {
		entries = append(entries, p.entry)
	}
	// Whoever hangs up is recorded like anybody else.
	ctx = context.WithoutCancel(ctx)
	_, err = g.Ledger.Commit(ctx, entries...)
	switch row, ok := errors.AsType[*ledger.Error](err); {
	case ok && row.Err == ledger.ErrConflict && row.Kind == approval.KindAsked:
		return g.refuse(ctx, a, g.alreadyAsked(ctx, a))
	case ok && row.Err == ledger.ErrUsed:
		d = writ.Refuse(writ.ProofReplayed, "this proof was used before; make a new one for every request", err)
		_, err = g.Ledger.Commit(ctx, a.entry(ledger.TypeDecision, d.Code))
	}
	if err != nil {
		return unrecorded(errors.Join(err, d))
	}
	a.who.Once = nil // used: if the same request is decided again, it is not a replay
	return d
}

func unrecorded(err error) *writ.Denial {
	return writ.Refuse(writ.AuditUnavailable, "the decision could not be recorded, so nothing was done; try again later", err)
}

// entry is the record of a decision about a: that it was refused, or, with no
// code, that it will be carried out.
func (a *attempt) entry(kind string, code writ.Code) *ledger.Entry {
	q := &a.query
	e := &ledger.Entry{
		Leaf: ledger.Leaf{
			Type: kind, Call: q.Call, Task: q.Task.ID, Agent: q.Caller.Agent, Key: q.Caller.Key,
			Tool: q.Tool.Name, Definition: q.Tool.Definition, Environment: q.Task.Environment, Bundle: q.Bundle,
			Effect: a.decision.Effect.String(), Code: code,
			Note: map[string]string{"proof": string(q.Caller.Proof)},
		},
		User:  q.Caller.User,
		Parts: []ledger.Part{{Name: replay.PartQuery, Bytes: encode(q)}},
	}
	if q.Tool.Name != "" {
		e.Leaf.Tier = q.Tool.Tier.String()
	}
	if !a.decided { // refused before policy was asked: there is nothing to replay
		e.Leaf.Effect = writ.Deny.String()
		return e
	}
	if code != "" && a.decision.Effect == writ.Permit { // policy said yes, and something else no
		e.Leaf.Effect = writ.Deny.String()
	}
	e.Parts = append(e.Parts, ledger.Part{Name: replay.PartDecision, Bytes: encode(a.decision)})
	const most = 3 // so that a leaf stays small; the decision has them all
	for i, r := range a.decision.Reasons {
		if i == most {
			break
		}
		e.Leaf.Reasons = append(e.Leaf.Reasons, r.Policy)
	}
	return e
}
