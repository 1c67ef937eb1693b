package writ

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
)

// A Digest is "sha256:" and 64 lower-case hexadecimal digits. It is never
// shortened where it decides; the empty Digest equals nothing.
type Digest string

// A Thumbprint names a public key: the RFC 7638 JWK SHA-256 thumbprint,
// base64url without padding. A key has the same thumbprint whether it was
// proven by mutual TLS or by DPoP.
type Thumbprint string

// JSON is canonical JSON text, as package canon makes it: what was judged is,
// byte for byte, what is forwarded.
type JSON string

// Hash is the digest of text under a domain: SHA-256 over "writ/<what>/v1", a
// zero byte, and the parts of the text, one after the other. Different whats
// never collide.
func Hash(what string, text ...[]byte) Digest {
	h := sha256.New()
	io.WriteString(h, "writ/"+what+"/v1\x00")
	for _, part := range text {
		h.Write(part)
	}
	var sum [sha256.Size]byte
	digest := append(make([]byte, 0, len("sha256:")+2*len(sum)), "sha256:"...)
	return Digest(hex.AppendEncode(digest, h.Sum(sum[:0])))
}
