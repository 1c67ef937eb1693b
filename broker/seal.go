package broker

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
)

// A Sealer encrypts what must survive a restart and yet be worthless in a
// stolen database: AES-256-GCM with a random nonce before the ciphertext. The
// name is authenticated, so one sealed value cannot stand in for another.
// Under one key, seal no more than 2^32 values.
type Sealer struct{ aead cipher.AEAD }

// NewSealer takes a key of 32 bytes that is kept apart from what it seals.
func NewSealer(key []byte) (*Sealer, error) {
	if len(key) != 32 {
		return nil, fmt.Errorf("sealing key has %d bytes, want 32", len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &Sealer{aead}, nil
}

// Seal encrypts plaintext under name.
func (s *Sealer) Seal(name string, plaintext []byte) []byte {
	return s.aead.Seal(nil, nil, plaintext, []byte("writ/sealed/v1\x00"+name))
}

// Open gives back what was sealed under the same key and name.
func (s *Sealer) Open(name string, sealed []byte) ([]byte, error) {
	plain, err := s.aead.Open(nil, nil, sealed, []byte("writ/sealed/v1\x00"+name))
	if err != nil {
		return nil, errors.New("opening sealed value: wrong key, wrong name, or changed")
	}
	return plain, nil
}
