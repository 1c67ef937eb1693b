package ledger

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"
	"sync"

	"github.com/writgate/writ"
)

// A sealer is XAES-256-GCM (c2sp.org/XAES-256-GCM): AES-256-GCM under a key
// that is derived from the first half of a random nonce, so that how much one
// key seals need not be counted. What it seals at about the same time has the
// same first half, for deriving costs more than sealing.
type sealer struct {
	block cipher.Block
	k1    [aes.BlockSize]byte

	mu    sync.Mutex
	mine  derived // what it seals with
	uses  int     // of mine, so far
	other derived // what it opened last
}

// A derived is the key of one half of a nonce.
type derived struct {
	half [12]byte
	cipher.AEAD
}

const (
	nonceSize = 24
	maxUses   = 1 << 16 // of one derived key: few, for 96 random bits
)

var errSealed = errors.New("sealed text does not open")

// deriveSealer makes a sealer for one purpose.
func deriveSealer(secret [32]byte, purpose string) *sealer {
	k, err := hkdf.Key(sha256.New, secret[:], nil, "writ/"+purpose+"/v1", 32)
	if err != nil {
		panic(err) // cannot be: 32 bytes are few
	}
	return newSealer(k)
}

func newSealer(key []byte) *sealer {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // cannot be: the key has 32 bytes
	}
	s := &sealer{block: block, uses: maxUses}
	block.Encrypt(s.k1[:], s.k1[:])
	var carry byte
	for i, b := range slices.Backward(s.k1[:]) {
		s.k1[i], carry = b<<1|carry, b>>7
	}
	s.k1[aes.BlockSize-1] ^= carry * 0x87
	return s
}

func (s *sealer) derive(half [12]byte) derived {
	var k [32]byte
	for i := range byte(2) {
		x := k[16*i : 16*i+16]
		copy(x, []byte{0, i + 1, 'X', 0})
		copy(x[4:], half[:])
		for j := range x {
			x[j] ^= s.k1[j]
		}
		s.block.Encrypt(x, x)
	}
	return derived{half, newGCM(k[:])}
}

func newGCM(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // cannot be: the key has 32 bytes
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // cannot be: AES has 16-byte blocks
	}
	return gcm
}

func (s *sealer) seal(plain, about []byte) []byte {
	s.mu.Lock()
	if s.uses == maxUses {
		var half [12]byte
		rand.Read(half[:])
		s.mine, s.uses = s.derive(half), 0
	}
	s.uses++
	k := s.mine
	s.mu.Unlock()
	out := make([]byte, nonceSize, nonceSize+len(plain)+16)
	copy(out, k.half[:])
	rand.Read(out[12:])
	return k.Seal(out, out[12:nonceSize], plain, about)
}

func (s *sealer) open(sealed, about []byte) ([]byte, error) {
	if len(sealed) < nonceSize+16 {
		return nil, errSealed
	}
	half := [12]byte(sealed)
	s.mu.Lock()
	if s.other.AEAD == nil || s.other.half != half {
		s.other = s.derive(half)
	}
	k := s.other
	s.mu.Unlock()
	plain, err := k.Open(nil, sealed[12:nonceSize], sealed[nonceSize:], about)
	if err != nil {
		return nil, errSealed
	}
	return plain, nil
}

// A vault holds the keys of a ledger, one for each purpose.
type vault struct {
	wrap, state *sealer
	user        [32]byte
}

// pseudonym is how a leaf names a user: always the same, and anybody's guess
// without the key.
func (v *vault) pseudonym(u writ.UserID) string {
	if u == "" {
		return ""
	}
	m := hmac.New(sha256.New, v.user[:])
	m.Write([]byte("writ/user/v1\x00" + u))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

// sealRow and openRow bind a row to its name, to the record that wrote it and
// to its end, so that no row passes for another.
func (v *vault) sealRow(r *Row) Row {
	plain := append(binary.AppendUvarint(make([]byte, 0, 10+len(r.Value)), uint64(r.Count)), r.Value...)
	return Row{Kind: r.Kind, Key: r.Key, At: r.At, Until: r.Until, Value: v.state.seal(plain, aboutRow(r))}
}

func (v *vault) openRow(s *Row) (*Row, error) {
	plain, err := v.state.open(s.Value, aboutRow(s))
	if err != nil {
		return nil, damaged("row %s %.80q: %v", s.Kind, s.Key, err)
	}
	count, n := binary.Uvarint(plain)
	if n <= 0 {
		return nil, damaged("row %s %.80q has no count", s.Kind, s.Key)
	}
	r := &Row{Kind: s.Kind, Key: s.Key, Count: int64(count), At: s.At, Until: s.Until}
	if len(plain) > n {
		r.Value = plain[n:]
	}
	return r, nil
}

func aboutRow(r *Row) []byte {
	b := make([]byte, 0, len(r.Kind)+len(r.Key)+18)
	b = append(append(append(append(b, r.Kind...), 0), r.Key...), 0)
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, uint64(r.At)), uint64(r.Until))
}

