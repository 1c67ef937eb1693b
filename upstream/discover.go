package upstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/mcp"
)

// What is read of one list.
const (
	maxItems       = 512
	maxPages       = 64
	maxDefinition  = 256 << 10 // bytes of one definition
	maxDescription = 8 << 10   // bytes of its description
	maxListing     = 32 << 20  // bytes of all pages
	listTime       = 2 * time.Minute
	freshTime      = 5 * time.Second // that a list is not asked for again
)

// The definitions that stand for reading resources and for getting prompts.
const (
	resourceDefinition = `{"inputSchema":{"additionalProperties":false,"properties":{"uri":{"type":"string"}},"required":["uri"],"type":"object"},"name":"resource"}`
	promptDefinition   = `{"inputSchema":{"additionalProperties":false,"properties":{"arguments":{"additionalProperties":{"type":"string"},"type":"object"},"name":{"type":"string"}},"required":["name"],"type":"object"},"name":"prompt"}`
)

// A definition is what is remembered of an offer.
type definition struct {
	digest writ.Digest
	mirror []mcp.HeaderParam
}

type offerKey struct {
	kind writ.Kind
	name string
}

// reviewed gives the definition that an action was judged by, if that is what
// the upstream offers. It asks the upstream once more before it says no.
func (p *peer) reviewed(ctx context.Context, a *writ.Action) (definition, error) {
	for again := false; ; again = true {
		p.mu.Lock()
		d := p.offers[offerKey{a.Kind, a.Name}]
		p.mu.Unlock()
		if d.digest == a.Definition && d.digest != "" {
			return d, nil
		}
		if again {
			p.poked() // whoever keeps the catalog has not seen this yet
			return definition{}, errChanged
		}
		if err := p.relist(ctx, freshTime); err != nil {
			return definition{}, notSent(err)
		}
	}
}

// relist discovers again, unless that was done within fresh.
func (p *peer) relist(ctx context.Context, fresh time.Duration) error {
	p.mu.Lock()
	recent := fresh > 0 && time.Since(p.listed) < fresh
	p.mu.Unlock()
	if recent {
		return nil
	}
	if _, err := p.discover(ctx); err != nil && !errors.Is(err, ErrPartial) {
		return err
	}
	return nil
}

// discover lists what the upstream offers.
func (p *peer) discover(ctx context.Context) ([]Offer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, listTime, errTime)
	defer cancel()
	select {
	case p.listing <- struct{}{}:
		defer func() { <-p.listing }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if p.http != nil {
		p.forget() // what it can do may have changed too
	}
	t, err := p.talk(ctx)
	if err != nil {
		return nil, err
	}
	defer t.close()
	var offers []Offer
	var partial error
	known := map[offerKey]definition{}
	add := func(kind writ.Kind, name string, raw writ.JSON, mirror []mcp.HeaderParam) {
		offers = append(offers, Offer{kind, name, raw})
		known[offerKey{kind, name}] = definition{writ.Hash("definition", []byte(raw)), mirror}
	}
	if t.capabilities.Get("tools") != nil {
		tools, err := t.list(ctx, "tools/list", "tools")
		if err != nil && !errors.Is(err, ErrPartial) {
			return nil, err
		}
		partial = err
		for _, v := range tools {
			name, mirror, err := readTool(v)
			if err != nil {
				partial = errors.Join(partial, fmt.Errorf("%w: %w", ErrPartial, err))
				continue
			}
			add(writ.KindTool, name, v.JSON(), mirror)
		}
	}
	if t.capabilities.Get("resources") != nil {
		add(writ.KindResource, "resource", resourceDefinition, nil)
	}
	if t.capabilities.Get("prompts") != nil {
		add(writ.KindPrompt, "prompt", promptDefinition, nil)
	}
	p.mu.Lock()
	p.offers, p.listed = known, time.Now()
	p.mu.Unlock()
	return offers, partial
}

// readTool reads what is needed of a tool's definition. Nothing is taken out
// of it: it is pinned whole.
func readTool(v *canon.Value) (name string, mirror []mcp.HeaderParam, err error) {
	name, ok := v.Get("name").Str()
	if !ok || name == "" {
		return "", nil, errors.New("a tool without a name is left out")
	}
	text, _ := v.Get("description").Str()
	size := len(v.Raw())
	switch {
	case len(text) > maxDescription:
		err = fmt.Errorf("a description of %d bytes", len(text))
	case size > maxDefinition:
		err = fmt.Errorf("a definition of %d bytes", size)
	default:
		mirror, err = mcp.HeaderParams(v.Get("inputSchema"))
	}
	if err != nil {
		return "", nil, fmt.Errorf("the tool %q is left out: %w", clip(name, 64), err)
	}
	return name, mirror, nil
}

// A talk is a conversation without a credential, about what there is.
type talk struct {
	peer         *peer
	s            *session // nil with a modern server over HTTP
	capabilities *canon.Value
}

func (p *peer) talk(ctx context.Context) (*talk, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.Timeout, errTime)
	defer cancel()
	t := &talk{peer: p}
	var err error
	if p.http == nil {
		t.s, err = p.spawn(ctx, "{}", nil, nil)
	} else {
		var e era
		if e, err = p.era(ctx, nil); err == nil && e.modern {
			t.capabilities = e.capabilities
			return t, nil
		}
		if err == nil {
			t.s, err = p.initialized(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	t.capabilities = t.s.capabilities
	return t, nil
}

// initialized opens a legacy session even if the server needs none: what it
// can do stands in the answer.
func (p *peer) initialized(ctx context.Context) (*session, error) {
	p.mu.Lock()
	p.learned.sessionless = ""
	p.mu.Unlock()
	return p.legacy(ctx, "{}", nil)
}

func (t *talk) close() {
	if t.s != nil {
		t.s.close(nil)
	}
}

// ask makes one request.
func (t *talk) ask(ctx context.Context, method string, rest []byte) (*canon.Value, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, t.peer.Timeout, errTime)
	defer cancel()
	r := &request{method: method, rest: rest}
	var m *mcp.Message
	var err error
	if t.s == nil {
		m, err = t.peer.modern(ctx, r, nil)
	} else {
		m, err = t.s.ask(ctx, r, nil)
		if err != nil {
			err = fmt.Errorf("%w%s", err, t.s.said())
		}
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", method, err)
	case m.Err != nil:
		return nil, fmt.Errorf("%s: %w", method, m.Err)
	}
	return m.Result, nil
}

// list gives the items of all pages, as far as the bounds let it. An error
// that wraps ErrPartial comes beside the items before the bound.
func (t *talk) list(ctx context.Context, method, member string) ([]*canon.Value, error) {
	var items []*canon.Value
	var rest []byte
	size := 0
	for range maxPages {
		page, err := t.ask(ctx, method, rest)
		if err != nil {
			return nil, err
		}
		if size += len(page.Raw()); size > maxListing {
			return items, fmt.Errorf("%w: %s gives more than %d bytes", ErrPartial, method, maxListing)
		}
		for v := range page.Get(member).Elems() {
			if len(items) == maxItems {
				return items, fmt.Errorf("%w: %s gives more than %d items", ErrPartial, method, maxItems)
			}
			if v.Kind() == canon.Object {
				items = append(items, v)
			}
		}
		cursor, ok := page.Get("nextCursor").Str()
		if !ok || cursor == "" {
			return items, nil
		}
		if rest, err = jsontext.AppendQuote([]byte(`,"cursor":`), cursor); err != nil {
			return nil, err
		}
	}
	return items, fmt.Errorf("%w: %s has more than %d pages", ErrPartial, method, maxPages)
}
