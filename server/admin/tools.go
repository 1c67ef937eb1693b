package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/registry"
	"github.com/writgate/writ/server/admin/api"
)

type toolsQuery struct {
	Upstream   string `query:"upstream"`
	Quarantine string `query:"quarantine"` // "any", or a reason
}

// listTools gives what the upstreams offer.
func (s *Server) listTools(_ context.Context, _ asker, q toolsQuery) (*api.Page[api.Tool], error) {
	page := &api.Page[api.Tool]{Items: []api.Tool{}}
	for _, e := range s.Gate.Catalog.Entries(q.Upstream) {
		if q.Quarantine == "" || q.Quarantine == e.Quarantine || q.Quarantine == "any" && e.Quarantine != "" {
			page.Items = append(page.Items, toolOf(e))
		}
	}
	return page, nil
}

type toolPath struct {
	Tool writ.ToolName `path:"tool" json:"-"`
}

// getTool gives one tool with its whole definition.
func (s *Server) getTool(_ context.Context, _ asker, q toolPath) (*api.Tool, error) {
	for _, e := range s.Gate.Catalog.Entries("") {
		if e.Tool.Name == q.Tool {
			t := toolOf(e)
			t.Offered = json.RawMessage(e.Raw)
			return &t, nil
		}
	}
	return nil, missing("nobody offers a tool " + clip(string(q.Tool)))
}

// toolOf writes a tool for people: what holds of it or, while it is in
// quarantine, what its definition suggests.
func toolOf(e *registry.Entry) api.Tool {
	t := api.Tool{
		Name: e.Tool.Name, Upstream: e.Tool.Upstream, Kind: e.Kind, Definition: e.Tool.Definition, Quarantine: e.Quarantine,
		Tier: e.Tool.Tier, Fetch: e.Tool.Fetch, Result: e.Tool.Result, Credential: e.Tool.Credential,
	}
	v, err := canon.Parse([]byte(e.Raw), canon.Limits{})
	if err == nil {
		t.Title, _ = v.Get("title").Str()
		t.Summary, _ = v.Get("description").Str()
	}
	if e.Quarantine == registry.Unreviewed {
		t.Proposed = true
		t.Tier, t.Fetch, t.Result = propose(e.Kind, e.Name, v)
	}
	return t
}

// propose guesses what to hold of a tool. It is a start for whoever reviews
// it, and counts for nothing: the tool's own word can only make it worse.
func propose(kind writ.Kind, name string, definition *canon.Value) (writ.Tier, bool, writ.Label) {
	hints := definition.Get("annotations")
	says := func(hint string) bool { b, ok := hints.Get(hint).Bool(); return ok && b }
	tier := writ.Privileged
	switch {
	case kind == writ.KindResource, kind == writ.KindPrompt, says("readOnlyHint"),
		hints.Get("readOnlyHint") == nil && begins(name, "get", "list", "read", "search", "find", "query", "describe", "show", "count", "fetch"):
		tier = writ.ReadOnly
	case !says("destructiveHint") && begins(name, "create", "add", "update", "set", "post", "comment", "append", "write", "open", "close", "assign", "label"):
		tier = writ.BoundedWrite
	}
	fetch := begins(name, "fetch", "browse", "navigate", "crawl", "download", "scrape", "http")
	for _, argument := range []string{"url", "uri", "urls", "href", "endpoint"} {
		fetch = fetch || definition.Get("inputSchema").Get("properties").Get(argument) != nil
	}
	return tier, fetch, writ.Label{Integrity: writ.Untrusted, Class: writ.Internal}
}

// begins says whether a name's first word is one of these.
func begins(name string, words ...string) bool {
	first := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return r == '_' || r == '-' || r == '.' })
	return len(first) > 0 && slices.Contains(words, first[0])
}

type reviewRequest struct {
	Reviews map[writ.ToolName]registry.Review `json:"reviews"`
}

// reviewTools puts an operator's word on tools in force, all or none.
func (s *Server) reviewTools(ctx context.Context, a asker, q reviewRequest) (*api.Page[api.Tool], error) {
	if len(q.Reviews) == 0 {
		return nil, writ.Refuse(writ.InvalidRequest, "a review of no tool", nil)
	}
	if err := s.Gate.Review(ctx, a.by(), q.Reviews); err != nil {
		return nil, err
	}
	page := &api.Page[api.Tool]{Items: []api.Tool{}}
	for _, e := range s.Gate.Catalog.Entries("") {
		if _, ok := q.Reviews[e.Tool.Name]; ok {
			page.Items = append(page.Items, toolOf(e))
		}
	}
	return page, nil
}

// quarantine takes an operator's review of tools away: until the next one they
// are not listed and not called.
func (s *Server) quarantine(ctx context.Context, a asker, entries []*registry.Entry, reason string) error {
	upstreams := map[string]bool{}
	for _, e := range entries {
		_, err := s.Gate.Ledger.Commit(ctx, &ledger.Entry{
			Leaf:    ledger.Leaf{Type: ledger.TypeTool, Tool: e.Tool.Name, Definition: e.Tool.Definition, Note: map[string]string{"act": "quarantine", "why": why(reason)}},
			User:    a.by(),
			Changes: []ledger.Change{{Op: ledger.Delete, Kind: registry.KindTool, Key: string(e.Tool.Name)}},
		})
		if err != nil {
			return fmt.Errorf("putting %s into quarantine: %w", e.Tool.Name, err)
		}
		upstreams[e.Tool.Upstream] = true
	}
	for u := range upstreams {
		var offer []registry.Definition
		for _, e := range s.Gate.Catalog.Entries(u) {
			offer = append(offer, registry.Definition{Kind: e.Kind, Upstream: u, Name: e.Name, Raw: e.Raw})
		}
		if err := s.Gate.Catalog.Offer(ctx, u, offer); err != nil {
			return err
		}
	}
	return nil
}
