package identity

import "sync"

// maxCached bounds each cache of what was verified, in entries.
const maxCached = 8192

// A cache remembers what was verified, by the SHA-256 of the verified bytes.
// It holds successes only: a stranger who presents rubbish fills nothing.
// Whoever reads it still checks the time.
type cache[V any] struct {
	mu   sync.RWMutex
	held map[[32]byte]V
}

func (c *cache[V]) get(digest [32]byte) (V, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	v, ok := c.held[digest]
	return v, ok
}

// put makes room by forgetting any entry: what is forgotten is verified again.
func (c *cache[V]) put(digest [32]byte, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		c.held = map[[32]byte]V{}
	}
	if len(c.held) >= maxCached {
		for any := range c.held {
			delete(c.held, any)
			break
		}
	}
	c.held[digest] = v
}
