package oauth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/writgate/writ/broker"
)

// maxBody bounds what is read of an answer.
const maxBody = 64 << 10

// errorCodes are those that are repeated to the operator. Whatever else a
// server says in an error might hold what it was sent.
var errorCodes = []string{ // RFC 6749, section 5.2; RFC 7009; RFC 8693; RFC 8707; RFC 9449
	"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope",
	"unsupported_token_type", "invalid_target", "access_denied", "server_error", "temporarily_unavailable", "use_dpop_nonce",
}

// A refusal is an answer of the server that is not 200.
type refusal struct {
	status int
	code   string // one of errorCodes, or empty
}

func (r *refusal) Error() string {
	return strings.TrimSpace(fmt.Sprintf("the server answered %d %s", r.status, r.code))
}

// post sends form, with proof of who asks, and gives the body of the answer.
func (d *Driver) post(ctx context.Context, endpoint string, form url.Values) ([]byte, error) {
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Accept": {"application/json"}}
	if err := d.authenticate(form, header); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header = header
	res, err := d.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	if len(body) > maxBody {
		return nil, fmt.Errorf("an answer of more than %d bytes", maxBody)
	}
	if res.StatusCode != http.StatusOK {
		var said struct {
			Error string `json:"error"`
		}
		r := &refusal{status: res.StatusCode}
		if json.Unmarshal(body, &said) == nil && slices.Contains(errorCodes, said.Error) {
			r.code = said.Error
		}
		return nil, r
	}
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); kind != "application/json" {
		return nil, nil // a revocation needs no body, and a token response is JSON
	}
	return body, nil
}

// A response is a successful token response (RFC 6749, section 5.1).
type response struct {
	Access  string         `json:"access_token"`
	Type    string         `json:"token_type"`
	Expires jsontext.Value `json:"expires_in"` // a number, that some servers write as a string
	Refresh string         `json:"refresh_token"`
	Scope   string         `json:"scope"`

	life time.Duration // 0: it does not say, or nothing sensible
}

// parseResponse reads a token response. Its error quotes nothing.
func parseResponse(body []byte) (*response, error) {
	r := new(response)
	if err := json.Unmarshal(body, r); err != nil || r.Access == "" {
		return nil, errors.New("the server's answer is no token response")
	}
	seconds, err := strconv.ParseInt(strings.Trim(string(r.Expires), `"`), 10, 32)
	if err == nil && seconds > 0 {
		r.life = time.Duration(seconds) * time.Second
	}
	return r, nil
}

// authenticate adds to a request what proves the client: a JWT (RFC 7523,
// section 2.2), or its secret (RFC 6749, section 2.3.1).
func (d *Driver) authenticate(form url.Values, header http.Header) error {
	if d.config.Secret != (broker.Reference{}) {
		secret, err := d.config.Secret.Read()
		if err != nil {
			return fmt.Errorf("reading the client's secret: %w", err)
		}
		r := http.Request{Header: header}
		r.SetBasicAuth(url.QueryEscape(d.config.ClientID), url.QueryEscape(string(secret)))
		return nil
	}
	assertion, err := d.assert(map[string]any{"sub": d.config.ClientID, "jti": rand.Text()})
	if err != nil {
		return err
	}
	form.Set("client_id", d.config.ClientID)
	form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	form.Set("client_assertion", assertion)
	return nil
}

// assertionLife is how long the server may take to receive what is signed for
// it.
const assertionLife = time.Minute

// assert signs a JWT of the client's for the server.
func (d *Driver) assert(claims map[string]any) (string, error) {
	key, alg, err := d.key()
	if err != nil {
		return "", fmt.Errorf("reading the client's key: %w", err)
	}
	options := (&jose.SignerOptions{}).WithType("JWT")
	if d.config.KeyID != "" {
		options.WithHeader("kid", d.config.KeyID)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, options)
	if err != nil {
		return "", err
	}
	now := d.now()
	all := map[string]any{
		"iss": d.config.ClientID, "aud": d.config.Issuer,
		"iat": now.Unix(), "exp": now.Add(assertionLife).Unix(),
	}
	maps.Copy(all, claims)
	payload, err := json.Marshal(all)
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}

// key reads the client's key. Its error quotes nothing of it.
func (d *Driver) key() (crypto.Signer, jose.SignatureAlgorithm, error) {
	text, err := d.config.Key.Read()
	if err != nil {
		return nil, "", err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, "", errors.New("it is not in PEM, PKCS #8")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, "", errors.New("it does not parse")
	}
	switch k := parsed.(type) {
	case ed25519.PrivateKey:
		return k, jose.EdDSA, nil
	case *ecdsa.PrivateKey:
		if k.Curve == elliptic.P256() {
			return k, jose.ES256, nil
		}
	case *rsa.PrivateKey:
		if k.N.BitLen() >= 2048 {
			return k, jose.RS256, nil
		}
	}
	return nil, "", fmt.Errorf("a %T of this kind is not used: want Ed25519, P-256, or RSA of 2048 bits", parsed)
}
