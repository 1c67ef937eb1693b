package server

import (
	"sync"
	"time"

	"github.com/writgate/writ"
)

// Limits bound what callers may take at once. Zero fields mean the defaults.
type Limits struct {
	Requests      int     // in flight, of everybody; 1024
	Bytes         int64   // of their bodies; 128 MiB
	KeyRequests   int     // in flight, of one key; 64
	KeyRate       float64 // requests a second of one key; 200, and twice as many in a burst. One of more than 16 KiB counts as several.
	Streams       int     // that only listen, of everybody; 2048
	KeyStreams    int     // that only listen, of one key; 8
	KeySessions   int     // of the legacy wire, of one key; 32
	Sessions      int     // of the legacy wire, of everybody; 4096
	DeferredCalls int     // that wait for another call, of one key; 8

	Patience time.Duration // how long a call that comes back waits for its approval; 20 s
}

func or[N int | int64 | float64 | time.Duration](n, otherwise N) N {
	if n == 0 {
		return otherwise
	}
	return n
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Requests: or(l.Requests, 1024), Bytes: or(l.Bytes, 128<<20), KeyRequests: or(l.KeyRequests, 64), KeyRate: or(l.KeyRate, 200),
		Streams: or(l.Streams, 2048), KeyStreams: or(l.KeyStreams, 8),
		Sessions: or(l.Sessions, 4096), KeySessions: or(l.KeySessions, 32), DeferredCalls: or(l.DeferredCalls, 8),
		Patience: or(l.Patience, 20*time.Second),
	}
}

// A use is what one key has in hand. It is forgotten when that is nothing and
// its bucket is full.
type use struct {
	requests, streams int

	tokens float64 // of the bucket, at the time filled
	filled time.Time
}

// A meter counts what callers have in hand.
type meter struct {
	mu                sync.Mutex
	requests, streams int
	bytes             int64
	keys              map[writ.Thumbprint]*use
	swept             time.Time
}

// enter lets one more request of anybody in, whose body has so many bytes, or
// not. leave must follow, if it may.
func (m *meter) enter(bytes int64, l Limits) (leave func(), ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.requests >= l.Requests || m.bytes+bytes > l.Bytes {
		return nil, false
	}
	m.requests++
	m.bytes += bytes
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.requests--
		m.bytes -= bytes
	}, true
}

// perRequest is how many bytes of a body count as one request: whatever is
// asked is kept, so that large requests cost more than small ones.
const perRequest = 16 << 10

// take lets one more request of a key begin, whose body has so many bytes, or
// says why not. done must follow, if it may.
func (m *meter) take(key writ.Thumbprint, bytes int64, now time.Time, l Limits) (done func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweep(now, l)
	u := m.of(key, now, l)
	elapsed := max(0, now.Sub(u.filled).Seconds()) // a clock may be set back
	u.tokens = min(2*l.KeyRate, u.tokens+l.KeyRate*elapsed)
	u.filled = now
	switch {
	case u.tokens < 1:
		return nil, tooMany("this agent sends more requests a second than it may")
	case u.requests >= l.KeyRequests:
		return nil, tooMany("this agent has more requests under way than it may")
	}
	u.tokens -= 1 + float64(bytes/perRequest) // below zero: the next ones wait for it
	u.requests++
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		u.requests--
	}, nil
}

// listen is take for a stream that only listens. It does not count as a
// request.
func (m *meter) listen(key writ.Thumbprint, now time.Time, l Limits) (done func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.of(key, now, l)
	if u.streams >= l.KeyStreams || m.streams >= l.Streams {
		return nil, tooMany("too many streams are open")
	}
	u.streams++
	m.streams++
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		u.streams--
		m.streams--
	}, nil
}

func (m *meter) of(key writ.Thumbprint, now time.Time, l Limits) *use {
	u := m.keys[key]
	if u == nil {
		if m.keys == nil {
			m.keys = map[writ.Thumbprint]*use{}
		}
		u = &use{tokens: 2 * l.KeyRate, filled: now}
		m.keys[key] = u
	}
	return u
}

// sweep forgets, now and then, the keys that have nothing in hand.
func (m *meter) sweep(now time.Time, l Limits) {
	if now.Sub(m.swept) < time.Minute {
		return
	}
	m.swept = now
	for key, u := range m.keys {
		if u.requests == 0 && u.streams == 0 && now.Sub(u.filled) > 10*time.Second {
			delete(m.keys, key)
		}
	}
}

func tooMany(reason string) error {
	d := writ.Refuse(writ.RateLimited, reason, nil)
	d.Remedy = writ.RemedyWait
	return d
}
