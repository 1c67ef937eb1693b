package main

import (
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/writgate/writ"
	"github.com/writgate/writ/registry"
	"github.com/writgate/writ/server/admin/api"
)

// A toolsLsCmd lists tools.
type toolsLsCmd struct {
	Upstream   string `help:"Of this upstream."`
	Quarantine string `help:"Only those that cannot be called: any, or for this reason."`
}

// Run lists them.
func (c toolsLsCmd) Run(s *session) error {
	page, err := s.tools(c.Upstream, c.Quarantine)
	if err != nil {
		return err
	}
	return list(s, page.Items, "No upstream offers a tool: writ.yaml lists them, under upstreams.", toolRow)
}

func toolRow(t api.Tool) []any {
	state := "can be called"
	switch {
	case t.Proposed:
		state = t.Quarantine + "; proposed:"
	case t.Quarantine != "":
		state = t.Quarantine + "; was:"
	}
	return []any{t.Name, state, t.Tier, fetches(&t), "results " + t.Result.Integrity.String(), t.Result.Class}
}

func (s *session) tools(upstream, quarantine string) (*api.Page[api.Tool], error) {
	page := new(api.Page[api.Tool])
	err := s.client.Get(s.ctx, "/tools?"+url.Values{"upstream": {upstream}, "quarantine": {quarantine}}.Encode(), page)
	return page, err
}

func fetches(t *api.Tool) string {
	if t.Fetch {
		return "fetches"
	}
	return "-"
}

// A toolsShowCmd shows one tool.
type toolsShowCmd struct {
	Tool string `arg:"" help:"The tool."`
}

// Run shows it with its whole definition.
func (c toolsShowCmd) Run(s *session) error {
	t, err := s.tool(writ.ToolName(c.Tool))
	if err != nil {
		return err
	}
	if s.wantsJSON() {
		return s.json(t)
	}
	return s.printTool(t)
}

func (s *session) tool(name writ.ToolName) (*api.Tool, error) {
	t := new(api.Tool)
	err := s.client.Get(s.ctx, "/tools/"+url.PathEscape(string(name)), t)
	return t, err
}

// checkTool makes the digest of a definition itself: what is signed is what
// is shown, whoever answers at the socket.
func checkTool(t *api.Tool) error {
	if digest := writ.Hash("definition", t.Offered); digest != t.Definition {
		return refuse("the gateway shows a definition of %s with digest %s and calls it %s", t.Name, digest, t.Definition)
	}
	return nil
}

func (s *session) printTool(t *api.Tool) error {
	state := "can be called"
	if t.Quarantine != "" {
		state = "in quarantine: " + t.Quarantine
	}
	s.printf("%s  %s\n", t.Name, state)
	held := "held to be"
	if t.Proposed {
		held = "proposed"
	}
	fetching := ""
	if t.Fetch {
		fetching = ", fetches"
	}
	s.printf("%-10s %s%s, results %s and %s\n", trusted(held), t.Tier, trusted(fetching), t.Result.Integrity, t.Result.Class)
	if t.Credential != "" {
		s.printf("credential %s\n", t.Credential)
	}
	s.printf("definition %s\n", t.Definition)
	// What the upstream says of its own tool may be written to mislead: it is
	// shown whole, as it is pinned.
	s.printf("offered    %s\n", t.Offered)
	return nil
}

// A toolsReviewCmd accepts tools.
type toolsReviewCmd struct {
	Tools      []string `arg:"" optional:"" help:"Which ones. Everything that nobody has reviewed, or that has changed, if none is named."`
	Upstream   string   `help:"Only of this upstream."`
	Tier       string   `enum:",privileged,bounded-write,read-only" default:"" placeholder:"TIER" help:"privileged, bounded-write or read-only, in place of what is proposed."`
	Fetch      *bool    `negatable:"" help:"They reach an address that their arguments name."`
	Integrity  string   `enum:",untrusted,trusted" default:"" placeholder:"untrusted" help:"Whether their results may steer an agent."`
	Class      string   `enum:",restricted,confidential,internal,public" default:"" placeholder:"CLASS" help:"Who may see their results: restricted, confidential, internal or public."`
	Credential string   `help:"The backend of the credential they need."`
}

