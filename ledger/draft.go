package ledger

import (
	"bytes"
	"context"
	"fmt"
	"maps"

	"github.com/writgate/writ"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A draft is a batch on its way into a transaction.
type draft struct {
	l       *Ledger
	edge    edge                 // as it will be
	time    int64                // of all its records
	base    map[rowKey]*Row      // rows as they were
	broken  map[rowKey]error     // rows that do not open
	over    map[rowKey]*Row      // rows as they will be
	fresh   map[rowKey]bool      // rows that are taken to be absent, and were not looked for
	intents map[writ.CallID]bool // calls that have an intent
	swept   int64
	also    []note.Signer // sign the checkpoint too
	batch   Batch
}

func newDraft(l *Ledger) *draft {
	return &draft{
		l: l, edge: l.writer.edge, time: l.Time(), swept: l.writer.swept,
		base: map[rowKey]*Row{}, broken: map[rowKey]error{}, over: map[rowKey]*Row{},
		fresh: map[rowKey]bool{}, intents: map[writ.CallID]bool{},
	}
}

// sweepEvery is how often rows whose time is over are looked for.
const sweepEvery = 1000 // milliseconds

// needs gives the rows that a batch names and nobody knows, and the intents to
// look for.
func (d *draft) needs(batch []*request, look bool) (missing []rowKey, intents []Filter) {
	want := func(kind, key string, once bool) {
		k := rowKey{kind, key}
		if d.base[k] != nil && (once || !d.fresh[k]) {
			return
		}
		delete(d.fresh, k)
		if d.base[k] = d.l.cache.get(k); d.base[k] != nil {
			return
		}
		d.base[k] = absent(k)
		if once && !look {
			d.fresh[k] = true
			return
		}
		missing = append(missing, k)
	}
	for _, r := range batch {
		for _, p := range r.pending {
			for _, x := range p.entry.Expect {
				want(x.Kind, x.Key, false)
			}
			for i := range p.entry.Changes {
				c := &p.entry.Changes[i]
				want(c.Kind, c.Key, c.Op == Once)
			}
			for _, e := range p.erase {
				for i := range e.changes {
					want(e.changes[i].Kind, e.changes[i].Key, false)
				}
			}
			switch p.leaf.Type {
			case TypeIntent:
				if look { // its outcome may be in the same batch
					intents = append(intents, Filter{Call: p.leaf.Call, Type: TypeIntent})
					want(kindOpen, string(p.leaf.Call), false)
					continue
				}
				// What has no intent yet is not open, and need not be asked for.
				if k := (rowKey{kindOpen, string(p.leaf.Call)}); d.base[k] == nil {
					d.base[k], d.fresh[k] = absent(k), true
				}
			case TypeOutcome:
				want(kindOpen, string(p.leaf.Call), false)
			}
		}
	}
	return missing, intents
}

// load reads what the batch names: rows that the cache does not know. Rows that
// are to exist once, and intents, are taken not to be there, unless it is told
// to look.
func (d *draft) load(ctx context.Context, v View, batch []*request, look bool) error {
	missing, intents := d.needs(batch, look)
	at := d.l.cache.at()
	rows, err := v.Rows(ctx, missing...)
	if err != nil {
		return err
	}
	for i := range rows {
		k := rows[i].name()
		if d.base[k], err = d.l.vault.openRow(&rows[i]); err != nil {
			d.base[k] = nil
			d.broken[k] = err
		}
	}
	for _, k := range missing {
		if r := d.base[k]; r != nil && r.Kind != kindOpen {
			d.l.cache.learn(at, r)
		}
	}
	known, err := v.Records(ctx, intents...)
	for i := range known {
		d.intents[known[i].Leaf.Call] = true
	}
	return err
}

// A trial is one commit inside a draft, until it is accepted.
type trial struct {
	*draft
	rows map[rowKey]*Row
}

func (t *trial) row(kind, key string) (*Row, error) {
	k := rowKey{kind, key}
	if r := t.rows[k]; r != nil {
		return r, nil
	}
	if r := t.over[k]; r != nil {
		return r, nil
	}
	if err := t.broken[k]; err != nil {
		return nil, err
	}
	if r := t.base[k]; r != nil {
		return r, nil
	}
	return absent(k), nil // the row of the log's key, whatever it was
}

// take adds one commit to the draft, or refuses it and leaves the draft as it
// was.
func (d *draft) take(all []*pending) ([]Receipt, error) {
	t := &trial{d, make(map[rowKey]*Row, 8)}

	// 1. What the caller read still holds.
	for _, p := range all {
		for _, x := range p.entry.Expect {
			r, err := t.row(x.Kind, x.Key)
			if err != nil {
				return nil, err
			}
			if r.live(d.time).At != x.At {
				return nil, &Error{Err: ErrConflict, Kind: x.Kind, Key: x.Key}
			}
		}
	}

	// 2. Every change is possible.
	records := make([]Record, len(all))
	for i, p := range all {
		r, err := t.record(p, d.edge.size+int64(i))
		if err != nil {
			return nil, err
		}
		records[i] = r
	}

	// 3. Nothing can fail any more.
	receipts := make([]Receipt, len(all))
	for i, r := range records {
		d.batch.Hashes = d.edge.add(r.LeafBytes, d.batch.Hashes)
		if r.Leaf.Type == TypeIntent {
			d.intents[r.Leaf.Call] = true
		}
		receipts[i] = Receipt{&receipt{r.Index, r.LeafBytes, r.Leaf}}
		for _, e := range all[i].erase {
			d.batch.Erase = append(d.batch.Erase, e.index)
		}
	}
	d.batch.Records = append(d.batch.Records, records...)
	maps.Copy(d.over, t.rows)
	return receipts, nil
}

// record makes the record of one entry, and applies its changes.
func (t *trial) record(p *pending, index int64) (Record, error) {
	leaf := p.leaf
	leaf.Time = t.time
	none := Record{}
	switch leaf.Type {
	case TypeIntent:
		if t.intents[leaf.Call] || t.rows[rowKey{kindOpen, string(leaf.Call)}] != nil {
			return none, &Error{Err: ErrUsed, Kind: TypeIntent, Key: string(leaf.Call)}
		}
	case TypeOutcome:
		r, err := t.row(kindOpen, string(leaf.Call))
		if err != nil {
			return none, err
		}
		if r.At == Absent {
			return none, &Error{Err: ErrUsed, Kind: TypeOutcome, Key: string(leaf.Call)}
		}
	}
	var sealed, wrapped []byte
	if p.payload != nil {
		changes, err := t.change(p, index)
		if err != nil {
			return none, err
		}
		delete(leaf.Parts, partChanges) // of a batch that failed
		if changes != nil {
			if leaf.Parts == nil {
				leaf.Parts = map[string]writ.Digest{}
			}
			leaf.Parts[partChanges] = changes.Digest()
		}
		if len(leaf.Parts) != 0 {
			if p.payload.spent { // by a batch that failed
				p.payload = t.l.vault.newPayload(p.entry.Parts)
			}
			sealed, wrapped = p.payload.seal(changes), p.payload.wrapped
		}
	}
	b := leaf.append(make([]byte, 0, maxLeaf/4))
	if len(b) > maxLeaf {
		return none, fmt.Errorf("%w: a leaf of %d bytes; the most is %d", ErrInvalid, len(b), maxLeaf)
	}
	return Record{Index: index, LeafBytes: b, Leaf: &leaf, Sealed: sealed, Wrapped: wrapped}, nil
}

// change applies the changes of one entry in order, and gives the part that
// records them.
func (t *trial) change(p *pending, index int64) (*Part, error) {
	var b []byte
	note := func(c *Change, r *Row) {
		t.rows[rowKey{c.Kind, c.Key}] = r
		b = appendChange(append(b, "[,"[min(len(b), 1)]), c, r)
	}
	for i := range p.changes {
		c := &p.changes[i]
		r, err := t.row(c.Kind, c.Key)
		if err != nil {
			return nil, err
		}
		if r, err = r.apply(c, index, t.time); err != nil {
			return nil, err
		}
		note(c, r)
	}
	for i := range p.erase {
		if err := t.takeOver(&p.erase[i], index, note); err != nil {
			return nil, err
		}
	}
	if b == nil {
		return nil, nil
	}
	return &Part{Name: partChanges, Bytes: append(b, ']'), Salt: newSalt()}, nil
}

// finish completes what will be written.
func (d *draft) finish() error {
	note, err := d.l.keys.Load().signer.checkpoint(&d.edge, d.also...)
	if err != nil {
		return err
	}
	d.batch.First, d.batch.Last, d.batch.Note = d.batch.Records[0].Index, d.edge.size-1, note
	for k, r := range d.over {
		switch {
		case r.At == Absent:
			d.batch.Delete = append(d.batch.Delete, k)
		case d.fresh[k]:
			d.batch.New = append(d.batch.New, d.l.vault.sealRow(r))
		default:
			d.batch.Put = append(d.batch.Put, d.l.vault.sealRow(r))
		}
	}
	if d.time-d.swept >= sweepEvery {
		d.batch.Sweep = d.time
		d.swept = d.time
	}
	return nil
}

// verifyEnd reads the end of the log, verifies it, and makes it what the
// writer goes on from: the checkpoint is ours, the stored hashes give its
// root, and the last records are the leaves they were.
func (l *Ledger) verifyEnd(ctx context.Context, v View) error {
	b, err := v.Batch(ctx, -1)
	if err != nil || b == nil {
		return err
	}
	if err := l.readKeys(ctx, v); err != nil {
		return err
	}
	head, err := l.keys.Load().open(b.Note)
	if err != nil {
		return damaged("the newest checkpoint: %v", err)
	}
	h := &hashes{ctx: ctx, view: v}
	e, err := readEdge(b.Last+1, h)
	if err != nil {
		return err
	}
	if head.size != e.size || head.root != e.root() {
		return damaged("the newest checkpoint is not of these %d records", e.size)
	}
	const tail = 64
	records, err := v.Records(ctx, Filter{From: max(0, e.size-tail)})
	if err != nil {
		return err
	}
	if int64(len(records)) != min(tail, e.size) {
		return damaged("of the last %d records there are %d", min(tail, e.size), len(records))
	}
	var last int64
	for i := range records {
		r, err := l.unseal(ctx, v, &records[i])
		if err != nil {
			return err
		}
		stored, err := h.ReadHashes([]int64{tlog.StoredHashIndex(0, r.Index)})
		if err != nil {
			return err
		}
		if hash := tlog.RecordHash(r.LeafBytes); !bytes.Equal(stored[0][:], hash[:]) {
			return damaged("record %d is not what was committed", r.Index)
		}
		last = r.Leaf.Time
	}
	l.writer.edge, l.writer.note = e, b.Note
	l.newest.Store(last)
	return nil
}