// A payload is sealed under a key of its own, which is sealed under the
// vault's: erasing the one makes the other unreadable, in every copy that has
// no key. It is two texts: the caller's parts, sealed before the record has
// its place in the log, and its changes, which say what the rows became.
//
// Each is AES-256-GCM under the payload's key, which seals nothing else: their
// nonces are 0 and 1.
type payload struct {
	key     cipher.AEAD
	wrapped []byte
	stored  []byte // the length of the content as a uvarint, and the content, sealed
	spent   bool   // its changes were sealed
}

var (
	aboutKey     = []byte("key")
	aboutContent = []byte("content")
	aboutChanges = []byte("changes")
	nonceContent = make([]byte, 12)
	nonceChanges = append(make([]byte, 11), 1)
)

const (
	tagSize     = 16
	changesRoom = 1024 // bytes: what most changes need
)

func (v *vault) newPayload(parts []Part) *payload {
	var k [32]byte
	rand.Read(k[:])
	p := &payload{key: newGCM(k[:]), wrapped: v.wrap.seal(k[:], aboutKey)}
	size := 0
	if len(parts) != 0 {
		size = partsSize(parts) + tagSize
	}
	b := binary.AppendUvarint(make([]byte, 0, binary.MaxVarintLen64+size+changesRoom), uint64(size))
	if len(parts) != 0 {
		b = p.appendSealed(b, parts, nonceContent, aboutContent)
	}
	p.stored = b
	return p
}

// appendSealed appends parts to b, and seals them where they are.
func (p *payload) appendSealed(b []byte, parts []Part, nonce, about []byte) []byte {
	start := len(b)
	b = appendParts(b, parts)
	return p.key.Seal(b[:start], nonce, b[start:], about)
}

// seal is the payload as it is stored. It is asked once: another text under the
// same nonce would give both away.
func (p *payload) seal(changes *Part) []byte {
	p.spent = true
	if changes == nil {
		return p.stored
	}
	return p.appendSealed(p.stored, []Part{*changes}, nonceChanges, aboutChanges)
}

// openPayload gives the parts of a stored record.
func (v *vault) openPayload(wrapped, stored []byte) ([]Part, error) {
	k, err := v.wrap.open(wrapped, aboutKey)
	if err != nil || len(k) != 32 {
		return nil, errSealed
	}
	content, changes, ok := cutField(stored)
	if !ok {
		return nil, errSealed
	}
	key := newGCM(k)
	var parts []Part
	for _, s := range []struct{ sealed, nonce, about []byte }{
		{content, nonceContent, aboutContent}, {changes, nonceChanges, aboutChanges},
	} {
		if len(s.sealed) == 0 {
			continue
		}
		plain, err := key.Open(nil, s.nonce, s.sealed, s.about)
		if err != nil {
			return nil, errSealed
		}
		if parts, err = readParts(parts, plain); err != nil {
			return nil, err
		}
	}
	return parts, nil
}

// appendParts writes each part as its name, its salt and its bytes, the first
// and the last preceded by their lengths as uvarints; then zeros up to the
// next multiple of 256 bytes, or of 4 KiB above that, so that the length of
// the sealed text says little.
func appendParts(b []byte, parts []Part) []byte {
	b = slices.Grow(b, partsSize(parts)+tagSize)
	end := len(b) + partsSize(parts)
	for _, p := range parts {
		b = append(binary.AppendUvarint(b, uint64(len(p.Name))), p.Name...)
		b = append(b, p.Salt[:]...)
		b = append(binary.AppendUvarint(b, uint64(len(p.Bytes))), p.Bytes...)
	}
	clear(b[len(b):end])
	return b[:end]
}

// partsSize is how many bytes appendParts appends.
func partsSize(parts []Part) int {
	n := 0
	for _, p := range parts {
		n += uvarintSize(len(p.Name)) + len(p.Name) + saltSize + uvarintSize(len(p.Bytes)) + len(p.Bytes)
	}
	bucket := 256
	if n > 4096 {
		bucket = 4096
	}
	return (n + bucket - 1) / bucket * bucket
}

func uvarintSize(n int) int { return max(1, (bits.Len(uint(n))+6)/7) }

func readParts(parts []Part, b []byte) ([]Part, error) {
	for len(b) != 0 && b[0] != 0 {
		name, rest, ok := cutField(b)
		if !ok || len(rest) < saltSize {
			return nil, errSealed
		}
		p := Part{Name: string(name), Salt: [saltSize]byte(rest)}
		if p.Bytes, b, ok = cutField(rest[saltSize:]); !ok {
			return nil, errSealed
		}
		parts = append(parts, p)
	}
	return parts, nil
}

// cutField takes a field that its length precedes.
func cutField(b []byte) (field, rest []byte, ok bool) {
	n, m := binary.Uvarint(b)
	if m <= 0 || n > uint64(len(b)-m) || m > 1 && b[m-1] == 0 { // in its shortest form
		return nil, nil, false
	}
	end := m + int(n)
	return b[m:end:end], b[end:], true
}

const saltSize = 32

func newSalt() (s [saltSize]byte) {
	rand.Read(s[:])
	return s
}
