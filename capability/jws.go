package capability

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
)

// b64 is base64url without padding, and with exactly one spelling per value.
var b64 = base64.RawURLEncoding.Strict()

// Limits of a token, before anything in it is verified.
const maxToken = 16 << 10

var tokenLimits = canon.Limits{Bytes: maxToken, Depth: 16, Nodes: 256}

// A jws is a compact JWS (RFC 7515, 3.1), taken apart and not yet verified.
type jws struct {
	header    *canon.Value
	payload   []byte
	signed    string // what the signature is over
	signature []byte
}

func parseJWS(text string) (jws, error) {
	if len(text) > maxToken {
		return jws{}, errors.New("token is too long")
	}
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return jws{}, errors.New("no compact JWS")
	}
	var raw [3][]byte
	for i, p := range parts {
		var err error
		if raw[i], err = b64.DecodeString(p); err != nil || strings.ContainsAny(p, "\r\n") {
			return jws{}, errors.New("no base64url")
		}
	}
	header, err := canon.ParseObject(raw[0], tokenLimits)
	if err != nil {
		return jws{}, err
	}
	return jws{header, raw[1], text[:len(parts[0])+1+len(parts[1])], raw[2]}, nil
}

// Keys are public keys of a gateway, by thumbprint: the one it signs with
// now, those it signed with before, and those it will sign with.
type Keys map[writ.Thumbprint]ed25519.PublicKey

// KeySet makes Keys of public keys.
func KeySet(keys ...ed25519.PublicKey) (Keys, error) {
	all := Keys{}
	for _, k := range keys {
		kid, err := Thumbprint(k)
		if err != nil {
			return nil, err
		}
		all[kid] = slices.Clone(k)
	}
	return all, nil
}

// A jwk is one key of a JWK Set (RFC 7517), as Writ publishes it.
type jwk struct {
	Alg string `json:"alg"`
	Crv string `json:"crv"`
	Kid string `json:"kid"`
	Kty string `json:"kty"`
	Use string `json:"use"`
	X   string `json:"x"`
}

// ParseKeys reads a JWK Set. Keys in it that are not Ed25519 are somebody
// else's, and passed over; a set without any is an error.
func ParseKeys(set []byte) (Keys, error) {
	v, err := canon.ParseObject(set, canon.Limits{})
	if err != nil {
		return nil, fmt.Errorf("reading keys: %w", err)
	}
	keys := Keys{}
	for k := range v.Get("keys").Elems() {
		kty, _ := k.Get("kty").Str()
		crv, _ := k.Get("crv").Str()
		if kty != "OKP" || crv != "Ed25519" {
			continue
		}
		if k.Get("d") != nil {
			return nil, errors.New("reading keys: a private key is among them")
		}
		x, _ := k.Get("x").Str()
		raw, err := b64.DecodeString(x)
		if err != nil {
			return nil, errors.New("reading keys: x is no base64url")
		}
		kid, err := Thumbprint(ed25519.PublicKey(raw))
		if err != nil {
			return nil, fmt.Errorf("reading keys: %w", err)
		}
		keys[kid] = raw
	}
	if len(keys) == 0 {
		return nil, errors.New("reading keys: there is no Ed25519 key")
	}
	return keys, nil
}

// JWKS is the JWK Set of k, as a gateway publishes it.
func (k Keys) JWKS() []byte {
	set := struct {
		Keys []jwk `json:"keys"`
	}{Keys: []jwk{}}
	for kid, key := range k {
		set.Keys = append(set.Keys, jwk{Alg: "EdDSA", Crv: "Ed25519", Kid: string(kid), Kty: "OKP", Use: "sig", X: b64.EncodeToString(key)})
	}
	slices.SortFunc(set.Keys, func(a, b jwk) int { return strings.Compare(a.Kid, b.Kid) })
	text, err := json.Marshal(set)
	if err != nil {
		panic(fmt.Sprintf("texts do not marshal: %v", err))
	}
	return text
}

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
// in the order of their names, without white space.
func jwkOf(pub crypto.PublicKey) (string, error) {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return "", fmt.Errorf("ed25519 key of %d bytes", len(k))
		}
		return `{"crv":"Ed25519","kty":"OKP","x":"` + b64.EncodeToString(k) + `"}`, nil
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
			return "", errors.New("ecdsa key on a curve other than P-256 and P-384")
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

