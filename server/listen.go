package server

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/writgate/writ/mcp"
)

// listeners are the streams that wait to be told that lists have changed.
type listeners struct {
	mu     sync.Mutex
	all    map[chan struct{}]bool
	closed chan struct{} // closed when no stream should go on
}

// join gives what is signalled at every change, and what is closed at the end.
func (l *listeners) join() (changed chan struct{}, closed <-chan struct{}, leave func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = map[chan struct{}]bool{}
	}
	c := make(chan struct{}, 1)
	l.all[c] = true
	return c, l.end(), func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.all, c)
	}
}

func (l *listeners) end() chan struct{} {
	if l.closed == nil {
		l.closed = make(chan struct{})
	}
	return l.closed
}

func (l *listeners) stir() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.all {
		select {
		case c <- struct{}{}:
		default: // it has not looked since the last time
		}
	}
}

func (l *listeners) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.end():
	default:
		close(l.closed)
	}
}

// listen answers subscriptions/listen: a stream that says when lists changed,
// as long as the proof of who listens is good (2026-07-28, patterns,
// "Subscriptions"). Subscriptions to single resources are not offered.
func (x *exchange) listen() error {
	id := x.req.ID
	filter := x.req.Params.Get("notifications")
	var methods []string
	var agreed []string
	for _, kind := range []struct{ member, method string }{
		{"toolsListChanged", "notifications/tools/list_changed"},
		{"promptsListChanged", "notifications/prompts/list_changed"},
		{"resourcesListChanged", "notifications/resources/list_changed"},
	} {
		wanted, _ := filter.Get(kind.member).Bool()
		if wanted && (x.m.config.Lists != nil || kind.member == "toolsListChanged") {
			methods = append(methods, kind.method)
			agreed = append(agreed, `"`+kind.member+`":true`)
		}
	}
	if !x.out.events {
		return fault(http.StatusNotAcceptable, "not_acceptable", "accept text/event-stream to listen")
	}
	meta := `"_meta":{"` + mcp.KeySubscription + `":` + id + `}`
	over := []byte(`{"resultType":"complete",` + meta + `}`)
	ack := mcp.Call("", "notifications/subscriptions/acknowledged", []byte(`{`+meta+`,"notifications":{`+strings.Join(agreed, ",")+`}}`))
	say := func() error {
		for _, method := range methods {
			if err := x.out.say(mcp.Call("", method, []byte(`{`+meta+`}`))); err != nil {
				return err
			}
		}
		return nil
	}
	ended, err := x.stay(ack, say, len(methods) > 0)
	if err != nil {
		return err
	}
	if ended {
		if len(methods) > 0 {
			x.out.say(mcp.Call("", "notifications/cancelled", []byte(`{`+meta+`,"requestId":`+id+`}`)))
		}
		x.out.result(over)
	}
	return nil
}

// stay keeps a stream open that only listens: until the client goes, or we end
// it, which it says. first, if there is any, is sent before anything else.
func (x *exchange) stay(first []byte, say func() error, wait bool) (ended bool, err error) {
	done, err := x.m.meter.listen(x.who.Caller.Key, x.m.config.Now(), x.m.config.Limits)
	if err != nil {
		return false, err
	}
	defer done()
	changed, closed, leave := x.m.listeners.join()
	defer leave()
	x.leave()
	if first != nil {
		if x.out.say(first) != nil {
			return false, nil
		}
	} else if x.out.breathe() != nil {
		return false, nil
	}
	if !wait {
		return true, nil
	}
	until := time.NewTimer(time.UnixMilli(x.who.Until).Sub(x.m.config.Now()))
	defer until.Stop()
	alive := time.NewTicker(quiet)
	defer alive.Stop()
	for {
		select {
		case <-changed:
			err = say()
		case <-alive.C:
			err = x.out.breathe()
		case <-until.C:
			return true, nil
		case <-closed:
			return true, nil
		case <-x.r.Context().Done():
			return false, nil
		}
		if err != nil {
			return false, nil // the client is gone
		}
	}
}
