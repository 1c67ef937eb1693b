package identity

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
)

// MaxToken is the longest life of an access token.
const MaxToken = 10 * time.Minute

// maxSubject bounds the identifiers in a token, in bytes.
const maxSubject = maxSPIFFEID

// token is what a verified access token says. Its times are in seconds.
type token struct {
	kid      string
	signer   string // the public key that verified it: it may be taken away
	agent    writ.AgentID
	user     writ.UserID
	task     writ.TaskID
	key      writ.Thumbprint
	iat, exp int64
}

// token checks an access token of our own token endpoint (RFC 9068). One that
// was verified before costs a hash and a look at the clock and at its key.
func (v *Verifier) token(ctx context.Context, s string, now time.Time) (token, error) {
	digest := sha256.Sum256([]byte(s))
	t, ok := v.tokens.get(digest)
	if !ok {
		j, err := parseJWS(s)
		if err != nil {
			return token{}, badToken(err)
		}
		if t, err = v.tokenAnew(ctx, j); err != nil {
			return token{}, err
		}
		v.tokens.put(digest, t)
	} else if signer, err := v.signer(ctx, t.kid); err != nil {
		return token{}, err
	} else if string(signer) != t.signer {
		return token{}, badToken(fmt.Errorf("the signing key %.64q was taken away", t.kid))
	}
	switch sec := now.Unix(); {
	case sec >= t.exp:
		return token{}, &writ.Denial{Code: writ.BadToken, Reason: "the access token has expired: ask the token endpoint for a new one", Remedy: writ.RemedyFix}
	case now.Add(skew).Unix() < t.iat:
		return token{}, badToken(fmt.Errorf("issued at %d, which is to come", t.iat))
	}
	return t, nil
}

func badToken(err error) error {
	return writ.Refuse(writ.BadToken, "the access token is not one of this gateway's: ask its token endpoint for one", err)
}

// signer gives one of our own keys. A kid is compared with their names; it is
// never an address, a path or a query.
func (v *Verifier) signer(ctx context.Context, kid string) (ed25519.PublicKey, error) {
	if v.Tokens == nil {
		return nil, badToken(fmt.Errorf("no access tokens are accepted here"))
	}
	pub, err := v.Tokens(ctx, kid)
	if err != nil {
		return nil, writ.Refuse(writ.IdentityUnavailable, "the gateway's token keys cannot be read now: try again", err)
	}
	if pub == nil {
		return nil, badToken(fmt.Errorf("kid %.64q is no key of ours", kid))
	}
	return pub, nil
}

func (v *Verifier) tokenAnew(ctx context.Context, j *jws) (token, error) {
	if err := canon.Envelope(j.header, "alg", "typ", "kid"); err != nil {
		return token{}, badToken(fmt.Errorf("header: %w", err))
	}
	if typ, _ := j.header.Get("typ").Str(); typ != "at+jwt" {
		return token{}, badToken(fmt.Errorf("typ is %.20q, want at+jwt", typ))
	}
	if j.alg != "EdDSA" {
		return token{}, badToken(wrongAlgorithm(j.alg))
	}
	kid, err := text(j.header, "kid", maxJTI)
	if err != nil {
		return token{}, badToken(err)
	}
	signer, err := v.signer(ctx, kid)
	if err != nil {
		return token{}, err
	}
	if err := j.verify(signer); err != nil {
		return token{}, badToken(err)
	}
	if iss, _ := j.claims.Get("iss").Str(); iss != v.Issuer || iss == "" {
		return token{}, badToken(fmt.Errorf("the issuer is another"))
	}
	if aud, _ := j.claims.Get("aud").Str(); aud != v.Audience || aud == "" {
		return token{}, writ.Refuse(writ.WrongAudience, "the access token is for another resource: ask for one for this", nil)
	}
	t, err := readClaims(j.claims)
	if err != nil {
		return token{}, badToken(err)
	}
	t.kid, t.signer = kid, string(signer)
	return t, nil
}

// readClaims reads what [Tokens.Issue] writes, and nothing else.
func readClaims(c *canon.Value) (t token, err error) {
	cnf, own := c.Get("cnf"), c.Get("writ")
	for _, object := range []struct {
		v     *canon.Value
		names []string
	}{
		{c, []string{"iss", "sub", "client_id", "aud", "iat", "exp", "jti", "cnf", "writ"}},
		{cnf, []string{"jkt"}},
		{own, []string{"task", "user"}},
	} {
		if err := canon.Envelope(object.v, object.names...); err != nil && (object.v != own || own != nil) {
			return t, fmt.Errorf("claims: %w", err)
		}
	}
	sub, err := text(c, "sub", maxSubject)
	if err != nil {
		return t, err
	}
	if client, _ := c.Get("client_id").Str(); client != sub {
		return t, fmt.Errorf("sub and client_id differ")
	}
	if t.agent, err = ParseAgent(sub); err != nil {
		return t, err
	}
	jkt, err := text(cnf, "jkt", 43)
	if err != nil {
		return t, err
	}
	t.key = writ.Thumbprint(jkt)
	if t.iat, err = seconds(c, "iat"); err != nil {
		return t, err
	}
	if t.exp, err = seconds(c, "exp"); err != nil {
		return t, err
	}
	if life := t.exp - t.iat; life <= 0 || life > int64(MaxToken.Seconds()) {
		return t, fmt.Errorf("a life of %d seconds", life)
	}
	if own.Get("task") != nil {
		s, _ := own.Get("task").Str()
		if t.task, err = writ.ParseID[writ.TaskID](s); err != nil {
			return t, err
		}
	}
	if own.Get("user") != nil {
		user, err := text(own, "user", maxSubject)
		if err != nil {
			return t, err
		}
		t.user = writ.UserID(user)
	}
	return t, nil
}
