package policy

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"go.yaml.in/yaml/v4"
)

// A suite is a file of tests, as its author writes it.
type suite struct {
	Tools []standInTool // that the bundle need not have
	Tests []testCase
}

type standInTool struct {
	Name   writ.ToolName
	Kind   writ.Kind // a tool, unless it says otherwise
	Tier   writ.Tier
	Fetch  bool
	Result *writ.Label // trusted and public, unless it says otherwise
	Input  yaml.Node   // JSON Schema
}

type testCase struct {
	Name      yaml.Node
	Agent     testAgent
	Caller    testCaller
	Task      testTask
	Tool      writ.ToolName
	Arguments yaml.Node
	Inputs    yaml.Node              // what goes back up to the tool, if it has asked for more
	Origins   map[string]writ.Origin // by JSON Pointer into the arguments or, behind "inputs", into those
	Label     *writ.Label
	Spent     map[string]int64
	Time      time.Time
	Assurance writ.Assurance
	Want      wanted
}

type testAgent struct {
	ID          writ.AgentID
	Owner       writ.UserID
	Environment string
	Groups      []string
	HighestTier writ.Tier `yaml:"highest_tier"`
	State       writ.State
}

type testCaller struct {
	Proof writ.Proof
	User  writ.UserID
	Chain []writ.AgentID
}

type testTask struct {
	Instructions string
	Origin       writ.PurposeOrigin
	Environment  string
	Grant        writ.Grant
	Budgets      []writ.Budget
	Isolation    writ.Isolation
	Unattended   bool
	Delegated    bool
	User         writ.UserID
	State        writ.State
	Age, Left    time.Duration
}

type wanted struct {
	Effect   *writ.Effect
	Code     writ.Code
	Argument string
	Requires writ.Assurance
	Reasons  []string // every @id, in any order; not compared if left out
	Redact   []string
}

// A TestResult is one test and what came of it.
type TestResult struct {
	Name     string        `json:"name"`
	File     string        `json:"file"`
	Line     int           `json:"line"`
	Problems []string      `json:"problems,omitempty"` // none: it passed
	Decision writ.Decision `json:"decision"`
}

// RunTests runs a file of tests against a bundle, such as
//
//	tests:
//	  - name: a large refund asks a reviewer
//	    agent: {groups: [support]}
//	    task: {instructions: refund order 8812, origin: user}
//	    tool: pay.refund
//	    arguments: {order: "8812", amount: 700}
//	    origins: {/order: prompt}
//	    label: {integrity: untrusted, class: internal}
//	    want: {effect: step-up, requires: one-reviewer, reasons: [large-refund]}
//
// What a test leaves out is harmless: an active agent in an open task that was
// granted everything and has read nothing, and arguments that the agent made.
// A file may bring tools that the bundle does not have, under tools. A key
// that nobody reads is an error.
//
// Each test is also decided under every stronger assurance, which may never
// permit less. The error says what is wrong with the file; a test that fails
// is no error.
func RunTests(b *Bundle, file File) ([]TestResult, error) {
	fail := func(err error) ([]TestResult, error) { return nil, fmt.Errorf("%s: %w", file.Name, err) }
	var s suite
	if err := yaml.Load(file.Text, &s, yaml.WithKnownFields(), yaml.WithUniqueKeys()); err != nil {
		return fail(err)
	}
	if len(s.Tests) == 0 {
		return fail(errors.New("has no tests"))
	}
	b, err := b.with(s.Tools)
	if err != nil {
		return fail(err)
	}
	var results []TestResult
	for i := range s.Tests {
		c := &s.Tests[i]
		r := TestResult{Name: c.Name.Value, File: file.Name, Line: c.Name.Line}
		q, err := c.query(b)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %q: %w", file.Name, max(1, r.Line), r.Name, err)
		}
		r.Decision = b.decide(q)
		r.Problems = append(c.Want.compare(r.Decision), b.falls(q)...)
		results = append(results, r)
	}
	return results, nil
}

