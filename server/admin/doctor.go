package admin

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/server/admin/api"
)

// Levels of a fact.
const (
	levelOK      = "ok"
	levelNote    = "note"
	levelWarning = "warning"
	levelBad     = "bad"
)

// doctor says how everything is: the configuration as it was understood, the
// log, and what waits for somebody. It decides nothing.
func (s *Server) doctor(ctx context.Context, a asker, _ struct{}) (*api.Page[api.Fact], error) {
	page := &api.Page[api.Fact]{Items: []api.Fact{}}
	if s.Facts != nil {
		page.Items = append(page.Items, s.Facts()...)
	}
	for _, look := range []func(context.Context, asker) ([]api.Fact, error){s.aboutLog, s.aboutPolicy, s.aboutAgents, s.aboutTools, s.aboutWork} {
		facts, err := look(ctx, a)
		if err != nil {
			return nil, err
		}
		page.Items = append(page.Items, facts...)
	}
	return page, nil
}

func (s *Server) aboutLog(ctx context.Context, a asker) ([]api.Fact, error) {
	st, err := s.status(ctx, a, struct{}{})
	if err != nil {
		return nil, err
	}
	facts := []api.Fact{
		{About: "log", Name: "origin", Value: st.Origin, Level: levelOK},
		{About: "log", Name: "key", Value: st.Key, Level: levelOK},
		{About: "log", Name: "records", Value: strconv.FormatInt(st.Size, 10), Level: levelOK},
	}
	if st.Failed {
		facts = append(facts, api.Fact{About: "log", Name: "state", Value: "failed: nothing is recorded and nothing is called", Level: levelBad, Hint: "find out what happened to the disk, and start the gateway again"})
	}
	if behind := time.Duration(st.Behind) * time.Millisecond; behind > 2*time.Second {
		facts = append(facts, api.Fact{About: "log", Name: "clock", Value: fmt.Sprintf("%v behind the newest record", behind), Level: levelBad, Hint: "calls are refused until the clock is right"})
	}
	switch {
	case st.Halted && st.LiftNeeds == 0:
		facts = append(facts, api.Fact{About: "gateway", Name: "halt", Value: "no call begins: the file " + s.Gate.HaltFile + " is there", Level: levelWarning, Hint: "remove it to let calls go on"})
	case st.Halted:
		facts = append(facts, api.Fact{About: "gateway", Name: "halt", Value: fmt.Sprintf("no call begins; operators who must still lift it: %d", st.LiftNeeds), Level: levelWarning, Hint: "writ lift"})
	}
	return facts, nil
}

func (s *Server) aboutPolicy(ctx context.Context, a asker) ([]api.Fact, error) {
	p, err := s.getPolicy(ctx, a, struct{}{})
	if err != nil {
		return nil, err
	}
	fact := api.Fact{About: "policy", Name: "in force", Value: string(p.Bundle), Level: levelOK}
	switch {
	case p.Bundle == "":
		fact.Value, fact.Level, fact.Hint = "none: every call is denied", levelBad, "writ policy apply"
	case len(p.Problems) > 0:
		fact.Level, fact.Hint = levelWarning, "the files on disk cannot come into force: writ policy show"
	case len(p.Changes) > 0:
		fact.Level, fact.Hint = levelNote, fmt.Sprintf("%d files on disk differ: writ policy show, writ policy apply", len(p.Changes))
	}
	return []api.Fact{fact}, nil
}

func (s *Server) aboutAgents(ctx context.Context, _ asker) ([]api.Fact, error) {
	agents, err := s.Gate.Catalog.Agents(ctx)
	if err != nil {
		return nil, err
	}
	now := s.Now()
	facts := []api.Fact{{About: "agents", Name: "registered", Value: strconv.Itoa(len(agents)), Level: levelOK}}
	for _, a := range agents {
		fact := api.Fact{About: "agents", Name: string(a.ID), Level: levelWarning, Hint: "its owner is " + string(a.Owner)}
		switch soon := now.AddDate(0, 0, 14).UnixMilli(); {
		case a.State != writ.Active:
			fact.Value, fact.Level = string(a.State), levelNote
		case a.Expires != 0 && a.Expires <= soon:
			fact.Value = "expires at " + api.Time(a.Expires).String()
		case a.RecertifyBy != 0 && a.RecertifyBy <= soon:
			fact.Value = "is due for certification at " + api.Time(a.RecertifyBy).String()
		default:
			continue
		}
		facts = append(facts, fact)
	}
	return facts, nil
}

func (s *Server) aboutTools(context.Context, asker) ([]api.Fact, error) {
	callable, held := 0, map[string]int{}
	for _, e := range s.Gate.Catalog.Entries("") {
		if e.Quarantine == "" {
			callable++
		} else {
			held[e.Quarantine]++
		}
	}
	facts := []api.Fact{{About: "tools", Name: "callable", Value: strconv.Itoa(callable), Level: levelOK}}
	for _, reason := range sortedKeys(held) {
		facts = append(facts, api.Fact{About: "tools", Name: reason, Value: strconv.Itoa(held[reason]), Level: levelNote, Hint: "writ tools ls --quarantine=" + reason})
	}
	return facts, nil
}

func (s *Server) aboutWork(ctx context.Context, _ asker) ([]api.Fact, error) {
	waiting, err := s.Gate.Approvals.List(ctx)
	if err != nil {
		return nil, err
	}
	under, err := s.Gate.Ledger.Orphans(ctx)
	if err != nil {
		return nil, err
	}
	late, err := s.live(ctx, func(e *broker.Entry) bool { return e.Attempts > 0 || s.Now().UnixMilli() >= e.Row.Expires })
	if err != nil {
		return nil, err
	}
	facts := []api.Fact{
		{About: "work", Name: "approvals waiting", Value: strconv.Itoa(len(waiting)), Level: levelOK},
		{About: "work", Name: "calls under way", Value: strconv.Itoa(len(under)), Level: levelOK},
		{About: "work", Name: "credentials awaiting revocation", Value: strconv.Itoa(len(late)), Level: levelOK},
	}
	if len(waiting) > 0 {
		facts[0].Level, facts[0].Hint = levelNote, "writ approvals ls"
	}
	if len(late) > 0 {
		facts[2].Level = levelWarning
	}
	for i := range late {
		c := credentialOf(&late[i])
		facts = append(facts, api.Fact{
			About: "credentials", Name: string(c.Lease), Level: levelWarning,
			Value: fmt.Sprintf("%s, for %s: %d attempts failed, %s", c.Backend, c.Tool, c.Failed, untilText(c.Until)),
			Hint:  "it is tried again by itself; look at the backend",
		})
	}
	return facts, nil
}
