package ledger

import (
	"crypto/sha256"
	"encoding/binary"
)

// keyHash is the key ID of a signed note's signature: SHA-256 of the name, a
// newline, and the algorithm byte with the key, cut to 32 bits.
func keyHash(name string, algAndKey []byte) uint32 {
	h := sha256.Sum256(append([]byte(name+"\n"), algAndKey...))
	return binary.BigEndian.Uint32(h[:4])
}
