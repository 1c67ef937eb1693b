package server

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/writgate/writ"
)

// Noise counts the requests that were refused before anybody was known to
// have asked. Each is too cheap to send to deserve a record of its own, and
// none may vanish: once a second Run has the counts recorded. A nil Noise
// counts nothing.
type Noise struct {
	Record func(context.Context, Refusals) error // makes one record; required by Run

	mu   sync.Mutex
	held Refusals
}

// Refusals are what a listener refused since the last record.
type Refusals struct {
	Counts map[writ.Code]int64
	Sample string // of the newest: its code, and from where
}

// Count counts one refusal.
func (n *Noise) Count(code writ.Code) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.held.Counts == nil {
		n.held.Counts = map[writ.Code]int64{}
	}
	n.held.Counts[code]++
}

// sample remembers where a refusal came from. It does not count it.
func (n *Noise) sample(code writ.Code, from string) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.held.Sample = string(code) + " from " + from
}

// Run records the counts once a second until ctx ends, and what is left then.
// What could not be recorded is added to the next record.
func (n *Noise) Run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			n.flush(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			n.flush(last)
			cancel()
			return
		}
	}
}

func (n *Noise) flush(ctx context.Context) {
	n.mu.Lock()
	r := n.held
	n.held = Refusals{}
	n.mu.Unlock()
	if len(r.Counts) == 0 || n.Record(ctx, r) == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	later := n.held.Counts
	n.held.Counts = maps.Clone(r.Counts)
	for code, count := range later {
		n.held.Counts[code] += count
	}
	if n.held.Sample == "" {
		n.held.Sample = r.Sample
	}
}
