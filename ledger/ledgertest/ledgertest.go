// Package ledgertest opens ledgers in tests, and holds the suite that every
// store must pass.
package ledgertest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"sync/atomic"
	"testing"

	"github.com/writgate/writ/ledger"
)

// Origin is the name of the logs that this package opens.
const Origin = "test.example/writ"

// Keys are fixed, and known to everybody.
func Keys() ledger.Keys {
	return ledger.Keys{
		Log:       ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize)),
		Seal:      [32]byte(bytes.Repeat([]byte{2}, 32)),
		Pseudonym: [32]byte(bytes.Repeat([]byte{3}, 32)),
	}
}

// Open opens the ledger in s, with what c does not say filled in, and closes
// it when the test is over. A test says where it is kept:
//
//	s, err := sqlite.Open(filepath.Join(t.TempDir(), "ledger.db"))
//	…
//	l := ledgertest.Open(t, s, ledger.Config{})
func Open(t testing.TB, s ledger.Store, c ledger.Config) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(t.Context(), s, fill(c))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func fill(c ledger.Config) ledger.Config {
	if c.Origin == "" {
		c.Origin = Origin
	}
	if c.Keys.Log == nil {
		c.Keys = Keys()
	}
	return c
}

// Trust believes the log of l, and no witness.
func Trust(l *ledger.Ledger) ledger.Trust {
	return ledger.Trust{Origin: Origin, Logs: []string{l.VerifierKey()}}
}

// Faults is a store whose updates fail on demand, as a disk or a network
// would have them fail.
type Faults struct {
	ledger.Store
	// Before, During and After, if set, are called with the number of the
	// update, from 1, and an error of theirs fails it: before it is begun; when
	// it is known what is to be written, and nothing is; when everything is
	// durable, which a store may only call ErrUnknown or ErrFatal.
	Before, During, After func(n int64) error
	// Full is a full disk: only batches that may use the reserve are written.
	Full atomic.Bool

	n atomic.Int64
}

// Update implements ledger.Store.
func (f *Faults) Update(ctx context.Context, fn func(ledger.View) (*ledger.Batch, error)) error {
	n := f.n.Add(1)
	if f.Before != nil {
		if err := f.Before(n); err != nil {
			return err
		}
	}
	err := f.Store.Update(ctx, func(v ledger.View) (*ledger.Batch, error) {
		b, err := fn(v)
		if b != nil && !b.Reserve && f.Full.Load() {
			return nil, ledger.ErrFull
		}
		if err == nil && b != nil && f.During != nil {
			err = f.During(n)
		}
		return b, err
	})
	if err == nil && f.After != nil {
		err = f.After(n)
	}
	return err
}
