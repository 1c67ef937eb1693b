// Package gate is the one way from an agent to a tool. Ten steps, in this
// order, for every call, whatever door it came in by:
//
//	Decide   1 identify   2 place   3 trace   4 decide   5 approve
//	Carry    6 commit     7 lease   8 execute 9 label   10 record and release
//
// Authority grows last. Nothing is decided about a caller who has proven no
// key; nothing is issued without a decision; no credential exists before the
// intent is durable; nothing returns to the agent before the outcome is. Any
// failure refuses, and a refusal is recorded like anything else: after step 1,
// requests and decision records are equal in number.
//
// There is no second path. A listener calls Do; a door that enforces
// elsewhere calls Decide and the commit of Carry; a replay asks the same
// policy with the recorded query.
package gate

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/approval"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/capability/issue"
	"github.com/writgate/writ/flow"
	"github.com/writgate/writ/identity"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/mcp"
	"github.com/writgate/writ/policy"
	"github.com/writgate/writ/registry"
	"github.com/writgate/writ/task"
	"github.com/writgate/writ/upstream"
)

// A Gate governs calls. Every exported field is required, Noise and HaltFile
// aside. The interface stands where the outside world begins; everything else
// is the real thing, in tests too.
type Gate struct {
	Identity  *identity.Verifier
	Catalog   *registry.Catalog
	Tasks     *task.Book
	Flow      *flow.Memory
	Approvals *approval.Book
	Issuer    *issue.Issuer
	Ledger    *ledger.Ledger
	Broker    *broker.Broker
	Upstream  Upstream

	Noise    func(code writ.Code) // told of every refusal before step 1 is done
	HaltFile string               // while this file exists, nothing is dispatched

	force   atomic.Pointer[policy.Bundle] // the bundle in force, as last read
	flights flights
	once    sync.Once
	name    string // of this process, among those that share the ledger
}

// An Upstream is the tools behind the gate. It takes nothing but a lease, and
// sends nothing but the action.
type Upstream interface {
	Call(ctx context.Context, lease *broker.Lease, o upstream.Order) (*upstream.Answer, error)
	CloseTask(writ.TaskID) // ends what runs for a task that is over
}

// A Request is one call as a listener received it.
type Request struct {
	Call     writ.CallID       // a new one, or that of a waiting call which is presented again
	Evidence identity.Evidence // of who calls
	Action   writ.Action       // as it was sent: Place completes it
	Claim    writ.Claim
	Meta     mcp.Meta                     // what may go up beside the action
	Progress func(progress, total string) // JSON numbers as written; nil if nobody wants it

	who *identity.Proven // once proven: a proof is good for one request, however often that is decided
}

// An attempt is a request whose caller is proven, and what the decision about
// it read: what a commit must find unchanged.
type attempt struct {
	*Request
	who      *identity.Proven
	query    writ.Query
	decision writ.Decision
	decided  bool // policy was asked: query and decision replay
	args     *canon.Value
	inputs   *canon.Value  // nil unless the call answers its upstream
	reader   ledger.Expect // who recorded last what the task has read
	mine     bool          // it was this process
	reads    []ledger.Expect
	approval *approval.Request
}

// A Permit is a decision to let one call through, once. Only Decide makes
// one; the zero Permit permits nothing.
type Permit struct {
	attempt *attempt
	policy  *policy.Permit
	spent   atomic.Bool
}

// Decide answers a request: with a Permit, or with a *writ.Denial that says
// no, not yet (ApprovalRequired), or later (Deferred). It waits for nobody,
// and every answer but a Permit is on record when it returns; a Permit is
// recorded by Carry, with the intent.
func (g *Gate) Decide(ctx context.Context, r *Request) (*Permit, error) {
	// 1. Identify: who holds the key? Who proves none is counted, not listed.
	if r.who == nil {
		if _, err := g.Identify(ctx, r); err != nil {
			return nil, err
		}
	}
	return g.decide(ctx, &attempt{Request: r, who: r.who})
}

