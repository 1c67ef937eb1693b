// Package registry knows which agents there are and which tools: what the
// operator's files allow, cut down to what the ledger says is so.
//
// Files say what may be; the ledger says what is: reviews, suspensions,
// quarantine. What holds is the intersection, so that neither an edited file
// nor a restart widens anything.
//
// A tool is what was reviewed: one definition, pinned by the digest of all of
// it. A tool that nobody reviewed, or that changed since, is in quarantine: it
// is not listed and not called. Its own annotations may raise its tier, never
// lower it.
package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/ledger"
)

// The kinds of rows this package keeps.
const (
	KindAgent    = "agent"    // by AgentID: the State an operator set
	KindTool     = "tool"     // by ToolName: a Review
	KindOperator = "operator" // by UserID: the State another operator set
)

// Why a tool is in quarantine.
const (
	Unreviewed       = "unreviewed"
	Changed          = "changed"
	UnsafeName       = "unsafe_name"
	TooComplex       = "schema_too_complex"
	BadSchema        = "invalid_schema"
	AmbiguousDefault = "ambiguous_default"
)

// A Definition is what an upstream offers under a name, as it was last seen.
type Definition struct {
	Kind     writ.Kind
	Upstream string
	Name     string
	Raw      writ.JSON // the whole definition, canonical
}

// A Review is an operator's word on one definition of a tool.
type Review struct {
	Definition writ.Digest `json:"definition"`
	Tier       writ.Tier   `json:"tier"`
	Fetch      bool        `json:"fetch,omitempty"`
	Result     writ.Label  `json:"result"`
	Credential string      `json:"credential,omitempty"`
}

// An Entry is one tool as it stands.
type Entry struct {
	Tool       writ.Tool
	Kind       writ.Kind
	Name       string    // as the upstream knows it
	Raw        writ.JSON // the definition as pinned
	Input      writ.JSON // the schema of its arguments
	Quarantine string    // why it may not be called; empty if it may
	at         int64     // version of its review's row
	schema     *schema
}

// A Catalog holds the agents and the tools.
type Catalog struct {
	ledger *ledger.Ledger
	now    func() time.Time
	config Config
	agents map[writ.AgentID]writ.Agent
	rules  map[writ.ToolName]Rule

	mu      sync.RWMutex
	offered map[string]map[writ.ToolName]*Entry // by upstream; entries are replaced, never changed
}

// New gives a Catalog of what c allows, with no tools until they are offered.
func New(c Config, l *ledger.Ledger, now func() time.Time) *Catalog {
	cat := &Catalog{
		ledger: l, now: now, config: c,
		agents: map[writ.AgentID]writ.Agent{}, rules: map[writ.ToolName]Rule{}, offered: map[string]map[writ.ToolName]*Entry{},
	}
	for _, a := range c.Agents {
		cat.agents[a.ID] = a.agent()
	}
	for _, r := range c.Tools {
		cat.rules[r.Tool] = r
	}
	return cat
}

// Agent gives an agent that may act now, and what a commit must find
// unchanged. It is refused with AgentNotActive if it is unknown, expired,
// overdue for certification, or not active.
func (c *Catalog) Agent(ctx context.Context, id writ.AgentID) (writ.Agent, []ledger.Expect, error) {
	a, ok := c.agents[id]
	if !ok {
		return writ.Agent{ID: id}, nil, writ.Refuse(writ.AgentNotActive, "this agent is not registered; ask the operator to register it", nil)
	}
	state, expect, err := c.state(ctx, KindAgent, string(id))
	if err != nil {
		return a, nil, err
	}
	if state != "" {
		a.State = state
	}
	now := c.now().UnixMilli()
	switch {
	case a.State != writ.Active:
		return a, nil, writ.Refuse(writ.AgentNotActive, fmt.Sprintf("this agent is %s; ask its owner %s", a.State, a.Owner), nil)
	case a.Expires != 0 && now >= a.Expires:
		return a, nil, writ.Refuse(writ.AgentNotActive, fmt.Sprintf("this agent has expired; its owner %s can renew it", a.Owner), nil)
	case a.RecertifyBy != 0 && now >= a.RecertifyBy:
		return a, nil, writ.Refuse(writ.AgentNotActive, fmt.Sprintf("this agent is due for certification by its owner %s", a.Owner), nil)
	}
	return a, []ledger.Expect{expect}, nil
}

