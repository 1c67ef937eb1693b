package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/demo"
	"github.com/writgate/writ/server/admin/api"
)

// A play is the story as it happens in a world.
type play struct {
	*session
	*teller
	world
	task     writ.TaskID
	calls    map[writ.ToolName]writ.CallID // the last of each tool
	heard    map[writ.CallID]heard         // what each gave the agent
	traced   writ.CallID                   // the refusal that is worth explaining
	approval writ.ApprovalID
}

// heard is what a tool gave the agent.
type heard struct {
	tool writ.ToolName
	text string
}

// all sets everything up and tells the whole story. The first step that is
// not as promised is its error.
func (p *play) all(ctx context.Context) error {
	p.calls, p.heard = map[writ.ToolName]writ.CallID{}, map[writ.CallID]heard{}
	p.opening()
	p.begin("up")
	if err := p.open(ctx, p.by); err != nil {
		return err
	}
	p.kept(report{Reason: "everything is up"})
	for i, scene := range demo.Story() {
		p.title(i+1, &scene)
		if err := p.act(ctx, &scene); err != nil {
			return err
		}
		for _, step := range scene.Steps {
			if err := p.call(ctx, &step); err != nil {
				return err
			}
		}
		for _, look := range scene.Look {
			if err := p.look(ctx, &look); err != nil {
				return err
			}
		}
	}
	p.scene = "closing"
	p.begin("exit")
	if err := p.leave(p.agent); err != nil {
		return err
	}
	p.kept(report{Reason: "the agent has exited"})
	return nil
}

// call has the agent make a call, and holds against what the story promises
// both what the agent was told and what is on record.
func (p *play) call(ctx context.Context, step *demo.Step) error {
	p.begin(string(step.Tool))
	p.say(step.Say)
	p.by("agent", cut(visible(fmt.Sprintf("%s %s", step.Tool, step.Args)), tellWidth-sayColumn))
	if err := json.NewEncoder(p.agent.to).Encode(step); err != nil {
		return err
	}
	seen, err := p.see(ctx, step)
	if err != nil {
		return err
	}
	var decision struct{ Call writ.CallID }
	if err := json.Unmarshal([]byte(seen.Decision), &decision); err != nil {
		return fmt.Errorf("the gateway's decision: %w", err)
	}
	e, err := answer[api.Explanation](ctx, p.stage, nil, "calls", "explain", string(decision.Call))
	if err != nil {
		return err
	}
	p.decides(e.Call.Effect, e.Why)
	p.explain(step, e)
	if step.Want == demo.Refused {
		p.by("agent", "is told: "+seen.Text)
	}
	if err := errors.Join(step.Check(*seen), p.differs(&step.Why, e)); err != nil {
		return err
	}
	p.calls[step.Tool], p.heard[decision.Call], p.task = decision.Call, heard{step.Tool, seen.Text}, e.Call.Task
	if step.Why.From != "" {
		p.traced = decision.Call
	}
	p.kept(report{Call: decision.Call, Effect: e.Call.Effect, Reason: e.Why})
	return nil
}

// see is what the agent sees of a call. If that waits for a person, there is
// one.
func (p *play) see(ctx context.Context, step *demo.Step) (*demo.Seen, error) {
	for {
		said, err := p.hear(ctx)
		if err != nil {
			return nil, err
		}
		if said.Seen != nil {
			return said.Seen, nil
		}
		name := p.step
		if err := p.approve(ctx, path.Base(said.Page), step); err != nil {
			return nil, err
		}
		p.step = name
	}
}

// explain tells what stands behind a refusal: where the argument at fault
// comes from, with the words around it, and what would have been allowed.
func (p *play) explain(step *demo.Step, e *api.Explanation) {
	for _, o := range e.Provenance {
		if o.Argument != step.Why.Argument || step.Why.Policy == "" {
			continue
		}
		source := p.heard[o.Source]
		text := source.text
		if o.End <= o.Start || o.End > len(text) {
			p.more(fmt.Sprintf("%s is from %s.", o.Argument, provenance(o)))
			continue
		}
		p.more(fmt.Sprintf("%s stands in an untrusted result of %s, at %s, bytes %d to %d:", o.Argument, source.tool, o.Field, o.Start, o.End))
		p.more(quoted(text, o.Start, o.End))
	}
	if len(e.Permits) > 0 {
		p.more("Operators alone see that it would have been allowed if " + e.Permits[0].Text + ".")
	}
}

// quoted is a part of a text, with a few words around it.
func quoted(text string, start, end int) string {
	const around = 24
	before, after := text[max(0, start-around):start], text[end:min(len(text), end+around)]
	if i := strings.IndexByte(before, ' '); i >= 0 {
		before = before[i+1:]
	}
	if i := strings.LastIndexByte(after, ' '); i >= 0 {
		after = after[:i]
	}
	return "…" + before + "[" + text[start:end] + "]" + after + "…"
}

