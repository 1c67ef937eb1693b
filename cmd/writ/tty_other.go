//go:build !linux && !darwin

package main

import (
	"errors"
	"os"
)

// silence fails: this terminal would show what is typed.
func silence(*os.File) (func(), error) {
	return nil, errors.New("it cannot be kept from echoing here; use " + passphraseFile)
}

// isTerminal does not know.
func isTerminal(*os.File) bool { return false }
