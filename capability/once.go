package capability

import (
	"context"
	"sync"
	"time"

	"github.com/writgate/writ"
)

// maxHeld bounds what a Once remembers: at two lives of five minutes, some
// 200 uses a second.
const maxHeld = 1 << 17

// A Once remembers, in memory, which capabilities were used: exactly, for one
// process, for as long as they could be presented again.
//
// What was issued before a Once was made could have been used before, by the
// process that died, and is refused: a server starts by refusing what it
// cannot know. A clock that is set back permits nothing twice. A Once that is
// full refuses rather than forgets.
type Once struct {
	now   func() time.Time
	since time.Time

	mu     sync.Mutex
	recent generation
	former generation
	forgot time.Time // the last to expire of those that were forgotten
}

// A generation is forgotten as one, when the last of it has expired.
type generation struct {
	used map[writ.CapabilityID]struct{}
	last time.Time
}

// NewOnce makes a Once that permits what is issued from now on.
func NewOnce(now func() time.Time) *Once {
	return &Once{now: now, since: now().Truncate(time.Millisecond)}
}

// Use takes the one use of c.
func (o *Once) Use(_ context.Context, c *Capability) error {
	now := o.now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if !now.Before(o.former.last) {
		if o.former.last.After(o.forgot) {
			o.forgot = o.former.last
		}
		o.former, o.recent = o.recent, generation{}
	}
	_, recently := o.recent.used[c.ID]
	_, formerly := o.former.used[c.ID]
	switch {
	case recently || formerly:
		return writ.Refuse(writ.AlreadyUsed, "the capability was used", nil)
	case c.Issued.Before(o.since) || !c.Expires.After(o.forgot):
		return writ.Refuse(writ.AlreadyUsed, "the capability is from a time that this server does not remember", nil)
	case len(o.recent.used)+len(o.former.used) >= maxHeld:
		return writ.Refuse(writ.Unavailable, "this server has no room to remember another capability; try again later", nil)
	}
	if o.recent.used == nil {
		o.recent.used = map[writ.CapabilityID]struct{}{}
	}
	o.recent.used[c.ID] = struct{}{}
	if c.Expires.After(o.recent.last) {
		o.recent.last = c.Expires
	}
	return nil
}
