package ledger

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"

	"golang.org/x/mod/sumdb/note"
)

// The members of a key record's note. The first record has only the key.
const (
	noteKey   = "log"   // the verifier key from here on
	noteWas   = "was"   // the one before it
	noteByOld = "byold" // both keys' signatures over the change
	noteByNew = "bynew"
)

// keyRow is the row of kind kindLog whose value the first record sets, and
// each change of key again.
const keyRow = "key"

// keyCheck is that value: the log's key, and what shows a process that it has
// the right key for pseudonyms. That the record opens shows the same of the
// key that seals.
func (l *Ledger) keyCheck(vkey string) []byte {
	return []byte(vkey + "\n" + l.vault.pseudonym("\x00check"))
}

// Rotate makes another key sign the log. Its record, an entry of type
// TypeKey, says who wants it and why; it is signed by the old key and by the
// new one, and so is the checkpoint that contains it. From then on only the
// new one counts, and the ledger is opened with it; an auditor who trusts the
// old one adds the new one to a Trust, where both stay.
//
// After a theft of the old key, the rotation and what witnesses signed before
// it tell the true log from one that the thief makes up.
func (l *Ledger) Rotate(ctx context.Context, e *Entry, to ed25519.PrivateKey) (Receipt, error) {
	if e.Leaf.Type != TypeKey {
		return Receipt{}, fmt.Errorf("%w: a key is changed by a record of type %s", ErrInvalid, TypeKey)
	}
	next, err := newSigner(l.config.Origin, to)
	if err != nil {
		return Receipt{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	old := l.keys.Load()
	if next.vkey == old.vkey {
		return Receipt{}, fmt.Errorf("%w: the log has this key", ErrInvalid)
	}
	signed := *e
	signed.Leaf.Note = maps.Clone(e.Leaf.Note)
	if signed.Leaf.Note == nil {
		signed.Leaf.Note = map[string]string{}
	}
	text := rotation(l.config.Origin, old.vkey, next.vkey)
	n := signed.Leaf.Note
	n[noteKey], n[noteWas] = next.vkey, old.vkey
	n[noteByOld] = base64.StdEncoding.EncodeToString(ed25519.Sign(old.key, text))
	n[noteByNew] = base64.StdEncoding.EncodeToString(ed25519.Sign(to, text))
	p, err := l.prepare(&signed)
	if err != nil {
		return Receipt{}, err
	}
	p.set(l, Change{Op: Put, Kind: kindLog, Key: keyRow, Value: l.keyCheck(next.vkey)})
	var receipts []Receipt
	err = l.alone(func() error {
		if l.keys.Load() != old {
			return &Error{Err: ErrConflict, Kind: kindLog, Key: keyRow}
		}
		err := l.write(ctx, func(d *draft, v View) error {
			d.also = []note.Signer{next}
			all := []*pending{p}
			err := d.load(ctx, v, []*request{{pending: all}}, true)
			if err == nil {
				receipts, err = d.take(all)
			}
			return err
		})
		if err == nil {
			l.keys.Store(&keyring{next, append(old.all[:len(old.all):len(old.all)], next)})
		}
		return err
	})
	if err != nil {
		return Receipt{}, err
	}
	return receipts[0], nil
}

// rotation is what both keys sign.
func rotation(origin, old, next string) []byte {
	return []byte("writ/key/v1\n" + origin + "\n" + old + "\n" + next + "\n")
}

// readKeys learns the keys that the log had before this one, each vouched for
// by the one before it, and makes sure that this process has the right ones.
func (l *Ledger) readKeys(ctx context.Context, v View) error {
	records, err := v.Records(ctx, Filter{Type: TypeKey})
	if err != nil {
		return err
	}
	k := l.keys.Load()
	chain := keychain{origin: k.Name()}
	for i := range records {
		leaf, err := parseLeaf(records[i].LeafBytes)
		if err == nil {
			err = chain.add(leaf)
		}
		if err != nil {
			return damaged("record %d: %v", records[i].Index, err)
		}
	}
	if chain.last != k.vkey {
		return fmt.Errorf("the log's key is not this one, but %.200q", chain.last)
	}
	first, err := l.vault.record(&records[0])
	if err != nil {
		return fmt.Errorf("the key that seals is another, or %w", err)
	}
	b, _ := first.Part(partChanges)
	changes, err := parseChanges(0, b)
	if err != nil || len(changes) != 1 {
		return damaged("the first record: %v", err)
	}
	if !bytes.Equal(changes[0].Value, l.keyCheck(first.Leaf.Note[noteKey])) {
		return errors.New("the key for pseudonyms is another")
	}
	l.keys.Store(&keyring{k.signer, chain.all})
	return nil
}

// A keychain is the keys of a log in the order of their records.
type keychain struct {
	origin, last string
	all          []note.Verifier
}

// add takes the next key record.
func (c *keychain) add(l *Leaf) error {
	v, err := note.NewVerifier(l.Note[noteKey])
	if err != nil || v.Name() != c.origin {
		return fmt.Errorf("not a key of %.80q", c.origin)
	}
	if c.last != "" {
		text := rotation(c.origin, c.last, l.Note[noteKey])
		if l.Note[noteWas] != c.last || !signedBy(c.all[len(c.all)-1], text, l.Note[noteByOld]) || !signedBy(v, text, l.Note[noteByNew]) {
			return errors.New("a key that the one before it did not sign")
		}
	}
	c.last, c.all = l.Note[noteKey], append(c.all, v)
	return nil
}

func signedBy(v note.Verifier, text []byte, sig string) bool {
	b, err := base64.StdEncoding.DecodeString(sig)
	return err == nil && v.Verify(text, b)
}
