package server

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/mcp"
	"github.com/writgate/writ/registry"
)

// page is the most that one answer lists.
const page = 100

// An item is one thing that is listed, by the name it is listed under.
type item struct {
	name string
	text writ.JSON
}

// list answers with what the caller's task may use, sorted by name: what was
// never reviewed, changed since, or is not in the task's grant does not exist
// for it.
func (x *exchange) list() error {
	after, err := cursor(x.req.Params.Get("cursor"))
	if err != nil {
		return err
	}
	entries, _, err := x.m.config.Gate.List(x.r.Context(), x.call)
	if err != nil {
		return err
	}
	entries = slices.DeleteFunc(entries, func(e *registry.Entry) bool { return x.upstream != "" && e.Tool.Upstream != x.upstream })
	var items []item
	var partial []string
	if x.req.Method == "tools/list" {
		items = x.tools(entries)
	} else {
		items, partial = x.others(entries)
	}
	slices.SortFunc(items, func(a, b item) int { return strings.Compare(a.name, b.name) })
	items = slices.DeleteFunc(items, func(i item) bool { return i.name <= after })
	next := ""
	if len(items) > page {
		items = items[:page]
		next = base64.RawURLEncoding.EncodeToString([]byte(items[page-1].name))
	}
	return x.listed(items, next, partial)
}

// listed sends a list.
func (x *exchange) listed(items []item, next string, partial []string) error {
	member := map[string]string{
		"tools/list": "tools", "prompts/list": "prompts", "resources/list": "resources", "resources/templates/list": "resourceTemplates",
	}[x.req.Method]
	var b strings.Builder
	fmt.Fprintf(&b, `{"%s":[`, member)
	for i, it := range items {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(string(it.text))
	}
	b.WriteByte(']')
	if next != "" {
		fmt.Fprintf(&b, `,"nextCursor":"%s"`, next)
	}
	if x.session == nil {
		// What is listed depends on who asks, and may end at any time.
		b.WriteString(`,"resultType":"complete","ttlMs":0,"cacheScope":"private"`)
	}
	if len(partial) > 0 { // names of upstreams hold nothing to escape
		fmt.Fprintf(&b, `,"_meta":{"%spartial":["%s"]}`, mcp.OurPrefix, strings.Join(partial, `","`))
	}
	b.WriteByte('}')
	x.out.result([]byte(b.String()))
	return nil
}

// cursor reads where the page before ended: the last name on it. It gives no
// authority, so it needs no seal.
func cursor(v *canon.Value) (string, error) {
	if v == nil {
		return "", nil
	}
	s, _ := v.Str()
	name, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(name) == 0 {
		return "", &mcp.Error{Code: mcp.CodeInvalidParams, HTTP: http.StatusBadRequest, Message: "this cursor is none of ours"}
	}
	return string(name), nil
}

// tools are the definitions as pinned, under the names they have here.
func (x *exchange) tools(entries []*registry.Entry) []item {
	var items []item
	for _, e := range entries {
		if e.Kind != writ.KindTool {
			continue
		}
		name := e.Name
		if x.upstream == "" {
			name = string(e.Tool.Name)
		}
		if def := x.m.shown.of(e, name); def != "" {
			items = append(items, item{name, def})
		}
	}
	return items
}

// shown remembers tools as they are listed: by the digest of the definition,
// which is pinned, and the name it is listed under.
type shown struct {
	mu   sync.Mutex
	held map[[2]string]writ.JSON
}

// maxShown bounds what is remembered. What is forgotten is made again.
const maxShown = 4096

// of gives a tool as it is listed; nothing if it is not to be.
func (s *shown) of(e *registry.Entry, name string) writ.JSON {
	key := [2]string{string(e.Tool.Definition), name}
	s.mu.Lock()
	defer s.mu.Unlock()
	def, ok := s.held[key]
	if ok {
		return def
	}
	if s.held == nil || len(s.held) >= maxShown {
		s.held = map[[2]string]writ.JSON{}
	}
	def = listing(e.Raw, name)
	s.held[key] = def
	return def
}

// listing is a definition as it is listed. Whoever reads headers on the way
// learns no argument from a call: the annotations that would have a client
// mirror them are taken out, and a tool is not listed where they are unclear.
func listing(raw writ.JSON, name string) writ.JSON {
	def, err := canon.Parse([]byte(raw), canon.Limits{})
	if err != nil {
		return ""
	}
	changes, err := unmirror(def.Get("inputSchema"))
	if err != nil {
		return ""
	}
	b, err := canon.Splice(def, append(changes, canon.Change{In: def, Name: "name", Value: text(name)})...)
	if err != nil {
		return ""
	}
	return writ.JSON(b)
}

// unmirror is what takes the x-mcp-header annotations out of a schema.
func unmirror(schema *canon.Value) ([]canon.Change, error) {
	params, err := mcp.HeaderParams(schema)
	if err != nil {
		return nil, err
	}
	var changes []canon.Change
	for _, p := range params {
		at := schema
		for _, name := range p.Path {
			at = at.Get("properties").Get(name)
		}
		changes = append(changes, canon.Change{In: at, Name: "x-mcp-header"})
	}
	return changes, nil
}

// others lists resources, templates or prompts: of the upstreams whose one
// action for them the task may use. An upstream that does not answer, or not
// to the end, is named.
func (x *exchange) others(entries []*registry.Entry) (items []item, partial []string) {
	if x.m.config.Lists == nil {
		return nil, nil
	}
	kind, member := writ.KindResource, "uri"
	switch x.req.Method {
	case "prompts/list":
		kind, member = writ.KindPrompt, "name"
	case "resources/templates/list":
		member = "uriTemplate"
	}
	for _, e := range entries {
		if e.Kind != kind {
			continue
		}
		upstream := e.Tool.Upstream
		raw, err := x.m.config.Lists(x.r.Context(), upstream, x.req.Method)
		if err != nil {
			partial = append(partial, upstream)
		}
		for _, r := range raw {
			if it, err := x.renamed(upstream, member, r); err == nil {
				items = append(items, it)
			}
		}
	}
	return items, partial
}

var errNameless = errors.New("an item without a name")

// renamed gives an item of an upstream under the name it has here.
func (x *exchange) renamed(upstream, member string, raw writ.JSON) (item, error) {
	v, err := canon.Parse([]byte(raw), canon.Limits{})
	if err != nil {
		return item{}, err
	}
	name, ok := v.Get(member).Str()
	if !ok || name == "" {
		return item{}, errNameless
	}
	switch {
	case x.upstream != "":
		return item{name, writ.JSON(v.Raw())}, nil
	case member == "name":
		name = upstream + "." + name
	default:
		name = upstream + "+" + name
	}
	b, err := canon.Splice(v, canon.Change{In: v, Name: member, Value: text(name)})
	return item{name, writ.JSON(b)}, err
}

// text is a string as JSON.
func text(s string) writ.JSON {
	var b canon.Builder
	b.Texts("t", []string{s})
	j, err := b.JSON()
	if err != nil {
		return `""` // it came out of JSON that Parse accepts
	}
	return j[len(`{"t":[`) : len(j)-len(`]}`)]
}
