package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestH63PassphraseIsHidden reads a passphrase: from then on no process of the
// same user reads this one's memory.
func TestH63PassphraseIsHidden(t *testing.T) {
	name := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(name, []byte("correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(passphraseFile, name)
	if text, err := new(session).passphrase(""); text != "correct horse" || err != nil {
		t.Fatalf("passphrase = %q, %v", text, err)
	}
	const prGetDumpable = 3
	if dumpable, _, _ := syscall.RawSyscall(syscall.SYS_PRCTL, prGetDumpable, 0, 0); dumpable != 0 {
		t.Errorf("the process that holds it is dumpable: %d", dumpable)
	}
}
