package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// An erasing is one record that an erasure erases, and what it changed.
type erasing struct {
	index   int64
	kept    bool // the account of an erasure, or a key of the log: for good
	changes []changed
}

const (
	noteErased = "records" // the member of an erasure's note that names the records
	maxRanges  = 480       // bytes of that member
	maxErase   = 4096      // records of one erasure; a longer one keeps the writer from the others
)

// Erase makes the payloads of records unreadable for good, in every copy of
// the database that has lost their keys: those that it destroys were never
// anywhere else. Every proof stays valid. It answers when the record of who
// erased what and why is durable, in the same transaction, and no key is left
// in the store's files.
//
// E is an erasure: its User asks for it, its Note says why, and its Changes
// may remove rows that repeat what is erased, such as an ended task. Records
// that have no payload, or an erased one, are left out; if none are left,
// nothing is written and there are no receipts. Otherwise all of the records
// are erased, or none.
//
// It refuses with ErrInUse, naming the row, what current state depends on: a
// call without an outcome, a row with a value that the record set last. A
// count, and an id that was used, say nothing of anybody: the erasure's own
// record takes them over, and so is never erased itself.
func (l *Ledger) Erase(ctx context.Context, e *Entry, records ...int64) ([]Receipt, error) {
	if e.Leaf.Type != TypeErasure || e.Leaf.Note[noteErased] != "" {
		return nil, fmt.Errorf("%w: not the entry of an erasure", ErrInvalid)
	}
	if len(records) > maxErase {
		return nil, fmt.Errorf("%w: %d records at once; the most is %d", ErrInvalid, len(records), maxErase)
	}
	todo, err := l.erasings(ctx, records)
	if err != nil || len(todo) == 0 {
		return nil, err
	}
	for _, e := range todo {
		if e.kept {
			return nil, fmt.Errorf("record %d: %w", e.index, ErrInUse)
		}
	}
	var all []*pending
	for len(todo) != 0 {
		text, n := ranges(todo)
		part := *e
		if all != nil {
			part.Expect, part.Changes, part.Parts = nil, nil, nil
		}
		part.Leaf.Note = map[string]string{noteErased: text}
		for k, v := range e.Leaf.Note {
			part.Leaf.Note[k] = v
		}
		p, err := l.prepare(&part)
		if err != nil {
			return nil, err
		}
		p.set(l)
		p.erase, todo = todo[:n], todo[n:]
		all = append(all, p)
	}
	if len(all) > maxCommit {
		return nil, fmt.Errorf("%w: the records lie too far apart for one erasure", ErrInvalid)
	}
	return l.submit(ctx, all)
}

// Erasable gives those of the records that Erase would erase now, in order.
func (l *Ledger) Erasable(ctx context.Context, records ...int64) ([]int64, error) {
	todo, err := l.erasings(ctx, records)
	if err != nil {
		return nil, err
	}
	var out []int64
	now := l.Time()
	err = l.store.View(ctx, func(v View) error {
		for i := range todo {
			free := !todo[i].kept
			for j := range todo[i].changes {
				c := &todo[i].changes[j]
				r, err := l.row(ctx, v, rowKey{c.Kind, c.Key})
				if err != nil {
					return err
				}
				free = free && !inUse(r.live(now), todo[i].index)
			}
			if free {
				out = append(out, todo[i].index)
			}
		}
		return nil
	})
	return out, err
}

// erasings reads what is to be erased.
func (l *Ledger) erasings(ctx context.Context, records []int64) ([]erasing, error) {
	records = slices.Compact(slices.Sorted(slices.Values(records)))
	var out []erasing
	err := l.store.View(ctx, func(v View) error {
		for _, index := range records {
			r, err := l.read(ctx, v, index)
			if err != nil {
				return err
			}
			if r.Parts == nil {
				continue
			}
			e := erasing{index: index, kept: r.Leaf.Type == TypeErasure || r.Leaf.Type == TypeKey}
			if b, ok := r.Part(partChanges); ok {
				if e.changes, err = parseChanges(index, b); err != nil {
					return err
				}
			}
			out = append(out, e)
		}
		return nil
	})
	return out, err
}

// inUse says whether state would lose what the row says if the record at
// index were erased.
func inUse(r *Row, index int64) bool {
	return r.At == index && (r.Kind == kindOpen || len(r.Value) != 0)
}

