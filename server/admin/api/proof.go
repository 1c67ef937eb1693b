package api

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ProofHeader is the header of a request that carries an operator's proof.
const ProofHeader = "Writ-Operator"

// A Proof is what an operator's key signs to add authority: one request, to
// one deployment, once. It travels as a JWS in compact form (RFC 7515), in the
// manner of DPoP (RFC 9449), with exactly these texts as header and payload:
//
//	{"alg":"EdDSA","jwk":{"crv":"Ed25519","kty":"OKP","x":…},"typ":"writ-operator+jwt"}
//	{"aud":…,"body":…,"htm":…,"htu":…,"iat":…,"jti":…}
//
// The key in it counts only for whom the gateway's own configuration says.
type Proof struct {
	Audience string `json:"aud"`  // the name of the deployment's log
	Body     string `json:"body"` // SHA-256 of the request's body, in hexadecimal
	Method   string `json:"htm"`
	Target   string `json:"htu"` // the path, and the query if there is one
	Issued   int64  `json:"iat"` // Unix seconds
	ID       string `json:"jti"`
}

// NewProof is an unsigned proof for one request, made now.
func NewProof(audience, method, target string, body []byte, now time.Time) *Proof {
	return &Proof{audience, bodyDigest(body), method, target, now.Unix(), rand.Text()}
}

// Covers says whether p is for this request and no other.
func (p *Proof) Covers(method, target string, body []byte) bool {
	return p.Method == method && p.Target == target && p.Body == bodyDigest(body)
}

func bodyDigest(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

var b64 = base64.RawURLEncoding.Strict()

const maxProof = 4 << 10

// Sign gives the text of the proof.
func (p *Proof) Sign(key ed25519.PrivateKey) (string, error) {
	if len(key) != ed25519.PrivateKeySize {
		return "", errors.New("not an Ed25519 private key")
	}
	claims, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	signed := b64.EncodeToString(proofHead(key.Public().(ed25519.PublicKey))) + "." + b64.EncodeToString(claims)
	return signed + "." + b64.EncodeToString(ed25519.Sign(key, []byte(signed))), nil
}

// proofHead is the one header there is for a key.
func proofHead(key ed25519.PublicKey) []byte {
	return fmt.Appendf(nil, `{"alg":"EdDSA","jwk":{"crv":"Ed25519","kty":"OKP","x":%q},"typ":"writ-operator+jwt"}`, b64.EncodeToString(key))
}

// ParseProof checks the form of a proof, and that the key it shows has signed
// it. It says nothing of whose key that is, nor of what the proof is for.
func ParseProof(text string) (*Proof, ed25519.PublicKey, error) {
	if len(text) > maxProof {
		return nil, nil, errors.New("too long for a proof")
	}
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return nil, nil, errors.New("not a JWS in compact form")
	}
	head, err := b64.DecodeString(parts[0])
	claims, err2 := b64.DecodeString(parts[1])
	sig, err3 := b64.DecodeString(parts[2])
	if err != nil || err2 != nil || err3 != nil || b64.EncodeToString(sig) != parts[2] { // a decoder passes over line ends
		return nil, nil, errors.New("not a JWS in compact form")
	}
	var shown struct {
		JWK struct {
			X string `json:"x"`
		} `json:"jwk"`
	}
	json.Unmarshal(head, &shown) // whatever it reads: the comparison below decides
	key, err := b64.DecodeString(shown.JWK.X)
	if err != nil || len(key) != ed25519.PublicKeySize || !bytes.Equal(head, proofHead(key)) {
		return nil, nil, errors.New("not the header of an operator's proof")
	}
	if !ed25519.Verify(key, []byte(parts[0]+"."+parts[1]), sig) {
		return nil, nil, errors.New("not signed by the key it shows")
	}
	p := new(Proof)
	if json.Unmarshal(claims, p) != nil {
		return nil, nil, errors.New("not the claims of an operator's proof")
	}
	if again, err := json.Marshal(p); err != nil || !bytes.Equal(again, claims) || len(p.ID) < 16 || len(p.ID) > 128 {
		return nil, nil, errors.New("not the claims of an operator's proof")
	}
	return p, key, nil
}
