package capability

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
)

// ProofHeader names the HTTP header that a presenter's proof travels in.
const ProofHeader = "Writ-Proof"

// ProofType is the typ of a proof.
const ProofType = "writ-proof+jwt"

// How far a presenter's clock may be from the verifier's.
const (
	maxAhead = 30 * time.Second
	maxAge   = time.Minute
)

// Prove makes the proof of key's holder that it presents this capability with
// this one request. It is what an agent needs that calls a self-checking
// server by itself.
func Prove(key crypto.Signer, token, method, target string, now time.Time) (string, error) {
	alg, _, err := algorithm(key.Public())
	if err != nil {
		return "", err
	}
	jwk, err := jwkOf(key.Public())
	if err != nil {
		return "", err
	}
	htu, err := withoutQuery(target)
	if err != nil {
		return "", err
	}
	var header, claims canon.Builder
	header.Text("alg", alg)
	header.Value("jwk", writ.JSON(jwk))
	header.Text("typ", ProofType)
	claims.Text("cth", hashOf(token))
	claims.Text("htm", method)
	claims.Text("htu", htu)
	claims.Int("iat", now.Unix())
	claims.Text("jti", rand.Text())
	head, err := header.JSON()
	if err != nil {
		return "", err
	}
	payload, err := claims.JSON()
	if err != nil {
		return "", err
	}
	return compact(head, payload, func(text string) ([]byte, error) { return sign(key, text) })
}

// hashOf is the hash by which a proof names its capability.
func hashOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return b64.EncodeToString(sum[:])
}

// proofKey verifies the signature of a proof with the key it brings along, and
// gives that key's thumbprint and the claims. What the key is worth is for the
// caller to say.
func proofKey(text string) (writ.Thumbprint, *canon.Value, error) {
	p, err := parseJWS(text)
	if err != nil {
		return "", nil, err
	}
	if err := canon.Envelope(p.header, "alg", "jwk", "typ"); err != nil {
		return "", nil, err
	}
	if typ, _ := p.header.Get("typ").Str(); typ != ProofType {
		return "", nil, errors.New("typ is no proof's")
	}
	pub, err := parseJWK(p.header.Get("jwk"))
	if err != nil {
		return "", nil, err
	}
	want, _, err := algorithm(pub)
	if err != nil {
		return "", nil, err
	}
	if alg, _ := p.header.Get("alg").Str(); alg != want {
		return "", nil, errors.New("alg is not its key's")
	}
	if !verifies(pub, p.signed, p.signature) {
		return "", nil, errors.New("signature does not verify")
	}
	claims, err := canon.ParseObject(p.payload, tokenLimits)
	if err != nil {
		return "", nil, err
	}
	key, err := Thumbprint(pub)
	return key, claims, err
}

// checkProof says why the claims of a proof are not for this request.
func checkProof(v *canon.Value, token, method, target string, now time.Time) error {
	r := &reader{}
	r.known(v, "cth", "htm", "htu", "iat", "jti")
	cth, htm, htu, iat := r.text(v, "cth"), r.text(v, "htm"), r.text(v, "htu"), time.Unix(r.integer(v, "iat"), 0)
	r.text(v, "jti")
	if r.err != nil {
		return r.err
	}
	want, err := withoutQuery(target)
	if err != nil {
		return err
	}
	if htu, err = withoutQuery(htu); err != nil {
		return err
	}
	switch {
	case cth != hashOf(token):
		return errors.New("it is for another capability")
	case htm != method:
		return errors.New("it is for another method")
	case htu != want:
		return errors.New("it is for another address")
	case iat.After(now.Add(maxAhead)), iat.Before(now.Add(-maxAge)):
		return fmt.Errorf("it was made %v ago", now.Sub(iat))
	}
	return nil
}

// withoutQuery is the address that a proof is for (RFC 9449, 4.3): without
// query and fragment, scheme and host in lower case, and without the port that
// the scheme implies.
func withoutQuery(target string) (string, error) {
	u, err := url.Parse(target)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme == "" {
		return "", errors.New("address is no absolute URL")
	}
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	if port := map[string]string{"http": ":80", "https": ":443"}[scheme]; port != "" {
		host = strings.TrimSuffix(host, port)
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	return scheme + "://" + host + path, nil
}
