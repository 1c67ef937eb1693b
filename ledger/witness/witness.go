// Package witness is the eye on a log from outside: c2sp.org/tlog-witness with
// Ed25519 cosignatures (c2sp.org/tlog-cosignature), the server and the client.
//
// A witness signs a log's checkpoint only if it goes on from the last one that
// it has signed. So whoever demands its signature sees the one history that
// everybody else sees, even if the log's key is in the wrong hands. It reads
// no records, and learns nothing but how many there are.
package witness

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	algCosignature = 4        // c2sp.org/signed-note: timestamped Ed25519
	maxBody        = 64 << 10 // of a request or an answer
	maxProof       = 63       // hashes
)

// A head is the text of a checkpoint (c2sp.org/tlog-checkpoint).
type head struct {
	origin string
	size   int64
	root   tlog.Hash
}

// parseHead reads the text of a note. Extension lines are signed, and not
// understood.
func parseHead(text string) (h head, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 4 || lines[len(lines)-1] != "" {
		return h, errors.New("a checkpoint is at least three lines")
	}
	for _, line := range lines[:len(lines)-1] {
		if line == "" {
			return h, errors.New("a checkpoint has no empty lines")
		}
	}
	h.origin = lines[0]
	if h.size, err = parseSize(lines[1]); err != nil {
		return h, err
	}
	h.root, err = parseHash(lines[2])
	return h, err
}

func parseSize(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != s {
		return 0, errors.New("not a decimal number without leading zeros")
	}
	return n, nil
}

func parseHash(s string) (h tlog.Hash, err error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(b) != tlog.HashSize || base64.StdEncoding.EncodeToString(b) != s {
		return h, errors.New("not a base64 SHA-256 hash")
	}
	return tlog.Hash(b), nil
}

// A submission is the body of an add-checkpoint request.
type submission struct {
	old   int64
	proof tlog.TreeProof
	note  []byte
}

func parseSubmission(b []byte) (s submission, err error) {
	top, note, ok := bytes.Cut(b, []byte("\n\n"))
	if !ok {
		return s, errors.New("no checkpoint")
	}
	s.note = note
	lines := strings.Split(string(top), "\n")
	old, ok := strings.CutPrefix(lines[0], "old ")
	if s.old, err = parseSize(old); err != nil || !ok {
		return s, errors.New("no old size")
	}
	if len(lines) > 1+maxProof {
		return s, errors.New("a proof that is too long")
	}
	for _, line := range lines[1:] {
		h, err := parseHash(line)
		if err != nil {
			return s, err
		}
		s.proof = append(s.proof, h)
	}
	return s, nil
}

// textOf is the signed part of a note.
func textOf(note []byte) (string, error) {
	i := bytes.LastIndex(note, []byte("\n\n"))
	if i < 0 {
		return "", errors.New("not a signed note")
	}
	return string(note[:i+1]), nil
}

// A cosigner signs checkpoints.
type cosigner struct {
	name string
	id   uint32
	key  ed25519.PrivateKey
}

func newCosigner(name string, key ed25519.PrivateKey) (*cosigner, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, errors.New("not an Ed25519 private key")
	}
	if name == "" || strings.ContainsAny(name, "+ \n\t") {
		return nil, fmt.Errorf("a witness cannot be named %.80q", name)
	}
	return &cosigner{name, keyID(name, public(key)), key}, nil
}

func public(key ed25519.PrivateKey) []byte {
	return append([]byte{algCosignature}, key.Public().(ed25519.PublicKey)...)
}

// keyID is SHA-256 of the name, a newline, the algorithm and the key, cut to
// 32 bits.
func keyID(name string, algAndKey []byte) uint32 {
	h := sha256.Sum256(append([]byte(name+"\n"), algAndKey...))
	return binary.BigEndian.Uint32(h[:])
}

// Name implements note.Verifier.
func (c *cosigner) Name() string { return c.name }

// KeyHash implements note.Verifier.
func (c *cosigner) KeyHash() uint32 { return c.id }

// Verify implements note.Verifier.
func (c *cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	return ed25519.Verify(ed25519.PublicKey(public(c.key)[1:]), cosigned(msg, int64(binary.BigEndian.Uint64(sig))), sig[8:])
}

// cosigned is what a witness signs.
func cosigned(text []byte, unix int64) []byte {
	return append(fmt.Appendf(nil, "cosignature/v1\ntime %d\n", unix), text...)
}

// verifierKey is how others know c.
func (c *cosigner) verifierKey() string {
	return fmt.Sprintf("%s+%08x+%s", c.name, c.id, base64.StdEncoding.EncodeToString(public(c.key)))
}

// sign gives a signature line for the text of a checkpoint.
func (c *cosigner) sign(text string, unix int64) string {
	sig := ed25519.Sign(c.key, cosigned([]byte(text), unix))
	b := binary.BigEndian.AppendUint32(nil, c.id)
	b = append(binary.BigEndian.AppendUint64(b, uint64(unix)), sig...)
	return "— " + c.name + " " + base64.StdEncoding.EncodeToString(b) + "\n"
}