// differs says how an explanation differs from what the story promises.
func (p *play) differs(w *demo.Why, e *api.Explanation) error {
	smallest := ""
	if len(e.Permits) > 0 {
		smallest, _, _ = strings.Cut(e.Permits[0].Text, ", and ") // who approves besides is for the starter policies to say
	}
	if w.Permits != "" && smallest != w.Permits {
		return fmt.Errorf("the smallest change that would have permitted it is %+v, want %q", e.Permits, w.Permits)
	}
	if w.Policy != "" && !slices.ContainsFunc(e.Decision.Reasons, func(r writ.Reason) bool { return r.Policy == w.Policy }) {
		return fmt.Errorf("decided by %v, want %s", e.Decision.Reasons, w.Policy)
	}
	if w.From != "" && !slices.ContainsFunc(e.Provenance, func(o writ.Provenance) bool {
		return o.Argument == w.Argument && o.Origin == writ.FromUntrusted && o.Source == p.calls[w.From]
	}) {
		return fmt.Errorf("%s is not known to come from %s", w.Argument, w.From)
	}
	return nil
}

// approve is Omar, at another process. He looks at what waits, and says yes to
// exactly that; nothing has been done yet.
func (p *play) approve(ctx context.Context, id string, step *demo.Step) error {
	p.begin("approve")
	a, err := answer[api.Approval](ctx, p.stage, nil, "approvals", "show", id)
	if err != nil {
		return err
	}
	e, err := answer[api.Explanation](ctx, p.stage, nil, "calls", "explain", string(a.Call))
	if err != nil {
		return err
	}
	p.decides(e.Call.Effect, e.Why)
	p.by("omar", "is shown the action, byte for byte, and where each argument comes from:")
	same, err := p.shows(a.Shown, step)
	if err != nil || !same {
		return errors.Join(err, errors.New("what is to be approved is not what the agent asked for"))
	}
	made, err := p.page(ctx, demo.Payments, "/payments")
	if err != nil || len(made) > 0 {
		return errors.Join(err, fmt.Errorf("%d payments before anybody approved one", len(made)))
	}
	if a, err = answer[api.Approval](ctx, p.stage, p.omar, "approvals", "approve", id, "--digest", string(a.Shown.Digest)); err != nil {
		return err
	}
	p.by("", "He approves exactly that, once: his key signs the digest of these bytes.")
	p.approval = a.ID
	p.kept(report{Call: a.Call, Effect: e.Call.Effect, Reason: e.Why})
	return nil
}

// shows prints what an approver sees, and says whether it is what the agent
// sent.
func (p *play) shows(s *api.Shown, step *demo.Step) (same bool, err error) {
	var action writ.Action
	if err := json.Unmarshal(s.Action, &action); err != nil {
		return false, err
	}
	args, err := canon.Parse([]byte(action.Arguments), canon.Limits{})
	if err != nil {
		return false, err
	}
	sent, err := canon.Parse([]byte(step.Args), canon.Limits{})
	if err != nil {
		return false, err
	}
	for pointer, v := range canon.Leaves(args) {
		for _, o := range s.Provenance {
			if o.Argument == pointer {
				p.more(fmt.Sprintf("%s is %s, from %s", pointer, v.JSON(), provenance(o)))
			}
		}
	}
	return args.Digest("arguments") == sent.Digest("arguments"), nil
}

// look looks up what really happened.
func (p *play) look(ctx context.Context, l *demo.Look) error {
	p.begin(l.Server + l.Path)
	rows, err := p.page(ctx, l.Server, l.Path)
	if err != nil {
		return err
	}
	p.by(l.Server, l.Say)
	for _, row := range rows {
		p.more(os.Expand(l.Show, func(name string) string { return fmt.Sprint(row[name]) }))
	}
	if err := l.Check(rows); err != nil {
		return err
	}
	for _, row := range rows {
		if named, ok := row["approval"]; ok && named != string(p.approval) {
			return fmt.Errorf("%s was told of approval %v, and not of %s", l.Server, named, p.approval)
		}
	}
	p.kept(report{Reason: l.Say})
	return nil
}

// page reads a page of a server. Writ has no part in that.
func (p *play) page(ctx context.Context, server, page string) ([]map[string]any, error) {
	base := strings.TrimSuffix(strings.TrimSuffix(p.endpoints[server], "mcp"), "/")
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, base+page, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var rows []map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&rows); err != nil || resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s%s: %s, %v", server, page, resp.Status, err)
	}
	return rows, nil
}

// failed says which step was not as promised, and gives what the command ends
// with.
func (p *play) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	} else if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("it is not done within %s", demoPatience)
	}
	p.broken(err)
	return verdict(exitNo)
}
