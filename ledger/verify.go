package ledger

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A Trust says whom a verifier believes. It never comes from a receipt.
type Trust struct {
	Origin    string   // the log's name
	Logs      []string // the log's verifier keys, every one it ever used; one signature is enough
	Witnesses []string // verifier keys of witnesses (c2sp.org/tlog-cosignature, Ed25519)
}

// A Verified is a record that is in the log. Who may have rewritten the log,
// Standing says.
type Verified struct {
	Index     int64
	Size      int64 // of the log, when the receipt was made
	Leaf      *Leaf
	LeafBytes []byte

	// Witnesses are the trusted ones that saw this very log, and when, by
	// their own clocks. If there are none, who holds the log's key could have
	// rewritten it.
	Witnesses map[string]time.Time
}

// Standing says who stands behind the log being the one that everybody sees.
func (v *Verified) Standing() string {
	switch len(v.Witnesses) {
	case 0:
		return "unwitnessed: the key holder could have rewritten history"
	case 1:
		return "witnessed by 1"
	}
	return fmt.Sprintf("witnessed by %d", len(v.Witnesses))
}

// Verify checks a receipt, as Prove makes it, against public keys alone. It
// needs no network and no database. It takes the receipt's word for nothing:
// the leaf in it counts because its hash leads to a root that a trusted key
// has signed.
func Verify(receipt []byte, trust Trust) (*Verified, error) {
	// 1. The receipt.
	p, err := parseProof(receipt)
	if err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}
	leaf, err := parseLeaf(p.leaf)
	if err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}

	// 2. Who signed the checkpoint.
	head, witnesses, err := trust.open(p.note)
	if err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}

	// 3. The leaf is in the tree.
	if p.index >= head.size {
		return nil, fmt.Errorf("receipt: record %d is not among %d", p.index, head.size)
	}
	if err := tlog.CheckRecord(p.path, head.size, head.root, p.index, tlog.RecordHash(p.leaf)); err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}
	return &Verified{p.index, head.size, leaf, p.leaf, witnesses}, nil
}

// Checkpoint verifies the signatures of a checkpoint: its size, and the trusted
// witnesses that signed it, with their times.
func (t Trust) Checkpoint(checkpoint []byte) (size int64, witnesses map[string]time.Time, err error) {
	head, witnesses, err := t.open(checkpoint)
	return head.size, witnesses, err
}

// open checks a checkpoint's signatures.
func (t Trust) open(b []byte) (checkpoint, map[string]time.Time, error) {
	none := checkpoint{}
	var known []note.Verifier
	var logs []uint32
	for _, k := range t.Logs {
		v, err := note.NewVerifier(k)
		if err != nil {
			return none, nil, fmt.Errorf("the trusted key %.80q: %w", k, err)
		}
		if v.Name() != t.Origin {
			return none, nil, fmt.Errorf("the trusted key %.80q is not of %q", k, t.Origin)
		}
		known, logs = append(known, v), append(logs, v.KeyHash())
	}
	for _, k := range t.Witnesses {
		v, err := newWitnessVerifier(k)
		if err == nil && slices.ContainsFunc(t.Logs, v.isKeyOf) {
			err = errors.New("a log cannot witness itself")
		}
		if err != nil {
			return none, nil, fmt.Errorf("the witness key %.80q: %w", k, err)
		}
		known = append(known, v)
	}
	n, err := note.Open(b, note.VerifierList(known...))
	if err != nil {
		return none, nil, err
	}
	var signed bool
	witnesses := map[string]time.Time{}
	for _, s := range n.Sigs {
		if s.Name == t.Origin && slices.Contains(logs, s.Hash) {
			signed = true
			continue
		}
		if at, err := cosignedAt(s); err == nil {
			witnesses[s.Name] = at
		}
	}
	if !signed {
		return none, nil, errors.New("the checkpoint is not signed by the log")
	}
	c, err := parseCheckpoint(n.Text)
	if err == nil && c.origin != t.Origin {
		err = fmt.Errorf("the checkpoint is of %.80q, not of %q", c.origin, t.Origin)
	}
	return c, witnesses, err
}

// A witnessVerifier verifies Ed25519 cosignatures (c2sp.org/tlog-cosignature):
// 8 bytes of time in seconds, then the signature over that and the text.
type witnessVerifier struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