// decide is Decide for a proven caller. A commit that finds the state changed
// comes back here, with the same proof.
func (g *Gate) decide(ctx context.Context, a *attempt) (_ *Permit, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicked(p)
		}
		if err != nil {
			err = g.refuse(ctx, a, err)
		}
	}()
	q := &a.query
	*q = writ.Query{Version: 1, Call: a.Call, Time: g.Ledger.Time(), Caller: a.who.Caller, Claim: a.Claim, Action: a.Action}
	a.reads, a.approval, a.decided = nil, nil, false
	if q.Time >= a.who.Until {
		return nil, expired()
	}

	// 2. Place: which agent, which task, which tool as pinned, and arguments
	// that are complete, valid and canonical. From here on only these bytes
	// exist: what is judged is what the tool gets.
	if err := g.place(ctx, a); err != nil {
		return nil, err
	}

	// 3. Trace: where did every argument come from?
	if err := g.trace(ctx, a); err != nil {
		return nil, err
	}

	// 4. Decide.
	bundle, err := g.bundle(ctx, a)
	if err != nil {
		return nil, err
	}
	permit, decision := bundle.DecideWith(q, a.args)

	// 5. Approve, if a person's word is what is missing. One that was given to
	// exactly this action becomes part of the question, and never goes around
	// it. Otherwise nobody waits here: the call is parked, and policy decides
	// again when it comes back.
	if decision.Effect == writ.StepUp {
		if err := g.approved(ctx, a); err != nil {
			return nil, err
		}
		if q.Assurance > writ.NoAssurance {
			permit, decision = bundle.DecideWith(q, a.args)
		}
	}
	a.decision, a.decided = decision, true
	switch {
	case permit != nil:
		return &Permit{attempt: a, policy: permit}, nil
	case decision.Effect == writ.StepUp:
		return nil, g.ask(ctx, a)
	}
	return nil, policy.Refusal(q, decision)
}

// Carry takes a permitted call to its tool and back. What it returns may be
// released; with an error, nothing may. An error is a *writ.Denial; its code
// says whether the tool was reached.
func (g *Gate) Carry(ctx context.Context, p *Permit) (res *Result, err error) {
	if p == nil || p.policy == nil || !p.spent.CompareAndSwap(false, true) {
		return nil, writ.Refuse(writ.InternalError, "this is no permit, or one that was used", nil)
	}

	// 6. Commit: in one durable transaction everything the decision read
	// still holds, the approval, the proof and the capability are used up,
	// the budgets are taken, and the intent is in the log. Not before this
	// returns does anything happen outside.
	flight, landed := g.flights.begin(ctx, &p.attempt.query)
	defer landed()
	c, err := g.commit(ctx, p)
	if err != nil {
		return nil, err
	}
	ctx = flight
	defer func() {
		if p := recover(); p != nil { // its outcome is unknown, and on record as that
			res, err = g.record(ctx, c, nil, unknown(panicked(p)))
		}
	}()

	// 7. Lease the credential the tool needs, for this call. From here one
	// may exist even if leasing failed, so it is ended by capability,
	// whatever happens, and whoever hangs up.
	defer g.revoke(ctx, c)
	lease, err := g.lease(ctx, c)

	// 8. Execute. An error does not say that nothing happened.
	var answer *upstream.Answer
	if err == nil {
		answer, err = g.execute(ctx, c, lease)
	}

	// 9. Label what came back: clean of secrets, and remembered, so that the
	// next call is judged by it.
	if err == nil {
		res, err = g.label(c, lease, answer)
	}

	// 10. Record, then release. What is not on record is withheld.
	return g.record(ctx, c, res, err)
}

// Do is Decide and Carry.
func (g *Gate) Do(ctx context.Context, r *Request) (*Result, error) {
	p, err := g.Decide(ctx, r)
	if err != nil {
		return nil, err
	}
	return g.Carry(ctx, p)
}

// stranger counts a caller who proved nothing.
func (g *Gate) stranger(err error) error {
	d, ok := errors.AsType[*writ.Denial](err)
	if !ok {
		d = writ.Refuse(writ.IdentityUnavailable, "your identity could not be checked; try again", err)
	}
	if g.Noise != nil {
		g.Noise(d.Code)
	}
	return d
}

// grace is how long a call that may change something goes on after its caller
// has hung up, so that its outcome is known.
const grace = 10 * time.Second
