// Package replay keeps what decisions were made from, and makes them again.
//
// A policy bundle that comes into force is kept in the ledger, whole, under
// its digest, for as long as records are. A recorded decision is made again
// from its recorded query and that bundle alone, and must come out the same.
// Nothing here dials, leases or executes: this package imports nothing that
// could.
package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/policy"
)

// KindBundle holds policy bundles: the files of each under its digest, and
// under Active the digest of the one in force.
const (
	KindBundle = "bundle"
	Active     = "active"
)

// The parts of a record that a decision is made again from.
const (
	PartQuery    = "query"
	PartDecision = "decision"
)

// Keep makes the entry that puts a bundle in force.
func Keep(b *policy.Bundle, by writ.UserID) (*ledger.Entry, error) {
	files, err := json.Marshal(b.Files())
	if err != nil {
		return nil, err
	}
	return &ledger.Entry{
		Leaf: ledger.Leaf{Type: ledger.TypeBundle, Bundle: b.Digest()},
		User: by,
		Changes: []ledger.Change{
			{Op: ledger.Put, Kind: KindBundle, Key: string(b.Digest()), Value: files},
			{Op: ledger.Put, Kind: KindBundle, Key: Active, Value: []byte(b.Digest())},
		},
	}, nil
}

// Bundle gives the bundle that a digest names.
func Bundle(ctx context.Context, l *ledger.Ledger, digest writ.Digest) (*policy.Bundle, error) {
	row, ok, err := l.Get(ctx, KindBundle, string(digest))
	if err != nil {
		return nil, fmt.Errorf("reading policy bundle %s: %w", digest, err)
	}
	if !ok {
		return nil, fmt.Errorf("no policy bundle %s was ever in force here", digest)
	}
	var files []policy.File
	if err := json.Unmarshal(row.Value, &files); err != nil {
		return nil, fmt.Errorf("reading policy bundle %s: %w", digest, err)
	}
	b, err := policy.Restore(files)
	if err != nil {
		return nil, fmt.Errorf("restoring policy bundle %s: %w", digest, err)
	}
	if b.Digest() != digest {
		return nil, fmt.Errorf("policy bundle %s restores as %s", digest, b.Digest())
	}
	return b, nil
}

// A Replayed is one recorded decision, and the same made again.
type Replayed struct {
	Index    int64         `json:"index"` // of its record
	Bundle   writ.Digest   `json:"bundle"`
	Recorded writ.Decision `json:"recorded"`
	Again    writ.Decision `json:"again"`
	Equal    bool          `json:"equal"`
}

// Call makes every decision that was recorded for a call again.
func Call(ctx context.Context, l *ledger.Ledger, call writ.CallID) ([]Replayed, error) {
	records, err := l.Records(ctx, ledger.Filter{Call: call})
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", call, err)
	}
	var all []Replayed
	for _, r := range records {
		if _, decided := r.Leaf.Parts[PartDecision]; !decided {
			continue
		}
		one, err := Record(ctx, l, r)
		if err != nil {
			return nil, err
		}
		all = append(all, *one)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no decision is on record for %s", call)
	}
	return all, nil
}

// Record makes the decision of one record again. It is an error if the record
// holds none, or none that can still be read.
func Record(ctx context.Context, l *ledger.Ledger, r *ledger.Record) (*Replayed, error) {
	q, err := Query(r)
	if err != nil {
		return nil, err
	}
	recorded, ok := r.Part(PartDecision)
	if !ok {
		return nil, fmt.Errorf("record %d: its decision cannot be read", r.Index)
	}
	one := &Replayed{Index: r.Index, Bundle: q.Bundle}
	if err := json.Unmarshal(recorded, &one.Recorded); err != nil {
		return nil, fmt.Errorf("record %d: reading its decision: %w", r.Index, err)
	}
	b := new(policy.Bundle) // none was in force: it denies everything
	if q.Bundle != "" {
		if b, err = Bundle(ctx, l, q.Bundle); err != nil {
			return nil, fmt.Errorf("record %d: %w", r.Index, err)
		}
	}
	_, one.Again = b.Decide(q)
	again, err := json.Marshal(one.Again)
	if err != nil {
		return nil, err
	}
	one.Equal = bytes.Equal(again, recorded)
	return one, nil
}

// Query gives the query that a record was decided from.
func Query(r *ledger.Record) (*writ.Query, error) {
	text, ok := r.Part(PartQuery)
	if !ok {
		if r.Erased {
			return nil, fmt.Errorf("record %d: its content has been erased", r.Index)
		}
		return nil, fmt.Errorf("record %d holds no query", r.Index)
	}
	q := new(writ.Query)
	if err := json.Unmarshal(text, q); err != nil {
		return nil, fmt.Errorf("record %d: reading its query: %w", r.Index, err)
	}
	if q.Version != 1 {
		return nil, errors.New("a query of another version than 1")
	}
	return q, nil
}