const (
	algCosignature = 4
	cosignature    = 8 + ed25519.SignatureSize
)

func newWitnessVerifier(vkey string) (*witnessVerifier, error) {
	name, rest, _ := strings.Cut(vkey, "+")
	hash, b64, _ := strings.Cut(rest, "+")
	h, err := strconv.ParseUint(hash, 16, 32)
	k, err2 := base64.StdEncoding.DecodeString(b64)
	if err != nil || err2 != nil || len(hash) != 8 || len(k) != 1+ed25519.PublicKeySize || k[0] != algCosignature || name == "" {
		return nil, errors.New("not an Ed25519 cosignature key")
	}
	if uint32(h) != keyHash(name, k) {
		return nil, errors.New("its hash is not that of its key")
	}
	return &witnessVerifier{name, uint32(h), ed25519.PublicKey(k[1:])}, nil
}

// isKeyOf says whether a log's verifier key has the same public key.
func (v *witnessVerifier) isKeyOf(vkey string) bool {
	b, err := base64.StdEncoding.DecodeString(vkey[strings.LastIndexByte(vkey, '+')+1:])
	return err == nil && len(b) != 0 && bytes.Equal(b[1:], v.key)
}

// Name implements note.Verifier.
func (v *witnessVerifier) Name() string { return v.name }

// KeyHash implements note.Verifier.
func (v *witnessVerifier) KeyHash() uint32 { return v.hash }

// Verify implements note.Verifier.
func (v *witnessVerifier) Verify(msg, sig []byte) bool {
	if len(sig) != cosignature {
		return false
	}
	at := binary.BigEndian.Uint64(sig)
	return at != 0 && at < 1<<63 && ed25519.Verify(v.key, cosigned(at, msg), sig[8:])
}

// cosigned is what a witness signs.
func cosigned(at uint64, text []byte) []byte {
	return append(fmt.Appendf(nil, "cosignature/v1\ntime %d\n", at), text...)
}

func cosignedAt(s note.Signature) (time.Time, error) {
	b, err := base64.StdEncoding.DecodeString(s.Base64)
	if err != nil || len(b) != 4+cosignature {
		return time.Time{}, errors.New("not a cosignature")
	}
	return time.Unix(int64(binary.BigEndian.Uint64(b[4:])), 0).UTC(), nil
}

// A proof is the content of a receipt.
type proof struct {
	leaf  []byte
	index int64
	path  tlog.RecordProof
	note  []byte
}

func appendProof(b []byte, p *proof) []byte {
	b = append(b, proofHeader...)
	b = base64.StdEncoding.AppendEncode(append(b, "extra "...), p.leaf)
	b = fmt.Appendf(b, "\nindex %d\n", p.index)
	for _, h := range p.path {
		b = append(append(b, h.String()...), '\n')
	}
	return append(append(b, '\n'), p.note...)
}

// maxProof bounds a receipt: a leaf, 63 hashes, a checkpoint with signatures.
const maxProof = 64 << 10

// parseProof accepts exactly what appendProof writes.
func parseProof(b []byte) (*proof, error) {
	if len(b) > maxProof {
		return nil, fmt.Errorf("%d bytes; the most is %d", len(b), maxProof)
	}
	head, checkpoint, ok := bytes.Cut(b, []byte("\n\n"))
	rest, ok2 := strings.CutPrefix(string(head), proofHeader)
	if !ok || !ok2 {
		return nil, errors.New("not a c2sp.org/tlog-proof@v1")
	}
	lines := strings.Split(rest, "\n")
	if len(lines) < 2 || len(lines) > 2+63 {
		return nil, errors.New("a proof of the wrong length")
	}
	extra, ok := strings.CutPrefix(lines[0], "extra ")
	leaf, err := base64.StdEncoding.DecodeString(extra)
	if !ok || err != nil || base64.StdEncoding.EncodeToString(leaf) != extra {
		return nil, errors.New("a proof without its leaf")
	}
	p := &proof{leaf: leaf, note: checkpoint}
	index, ok := strings.CutPrefix(lines[1], "index ")
	if p.index, err = parseSize(index); !ok || err != nil {
		return nil, errors.New("a proof without its index")
	}
	for _, line := range lines[2:] {
		h, err := parseHash(line)
		if err != nil {
			return nil, err
		}
		p.path = append(p.path, h)
	}
	return p, nil
}