// Operator gives the operator who holds a key, and what a commit that relies
// on it must find unchanged. One who is unknown or suspended is refused with
// NotEntitled.
func (c *Catalog) Operator(ctx context.Context, key writ.Thumbprint) (Operator, []ledger.Expect, error) {
	i := slices.IndexFunc(c.config.Operators, func(o Operator) bool { return o.Key == key })
	if i < 0 || key == "" {
		return Operator{}, nil, writ.Refuse(writ.NotEntitled, "this key is no operator's", nil)
	}
	o := c.config.Operators[i]
	state, expect, err := c.state(ctx, KindOperator, string(o.User))
	if err != nil {
		return Operator{}, nil, err
	}
	if state != "" && state != writ.Active {
		return Operator{}, nil, writ.Refuse(writ.NotEntitled, fmt.Sprintf("this operator is %s", state), nil)
	}
	return o, []ledger.Expect{expect}, nil
}

// Agents gives every registered agent as the file and the ledger together
// have it, sorted by its identifier.
func (c *Catalog) Agents(ctx context.Context) ([]writ.Agent, error) {
	var all []writ.Agent
	for _, a := range c.agents {
		state, _, err := c.state(ctx, KindAgent, string(a.ID))
		if err != nil {
			return nil, err
		}
		if state != "" {
			a.State = state
		}
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b writ.Agent) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return all, nil
}

// SetState records that an agent or an operator is active, suspended or
// retired. What the files do not know cannot be made active by it.
func (c *Catalog) SetState(ctx context.Context, kind, id string, s writ.State, by writ.UserID) error {
	if s != writ.Active && s != writ.Suspended && s != writ.Retired || kind != KindAgent && kind != KindOperator {
		return writ.Refuse(writ.InvalidRequest, "want an agent or an operator that becomes active, suspended or retired", nil)
	}
	leaf := ledger.Leaf{Type: ledger.TypeAdmin, Note: map[string]string{"act": kind + "." + string(s), "of": id}}
	if kind == KindAgent {
		leaf = ledger.Leaf{Type: ledger.TypeAgent, Agent: writ.AgentID(id), Note: map[string]string{"state": string(s)}}
	}
	_, err := c.ledger.Commit(ctx, &ledger.Entry{
		Leaf: leaf, User: by,
		Changes: []ledger.Change{{Op: ledger.Put, Kind: kind, Key: id, Value: []byte(s)}},
	})
	if err != nil {
		return fmt.Errorf("recording the state of %s: %w", id, err)
	}
	return nil
}

// state reads what the ledger says of an agent or an operator.
func (c *Catalog) state(ctx context.Context, kind, key string) (writ.State, ledger.Expect, error) {
	row, found, err := c.ledger.Get(ctx, kind, key)
	if err != nil {
		return "", ledger.Expect{}, fmt.Errorf("reading the state of an %s: %w", kind, err)
	}
	if !found {
		return "", ledger.Expect{Kind: kind, Key: key, At: ledger.Absent}, nil
	}
	return writ.State(row.Value), ledger.Expect{Kind: kind, Key: key, At: row.At}, nil
}

