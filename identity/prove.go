package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"time"

	"github.com/writgate/writ/canon"
)

// Prove makes the DPoP proof (RFC 9449, 4.2) of one request, for whoever
// calls a gateway: for method and url, over the access token if there is one,
// and with the "body" claim, which binds the request's body as DPoP alone does
// not.
func Prove(key ed25519.PrivateKey, method, url, token string, body []byte, now time.Time) (string, error) {
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
	claims.Text("body", digest(body))
	claims.Text("htm", method)
	claims.Text("htu", url)
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
