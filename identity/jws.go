package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/writgate/writ/canon"
)

// Limits of what a stranger may send, in bytes.
const (
	maxJWS = 8 << 10
	maxJTI = 256
)

// jwsLimits are for one part of a JWS: none that we accept is deep.
var jwsLimits = canon.Limits{Bytes: maxJWS, Depth: 8, Nodes: 256}

// skew is how far a clock of somebody else may be from ours.
const skew = 60 * time.Second

// A jws is a compact JWS (RFC 7515, 7.1), taken apart. Nobody has checked its
// signature yet.
type jws struct {
	header, claims *canon.Value
	alg            string
	signed         []byte // what the signature is over
	signature      []byte
}

// parseJWS takes s apart. It refuses what has more than one spelling: padded
// base64, stray bits in its last character, JSON that parsers disagree on.
func parseJWS(s string) (*jws, error) {
	if len(s) > maxJWS {
		return nil, fmt.Errorf("a JWS of %d bytes, more than %d", len(s), maxJWS)
	}
	head, rest, _ := strings.Cut(s, ".")
	body, tail, ok := strings.Cut(rest, ".")
	if !ok || strings.Contains(tail, ".") {
		return nil, errors.New("not a compact JWS of three parts")
	}
	header, err := decodeObject(head)
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	claims, err := decodeObject(body)
	if err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	signature, err := decode64(tail)
	if err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	alg, _ := header.Get("alg").Str()
	return &jws{header: header, claims: claims, alg: alg, signed: []byte(s[:len(head)+1+len(body)]), signature: signature}, nil
}

func decodeObject(part string) (*canon.Value, error) {
	text, err := decode64(part)
	if err != nil {
		return nil, err
	}
	return canon.ParseObject(text, jwsLimits)
}

// decode64 is base64url with exactly one spelling per value. Package base64
// skips line ends, which would make a second.
func decode64(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("a line end within base64url")
	}
	b, err := b64.DecodeString(s)
	if err != nil {
		return nil, errors.New("not base64url without padding")
	}
	return b, nil
}

var errSignature = errors.New("the signature does not verify")

// verify checks the signature. The key decides which algorithms there are:
// alg is only compared with them, so that "none" and HS256 are two words among
// many. EdDSA and Ed25519 (RFC 9864) are two names of one algorithm.
func (j *jws) verify(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		if j.alg != "EdDSA" && j.alg != "Ed25519" {
			return wrongAlgorithm(j.alg)
		}
		if len(k) != ed25519.PublicKeySize || !ed25519.Verify(k, j.signed, j.signature) {
			return errSignature
		}
		return nil
	case *ecdsa.PublicKey:
		switch {
		case k.Curve == elliptic.P256() && j.alg == "ES256":
			sum := sha256.Sum256(j.signed)
			return verifyECDSA(k, sum[:], j.signature)
		case k.Curve == elliptic.P384() && j.alg == "ES384":
			sum := sha512.Sum384(j.signed)
			return verifyECDSA(k, sum[:], j.signature)
		}
	}
	return wrongAlgorithm(j.alg)
}

// verifyECDSA checks a signature of the form that RFC 7518, 3.4 has: r and s,
// each as long as the curve's order.
func verifyECDSA(k *ecdsa.PublicKey, sum, signature []byte) error {
	n := (k.Curve.Params().BitSize + 7) / 8
	if len(signature) != 2*n {
		return errSignature
	}
	r, s := new(big.Int).SetBytes(signature[:n]), new(big.Int).SetBytes(signature[n:])
	if !ecdsa.Verify(k, sum, r, s) {
		return errSignature
	}
	return nil
}

func wrongAlgorithm(alg string) error {
	return fmt.Errorf("algorithm %.20q is not one for this key", alg)
}

// text is a claim that must be a string of 1 to most bytes.
func text(v *canon.Value, name string, most int) (string, error) {
	s, ok := v.Get(name).Str()
	if !ok || s == "" || len(s) > most {
		return "", fmt.Errorf("%s is not a text of 1 to %d bytes", name, most)
	}
	return s, nil
}

// lastSecond keeps a time in seconds from overflowing one in milliseconds.
const lastSecond = 1 << 40

// seconds is a claim that must be a NumericDate (RFC 7519, 2) in whole
// seconds after 1970.
func seconds(v *canon.Value, name string) (int64, error) {
	lexeme, ok := v.Get(name).Number()
	if n, whole := canon.Int64(lexeme); ok && whole && n > 0 && n < lastSecond {
		return n, nil
	}
	return 0, fmt.Errorf("%s is not a time in whole seconds", name)
}
