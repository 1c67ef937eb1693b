package identity

import (
	"maps"
	"slices"
	"sync"
)

// maxSeen bounds how many proofs are remembered, some 30 bytes each.
const maxSeen = 1 << 20

// half of a proof's id is enough to know it again by: if two were ever to share
// it, the second would be refused.
type half = [16]byte

// seen remembers the proofs that were accepted, by the second they were made
// in. It never says "not seen" of what it has forgotten, or cannot know: those
// seconds are before its floor, and their proofs are refused. The floor only
// rises: with time, which sweeps; when the memory is full, which forgets the
// oldest second early; and so neither a clock that was set back nor a flood
// makes a proof good a second time.
type seen struct {
	mu    sync.Mutex
	floor int64 // Unix seconds; 0 before first use
	held  map[int64]map[half]struct{}
	count int
}

// look says whether a proof was accepted before, and whether that can be
// known at all.
func (s *seen) look(id [32]byte, iat, now int64) (used, forgotten bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep(now)
	_, used = s.held[iat][half(id[:16])]
	return used, iat < s.floor
}

// add remembers a proof. It is false if somebody else was first, or if there
// is no room for a proof that old.
func (s *seen) add(id [32]byte, iat, now int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep(now)
	for s.count >= maxSeen {
		s.raise(slices.Min(slices.Collect(maps.Keys(s.held))) + 1)
	}
	key := half(id[:16])
	if _, ok := s.held[iat][key]; ok || iat < s.floor {
		return false
	}
	if s.held[iat] == nil {
		if s.held == nil {
			s.held = map[int64]map[half]struct{}{}
		}
		s.held[iat] = map[half]struct{}{}
	}
	s.held[iat][key] = struct{}{}
	s.count++
	return true
}

// sweep forgets the seconds whose proofs are refused by their age.
func (s *seen) sweep(now int64) {
	if floor := now - int64(skew.Seconds()); floor > s.floor {
		s.raise(floor)
	}
}

func (s *seen) raise(floor int64) {
	s.floor = floor
	for second, ids := range s.held {
		if second < floor {
			s.count -= len(ids)
			delete(s.held, second)
		}
	}
}
