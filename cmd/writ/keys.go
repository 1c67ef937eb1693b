package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/writgate/writ/identity/devca"
)

// keys are a gateway's own, each in a file of its own below keys/, and each
// for one purpose. They are made when they are missing; losing the sealing
// key loses every payload, and losing the log's key ends the log.
type keys struct {
	log        ed25519.PrivateKey // signs the log's checkpoints
	token      ed25519.PrivateKey // signs access tokens
	capability ed25519.PrivateKey // signs capabilities
	gateway    ed25519.PrivateKey // what the gateway proves when it presents a capability
	seal       [32]byte           // seals payloads and state in the ledger
	pseudonym  [32]byte           // names users in the log
	mac        [32]byte           // recognizes actions that were asked about before
	state      [32]byte           // seals what agents are given to hold
	static     [32]byte           // opens static secrets
}

// openKeys reads the keys below dir.
func openKeys(dir string) (*keys, error) {
	if err := privateDir(dir); err != nil {
		return nil, err
	}
	k := new(keys)
	for name, into := range map[string]*ed25519.PrivateKey{
		"log": &k.log, "token": &k.token, "capability": &k.capability, "gateway": &k.gateway,
	} {
		key, err := signingKey(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		*into = key
	}
	for name, into := range map[string]*[32]byte{
		"seal": &k.seal, "pseudonym": &k.pseudonym, "mac": &k.mac, "state": &k.state, "static": &k.static,
	} {
		b, err := keyFile(filepath.Join(dir, name), newSeed)
		if err != nil {
			return nil, err
		}
		if len(b) != len(into) {
			return nil, fmt.Errorf("key %s has %d bytes, want %d", name, len(b), len(into))
		}
		*into = [32]byte(b)
	}
	return k, nil
}

// signingKey reads an Ed25519 key, and makes it if there is none.
func signingKey(name string) (ed25519.PrivateKey, error) {
	seed, err := keyFile(name, newSeed)
	if err != nil {
		return nil, err
	}
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%s has %d bytes, want %d", name, len(seed), ed25519.SeedSize)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// openCA reads the development authority, and makes it if there is none.
func openCA(dir, environment string) (*devca.CA, error) {
	file, err := keyFile(filepath.Join(dir, "devca.pem"), func() ([]byte, error) { return devca.Generate(time.Now()) })
	if err != nil {
		return nil, err
	}
	return devca.Parse(file, environment)
}

func newSeed() ([]byte, error) {
	b := make([]byte, 32)
	rand.Read(b)
	return b, nil
}

// keyFile reads a file that nobody else may read, or makes it. It never
// overwrites one, and two processes that start together end up with one key.
func keyFile(name string, make func() ([]byte, error)) ([]byte, error) {
	b, err := readPrivate(name)
	if !errors.Is(err, os.ErrNotExist) {
		return b, err
	}
	if b, err = make(); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*") // mode 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Link(f.Name(), name)
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	if err := syncDir(filepath.Dir(name)); err != nil {
		return nil, err
	}
	return readPrivate(name)
}

// readPrivate refuses a file that others may read.
func readPrivate(name string) ([]byte, error) {
	is, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if mode := is.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o: only its owner may have access; chmod 600 it, and think of who read it", name, mode)
	}
	return os.ReadFile(name)
}

// privateDir makes a directory that nobody else may enter, or refuses one that
// others may.
func privateDir(name string) error {
	if err := os.MkdirAll(name, 0o700); err != nil {
		return err
	}
	is, err := os.Stat(name)
	if err != nil {
		return err
	}
	if mode := is.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s has mode %04o: only its owner may have access; chmod 700 it", name, mode)
	}
	return nil
}

// syncDir makes the names in a directory durable.
func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
