package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/writgate/writ"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/registry"
	"github.com/writgate/writ/server/admin/api"
)

type revokeRequest struct {
	Kind   string `json:"kind"` // task, agent, owner, capability, tool, upstream
	Of     string `json:"of"`
	Reason string `json:"reason,omitempty"`
}

// revoke takes authority away, and says what that did. When it returns,
// nothing more is dispatched for what was revoked, on any gateway over this
// ledger; what could not be ended yet is in "remains".
func (s *Server) revoke(ctx context.Context, a asker, q revokeRequest) (*api.Revocation, error) {
	ctx = context.WithoutCancel(ctx) // who hangs up has revoked all the same
	r := &revocation{Server: s, asker: a, why: cmp.Or(why(q.Reason), "revoked by an operator"), out: &api.Revocation{Kind: q.Kind, Of: q.Of}}
	var err error
	switch q.Kind {
	case "task":
		err = r.task(ctx, writ.TaskID(q.Of))
	case "agent":
		err = r.agents(ctx, func(a *writ.Agent) bool { return string(a.ID) == q.Of })
	case "owner":
		err = r.agents(ctx, func(a *writ.Agent) bool { return string(a.Owner) == q.Of })
	case "capability":
		err = r.capability(ctx, writ.CapabilityID(q.Of))
	case "tool":
		err = r.tools(ctx, func(e *registry.Entry) bool { return string(e.Tool.Name) == q.Of })
	case "upstream":
		err = r.tools(ctx, func(e *registry.Entry) bool { return e.Tool.Upstream == q.Of })
	default:
		err = writ.Refuse(writ.InvalidRequest, "want a task, agent, owner, capability, tool or upstream", nil)
	}
	if err != nil {
		return nil, err
	}
	return r.out, nil
}

// A revocation is one act of revoking under way.
type revocation struct {
	*Server
	asker asker
	why   string
	out   *api.Revocation
}

// task ends a task, and everything that is alive for it.
func (r *revocation) task(ctx context.Context, id writ.TaskID) error {
	if _, err := r.Server.task(ctx, id); err != nil {
		return err
	}
	r.out.Fenced = max(r.out.Fenced, api.Time(r.Gate.Ledger.Time()))
	return r.endTasks(ctx, []writ.TaskID{id})
}

// agents suspends agents: from then on none of their calls commits. Then it
// ends their tasks.
func (r *revocation) agents(ctx context.Context, of func(*writ.Agent) bool) error {
	agents, err := r.Gate.Catalog.Agents(ctx)
	if err != nil {
		return err
	}
	for i := range agents {
		if !of(&agents[i]) {
			continue
		}
		if agents[i].State == writ.Active {
			if err := r.Gate.Catalog.SetState(ctx, registry.KindAgent, string(agents[i].ID), writ.Suspended, r.asker.by()); err != nil {
				return err
			}
		}
		r.out.Agents = append(r.out.Agents, agents[i].ID)
	}
	if len(r.out.Agents) == 0 {
		return missing("there is no agent of that name, or owner")
	}
	r.out.Fenced = api.Time(r.Gate.Ledger.Time())
	tasks, err := r.openTasks(ctx, func(t *writ.Task) bool { return slices.Contains(r.out.Agents, t.Agent) })
	if err != nil {
		return err
	}
	return r.endTasks(ctx, tasks)
}

// tools puts tools into quarantine: from then on no call to them commits.
// What is under way goes on to its end.
func (r *revocation) tools(ctx context.Context, of func(*registry.Entry) bool) error {
	entries := slices.DeleteFunc(r.Gate.Catalog.Entries(""), func(e *registry.Entry) bool { return !of(e) })
	if len(entries) == 0 {
		return missing("nobody offers a tool of that name, or upstream")
	}
	if err := r.quarantine(ctx, r.asker, entries, r.why); err != nil {
		return err
	}
	r.out.Fenced = api.Time(r.Gate.Ledger.Time())
	for _, e := range entries {
		r.out.Tools = append(r.out.Tools, e.Tool.Name)
	}
	return nil
}

// kindCapability is where the gate remembers the capabilities that were used.
const kindCapability = "cap"

