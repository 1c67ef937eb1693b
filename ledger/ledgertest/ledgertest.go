// Package ledgertest opens ledgers in tests, and holds the suite that every
// store must pass.
package ledgertest

import (
	"bytes"
	"crypto/ed25519"
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
	if c.Origin == "" {
		c.Origin = Origin
	}
	if c.Keys.Log == nil {
		c.Keys = Keys()
	}
	l, err := ledger.Open(t.Context(), s, c)
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

// Trust believes the log of l, and no witness.
func Trust(l *ledger.Ledger) ledger.Trust {
	return ledger.Trust{Origin: Origin, Logs: []string{l.VerifierKey()}}
}
