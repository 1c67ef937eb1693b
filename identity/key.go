package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
)

// b64 is base64url without padding, and with exactly one spelling per value.
var b64 = base64.RawURLEncoding.Strict()

// minRSA is the least RSA modulus taken from a certificate, in bits.
const minRSA = 2048

// Thumbprint names a public key: its RFC 7638 JWK SHA-256 thumbprint. Keys
// are Ed25519, ECDSA on P-256 or P-384, and, in certificates only, RSA of at
// least 2048 bits.
func Thumbprint(pub crypto.PublicKey) (writ.Thumbprint, error) {
	text, err := jwkOf(pub)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(text))
	return writ.Thumbprint(b64.EncodeToString(sum[:])), nil
}

// jwkOf is the public key as RFC 7638 hashes it: the required members alone,
// in the order of their names, without white space. It is also a valid JWK.
func jwkOf(pub crypto.PublicKey) (string, error) {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return "", fmt.Errorf("ed25519 key of %d bytes", len(k))
		}
		return `{"crv":"Ed25519","kty":"OKP","x":"` + b64.EncodeToString(k) + `"}`, nil
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
			return "", fmt.Errorf("ecdsa key on a curve other than P-256 and P-384")
		}
		point, err := k.Bytes() // 4, x, y: it refuses a point off the curve
		if err != nil {
			return "", fmt.Errorf("ecdsa key: %w", err)
		}
		x, y := point[1:len(point)/2+1], point[len(point)/2+1:]
		return `{"crv":"` + k.Curve.Params().Name + `","kty":"EC","x":"` + b64.EncodeToString(x) + `","y":"` + b64.EncodeToString(y) + `"}`, nil
	case *rsa.PublicKey:
		if k.N == nil || k.N.BitLen() < minRSA {
			return "", fmt.Errorf("rsa key of less than %d bits", minRSA)
		}
		e := big.NewInt(int64(k.E)).Bytes()
		return `{"e":"` + b64.EncodeToString(e) + `","kty":"RSA","n":"` + b64.EncodeToString(k.N.Bytes()) + `"}`, nil
	}
	return "", fmt.Errorf("key of type %T", pub)
}

// parseJWK reads a public key as a proof holds it (RFC 7517). A private key,
// or a member of which we do not know that it is harmless, is refused.
func parseJWK(v *canon.Value) (crypto.PublicKey, error) {
	if err := canon.Envelope(v, "kty", "crv", "x", "y", "alg", "use", "key_ops", "kid", "ext"); err != nil {
		return nil, fmt.Errorf("jwk: %w", err)
	}
	kty, _ := v.Get("kty").Str()
	crv, _ := v.Get("crv").Str()
	x, err := coordinate(v, "x")
	if err != nil {
		return nil, err
	}
	switch kty + " " + crv {
	case "OKP Ed25519":
		if len(x) != ed25519.PublicKeySize || v.Get("y") != nil {
			return nil, errors.New("jwk is no Ed25519 key")
		}
		return ed25519.PublicKey(x), nil
	case "EC P-256":
		return parsePoint(elliptic.P256(), x, v)
	case "EC P-384":
		return parsePoint(elliptic.P384(), x, v)
	}
	return nil, fmt.Errorf("jwk of kind %.20q, curve %.20q: want OKP Ed25519, EC P-256 or EC P-384", kty, crv)
}

func parsePoint(curve elliptic.Curve, x []byte, v *canon.Value) (crypto.PublicKey, error) {
	y, err := coordinate(v, "y")
	if err != nil {
		return nil, err
	}
	if n := (curve.Params().BitSize + 7) / 8; len(x) != n || len(y) != n { // RFC 7518, 6.2.1.2
		return nil, errors.New("jwk has a coordinate of the wrong length")
	}
	key, err := ecdsa.ParseUncompressedPublicKey(curve, append(append([]byte{4}, x...), y...))
	if err != nil {
		return nil, errors.New("jwk is no point on its curve")
	}
	return key, nil
}

func coordinate(v *canon.Value, name string) ([]byte, error) {
	s, ok := v.Get(name).Str()
	if !ok {
		return nil, fmt.Errorf("jwk has no %s", name)
	}
	b, err := decode64(s)
	if err != nil {
		return nil, fmt.Errorf("jwk %s: %w", name, err)
	}
	return b, nil
}