// takeOver makes the erasure's record, at index, say what state still needs
// of the record that it erases: counts, used ids, and that rows are gone.
func (t *trial) takeOver(e *erasing, index int64, note func(*Change, *Row)) error {
	for _, c := range e.changes {
		r, err := t.row(c.Kind, c.Key)
		if err != nil {
			return err
		}
		r = r.live(t.time)
		switch {
		case inUse(r, e.index):
			return fmt.Errorf("record %d: %w", e.index, &Error{Err: ErrInUse, Kind: c.Kind, Key: c.Key})
		case r.At == e.index:
			next := *r
			next.At = index
			note(&Change{Op: Put, Kind: c.Kind, Key: c.Key}, &next)
		case r.At == Absent && c.Op == opNames[Delete]:
			note(&Change{Op: Delete, Kind: c.Kind, Key: c.Key}, r)
		}
	}
	return nil
}

// ranges writes as many of the records as an erasure's note holds, such as
// "3,7-12", and says how many those are.
func ranges(todo []erasing) (string, int) {
	var b []byte
	n := 0
	for n < len(todo) {
		end := n
		for end+1 < len(todo) && todo[end+1].index == todo[end].index+1 {
			end++
		}
		next := b
		if n > 0 {
			next = append(next, ',')
		}
		next = strconv.AppendInt(next, todo[n].index, 10)
		if end > n {
			next = strconv.AppendInt(append(next, '-'), todo[end].index, 10)
		}
		if len(next) > maxRanges {
			break
		}
		b, n = next, end+1
	}
	return string(b), n
}

// A run is consecutive records: first <= index <= last.
type run struct{ first, last int64 }

// parseRanges reads what ranges writes.
func parseRanges(s string) ([]run, error) {
	var out []run
	for part := range strings.SplitSeq(s, ",") {
		a, b, two := strings.Cut(part, "-")
		first, err := parseSize(a)
		last := first
		if two && err == nil {
			last, err = parseSize(b)
		}
		if err != nil || last < first || len(out) != 0 && first <= out[len(out)-1].last {
			return nil, errors.New("not ranges of records")
		}
		out = append(out, run{first, last})
	}
	return out, nil
}

// erasures is what the erasure records that were read so far account for.
type erasures struct {
	mu   sync.Mutex
	seen int64 // records before this one were looked at
	runs []run // sorted; no two touch
}

// account makes sure that an erasure accounts for the missing payload of the
// record at index: else somebody took it away.
func (l *Ledger) account(ctx context.Context, v View, index int64) error {
	e := &l.erased
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.has(index) {
		return nil
	}
	records, err := v.Records(ctx, Filter{Type: TypeErasure, From: e.seen})
	if err != nil {
		return err
	}
	for i := range records {
		leaf, err := parseLeaf(records[i].LeafBytes)
		if err != nil {
			return damaged("record %d: %v", records[i].Index, err)
		}
		if err := e.add(leaf, records[i].Index); err != nil {
			return err
		}
	}
	if !e.has(index) {
		return damaged("the payload of record %d is gone, and no erasure accounts for it", index)
	}
	return nil
}

// add learns what the erasure at index erased.
func (e *erasures) add(leaf *Leaf, index int64) error {
	runs, err := parseRanges(leaf.Note[noteErased])
	if err != nil || leaf.Type != TypeErasure || runs[len(runs)-1].last >= index {
		return damaged("record %d is not an erasure of records before it", index)
	}
	e.seen = max(e.seen, index+1)
	e.runs = append(e.runs, runs...)
	slices.SortFunc(e.runs, func(a, b run) int { return cmp.Compare(a.first, b.first) })
	out := e.runs[:1]
	for _, r := range e.runs[1:] {
		if last := &out[len(out)-1]; r.first <= last.last+1 {
			last.last = max(last.last, r.last)
		} else {
			out = append(out, r)
		}
	}
	e.runs = out
	return nil
}

func (e *erasures) has(index int64) bool {
	i, found := slices.BinarySearchFunc(e.runs, index, func(r run, index int64) int { return cmp.Compare(r.first, index) })
	return found || i > 0 && e.runs[i-1].last >= index
}
