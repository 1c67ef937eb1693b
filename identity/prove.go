package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"time"

	"github.com/writgate/writ/canon"
)

// Prove makes the DPoP proof (RFC 9449, 4.2) of one request, for whoever
// calls a gateway: for the method, URL and body of e, over the access token if
// there is one. It has the "body" claim, which binds the body as DPoP alone
// does not.
func Prove(key ed25519.PrivateKey, e *Evidence, token string, now time.Time) (string, error) {
	jwk, err := jwkOf(key.Public())
	if err != nil {
		return "", err
	}
	digest := func(b []byte) string {
		sum := sha256.Sum256(b)
		return b64.EncodeToString(sum[:])
	}
	var claims canon.Builder
	if token != "" {
		claims.Text("ath", digest([]byte(token)))
	}
	claims.Text("body", digest(e.Body))
	claims.Text("htm", e.Method)
	claims.Text("htu", e.URL)
	claims.Int("iat", now.Unix())
	claims.Text("jti", rand.Text())
	text, err := claims.JSON()
	if err != nil {
		return "", err
	}
	head := `{"typ":"dpop+jwt","alg":"EdDSA","jwk":` + jwk + `}`
	input := b64.EncodeToString([]byte(head)) + "." + b64.EncodeToString([]byte(text))
	return input + "." + b64.EncodeToString(ed25519.Sign(key, []byte(input))), nil
}
