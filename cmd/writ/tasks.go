package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"

	"github.com/writgate/writ"
	"github.com/writgate/writ/server/admin/api"
)

// A tasksLsCmd lists tasks.
type tasksLsCmd struct {
	All   bool  `help:"Those that have ended, too."`
	Limit int64 `default:"50" help:"At most so many."`
}

// Run lists them.
func (c tasksLsCmd) Run(s *session) error {
	q := url.Values{"limit": {strconv.FormatInt(c.Limit, 10)}}
	if !c.All {
		q.Set("state", "open")
	}
	var page api.Page[api.Task]
	if err := s.client.Get(s.ctx, "/tasks?"+q.Encode(), &page); err != nil {
		return err
	}
	return list(s, page.Items, "No task is open.", func(t api.Task) []any {
		return []any{t.ID, t.State, short(t.Agent), attended(&t), t.Environment, trusted("until " + clock(t.Expires))}
	})
}

func attended(t *api.Task) string {
	switch {
	case t.Unattended:
		return "unattended"
	case t.User != "":
		return "for " + string(t.User)
	}
	return "-"
}

// A tasksShowCmd shows one task.
type tasksShowCmd struct {
	Task    string `arg:"" help:"The task."`
	Content bool   `help:"With what it is for. That you read it is on record."`
}

// Run shows it.
func (c tasksShowCmd) Run(s *session) error {
	var t api.Task
	var err error
	if c.Content {
		err = s.client.Post(s.ctx, "/tasks/"+url.PathEscape(c.Task)+"/show", struct{}{}, &t)
	} else {
		err = s.client.Get(s.ctx, "/tasks/"+url.PathEscape(c.Task), &t)
	}
	if err != nil {
		return err
	}
	if s.wantsJSON() {
		return s.json(t)
	}
	s.printf("%s  %s\n", t.ID, t.State)
	s.printf("agent     %s with key %s, %s, in %s\n", t.Agent, t.Key, attended(&t), t.Environment)
	s.printf("open      %s until %s\n", clock(t.Opened), clock(t.Expires))
	if t.Parent != "" {
		s.printf("parent    %s\n", t.Parent)
	}
	for _, p := range t.Grant {
		bounds := ""
		if len(p.Bounds) > 0 {
			text, err := json.Marshal(p.Bounds)
			if err != nil {
				return err
			}
			bounds = string(text)
		}
		s.printf("grant     %s  %s\n", p.Tool, bounds)
	}
	for _, b := range t.Budgets {
		of := "calls"
		if b.Sum != "" {
			of = b.Sum
		}
		s.printf("budget    %s: %d of %s by %s\n", b.Name, b.Limit, of, b.Tool)
	}
	if t.Purpose != nil && t.State == writ.Ended && t.Purpose.Instructions == "" {
		s.printf("purpose   forgotten with its end; the records of its calls have it\n")
	} else if t.Purpose != nil {
		s.printf("purpose   %s\n", purpose(t.Purpose))
		if t.Purpose.Data != "" {
			s.printf("data      %s\n", t.Purpose.Data)
		}
	}
	return nil
}

// A tasksEndCmd ends a task.
type tasksEndCmd struct {
	Task   string `arg:"" help:"The task."`
	Reason string `help:"Why, for the record."`
	Yes    bool   `short:"y" help:"Do not ask."`
}

// Run is revoke for a task.
func (c tasksEndCmd) Run(s *session) error {
	return revokeCmd{Kind: "task", Of: c.Task, Reason: c.Reason, Yes: c.Yes}.Run(s)
}

// An agentsLsCmd lists agents.
type agentsLsCmd struct{}

// Run lists them.
func (agentsLsCmd) Run(s *session) error {
	var page api.Page[api.Agent]
	if err := s.client.Get(s.ctx, "/agents", &page); err != nil {
		return err
	}
	return list(s, page.Items, "No agent is registered: writ.yaml lists them, under registry.", func(a api.Agent) []any {
		return []any{a.ID, a.State, "owner " + string(a.Owner), a.Environment, fmt.Sprintf("up to %v", a.HighestTier), trusted("certified until " + clock(a.RecertifyBy))}
	})
}

// An agentsReinstateCmd makes an agent active again.
type agentsReinstateCmd struct {
	Agent string `arg:"" help:"The agent, by its SPIFFE ID."`
}

// Run makes it so.
func (c agentsReinstateCmd) Run(s *session) error {
	var a api.Agent
	if err := s.act("/agents/reinstate", map[string]string{"agent": c.Agent}, &a); err != nil {
		return err
	}
	if s.wantsJSON() {
		return s.json(a)
	}
	s.printf("%s  %s\n", a.ID, a.State)
	return nil
}