// capability uses a capability up. If it was used and its call is under way,
// the call's task is ended: nothing less stops a call that has begun.
func (r *revocation) capability(ctx context.Context, id writ.CapabilityID) error {
	if _, err := writ.ParseID[writ.CapabilityID](string(id)); err != nil {
		return writ.Refuse(writ.InvalidRequest, err.Error(), nil)
	}
	_, err := r.Gate.Ledger.Commit(ctx, &ledger.Entry{
		Leaf: ledger.Leaf{Type: ledger.TypeRevocation, Capability: string(id), Note: map[string]string{"why": r.why}}, User: r.asker.by(),
		Changes: []ledger.Change{{Op: ledger.Once, Kind: kindCapability, Key: string(id)}},
	})
	r.out.Fenced = api.Time(r.Gate.Ledger.Time())
	if err == nil || !errors.Is(err, ledger.ErrUsed) {
		return err
	}
	calls, err := r.Gate.Ledger.Orphans(ctx)
	if err != nil {
		return err
	}
	for _, call := range calls {
		intents, err := r.Gate.Ledger.Records(ctx, ledger.Filter{Call: call, Type: ledger.TypeIntent})
		if err != nil {
			return err
		}
		if len(intents) == 1 && intents[0].Leaf.Capability == string(id) {
			return r.endTasks(ctx, []writ.TaskID{intents[0].Leaf.Task})
		}
	}
	r.out.Remains = append(r.out.Remains, "the capability was used, or revoked, before; no call is under way with it")
	return nil
}

func (r *revocation) openTasks(ctx context.Context, of func(*writ.Task) bool) ([]writ.TaskID, error) {
	var open []writ.TaskID
	for from := writ.TaskID(""); ; {
		tasks, err := r.Gate.Tasks.List(ctx, from, scanPage)
		if err != nil {
			return nil, err
		}
		for i := range tasks {
			if tasks[i].State != writ.Ended && of(&tasks[i]) {
				open = append(open, tasks[i].ID)
			}
		}
		if len(tasks) < scanPage {
			return open, nil
		}
		from = tasks[len(tasks)-1].ID + "\x00"
	}
}

// endTasks ends tasks, and follows what was alive for them to its end.
func (r *revocation) endTasks(ctx context.Context, tasks []writ.TaskID) error {
	before, err := r.live(ctx, func(e *broker.Entry) bool { return slices.Contains(tasks, e.Row.Task) })
	if err != nil {
		return err
	}
	size, err := r.size(ctx)
	if err != nil {
		return err
	}
	for _, id := range tasks {
		end, err := r.Gate.EndTask(ctx, id, r.why, r.asker.by())
		if end == nil {
			return err
		}
		if err != nil {
			r.out.Remains = append(r.out.Remains, fmt.Sprintf("%s: %v", id, err))
		}
		r.out.Tasks = append(r.out.Tasks, id)
		r.out.Fenced = max(r.out.Fenced, api.Time(end.At))
		r.out.Cancelled += end.Cancelled
	}
	return r.follow(ctx, before, size)
}

// live gives the leases that are not over.
func (s *Server) live(ctx context.Context, of func(*broker.Entry) bool) ([]broker.Entry, error) {
	all, err := (&broker.Journal{Ledger: s.Gate.Ledger}).Live(ctx)
	return slices.DeleteFunc(all, func(e broker.Entry) bool { return !of(&e) }), err
}

// follow says what became of leases since the log had size records.
func (r *revocation) follow(ctx context.Context, before []broker.Entry, size int64) error {
	alive, err := r.live(ctx, func(*broker.Entry) bool { return true })
	if err != nil {
		return err
	}
	ended, err := r.Gate.Ledger.Records(ctx, ledger.Filter{From: size, Type: ledger.TypeRevocation})
	if err != nil {
		return err
	}
	for _, e := range before {
		c := credentialOf(&e)
		if i := slices.IndexFunc(ended, func(x *ledger.Record) bool { return x.Leaf.Lease == string(e.Row.Lease) }); i >= 0 {
			note := ended[i].Leaf.Note
			until, _ := strconv.ParseInt(note["until"], 10, 64)
			c.Outcome, c.Until = note["outcome"], api.Time(until)
		} else if i := slices.IndexFunc(alive, func(x broker.Entry) bool { return x.Row.Lease == e.Row.Lease }); i >= 0 {
			c = credentialOf(&alive[i])
			r.out.Remains = append(r.out.Remains, strings.TrimSpace(fmt.Sprintf("%s at %s is not revoked yet %s", c.Lease, c.Backend, untilText(c.Until))))
		} else {
			c.Outcome = string(broker.Revoked)
		}
		r.out.Credentials = append(r.out.Credentials, c)
	}
	return nil
}

func untilText(t api.Time) string {
	if t == 0 {
		return "and does not expire by itself"
	}
	return "and expires at " + t.String()
}

func credentialOf(e *broker.Entry) api.Credential {
	return api.Credential{
		Lease: e.Row.Lease, Task: e.Row.Task, Tool: e.Row.Tool, Backend: e.Row.Backend, Until: api.Time(e.Row.Until), Failed: e.Attempts,
	}
}

type endRequest struct {
	Task   writ.TaskID `path:"task" json:"-"`
	Reason string      `json:"reason,omitempty"`
}

// endTask is revoke for one task.
func (s *Server) endTask(ctx context.Context, a asker, q endRequest) (*api.Revocation, error) {
	return s.revoke(ctx, a, revokeRequest{Kind: "task", Of: string(q.Task), Reason: q.Reason})
}
