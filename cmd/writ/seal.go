package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/broker/static"
)

// A sealCmd seals a secret.
type sealCmd struct {
	Backend string `arg:"" help:"The backend's name in writ.yaml."`
}

// Help says where what it prints goes.
func (sealCmd) Help() string {
	return `The secret is asked for on the terminal, or read from the standard input if that is none. What is printed goes into the file that static.sealed of the backend names. Nothing but the gateway's own key opens it, and only as this backend's.

A secret that can be minted for each call, and revoked, is better: this one is the same for every call until somebody changes it at its source.`
}

// maxSecret bounds a secret, in bytes.
const maxSecret = 16 << 10

// Run seals, and makes the gateway's key if there is none yet.
func (c sealCmd) Run(s *session) error {
	if !backendName.MatchString(c.Backend) {
		return &usageError{fmt.Sprintf("%q is no name of a backend: a to z, 0 to 9 and hyphens, at most 32", c.Backend)}
	}
	if err := privateDir(s.Dir); err != nil {
		return err
	}
	keys, err := openKeys(filepath.Join(s.Dir, "keys"))
	if err != nil {
		return err
	}
	sealer, err := broker.NewSealer(keys.static[:])
	if err != nil {
		return err
	}
	secret, err := s.readSecret("The secret: ")
	if err != nil {
		return err
	}
	text, err := static.Seal(sealer, c.Backend, secret)
	if err != nil {
		return err
	}
	if s.wantsJSON() {
		return s.json(map[string]string{"backend": c.Backend, "sealed": text})
	}
	s.printf("%s\n", text)
	return nil
}

// readSecret reads a secret that is nobody's passphrase: from the terminal, if
// that is the standard input.
func (s *session) readSecret(prompt string) (string, error) {
	if f, ok := s.in.(*os.File); ok {
		if is, err := f.Stat(); err == nil && is.Mode()&os.ModeCharDevice != 0 {
			return s.secret(prompt)
		}
	}
	text, err := io.ReadAll(io.LimitReader(s.in, maxSecret+1))
	if err != nil {
		return "", err
	}
	secret := strings.TrimRight(string(text), "\r\n")
	if len(text) > maxSecret || secret == "" {
		return "", refuse("want a secret of 1 to %d bytes; nothing was sealed", maxSecret)
	}
	return secret, nil
}
