package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/ledger"
)

// Placed is an action that exists: its tool as pinned, its arguments complete
// and valid, and what a commit must find unchanged.
type Placed struct {
	Tool      writ.Tool
	Action    writ.Action
	Arguments *canon.Value
	Inputs    *canon.Value // what goes back up to an upstream that asked; nil if there is nothing
	Reads     []ledger.Expect
}

// Place finds the tool an action asks for and makes its arguments exact:
// defaults filled in, validated, canonical. From here on only these bytes
// exist. A Denial says what does not exist, is in quarantine, or does not fit.
func (c *Catalog) Place(ask writ.Action) (Placed, error) {
	name := NameOf(ask.Kind, ask.Upstream, ask.Name)
	e := c.find(ask.Upstream, name)
	if e == nil || e.Quarantine == Unreviewed || e.Quarantine == UnsafeName {
		// What was never reviewed was never listed: the agent is told no more.
		d := writ.Refuse(writ.UnknownTool, "there is no such tool here", nil)
		d.Remedy = writ.RemedyFix
		return Placed{}, d
	}
	if e.Quarantine != "" {
		return Placed{}, writ.Refuse(writ.Quarantined, "this tool changed and waits for its review", fmt.Errorf("%s: %s", name, e.Quarantine))
	}
	if (ask.Inputs != "" || ask.State != "") && !slices.Contains(c.config.Continuations, ask.Upstream) {
		return Placed{}, writ.Refuse(writ.Forbidden, "this upstream may not be answered when it asks for more input", nil)
	}
	if ask.Arguments == "" {
		ask.Arguments = "{}"
	}
	args, err := canon.ParseObject([]byte(ask.Arguments), canon.Limits{})
	if err != nil {
		return Placed{}, writ.Refuse(writ.InvalidArguments, "the arguments are not one exact JSON object: "+err.Error(), nil)
	}
	if args, err = e.schema.check(args); err != nil {
		return Placed{}, err
	}
	var inputs *canon.Value
	if ask.Inputs != "" {
		if inputs, err = canon.ParseObject([]byte(ask.Inputs), canon.Limits{}); err != nil {
			return Placed{}, writ.Refuse(writ.InvalidRequest, "the input responses are not one exact JSON object: "+err.Error(), nil)
		}
		ask.Inputs = inputs.JSON()
	}
	if ask.Kind != writ.KindTool { // which resource, or which prompt, is an argument and nothing else
		ask.Name = string(ask.Kind)
	}
	ask.Definition, ask.Arguments = e.Tool.Definition, args.JSON()
	return Placed{
		Tool: e.Tool, Action: ask, Arguments: args, Inputs: inputs,
		Reads: []ledger.Expect{{Kind: KindTool, Key: string(name), At: e.at}},
	}, nil
}

// Accept records an operator's reviews, all or none, and puts them in force.
// Each must be of the definition that is offered now.
func (c *Catalog) Accept(ctx context.Context, by writ.UserID, reviews map[writ.ToolName]Review) error {
	entry := &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeTool, Note: map[string]string{"act": "review"}}, User: by}
	var all []Definition
	upstreams := map[string]bool{}
	for _, e := range c.Entries("") {
		r, ok := reviews[e.Tool.Name]
		if !ok {
			continue
		}
		if r.Definition != e.Tool.Definition {
			return writ.Refuse(writ.StateChanged, fmt.Sprintf("%s changed while it was reviewed", e.Tool.Name), nil)
		}
		row, err := json.Marshal(r)
		if err != nil {
			return err
		}
		entry.Expect = append(entry.Expect, ledger.Expect{Kind: KindTool, Key: string(e.Tool.Name), At: e.at})
		entry.Changes = append(entry.Changes, ledger.Change{Op: ledger.Put, Kind: KindTool, Key: string(e.Tool.Name), Value: row})
		upstreams[e.Tool.Upstream] = true
	}
	if len(entry.Changes) != len(reviews) {
		return writ.Refuse(writ.UnknownTool, "a review is of a tool that nobody offers", nil)
	}
	if _, err := c.ledger.Commit(ctx, entry); err != nil {
		return fmt.Errorf("recording the review: %w", err)
	}
	for u := range upstreams {
		all = all[:0]
		for _, e := range c.Entries(u) {
			all = append(all, Definition{e.Kind, u, e.Name, e.Raw})
		}
		if err := c.Offer(ctx, u, all); err != nil {
			return err
		}
	}
	return nil
}