// Offer replaces what an upstream offers. What it no longer offers is gone;
// what changed, or was never reviewed, is in quarantine.
func (c *Catalog) Offer(ctx context.Context, upstream string, defs []Definition) error {
	entries := map[writ.ToolName]*Entry{}
	for _, d := range defs {
		e, err := c.entry(ctx, d)
		if err != nil {
			return err
		}
		if entries[e.Tool.Name] != nil {
			return fmt.Errorf("upstream %s offers %s twice", upstream, e.Tool.Name)
		}
		entries[e.Tool.Name] = e
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offered[upstream] = entries
	return nil
}

var safeName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,128}$`)

// NameOf is the name of what an upstream offers, over all upstreams. Reading
// resources is one action of an upstream, and getting prompts is another; the
// colon, which no tool's name may have, keeps them apart from tools.
func NameOf(kind writ.Kind, upstream, name string) writ.ToolName {
	switch kind {
	case writ.KindTool:
		return writ.ToolName(upstream + "." + name)
	case writ.KindResource:
		return writ.ToolName(upstream + ".resource:read")
	case writ.KindPrompt:
		return writ.ToolName(upstream + ".prompt:get")
	}
	return writ.ToolName(upstream + "." + string(kind) + ":")
}

// entry judges one definition against its review and the operator's rules.
func (c *Catalog) entry(ctx context.Context, d Definition) (*Entry, error) {
	name := NameOf(d.Kind, d.Upstream, d.Name)
	e := &Entry{Kind: d.Kind, Name: d.Name, Raw: d.Raw, at: ledger.Absent}
	e.Tool = writ.Tool{Name: name, Upstream: d.Upstream, Definition: writ.Hash("definition", []byte(d.Raw))}
	v, err := canon.Parse([]byte(d.Raw), canon.Limits{})
	if err != nil {
		return nil, fmt.Errorf("definition of %s: %w", name, err)
	}
	if !safeName.MatchString(d.Name) && d.Kind == writ.KindTool {
		e.Quarantine = UnsafeName
		return e, nil
	}
	e.Input, e.schema, e.Quarantine = compile(v.Get("inputSchema"))
	row, found, err := c.ledger.Get(ctx, KindTool, string(name))
	if err != nil {
		return nil, fmt.Errorf("reading the review of %s: %w", name, err)
	}
	if !found {
		e.Quarantine = first(e.Quarantine, Unreviewed)
		return e, nil
	}
	e.at = row.At
	var r Review
	if err := json.Unmarshal(row.Value, &r); err != nil {
		return nil, fmt.Errorf("reading the review of %s: %w", name, err)
	}
	if r.Definition != e.Tool.Definition {
		e.Quarantine = first(e.Quarantine, Changed)
	}
	e.Tool.Tier, e.Tool.Fetch, e.Tool.Result, e.Tool.Credential = r.Tier, r.Fetch, r.Result, r.Credential
	if rule, ok := c.rules[name]; ok {
		e.Tool.Tier = min(e.Tool.Tier, rule.Tier)
		e.Tool.Fetch = e.Tool.Fetch || rule.Fetch
		e.Tool.Result = e.Tool.Result.Join(rule.Result)
	}
	e.Tool.Tier = min(e.Tool.Tier, hinted(v))
	return e, nil
}

// hinted is the least harmful tier that a tool's own annotations admit. A
// tool that calls itself destructive is privileged, whatever a review says;
// one that calls itself harmless has said nothing.
func hinted(v *canon.Value) writ.Tier {
	hints := v.Get("annotations")
	if destructive, ok := hints.Get("destructiveHint").Bool(); ok && destructive {
		if readOnly, _ := hints.Get("readOnlyHint").Bool(); !readOnly {
			return writ.Privileged
		}
	}
	if readOnly, ok := hints.Get("readOnlyHint").Bool(); ok && !readOnly {
		return writ.BoundedWrite
	}
	return writ.ReadOnly
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// Entries gives what an upstream offers, or what all do if upstream is empty,
// quarantined tools included, sorted by name.
func (c *Catalog) Entries(upstream string) []*Entry {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var all []*Entry
	for u, entries := range c.offered {
		if upstream != "" && u != upstream {
			continue
		}
		for _, e := range entries {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b *Entry) int { return strings.Compare(string(a.Tool.Name), string(b.Tool.Name)) })
	return all
}

func (c *Catalog) find(upstream string, name writ.ToolName) *Entry {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.offered[upstream][name]
}
