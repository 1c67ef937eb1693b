package identity

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/ledger"
)

// maxAssertion is the longest time ahead at which an assertion may expire.
const maxAssertion = 10 * time.Minute

// maxKeys bounds how many keys of one agent are tried.
const maxKeys = 16

// An Assertion is what an agent said of itself, under one of its own keys.
type Assertion struct {
	Agent writ.AgentID
	Key   writ.Thumbprint // the registered key that signed it
	Once  ledger.Change   // to be made in the transaction that records what comes of it
	Until int64           // Unix milliseconds
}

// Assertion verifies a JWT with which an agent authenticates itself to our
// token endpoint (RFC 7523, 3): issued by the agent about itself, for our
// issuer and nobody else, signed by one of the keys that are registered for
// it. keys gives those. Every error is a *writ.Denial, and the same for an
// agent that nobody knows as for a signature that does not verify.
func (v *Verifier) Assertion(ctx context.Context, jwt string, keys func(context.Context, writ.AgentID) ([]crypto.PublicKey, error)) (a Assertion, err error) {
	defer rescue(&err)
	j, err := parseJWS(jwt)
	if err != nil {
		return Assertion{}, badAssertion(err)
	}
	if err := canon.Envelope(j.header, "alg", "typ", "kid"); err != nil {
		return Assertion{}, badAssertion(fmt.Errorf("header: %w", err))
	}
	if typ := j.header.Get("typ"); typ != nil {
		if s, _ := typ.Str(); s != "JWT" && s != "client-authentication+jwt" { // RFC 7519, 5.1; RFC 7523bis
			return Assertion{}, badAssertion(fmt.Errorf("typ is %.20q", s))
		}
	}
	agent, jti, exp, err := v.assertionClaims(j.claims, v.now())
	if err != nil {
		return Assertion{}, err
	}
	if err := v.Admits(agent); err != nil {
		return Assertion{}, badAssertion(err)
	}
	registered, err := keys(ctx, agent)
	if err != nil {
		if d, ok := errors.AsType[*writ.Denial](err); ok {
			return Assertion{}, badAssertion(d)
		}
		return Assertion{}, writ.Refuse(writ.IdentityUnavailable, "the agent's keys cannot be read now: try again", err)
	}
	for _, pub := range registered[:min(len(registered), maxKeys)] {
		if j.verify(pub) != nil {
			continue
		}
		key, err := Thumbprint(pub)
		if err != nil {
			return Assertion{}, badAssertion(err)
		}
		id := sha256.Sum256([]byte("writ/assertion/v1\x00" + string(agent) + "\x00" + jti))
		return Assertion{Agent: agent, Key: key, Once: once(id, exp), Until: exp * 1000}, nil
	}
	return Assertion{}, badAssertion(fmt.Errorf("no key of %s verifies it by %.20q", agent, j.alg))
}

func badAssertion(err error) error {
	return writ.Refuse(writ.BadToken, "the assertion is not one that a registered key of this agent made for this token endpoint", err)
}

// assertionClaims reads claims that nobody has signed yet.
func (v *Verifier) assertionClaims(c *canon.Value, now time.Time) (agent writ.AgentID, jti string, exp int64, err error) {
	fail := func(err error) (writ.AgentID, string, int64, error) { return "", "", 0, badAssertion(err) }
	sub, err := text(c, "sub", maxSubject)
	if err != nil {
		return fail(err)
	}
	if iss, _ := c.Get("iss").Str(); iss != sub {
		return fail(errors.New("iss and sub differ"))
	}
	if agent, err = ParseAgent(sub); err != nil {
		return fail(err)
	}
	aud := c.Get("aud")
	if aud.Kind() == canon.Array && aud.Len() == 1 {
		aud = aud.Index(0)
	}
	if s, _ := aud.Str(); s != v.Issuer || s == "" {
		return "", "", 0, writ.Refuse(writ.WrongAudience, "the assertion is for somebody else: its aud must be this issuer, and nothing more", nil)
	}
	if jti, err = text(c, "jti", maxJTI); err != nil {
		return fail(err)
	}
	if exp, err = seconds(c, "exp"); err != nil {
		return fail(err)
	}
	if now.Unix() >= exp || exp > now.Add(maxAssertion).Unix() {
		return fail(fmt.Errorf("exp is past, or more than %v ahead", maxAssertion))
	}
	for _, name := range []string{"iat", "nbf"} {
		if c.Get(name) == nil {
			continue
		}
		if begin, err := seconds(c, name); err != nil || begin > now.Add(skew).Unix() {
			return fail(fmt.Errorf("%s is to come", name))
		}
	}
	return agent, jti, exp, nil
}
