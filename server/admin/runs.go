package admin

import (
	"cmp"
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/identity"
	"github.com/writgate/writ/server/admin/api"
)

type taskRequest struct {
	Agent     writ.AgentID      `json:"agent"`         // a registered one; for a run, of the development domain
	Key       writ.Thumbprint   `json:"key"`           // whose calls are the task's: a key without an open task
	For       string            `json:"for,omitempty"` // what the operator wants done, in their words: the prompt
	Data      string            `json:"data,omitempty"`
	Grant     []writ.Permission `json:"grant,omitempty"` // what it may call, within which bounds; all that policy permits, if it is empty
	Budgets   []writ.Budget     `json:"budgets,omitempty"`
	Minutes   int64             `json:"minutes,omitempty"` // how long; 60 if it is 0
	Isolation writ.Isolation    `json:"isolation,omitempty"`
}

// openTask opens a task for an agent's key. The operator is its user, and what
// they say is the prompt.
func (s *Server) openTask(ctx context.Context, a asker, q taskRequest) (*api.Task, error) {
	agent, _, err := s.Gate.Catalog.Agent(ctx, q.Agent)
	if err != nil {
		return nil, err
	}
	t, err := s.open(ctx, a, &agent, &q)
	if err != nil {
		return nil, err
	}
	return s.taskOf(t), nil
}

func (s *Server) open(ctx context.Context, a asker, agent *writ.Agent, q *taskRequest) (*writ.Task, error) {
	t := writ.Task{
		Agent: agent.ID, User: a.operator.User, Key: q.Key, Environment: agent.Environment, Isolation: q.Isolation, Budgets: q.Budgets,
		Purpose: writ.Purpose{Instructions: q.For, Data: q.Data}, Grant: q.Grant,
		Expires: s.Now().Add(time.Duration(min(cmp.Or(q.Minutes, 60), 24*60)) * time.Minute).UnixMilli(),
	}
	if q.For != "" {
		t.Purpose.Origin = writ.OriginOperator
	}
	if len(t.Grant) == 0 {
		t.Grant = writ.Grant{{Tool: "*"}}
	}
	held, err := s.Gate.Tasks.Open(ctx, t)
	if err != nil {
		return nil, err
	}
	return &held.Task, nil
}

// run gives a token to the fresh key of an agent that is about to be started
// in the development domain, and opens a task for it.
//
// Only an operator's proof opens the task, and makes what they say the prompt.
// Without one the key has no task, and gets what any such key gets: a short,
// read-only one that nobody attends. An agent can open this socket, too.
func (s *Server) run(ctx context.Context, a asker, q taskRequest) (*api.Run, error) {
	if s.Tokens == nil {
		return nil, &api.Problem{Status: http.StatusForbidden, Code: writ.Forbidden, Detail: "this gateway has no development domain: agents get their identity elsewhere"}
	}
	agent, err := s.developed(ctx, q.Agent)
	if err != nil {
		return nil, err
	}
	if a.operator.User == "" {
		if q.For != "" || q.Data != "" || q.Grant != nil || q.Budgets != nil || q.Minutes != 0 {
			return nil, writ.Refuse(writ.NoPossession, "a task that somebody attends needs a proof of an operator's key", nil)
		}
		return s.token(agent, identity.Binding{Agent: agent.ID, Key: q.Key, Audience: s.Audience, Until: s.Now().Add(identity.MaxToken)})
	}
	t, err := s.open(ctx, a, &agent, &q)
	if err != nil {
		return nil, err
	}
	return s.token(agent, bindingOf(t, s.Audience))
}

// developed gives an active agent of the development domain.
func (s *Server) developed(ctx context.Context, id writ.AgentID) (writ.Agent, error) {
	if !inDevelopment(id) {
		return writ.Agent{}, writ.Refuse(writ.Forbidden, "only an agent of the development domain gets its identity here", nil)
	}
	agent, _, err := s.Gate.Catalog.Agent(ctx, id)
	return agent, err
}

func inDevelopment(id writ.AgentID) bool {
	return strings.HasPrefix(string(id), "spiffe://"+identity.DevelopmentDomain+"/")
}

func bindingOf(t *writ.Task, audience string) identity.Binding {
	return identity.Binding{Agent: t.Agent, Key: t.Key, Audience: audience, Task: t.ID, User: t.User, Until: time.UnixMilli(t.Expires)}
}

func (s *Server) token(agent writ.Agent, b identity.Binding) (*api.Run, error) {
	text, ends, err := s.Tokens.IssueDevelopment(agent, b, s.Now())
	if err != nil {
		return nil, writ.Refuse(writ.InvalidRequest, err.Error(), nil)
	}
	return &api.Run{Agent: b.Agent, Task: b.Task, Audience: b.Audience, Token: text, Expires: api.Time(ends.UnixMilli())}, nil
}

// renew gives another token for a task that is open. It is worth nothing
// without the task's own key, and opens nothing.
func (s *Server) renew(ctx context.Context, _ asker, q taskPath) (*api.Run, error) {
	t, err := s.task(ctx, q.Task)
	if err != nil {
		return nil, err
	}
	if s.Tokens == nil || !inDevelopment(t.Agent) {
		return nil, writ.Refuse(writ.Forbidden, "only an agent of the development domain gets its identity here", nil)
	}
	if t.State != writ.Open || s.Gate.Ledger.Time() >= t.Expires {
		return nil, writ.Refuse(writ.OutsideTask, "the task is not open any more", nil)
	}
	agent, err := s.developed(ctx, t.Agent)
	if err != nil {
		return nil, err
	}
	return s.token(agent, bindingOf(t, s.Audience))
}
