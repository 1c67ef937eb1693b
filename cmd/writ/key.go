package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/writgate/writ"
	"github.com/writgate/writ/identity"
)

// An operator's key file is text, five lines:
//
//	writ-operator-key/v1
//	user <who>
//	key <the thumbprint of the public key, RFC 7638>
//	pbkdf2-sha256 <iterations> <salt, base64>
//	<base64 of a 12-byte nonce and the 32-byte seed of the Ed25519 key, sealed with AES-256-GCM>
//
// The sealing key is PBKDF2 (RFC 8018) of the passphrase; the lines above the
// last are authenticated with it.
const (
	keyHeader     = "writ-operator-key/v1"
	keyIterations = 600_000    // OWASP, 2023, for HMAC-SHA-256
	keyMost       = 20_000_000 // so that no file keeps anybody waiting
	keySalt       = 16
)

// iterations is keyIterations, but in tests, which open many keys.
var iterations = keyIterations

var errPassphrase = &declined{"the passphrase is wrong, or the key file is damaged"}

// An operatorKey is an operator's key as it is stored.
type operatorKey struct {
	user       writ.UserID
	thumbprint writ.Thumbprint
	iterations int
	salt       []byte
	sealed     []byte
}

// sealKey seals a key under a passphrase.
func sealKey(user writ.UserID, key ed25519.PrivateKey, passphrase string) ([]byte, error) {
	if user == "" || strings.ContainsFunc(string(user), hidden) || strings.ContainsRune(string(user), ' ') {
		return nil, &usageError{fmt.Sprintf("%q cannot name an operator", user)}
	}
	thumbprint, err := identity.Thumbprint(key.Public())
	if err != nil {
		return nil, err
	}
	k := &operatorKey{user: user, thumbprint: thumbprint, iterations: iterations, salt: make([]byte, keySalt)}
	rand.Read(k.salt)
	aead, err := k.aead(passphrase)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce)
	head := k.head()
	sealed := aead.Seal(nonce, nonce, key.Seed(), head)
	return append(base64.StdEncoding.AppendEncode(head, sealed), '\n'), nil
}

// head is the lines that say how to open what follows.
func (k *operatorKey) head() []byte {
	return fmt.Appendf(nil, "%s\nuser %s\nkey %s\npbkdf2-sha256 %d %s\n", keyHeader, k.user, k.thumbprint, k.iterations, base64.StdEncoding.EncodeToString(k.salt))
}

func (k *operatorKey) aead(passphrase string) (cipher.AEAD, error) {
	secret, err := pbkdf2.Key(sha256.New, passphrase, k.salt, k.iterations, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// parseKey reads a key file, and opens nothing.
func parseKey(text []byte) (*operatorKey, error) {
	bad := errors.New("not an operator's key of version 1")
	lines := strings.Split(string(text), "\n")
	if len(lines) != 6 || lines[5] != "" {
		return nil, bad
	}
	user, ok := strings.CutPrefix(lines[1], "user ")
	thumbprint, ok2 := strings.CutPrefix(lines[2], "key ")
	kdf := strings.Split(lines[3], " ")
	if !ok || !ok2 || len(kdf) != 3 {
		return nil, bad
	}
	k := &operatorKey{user: writ.UserID(user), thumbprint: writ.Thumbprint(thumbprint)}
	var err error
	if k.iterations, err = strconv.Atoi(kdf[1]); err != nil || k.iterations < iterations || k.iterations > keyMost {
		return nil, fmt.Errorf("an operator's key with %.20q iterations, want %d to %d", kdf[1], iterations, keyMost)
	}
	if k.salt, err = base64.StdEncoding.DecodeString(kdf[2]); err != nil || len(k.salt) < keySalt {
		return nil, bad
	}
	if k.sealed, err = base64.StdEncoding.DecodeString(lines[4]); err != nil || !bytes.HasPrefix(text, k.head()) {
		return nil, bad
	}
	return k, nil
}

// open gives the key itself.
func (k *operatorKey) open(passphrase string) (ed25519.PrivateKey, error) {
	aead, err := k.aead(passphrase)
	if err != nil {
		return nil, err
	}
	n := aead.NonceSize()
	if len(k.sealed) < n {
		return nil, errPassphrase
	}
	seed, err := aead.Open(nil, k.sealed[:n], k.sealed[n:], k.head())
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, errPassphrase
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// createKey makes an operator's key in a file that nobody else may read. It
// never replaces one.
func createKey(name string, user writ.UserID, passphrase string) (writ.Thumbprint, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	text, err := sealKey(user, key, passphrase)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return "", err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(name))
	}
	return identity.Thumbprint(key.Public())
}

// readKey reads the operator's key file.
func (s *session) readKey() (*operatorKey, error) {
	text, err := readPrivate(s.OperatorKey)
	if err != nil {
		return nil, fmt.Errorf("your operator's key: %w", err)
	}
	k, err := parseKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.OperatorKey, err)
	}
	return k, nil
}

// openKey opens the operator's key, which asks for the passphrase.
func (s *session) openKey() (*operatorKey, ed25519.PrivateKey, error) {
	k, err := s.readKey()
	if err != nil {
		return nil, nil, err
	}
	passphrase, err := s.passphrase(fmt.Sprintf("Passphrase of %s's key: ", visible(string(k.user))))
	if err != nil {
		return nil, nil, err
	}
	key, err := k.open(passphrase)
	return k, key, err
}

// act asks the gateway for something that adds authority: it opens the
// operator's key, and signs exactly this.
func (s *session) act(target string, in, out any) error {
	_, key, err := s.openKey()
	if err != nil {
		return err
	}
	return s.client.Act(s.ctx, key, target, in, out)
}

// passphraseFile holds the passphrase where nobody can be asked.
const passphraseFile = "WRIT_PASSPHRASE_FILE"

func passphraseName() string { return os.Getenv(passphraseFile) }

const maxPassphrase = 1 << 10

// passphrase asks for the passphrase on the terminal, or reads the file that
// the environment names. It is never an argument, and never echoed; and an
// agent that runs as the same user does not read it out of this process.
func (s *session) passphrase(prompt string) (string, error) {
	hideMemory()
	if name := passphraseName(); name != "" {
		text, err := readPrivate(name)
		if err != nil {
			return "", fmt.Errorf("%s: %w", passphraseFile, err)
		}
		return strings.TrimRight(string(text), "\r\n"), nil
	}
	text, err := s.secret(prompt)
	if errors.Is(err, errNoTerminal) {
		return "", refuse("there is no terminal to ask for the passphrase on; %s can name a file with it", passphraseFile)
	}
	return text, err
}

var errNoTerminal = errors.New("there is no terminal to ask on")

// secret asks for a line on the terminal, and does not echo it.
func (s *session) secret(prompt string) (string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", errNoTerminal
	}
	defer tty.Close()
	quiet, err := silence(tty)
	if err != nil {
		return "", fmt.Errorf("the terminal: %w", err)
	}
	defer quiet()
	defer context.AfterFunc(s.ctx, func() { // interrupted: leave the terminal as it was
		quiet()
		fmt.Fprintln(tty)
		os.Exit(exitNo)
	})()
	fmt.Fprint(tty, prompt)
	line, err := bufio.NewReader(io.LimitReader(tty, maxPassphrase)).ReadString('\n')
	fmt.Fprintln(tty)
	if err != nil || strings.TrimRight(line, "\r\n") == "" {
		return "", refuse("nothing was typed, and nothing done")
	}
	return strings.TrimRight(line, "\r\n"), nil
}
