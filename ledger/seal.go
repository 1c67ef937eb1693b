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
	"slices"

	"github.com/writgate/writ"
)

// A sealer is XAES-256-GCM (c2sp.org/XAES-256-GCM): AES-256-GCM under a key
// derived from 24 random bytes, so that how much one key seals need not be
// counted.
type sealer struct {
	block cipher.Block
	k1    [aes.BlockSize]byte
}

const nonceSize = 24

var errSealed = errors.New("sealed text does not open")

func newSealer(secret []byte) *sealer {
	block, err := aes.NewCipher(secret)
	if err != nil {
		panic(err) // cannot be: the secret has 32 bytes
	}
	s := &sealer{block: block}
	block.Encrypt(s.k1[:], s.k1[:])
	var carry byte
	for i, b := range slices.Backward(s.k1[:]) {
		s.k1[i], carry = b<<1|carry, b>>7
	}
	s.k1[aes.BlockSize-1] ^= carry * 0x87
	return s
}

// derived is a sealer for one purpose.
func derived(secret [32]byte, purpose string) *sealer {
	k, err := hkdf.Key(sha256.New, secret[:], nil, "writ/"+purpose+"/v1", 32)
	if err != nil {
		panic(err) // cannot be: 32 bytes are few
	}
	return newSealer(k)
}

func (s *sealer) aead(nonce []byte) cipher.AEAD {
	var k [32]byte
	for i := range byte(2) {
		half := k[16*i : 16*i+16]
		copy(half, []byte{0, i + 1, 'X', 0})
		copy(half[4:], nonce[:12])
		for j := range half {
			half[j] ^= s.k1[j]
		}
		s.block.Encrypt(half, half)
	}
	block, err := aes.NewCipher(k[:])
	if err != nil {
		panic(err) // cannot be: the key has 32 bytes
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // cannot be: AES has 16-byte blocks
	}
	return gcm
}

func (s *sealer) seal(plain []byte, about string) []byte {
	out := make([]byte, nonceSize, nonceSize+len(plain)+16)
	rand.Read(out)
	return s.aead(out).Seal(out, out[12:nonceSize], plain, []byte(about))
}

func (s *sealer) open(sealed []byte, about string) ([]byte, error) {
	if len(sealed) < nonceSize+16 {
		return nil, errSealed
	}
	plain, err := s.aead(sealed).Open(nil, sealed[12:nonceSize], sealed[nonceSize:], []byte(about))
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

func aboutRow(r *Row) string {
	b := make([]byte, 0, len(r.Kind)+len(r.Key)+18)
	b = append(append(append(append(b, r.Kind...), 0), r.Key...), 0)
	return string(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, uint64(r.At)), uint64(r.Until)))
}

// A payload is sealed under a key of its own, which is sealed under the
// vault's: erasing the one makes the other unreadable, in every copy. It is
// two sealed texts: the caller's parts, sealed before the record has its
// place in the log, and its changes, which say what the rows became.
type payload struct {
	dek     *sealer
	wrapped []byte
	content []byte // sealed; nil if there are no parts
}

const aboutContent, aboutChanges, aboutKey = "content", "changes", "key"

func (v *vault) newPayload(parts []Part) *payload {
	var k [32]byte
	rand.Read(k[:])
	p := &payload{dek: newSealer(k[:]), wrapped: v.wrap.seal(k[:], aboutKey)}
	if len(parts) != 0 {
		p.content = p.dek.seal(appendParts(nil, parts), aboutContent)
	}
	return p
}

// seal is the payload as it is stored.
func (p *payload) seal(changes *Part) []byte {
	var sealed []byte
	if changes != nil {
		sealed = p.dek.seal(appendParts(nil, []Part{*changes}), aboutChanges)
	}
	out := make([]byte, 0, 8+len(p.content)+len(sealed))
	out = binary.AppendUvarint(out, uint64(len(p.content)))
	return append(append(out, p.content...), sealed...)
}

// openPayload gives the parts of a stored record.
func (v *vault) openPayload(wrapped, stored []byte) ([]Part, error) {
	k, err := v.wrap.open(wrapped, aboutKey)
	if err != nil || len(k) != 32 {
		return nil, errSealed
	}
	dek := newSealer(k)
	content, changes, ok := cutField(stored)
	if !ok {
		return nil, errSealed
	}
	var parts []Part
	for _, s := range []struct {
		sealed []byte
		about  string
	}{{content, aboutContent}, {changes, aboutChanges}} {
		if len(s.sealed) == 0 {
			continue
		}
		plain, err := dek.open(s.sealed, s.about)
		if err != nil {
			return nil, err
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
	for _, p := range parts {
		b = append(binary.AppendUvarint(b, uint64(len(p.Name))), p.Name...)
		b = append(b, p.Salt[:]...)
		b = append(binary.AppendUvarint(b, uint64(len(p.Bytes))), p.Bytes...)
	}
	bucket := 256
	if len(b) > 4096 {
		bucket = 4096
	}
	return append(b, make([]byte, (bucket-len(b)%bucket)%bucket)...)
}

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
	if m <= 0 || n > uint64(len(b)-m) {
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