// with is the bundle with more tools.
func (b *Bundle) with(tools []standInTool) (*Bundle, error) {
	if len(tools) == 0 {
		return b, nil
	}
	var add []ToolSchema
	for _, t := range tools {
		if b.ops[t.Name] != nil {
			return nil, fmt.Errorf("the tool %s exists, and needs no stand-in", t.Name)
		}
		label := writ.Clean
		if t.Result != nil {
			label = *t.Result
		}
		input, err := jsonOf(&t.Input)
		if err != nil {
			return nil, fmt.Errorf("input of %s: %w", t.Name, err)
		}
		upstream, _, _ := strings.Cut(string(t.Name), ".")
		add = append(add, ToolSchema{
			Tool: writ.Tool{Name: t.Name, Upstream: upstream, Definition: writ.Hash("stand-in", []byte(input)), Tier: t.Tier, Fetch: t.Fetch, Result: label},
			Kind: cmp.Or(t.Kind, writ.KindTool), Input: []byte(input),
		})
	}
	files := b.Files()
	i := slices.IndexFunc(files, func(f File) bool { return f.Name == schemaName })
	if i < 0 {
		return Load(files, add)
	}
	more, err := actions(add, b)
	if err != nil {
		return nil, err
	}
	files[i].Text = slices.Concat(files[i].Text, more)
	return Restore(files)
}

// query makes the query of a test.
func (c *testCase) query(b *Bundle) (*writ.Query, error) {
	op := b.ops[c.Tool]
	switch {
	case c.Name.Value == "":
		return nil, errors.New("a test needs a name")
	case op == nil:
		return nil, fmt.Errorf("there is no tool %q", c.Tool)
	case c.Want.Effect == nil:
		return nil, errors.New("a test wants an effect")
	case (*c.Want.Effect == writ.StepUp) != (c.Want.Requires != writ.NoAssurance):
		return nil, errors.New("who is required goes with a step-up")
	}
	text, err := jsonOf(&c.Arguments)
	if err != nil {
		return nil, fmt.Errorf("arguments: %w", err)
	}
	args, err := canon.Parse([]byte(text), canon.Limits{})
	if err != nil {
		return nil, fmt.Errorf("arguments: %w", err)
	}
	var inputs *canon.Value
	if !c.Inputs.IsZero() {
		if text, err = jsonOf(&c.Inputs); err == nil {
			inputs, err = canon.ParseObject([]byte(text), canon.Limits{})
		}
		if err != nil {
			return nil, fmt.Errorf("inputs: %w", err)
		}
	}
	provenance, err := c.provenance(args, inputs)
	if err != nil {
		return nil, err
	}
	label := writ.Clean
	if c.Label != nil {
		label = *c.Label
	}
	const key = "test"
	caller := writ.Caller{Agent: cmp.Or(c.Agent.ID, "spiffe://test.example/agent"), Key: key, Proof: cmp.Or(c.Caller.Proof, writ.ProofDPoP), User: c.Caller.User}
	for _, a := range c.Caller.Chain {
		caller.Chain = append(caller.Chain, writ.Hop{Agent: a})
	}
	now := cmp.Or(c.Time, time.Date(2026, 1, 14, 12, 0, 0, 0, time.UTC)).UnixMilli()
	_, name, _ := strings.Cut(string(op.tool.Name), ".")
	return &writ.Query{
		Version: 1, Bundle: b.digest, Time: now, Caller: caller,
		Agent:  writ.Agent{ID: caller.Agent, Owner: cmp.Or(c.Agent.Owner, "owner"), Environment: cmp.Or(c.Agent.Environment, "test"), Groups: c.Agent.Groups, HighestTier: c.Agent.HighestTier, State: cmp.Or(c.Agent.State, writ.Active)},
		Task:   c.Task.task(caller, now),
		Tool:   op.tool,
		Action: writ.Action{Kind: op.kind, Upstream: op.tool.Upstream, Name: name, Definition: op.tool.Definition, Arguments: args.JSON(), Inputs: inputs.JSON()},
		Label:  label, Provenance: provenance, Spent: c.Spent, Assurance: c.Assurance,
	}, nil
}

func (t *testTask) task(c writ.Caller, now int64) writ.Task {
	task := writ.Task{
		ID: "task_test", Agent: c.Agent, User: t.User, Key: c.Key, Grant: t.Grant, Budgets: t.Budgets,
		Purpose:     writ.Purpose{Instructions: t.Instructions, Origin: t.Origin},
		Environment: cmp.Or(t.Environment, "test"), Isolation: t.Isolation, Unattended: t.Unattended,
		Opened: now - t.Age.Milliseconds(), Expires: now + cmp.Or(t.Left, time.Hour).Milliseconds(), State: cmp.Or(t.State, writ.Open),
	}
	if t.Grant == nil {
		task.Grant = writ.Grant{{Tool: "*"}}
	}
	if t.Delegated {
		task.Parent = "task_parent"
	}
	return task
}

