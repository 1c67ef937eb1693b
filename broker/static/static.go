// Package static injects a secret that nobody can mint or revoke: the last
// resort, for a backend that has nothing else. The agent still never sees it,
// it still reaches only the tool it is configured for, and what the tool
// echoes is still redacted; but it is the same for every call, and it does not
// end with a lease. The evidence says that it cannot be revoked.
//
// It is kept sealed, as Seal writes it, under a key that is somewhere else,
// and under the name of its backend: one backend's text opens at no other.
package static

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/writgate/writ/broker"
)

// A Config says where the sealed secret is.
type Config struct {
	Sealed broker.Reference `yaml:"sealed"` // what Seal made; read for every lease
}

// A Driver leases one secret again and again.
type Driver struct {
	backend string
	config  Config
	sealer  *broker.Sealer
}

// prefix begins a sealed secret, so that one that is not sealed is noticed.
const prefix = "writ-sealed-v1:"

// Seal makes the text that is configured from a secret of the backend that
// goes by this name.
func Seal(s *broker.Sealer, backend, secret string) (string, error) {
	if _, err := broker.NewSecret(backend, secret); err != nil {
		return "", err
	}
	return prefix + base64.StdEncoding.EncodeToString(s.Seal(sealedAs(backend), []byte(secret))), nil
}

func sealedAs(backend string) string { return "static secret of " + backend }

// New checks that the secret of the backend can be opened.
func New(backend string, c Config, s *broker.Sealer) (*Driver, error) {
	if backend == "" || s == nil {
		return nil, errors.New("static: a name and a sealer are needed")
	}
	d := &Driver{backend, c, s}
	if _, err := d.open(); err != nil {
		return nil, fmt.Errorf("static: %w", err)
	}
	return d, nil
}

func (d *Driver) open() (broker.Secret, error) {
	text, err := d.config.Sealed.Read()
	if err != nil {
		return broker.Secret{}, err
	}
	sealed, ok := bytes.CutPrefix(text, []byte(prefix))
	if !ok {
		return broker.Secret{}, errors.New("the secret is not sealed: seal it first, and consider it known to whoever could read it")
	}
	b, err := base64.StdEncoding.DecodeString(string(sealed))
	if err != nil {
		return broker.Secret{}, errors.New("the sealed secret is not whole")
	}
	if b, err = d.sealer.Open(sealedAs(d.backend), b); err != nil {
		return broker.Secret{}, err
	}
	return broker.NewSecret(d.backend, string(b))
}

// Mint implements broker.Driver.
func (d *Driver) Mint(context.Context, broker.Row) (broker.Minted, error) {
	secret, err := d.open()
	return broker.Minted{Secret: secret}, err
}

// Revoke implements broker.Driver: it cannot.
func (d *Driver) Revoke(context.Context, string) (broker.Evidence, error) {
	return broker.Evidence{Outcome: broker.Unrevocable, Steps: []string{
		"revocation_unsupported: a static secret; Writ does not use it for this lease any more",
	}}, nil
}

// Lifetime implements broker.Driver: it has no end.
func (d *Driver) Lifetime(time.Duration) time.Duration { return 0 }
