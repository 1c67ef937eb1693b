package ledger

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// An edge is the right edge of the tree: the roots of the complete subtrees
// that its size is made of, by level. Nothing else is needed to grow it.
type edge struct {
	size  int64
	level [63]tlog.Hash // level[i] is set if bit i of size is
}

// add appends a leaf, and to stored the hashes that package tlog stores for it.
func (e *edge) add(leaf, stored []byte) []byte {
	h := tlog.RecordHash(leaf)
	stored = append(stored, h[:]...)
	i := 0
	for ; e.size>>i&1 == 1; i++ {
		h = tlog.NodeHash(e.level[i], h)
		stored = append(stored, h[:]...)
	}
	e.level[i] = h
	e.size++
	return stored
}

// root is the hash of the whole tree (RFC 6962, section 2.1).
func (e *edge) root() tlog.Hash {
	if e.size == 0 {
		return tlog.Hash([]byte(emptyRoot))
	}
	i := bits.TrailingZeros64(uint64(e.size))
	h := e.level[i]
	for i++; e.size>>i != 0; i++ {
		if e.size>>i&1 == 1 {
			h = tlog.NodeHash(e.level[i], h)
		}
	}
	return h
}

// emptyRoot is SHA-256 of nothing.
const emptyRoot = "\xe3\xb0\xc4\x42\x98\xfc\x1c\x14\x9a\xfb\xf4\xc8\x99\x6f\xb9\x24\x27\xae\x41\xe4\x64\x9b\x93\x4c\xa4\x95\x99\x1b\x78\x52\xb8\x55"

// readEdge loads the edge of the tree of size records.
func readEdge(size int64, r tlog.HashReader) (e edge, err error) {
	e.size = size
	for i := range e.level {
		if size>>i&1 == 0 {
			continue
		}
		h, err := r.ReadHashes([]int64{tlog.StoredHashIndex(i, size>>i-1)})
		if err != nil {
			return edge{}, err
		}
		e.level[i] = h[0]
	}
	return e, nil
}

// hashes reads stored hashes from the batches that made them.
type hashes struct {
	ctx  context.Context
	view View
	last *Batch
}

// ReadHashes implements tlog.HashReader.
func (h *hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		level, n := tlog.SplitStoredHashIndex(index)
		record := (n+1)<<level - 1 // the leaf that completed the subtree
		if h.last == nil || record < h.last.First || record > h.last.Last {
			b, err := h.view.Batch(h.ctx, record)
			if err != nil {
				return nil, err
			}
			if b == nil || record < b.First || record > b.Last {
				return nil, damaged("no batch holds record %d", record)
			}
			h.last = b
		}
		at := (index - tlog.StoredHashIndex(0, h.last.First)) * tlog.HashSize
		if at < 0 || at+tlog.HashSize > int64(len(h.last.Hashes)) {
			return nil, damaged("the batch of record %d is cut off", record)
		}
		copy(out[i][:], h.last.Hashes[at:])
	}
	return out, nil
}

// A checkpoint is a tree head (c2sp.org/tlog-checkpoint).
type checkpoint struct {
	origin string
	size   int64
	root   tlog.Hash
}

func (c checkpoint) text() string {
	return c.origin + "\n" + strconv.FormatInt(c.size, 10) + "\n" + c.root.String() + "\n"
}

// parseCheckpoint reads the text of a checkpoint without extension lines.
func parseCheckpoint(text string) (c checkpoint, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[0] == "" || lines[3] != "" {
		return c, errors.New("a checkpoint is three lines")
	}
	c.origin = lines[0]
	if c.size, err = parseSize(lines[1]); err != nil {
		return c, err
	}
	c.root, err = parseHash(lines[2])
	return c, err
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

// A signer signs checkpoints (c2sp.org/signed-note, Ed25519), and verifies
// those that it signed.
type signer struct {
	note.Verifier
	vkey string
	key  ed25519.PrivateKey
}

func newSigner(origin string, k ed25519.PrivateKey) (*signer, error) {
	if len(k) != ed25519.PrivateKeySize {
		return nil, errors.New("the log's key is not an Ed25519 private key")
	}
	vkey, err := note.NewEd25519VerifierKey(origin, k.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, err
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, fmt.Errorf("origin %.80q: %w", origin, err)
	}
	return &signer{v, vkey, k}, nil
}

// Sign implements note.Signer.
func (s *signer) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(s.key, msg), nil }

// checkpoint signs the head of a tree, with others if there are any.
func (s *signer) checkpoint(e *edge, also ...note.Signer) ([]byte, error) {
	c := checkpoint{s.Name(), e.size, e.root()}
	return note.Sign(&note.Note{Text: c.text()}, append([]note.Signer{s}, also...)...)
}

// A keyring is the key that signs, and all that ever did.
type keyring struct {
	*signer
	all []note.Verifier
}

// open verifies a checkpoint of this log.
func (k *keyring) open(b []byte) (checkpoint, error) {
	n, err := note.Open(b, note.VerifierList(k.all...))
	if err != nil {
		return checkpoint{}, err
	}
	c, err := parseCheckpoint(n.Text)
	if err == nil && c.origin != k.Name() {
		err = fmt.Errorf("a checkpoint of %.80q", c.origin)
	}
	return c, err
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrDamaged, fmt.Errorf(format, args...))
}