// Help says what a review is.
func (toolsReviewCmd) Help() string {
	return `A tool that nobody has reviewed is not listed and not called, nor is one whose definition has changed. A review is one signed act over the definitions that are shown; typing the passphrase of your key is the consent.

What is proposed is guessed from the definition, which is the upstream's own word. What a tool calls itself can only make its tier worse than the review says.`
}

// Run shows, asks and signs.
func (c toolsReviewCmd) Run(s *session) error {
	tools, err := c.choose(s)
	if err != nil {
		return err
	}
	reviews := map[writ.ToolName]registry.Review{}
	var held []api.Tool
	for _, t := range tools {
		if err := errors.Join(checkTool(t), c.hold(t)); err != nil {
			return err
		}
		if !s.wantsJSON() {
			if err := s.printTool(t); err != nil {
				return err
			}
			s.printf("\n")
		}
		held = append(held, *t)
		reviews[t.Name] = registry.Review{Definition: t.Definition, Tier: t.Tier, Fetch: t.Fetch, Result: t.Result, Credential: t.Credential}
	}
	if len(reviews) == 0 {
		fprintf(s.errs, "Nothing waits for a review: writ tools ls --quarantine=any has what cannot be accepted.\n")
		return nil
	}
	if !s.wantsJSON() && len(held) > 1 { // whoever has scrolled through them all sees what they consent to
		consent := func(t api.Tool) []any { return append([]any{t.Name, "will be held to be:"}, toolRow(t)[2:]...) }
		if err := list(s, held, "", consent); err != nil {
			return err
		}
		s.printf("\n")
	}
	var page api.Page[api.Tool]
	if err := s.act("/tools/review", map[string]any{"reviews": reviews}, &page); err != nil {
		return err
	}
	return list(s, page.Items, "", toolRow)
}

// unreviewable are the quarantines that no review ends.
var unreviewable = []string{registry.UnsafeName, registry.TooComplex, registry.BadSchema, registry.AmbiguousDefault}

func (c *toolsReviewCmd) choose(s *session) ([]*api.Tool, error) {
	quarantine := "any"
	if len(c.Tools) > 0 {
		quarantine = ""
	}
	page, err := s.tools(c.Upstream, quarantine)
	if err != nil {
		return nil, err
	}
	var chosen []*api.Tool
	for _, t := range page.Items {
		if len(c.Tools) > 0 && !slices.Contains(c.Tools, string(t.Name)) || len(c.Tools) == 0 && slices.Contains(unreviewable, t.Quarantine) {
			continue
		}
		whole, err := s.tool(t.Name)
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, whole)
	}
	if len(chosen) < len(c.Tools) {
		return nil, refuse("not all of these are offered: %s", strings.Join(c.Tools, ", "))
	}
	return chosen, nil
}

// hold puts what the command line says in place of what is proposed.
func (c *toolsReviewCmd) hold(t *api.Tool) error {
	if c.Fetch != nil {
		t.Fetch = *c.Fetch
	}
	if c.Credential != "" {
		t.Credential = c.Credential
	}
	set := func(text string, unmarshal func([]byte) error) error {
		if text == "" {
			return nil
		}
		return unmarshal([]byte(text))
	}
	return errors.Join(
		set(c.Tier, t.Tier.UnmarshalText), set(c.Integrity, t.Result.Integrity.UnmarshalText), set(c.Class, t.Result.Class.UnmarshalText),
	)
}

// A toolsExportCmd prints tools for policy check.
type toolsExportCmd struct{}

// Run prints one JSON object a line, whatever --output says.
func (toolsExportCmd) Run(s *session) error {
	tools, err := s.accepted()
	if err != nil {
		return err
	}
	for _, t := range tools {
		if err := s.json(t); err != nil {
			return err
		}
	}
	return nil
}

// accepted gives the tools that can be called, with their definitions.
func (s *session) accepted() ([]*api.Tool, error) {
	page, err := s.tools("", "")
	if err != nil {
		return nil, err
	}
	var all []*api.Tool
	for _, t := range page.Items {
		if t.Quarantine != "" {
			continue
		}
		whole, err := s.tool(t.Name)
		if err != nil {
			return nil, err
		}
		all = append(all, whole)
	}
	return all, nil
}

// unattended says whether the passphrase comes from a file.
func unattended() bool { return passphraseName() != "" }
