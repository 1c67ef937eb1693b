package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// kindWitness holds checkpoints with the signatures of witnesses: the last of
// each hour, and the newest. These rows are no state, and no record says them:
// a signature speaks for itself, and a record of each would call for the next
// one.
const kindWitness = "witness"

const hourNewest = "newest" // sorts behind every hour

// hourOf is the key of such a row.
func hourOf(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15") }

// Cosigned keeps a checkpoint of this log that carries signatures of others,
// so that receipts carry them. Whether those signatures are a witness's, and
// which witnesses count, the verifier's Trust decides: Cosigned makes sure
// only that the checkpoint is of this very log. What was kept of the same
// checkpoint before is kept with it.
func (l *Ledger) Cosigned(ctx context.Context, checkpoint []byte) error {
	head, err := l.keys.Load().open(checkpoint)
	if err != nil {
		return fmt.Errorf("%w: a cosigned checkpoint: %w", ErrInvalid, err)
	}
	return l.store.Update(ctx, func(v View) (*Batch, error) {
		if err := l.has(ctx, v, head); err != nil {
			return nil, err
		}
		r, err := l.row(ctx, v, rowKey{kindWitness, hourNewest})
		if err != nil {
			return nil, err
		}
		note := checkpoint
		switch {
		case r.At > head.size:
			return nil, nil // another process was faster
		case r.At == head.size:
			if note, err = joinNotes(r.Value, checkpoint); err != nil {
				return nil, damaged("a cosigned checkpoint: %v", err)
			}
		}
		b := &Batch{}
		for _, hour := range []string{hourOf(l.Time()), hourNewest} {
			b.Put = append(b.Put, l.vault.sealRow(&Row{Kind: kindWitness, Key: hour, At: head.size, Value: note}))
		}
		return b, nil
	})
}

// has makes sure that the log goes through a checkpoint.
func (l *Ledger) has(ctx context.Context, v View, c checkpoint) error {
	b, err := newest(ctx, v)
	if err != nil {
		return err
	}
	if c.size > b.Last+1 || c.size < 1 {
		return fmt.Errorf("%w: a checkpoint of %d records", ErrRollback, c.size)
	}
	e, err := readEdge(c.size, &hashes{ctx: ctx, view: v})
	if err == nil && e.root() != c.root {
		err = fmt.Errorf("%w: its first %d records are not those of the checkpoint", ErrRollback, c.size)
	}
	return err
}

// joinNotes puts the signatures of two notes under their one text, of each key
// the one of b if both have one.
func joinNotes(a, b []byte) ([]byte, error) {
	text, sigsA, okA := bytes.Cut(a, []byte("\n\n"))
	textB, sigsB, okB := bytes.Cut(b, []byte("\n\n"))
	if !okA || !okB || !bytes.Equal(text, textB) {
		return nil, errors.New("not two notes of one text")
	}
	out := append(bytes.Clone(text), "\n\n"...)
	for line := range bytes.Lines(sigsA) {
		if !bytes.Contains(sigsB, line[:min(len(line), bytes.LastIndexByte(line, ' ')+1+keyChars)]) {
			out = append(out, line...)
		}
	}
	return append(out, sigsB...), nil
}

// keyChars are the characters of a signature's base64 that only its key sets:
// the key's ID has four bytes.
const keyChars = 5

// cosigned is the checkpoint for the receipt of a record: one that witnesses
// have signed, if there is one.
func (l *Ledger) cosigned(ctx context.Context, v View, r *Record) ([]byte, error) {
	rows, err := v.Scan(ctx, kindWitness, hourOf(r.Leaf.Time), 2) // the first may be of before the record
	if err != nil {
		return nil, err
	}
	for i := range rows {
		row, err := l.vault.openRow(&rows[i])
		if err != nil {
			return nil, err
		}
		if row.At > r.Index {
			return row.Value, nil
		}
	}
	return nil, nil
}

// Witnessed is the newest checkpoint that Cosigned kept; nil if there is none.
func (l *Ledger) Witnessed(ctx context.Context) ([]byte, error) {
	var r *Row
	err := l.store.View(ctx, func(v View) (err error) {
		r, err = l.row(ctx, v, rowKey{kindWitness, hourNewest})
		return err
	})
	if err != nil {
		return nil, err
	}
	return r.Value, nil
}

// keyHash is the key ID of a signed note's signature: SHA-256 of the name, a
// newline, and the algorithm byte with the key, cut to 32 bits.
func keyHash(name string, algAndKey []byte) uint32 {
	h := sha256.Sum256(append([]byte(name+"\n"), algAndKey...))
	return binary.BigEndian.Uint32(h[:4])
}
