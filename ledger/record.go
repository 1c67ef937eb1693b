package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/writgate/writ"
	"golang.org/x/mod/sumdb/tlog"
)

// A Record is one record as it is stored.
type Record struct {
	Index     int64
	LeafBytes []byte // what the tree commits to
	Leaf      *Leaf
	Parts     []Part // the payload; nil if there is none, or if it is erased
	Erased    bool   // there was a payload, and nobody can read it any more

	Sealed  []byte // the payload as a Store keeps it
	Wrapped []byte // its key, wrapped; nil if it is erased, or if there is none
}

// Part is the bytes of one part of the payload, and whether it is there.
func (r *Record) Part(name string) ([]byte, bool) {
	for _, p := range r.Parts {
		if p.Name == name {
			return p.Bytes, true
		}
	}
	return nil, false
}

// A Filter selects records, in the order of the log. Its zero fields do not
// restrict. The next page begins From the last index and one; in reverse it
// ends To the last index, unless that is 0.
type Filter struct {
	From, To int64 // From <= index < To
	Call     writ.CallID
	Task     writ.TaskID
	Type     string
	Limit    int
	Reverse  bool // newest first
}

// Record reads the record at index, and checks its payload against its leaf.
// That the leaf is in the log, Prove shows.
func (l *Ledger) Record(ctx context.Context, index int64) (*Record, error) {
	var out *Record
	err := l.store.View(ctx, func(v View) (err error) {
		out, err = l.read(ctx, v, index)
		return err
	})
	return out, err
}

func (l *Ledger) read(ctx context.Context, v View, index int64) (*Record, error) {
	s, err := stored(ctx, v, index)
	if err != nil {
		return nil, err
	}
	return l.unseal(ctx, v, s)
}

func stored(ctx context.Context, v View, index int64) (*Record, error) {
	rs, err := v.Records(ctx, Filter{From: index, To: index + 1})
	if err != nil {
		return nil, err
	}
	if len(rs) == 0 || index < 0 {
		return nil, fmt.Errorf("there is no record %d", index)
	}
	return &rs[0], nil
}

// unseal opens a stored record; that it was erased is on record too.
func (l *Ledger) unseal(ctx context.Context, v View, s *Record) (*Record, error) {
	r, err := l.vault.record(s)
	if err == nil && r.Erased {
		err = l.account(ctx, v, r.Index)
	}
	return r, err
}

// Records reads the records that f selects, and checks them like Record.
func (l *Ledger) Records(ctx context.Context, f Filter) ([]*Record, error) {
	var out []*Record
	err := l.store.View(ctx, func(v View) error {
		rs, err := v.Records(ctx, f)
		if err != nil {
			return err
		}
		for i := range rs {
			r, err := l.unseal(ctx, v, &rs[i])
			if err != nil {
				return err
			}
			out = append(out, r)
		}
		return nil
	})
	return out, err
}

// record opens a stored record. Its columns must repeat its leaf, and its
// payload must be what the leaf commits to, part by part.
func (v *vault) record(s *Record) (*Record, error) {
	leaf, err := parseLeaf(s.LeafBytes)
	if err != nil {
		return nil, damaged("record %d: %v", s.Index, err)
	}
	if c := s.Leaf; c.Call != leaf.Call || c.Task != leaf.Task || c.Type != leaf.Type || c.Time != leaf.Time {
		return nil, damaged("record %d is not filed as what its leaf says", s.Index)
	}
	r := &Record{Index: s.Index, LeafBytes: s.LeafBytes, Leaf: leaf}
	switch {
	case len(leaf.Parts) == 0:
		if s.Wrapped != nil || s.Sealed != nil {
			return nil, damaged("record %d has a payload that its leaf does not know", s.Index)
		}
		return r, nil
	case s.Wrapped == nil:
		r.Erased = true
		return r, nil
	}
	if r.Parts, err = v.openPayload(s.Wrapped, s.Sealed); err != nil {
		return nil, damaged("the payload of record %d: %v", s.Index, err)
	}
	if len(r.Parts) != len(leaf.Parts) {
		return nil, damaged("the payload of record %d has %d parts; its leaf has %d", s.Index, len(r.Parts), len(leaf.Parts))
	}
	for i := range r.Parts {
		if p := &r.Parts[i]; leaf.Parts[p.Name] != p.Digest() {
			return nil, damaged("part %q of record %d is not what its leaf commits to", p.Name, s.Index)
		}
	}
	return r, nil
}

// proofHeader begins a proof (c2sp.org/tlog-proof).
const proofHeader = "c2sp.org/tlog-proof@v1\n"

// Prove gives the receipt of a record: a c2sp.org/tlog-proof@v1 text with the
// leaf as its extra data, its inclusion proof, and a checkpoint: one that
// witnesses have signed, of the hour that the record was made in or the next
// after it that there is, or else the newest. Verify checks it, offline,
// against public keys. A receipt that would not verify is not given out.
func (l *Ledger) Prove(ctx context.Context, index int64) ([]byte, error) {
	var out []byte
	err := l.store.View(ctx, func(v View) error {
		r, err := stored(ctx, v, index)
		if err != nil {
			return err
		}
		note, err := l.cosigned(ctx, v, r)
		if err != nil {
			return err
		}
		if note == nil {
			b, err := newest(ctx, v)
			if err != nil {
				return err
			}
			note = b.Note
		}
		head, err := l.keys.Load().open(note)
		if err != nil {
			return damaged("a checkpoint: %v", err)
		}
		path, err := tlog.ProveRecord(head.size, index, &hashes{ctx: ctx, view: v})
		if err != nil {
			return err
		}
		if err := tlog.CheckRecord(path, head.size, head.root, index, tlog.RecordHash(r.LeafBytes)); err != nil {
			return damaged("record %d is not what was committed: %v", index, err)
		}
		out = appendProof(nil, &proof{leaf: r.LeafBytes, index: index, path: path, note: note})
		return nil
	})
	return out, err
}

// newest is the newest batch of an open ledger, which has one.
func newest(ctx context.Context, v View) (*Batch, error) {
	b, err := v.Batch(ctx, -1)
	if err == nil && b == nil {
		err = damaged("there are no checkpoints")
	}
	return b, err
}

// Checkpoint is the newest signed tree head (c2sp.org/tlog-checkpoint).
func (l *Ledger) Checkpoint(ctx context.Context) ([]byte, error) {
	var out []byte
	err := l.store.View(ctx, func(v View) error {
		b, err := newest(ctx, v)
		if err == nil {
			out = bytes.Clone(b.Note)
		}
		return err
	})
	return out, err
}

// Consistency proves that the tree of the first old records is a prefix of
// the tree of the first new ones (RFC 6962, section 2.1.2): one base64 hash a
// line.
func (l *Ledger) Consistency(ctx context.Context, old, new int64) ([]byte, error) {
	var out strings.Builder
	err := l.store.View(ctx, func(v View) error {
		b, err := newest(ctx, v)
		if err != nil {
			return err
		}
		if old < 1 || old > new || new > b.Last+1 {
			return errors.New("there are no such trees")
		}
		path, err := tlog.ProveTree(new, old, &hashes{ctx: ctx, view: v})
		for _, h := range path {
			out.WriteString(h.String() + "\n")
		}
		return err
	})
	return []byte(out.String()), err
}