// parseJWK reads the key in the header of a proof: required members only.
func parseJWK(v *canon.Value) (crypto.PublicKey, error) {
	coordinate := func(name string, size int) []byte {
		s, _ := v.Get(name).Str()
		raw, err := b64.DecodeString(s)
		if err != nil || len(raw) != size {
			return nil
		}
		return raw
	}
	crv, _ := v.Get("crv").Str()
	switch kty, _ := v.Get("kty").Str(); kty + " " + crv {
	case "OKP Ed25519":
		if err := canon.Envelope(v, "crv", "kty", "x"); err != nil {
			return nil, err
		}
		if x := coordinate("x", ed25519.PublicKeySize); x != nil {
			return ed25519.PublicKey(x), nil
		}
	case "EC P-256", "EC P-384":
		if err := canon.Envelope(v, "crv", "kty", "x", "y"); err != nil {
			return nil, err
		}
		curve := elliptic.P256()
		if crv == "P-384" {
			curve = elliptic.P384()
		}
		size := (curve.Params().BitSize + 7) / 8
		if x, y := coordinate("x", size), coordinate("y", size); x != nil && y != nil {
			return ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y))
		}
	}
	return nil, errors.New("jwk is no key that can prove anything")
}

// algorithm is the one JWS algorithm (RFC 7518, RFC 8037) of a key, and its
// hash.
func algorithm(pub crypto.PublicKey) (string, crypto.Hash, error) {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		return "EdDSA", 0, nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return "ES256", crypto.SHA256, nil
		case elliptic.P384():
			return "ES384", crypto.SHA384, nil
		}
	}
	return "", 0, fmt.Errorf("a key of type %T signs no proof", pub)
}

// hashed is what the algorithm signs: text itself if there is no hash.
func hashed(h crypto.Hash, text string) []byte {
	switch h {
	case crypto.SHA256:
		sum := sha256.Sum256([]byte(text))
		return sum[:]
	case crypto.SHA384:
		sum := sha512.Sum384([]byte(text))
		return sum[:]
	}
	return []byte(text)
}

// verifies says whether signature is pub's over text, by the key's own
// algorithm: what a header says of it changes nothing.
func verifies(pub crypto.PublicKey, text string, signature []byte) bool {
	_, h, err := algorithm(pub)
	if err != nil {
		return false
	}
	switch k := pub.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(k, []byte(text), signature)
	case *ecdsa.PublicKey:
		size := (k.Curve.Params().BitSize + 7) / 8
		if len(signature) != 2*size {
			return false
		}
		r, s := new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:])
		return ecdsa.Verify(k, hashed(h, text), r, s)
	}
	return false
}

// sign is the JWS signature over text.
func sign(key crypto.Signer, text string) ([]byte, error) {
	_, h, err := algorithm(key.Public())
	if err != nil {
		return nil, err
	}
	signature, err := key.Sign(rand.Reader, hashed(h, text), h)
	if err != nil {
		return nil, err
	}
	k, ok := key.Public().(*ecdsa.PublicKey)
	if !ok {
		return signature, nil
	}
	var points struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(signature, &points); err != nil || len(rest) != 0 {
		return nil, errors.New("signer gave no ECDSA signature")
	}
	size := (k.Curve.Params().BitSize + 7) / 8
	return slices.Concat(points.R.FillBytes(make([]byte, size)), points.S.FillBytes(make([]byte, size))), nil
}

// compact puts a JWS together.
func compact(header, payload writ.JSON, signer func(string) ([]byte, error)) (string, error) {
	text := b64.EncodeToString([]byte(header)) + "." + b64.EncodeToString([]byte(payload))
	signature, err := signer(text)
	if err != nil {
		return "", err
	}
	return text + "." + b64.EncodeToString(signature), nil
}
