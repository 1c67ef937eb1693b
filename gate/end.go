package gate

import (
	"context"
	"errors"
	"fmt"

	"github.com/writgate/writ"
	"github.com/writgate/writ/identity"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/registry"
)

// An Ending is what the end of a task did.
type Ending struct {
	Task      writ.TaskID `json:"task"`
	At        int64       `json:"at"`        // Unix milliseconds: nothing was dispatched for the task after this
	Cancelled int         `json:"cancelled"` // calls that were under way in this process; their results are withheld
	Already   bool        `json:"already,omitempty"`
}

// EndTask ends a task everywhere: when it returns, no process over this
// ledger dispatches anything more for it. Calls under way are cancelled and
// their results withheld, what people were asked is void, and its credentials
// are revoked; the error says which could not be, yet.
func (g *Gate) EndTask(ctx context.Context, id writ.TaskID, why string, by writ.UserID) (*Ending, error) {
	ctx = context.WithoutCancel(ctx)
	held, err := g.Tasks.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	end := &Ending{Task: id, Already: held.Task.State == writ.Ended}
	if _, err := g.Tasks.End(ctx, id, why, by); err != nil {
		return nil, err
	}
	end.At = g.Ledger.Time()
	end.Cancelled = g.flights.cancel(id)
	err = errors.Join(g.Approvals.Void(ctx, id), g.Broker.RevokeTask(ctx, id))
	g.Upstream.CloseTask(id)
	g.Flow.Forget(id)
	return end, err
}

// Expire ends the tasks that this process has worked for and whose time is
// over. Nothing can be done under them any more as it is; this lets go of what
// they hold.
func (g *Gate) Expire(ctx context.Context) error {
	var errs []error
	for _, id := range g.Flow.Tasks() {
		held, err := g.Tasks.Get(ctx, id)
		if err == nil && held.Task.State != writ.Ended && g.Ledger.Time() < held.Task.Expires {
			continue
		}
		if err == nil {
			_, err = g.EndTask(ctx, id, "its time was over", "")
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Identify is step 1 alone: for a request that is no call, or before one that
// is. It verifies the evidence once; asked again about the same Request it
// only looks whether the proof has expired.
func (g *Gate) Identify(ctx context.Context, r *Request) (*identity.Proven, error) {
	if r.who == nil {
		who, err := g.Identity.Verify(ctx, r.Evidence)
		if err != nil {
			return nil, g.stranger(err)
		}
		r.who = &who
		return r.who, nil
	}
	if g.Ledger.Time() >= r.who.Until {
		return nil, expired()
	}
	return r.who, nil
}

func expired() error {
	return writ.Refuse(writ.Unauthenticated, "the proof of who you are has expired meanwhile; make the request again", nil)
}

// List gives the tools that a caller's task may use, sorted by name: reviewed,
// unchanged since, and in the task's grant. Whether a call is permitted is
// decided when it is made.
func (g *Gate) List(ctx context.Context, r *Request) ([]*registry.Entry, *identity.Proven, error) {
	who, err := g.Identify(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	agent, _, err := g.Catalog.Agent(ctx, who.Caller.Agent)
	if err != nil {
		return nil, who, err
	}
	held, err := g.Tasks.OfKey(ctx, who.Caller, agent.Environment)
	if err != nil {
		return nil, who, err
	}
	t := &held.Task
	if t.State != writ.Open || g.Ledger.Time() >= t.Expires || who.Task != "" && who.Task != t.ID {
		return nil, who, writ.Refuse(writ.OutsideTask, "the task is not open any more", nil)
	}
	if t.Agent != agent.ID {
		return nil, who, writ.Refuse(writ.OutsideTask, "the task is somebody else's", nil)
	}
	var tools []*registry.Entry
	for _, entry := range g.Catalog.Entries("") {
		unattended := t.Unattended && (entry.Tool.Tier != writ.ReadOnly || entry.Tool.Fetch)
		if entry.Quarantine == "" && entry.Tool.Tier >= agent.HighestTier && !unattended && t.Grant.Holds(entry.Tool.Name) {
			tools = append(tools, entry)
		}
	}
	return tools, who, nil
}

// Recover closes the calls that this gateway, by its name, had begun when it
// last stopped: they may have happened, and are never made again. Call it
// before anything else.
func (g *Gate) Recover(ctx context.Context, gateway string) (int, error) {
	calls, err := g.Ledger.Orphans(ctx)
	if err != nil {
		return 0, fmt.Errorf("reading what was under way: %w", err)
	}
	closed := 0
	for _, call := range calls {
		records, err := g.Ledger.Records(ctx, ledger.Filter{Call: call, Type: ledger.TypeIntent})
		if err != nil {
			return closed, fmt.Errorf("reading the intent of %s: %w", call, err)
		}
		if len(records) == 0 || records[0].Leaf.Gateway != gateway {
			continue // another gateway's
		}
		l := records[0].Leaf
		_, err = g.Ledger.Commit(ctx, &ledger.Entry{Leaf: ledger.Leaf{
			Type: ledger.TypeOutcome, Call: call, Task: l.Task, Agent: l.Agent, Key: l.Key, Tool: l.Tool, Capability: l.Capability,
			Code: writ.OutcomeUnknown, Note: map[string]string{"outcome": "indeterminate", "why": "the gateway stopped while the call ran"},
		}})
		if err != nil {
			return closed, fmt.Errorf("closing %s: %w", call, err)
		}
		closed++
	}
	return closed, nil
}