// provenance traces every leaf of the arguments and the inputs. It is an error
// to trace what is not there.
func (c *testCase) provenance(args, inputs *canon.Value) (all []writ.Provenance, err error) {
	named := 0
	for at, part := range map[string]*canon.Value{"": args, writ.PointerInputs: inputs} {
		for pointer := range canon.Leaves(part) {
			origin, ok := c.Origins[at+pointer]
			if !ok {
				origin = writ.FromAgent
			} else {
				named++
			}
			all = append(all, writ.Provenance{Argument: at + pointer, Origin: origin})
		}
	}
	if named != len(c.Origins) {
		return nil, errors.New("origins name an argument that is not there")
	}
	return all, nil
}

// compare says how a decision differs from what was wanted.
func (w *wanted) compare(d writ.Decision) (problems []string) {
	differ := func(what string, got, want any) {
		problems = append(problems, fmt.Sprintf("%s is %v, want %v", what, got, want))
	}
	if d.Effect != *w.Effect {
		differ("effect", d.Effect, *w.Effect)
	}
	if d.Requires != w.Requires {
		differ("requires", d.Requires, w.Requires)
	}
	if w.Code != "" && d.Code != w.Code {
		differ("code", d.Code, w.Code)
	}
	if w.Argument != "" && d.Argument != w.Argument {
		differ("argument", d.Argument, w.Argument)
	}
	var reasons, redact []string
	for _, r := range d.Reasons {
		reasons = append(reasons, r.Policy)
	}
	for _, o := range d.Obligations {
		redact = append(redact, o.Redact)
	}
	if w.Reasons != nil && !same(reasons, w.Reasons) {
		differ("reasons", reasons, w.Reasons)
	}
	if w.Redact != nil && !same(redact, w.Redact) {
		differ("redact", redact, w.Redact)
	}
	return append(problems, d.Errors...)
}

func same(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// falls says where a stronger assurance permits less.
func (b *Bundle) falls(q *writ.Query) (problems []string) {
	up, permitted := *q, false
	for up.Assurance = q.Assurance; up.Assurance <= writ.TwoPasskeys; up.Assurance++ {
		d := b.decide(&up)
		if permitted && d.Effect != writ.Permit {
			problems = append(problems, fmt.Sprintf("%v permits less than a weaker assurance", up.Assurance))
		}
		permitted = permitted || d.Effect == writ.Permit
	}
	return problems
}

// jsonOf is the JSON that YAML says, with numbers as they are written. No
// YAML at all is an empty object.
func jsonOf(n *yaml.Node) (writ.JSON, error) {
	if n.IsZero() {
		return "{}", nil
	}
	var w bytes.Buffer
	if err := writeJSON(&w, n); err != nil {
		return "", err
	}
	v, err := canon.Parse(w.Bytes(), canon.Limits{})
	if err != nil {
		return "", err
	}
	return v.JSON(), nil
}

func writeJSON(w *bytes.Buffer, n *yaml.Node) error {
	switch {
	case n.Kind == yaml.MappingNode:
		w.WriteByte('{')
		for i := 0; i+1 < len(n.Content); i += 2 {
			if i > 0 {
				w.WriteByte(',')
			}
			writeString(w, n.Content[i].Value)
			w.WriteByte(':')
			if err := writeJSON(w, n.Content[i+1]); err != nil {
				return err
			}
		}
		w.WriteByte('}')
	case n.Kind == yaml.SequenceNode:
		w.WriteByte('[')
		for i, e := range n.Content {
			if i > 0 {
				w.WriteByte(',')
			}
			if err := writeJSON(w, e); err != nil {
				return err
			}
		}
		w.WriteByte(']')
	case n.Kind != yaml.ScalarNode:
		return fmt.Errorf("line %d: not a plain value", n.Line)
	case n.ShortTag() == "!!str":
		writeString(w, n.Value)
	case n.ShortTag() == "!!null":
		w.WriteString("null")
	default:
		w.WriteString(n.Value)
	}
	return nil
}

func writeString(w *bytes.Buffer, s string) {
	b, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("a string does not marshal: %v", err))
	}
	w.Write(b)
}
