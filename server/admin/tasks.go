package admin

import (
	"context"
	"strings"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/server/admin/api"
)

type tasksQuery struct {
	State string      `query:"state"` // open or ended
	After writ.TaskID `query:"after"` // the last page's "next"
	Limit int64       `query:"limit"`
}

// listTasks gives tasks in the order they were opened.
func (s *Server) listTasks(ctx context.Context, _ asker, q tasksQuery) (*api.Page[api.Task], error) {
	page := &api.Page[api.Task]{Items: []api.Task{}}
	limit := limited(q.Limit)
	for from := q.After; ; {
		tasks, err := s.Gate.Tasks.List(ctx, from, scanPage)
		if err != nil {
			return nil, err
		}
		for i := range tasks {
			t := s.taskOf(&tasks[i])
			if q.State != "" && q.State != string(t.State) {
				continue
			}
			if len(page.Items) == limit {
				page.Next = string(t.ID)
				return page, nil
			}
			page.Items = append(page.Items, *t)
		}
		if len(tasks) < scanPage {
			return page, nil
		}
		from = tasks[len(tasks)-1].ID + "\x00"
	}
}

// taskOf writes a task for people. One whose time is over has ended.
func (s *Server) taskOf(t *writ.Task) *api.Task {
	out := &api.Task{
		ID: t.ID, Parent: t.Parent, Agent: t.Agent, User: t.User, Key: t.Key, Environment: t.Environment, State: t.State,
		Opened: api.Time(t.Opened), Expires: api.Time(t.Expires), Unattended: t.Unattended, Isolation: t.Isolation,
		Grant: t.Grant, Budgets: t.Budgets,
	}
	if s.Gate.Ledger.Time() >= t.Expires {
		out.State = writ.Ended
	}
	return out
}

type taskPath struct {
	Task writ.TaskID `path:"task" json:"-"`
}

// getTask gives a task, and not what it is for.
func (s *Server) getTask(ctx context.Context, _ asker, q taskPath) (*api.Task, error) {
	t, err := s.task(ctx, q.Task)
	if err != nil {
		return nil, err
	}
	return s.taskOf(t), nil
}

// showTask gives a task with what it is for. That it was read is on record
// before anything is shown.
func (s *Server) showTask(ctx context.Context, a asker, q taskPath) (*api.Task, error) {
	t, err := s.task(ctx, q.Task)
	if err != nil {
		return nil, err
	}
	if err := s.recordReading(ctx, a, string(t.ID), ledger.Leaf{Task: t.ID}); err != nil {
		return nil, err
	}
	out := s.taskOf(t)
	out.Purpose = &t.Purpose
	return out, nil
}

func (s *Server) task(ctx context.Context, id writ.TaskID) (*writ.Task, error) {
	if _, err := writ.ParseID[writ.TaskID](string(id)); err != nil {
		return nil, writ.Refuse(writ.InvalidRequest, err.Error(), nil)
	}
	held, err := s.Gate.Tasks.Get(ctx, id)
	if err != nil {
		if d := writ.AsDenial(err); d.Code == writ.OutsideTask {
			return nil, missing("there is no task " + string(id))
		}
		return nil, err
	}
	return &held.Task, nil
}

// listAgents gives the registered agents.
func (s *Server) listAgents(ctx context.Context, _ asker, _ struct{}) (*api.Page[api.Agent], error) {
	agents, err := s.Gate.Catalog.Agents(ctx)
	if err != nil {
		return nil, err
	}
	page := &api.Page[api.Agent]{Items: []api.Agent{}}
	for _, a := range agents {
		page.Items = append(page.Items, api.Agent{
			ID: a.ID, Owner: a.Owner, Purpose: a.Purpose, Environment: a.Environment, Groups: a.Groups, HighestTier: a.HighestTier,
			State: a.State, Expires: api.Time(a.Expires), RecertifyBy: api.Time(a.RecertifyBy),
		})
	}
	return page, nil
}

type reinstateRequest struct {
	Agent writ.AgentID `json:"agent"`
}

// reinstate makes a suspended agent active again.
func (s *Server) reinstate(ctx context.Context, a asker, q reinstateRequest) (*api.Agent, error) {
	if err := s.Gate.Catalog.SetState(ctx, "agent", string(q.Agent), writ.Active, a.by()); err != nil {
		return nil, err
	}
	page, err := s.listAgents(ctx, a, struct{}{})
	if err != nil {
		return nil, err
	}
	for _, agent := range page.Items {
		if agent.ID == q.Agent {
			return &agent, nil
		}
	}
	return nil, missing("there is no agent " + clip(string(q.Agent)))
}

// why bounds a reason, so that it fits the leaf that says it.
func why(reason string) string {
	reason = strings.ToValidUTF8(strings.Join(strings.Fields(reason), " "), "")
	if len(reason) > 200 {
		reason = strings.ToValidUTF8(reason[:200], "")
	}
	return reason
}
