package upstream

import (
	"context"
	"encoding/json"
	"time"

	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/mcp"
)

const (
	settleTime = 100 * time.Millisecond // after the first of several notices
	gapTime    = 5 * time.Second        // in which an upstream earns one report,
	savedUp    = 4                      // of which it may have so many saved up
	relistTime = 5 * time.Minute        // after which its lists may have changed without a word
	retryTime  = time.Second            // before listening again, doubled each time up to relistTime
)

// poked notes that the upstream's lists may have changed.
func (p *peer) poked() {
	select {
	case p.poke <- struct{}{}:
	default:
	}
}

// watch reports on out that the upstream's lists may have changed: when it
// says so, and from time to time. One that says so all the time is reported
// once in a while.
func (p *peer) watch(ctx context.Context, out chan<- string) {
	if p.http != nil {
		p.running.Go(func() { p.listen(ctx) })
	}
	clock := time.NewTimer(relistTime)
	defer clock.Stop()
	paid := time.Now() // until when the reports that were made are paid for
	for {
		select {
		case <-p.poke:
			if !sleep(ctx, settleTime) {
				return
			}
			select {
			case <-p.poke:
			default:
			}
		case <-clock.C:
		case <-ctx.Done():
			return
		}
		clock.Reset(relistTime)
		select {
		case out <- p.Name:
		case <-ctx.Done():
			return
		}
		if now := time.Now(); paid.Before(now) {
			paid = now
		}
		paid = paid.Add(gapTime)
		if !sleep(ctx, time.Until(paid)-savedUp*gapTime) {
			return
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// listen keeps a stream open on which the upstream says that its lists have
// changed. A stream that broke may have missed something.
func (p *peer) listen(ctx context.Context) {
	for wait := retryTime; ; wait = min(2*wait, relistTime) {
		began := time.Now()
		opened := p.listenOnce(ctx)
		if opened && time.Since(began) > gapTime {
			wait = retryTime
		}
		if !sleep(ctx, wait) {
			return
		}
		if opened {
			p.poked()
		}
	}
}

// listenOnce listens until the stream ends, and says whether there was one.
func (p *peer) listenOnce(ctx context.Context) bool {
	t, err := p.talk(ctx)
	if err != nil {
		return false
	}
	defer t.close()
	wanted := wants(t.capabilities)
	if wanted == nil {
		return false
	}
	if t.s != nil {
		l, ok := t.s.link.(*httpLink)
		return ok && l.sessionID() != "" && l.listen(ctx, nil)
	}
	id := p.nextID()
	r := &request{method: "subscriptions/listen", rest: append([]byte(`,"notifications":`), wanted...)}
	h := p.http.header()
	mcp.SetHeaders(h, r.method, "", nil, nil)
	x := &exchange{header: h, body: r.body(id, true), patient: true, each: func(m *mcp.Message) bool {
		switch m.Method {
		case "":
			return m.ID == id || m.ID == ""
		case "notifications/tools/list_changed", "notifications/resources/list_changed", "notifications/prompts/list_changed":
			p.poked()
		}
		return false
	}}
	p.http.exchange(ctx, x)
	return x.began
}

// wants is what to subscribe to: the lists that the server says it tells of.
// It is nil if there are none.
func wants(capabilities *canon.Value) []byte {
	w := map[string]bool{}
	for list, name := range map[string]string{"tools": "toolsListChanged", "resources": "resourcesListChanged", "prompts": "promptsListChanged"} {
		if b, _ := capabilities.Get(list).Get("listChanged").Bool(); b {
			w[name] = true
		}
	}
	if len(w) == 0 {
		return nil
	}
	b, err := json.Marshal(w)
	if err != nil {
		panic(err) // a map of booleans always marshals
	}
	return b
}
