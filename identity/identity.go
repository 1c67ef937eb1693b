package identity

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
)

// Evidence is what a request shows of who sent it, and all that is ever
// looked at: there is no field for an identity that somebody claims.
type Evidence struct {
	Chain         []*x509.Certificate // the peer's, of mutual TLS, leaf first; nil if there was none
	Authorization []string            // every value of the header
	Proof         []string            // every value of the DPoP header
	Method        string              // of the request
	URL           string              // of the request; its scheme and host are ones that the listener answers to
	Body          []byte              // all of it
}

// A Proven is a caller whose key was proven for one request. The zero Proven
// is nobody.
type Proven struct {
	Caller writ.Caller
	Task   writ.TaskID     // what the token says its key was bound to; empty over mutual TLS alone
	Once   []ledger.Change // at most one, to be made in the transaction that records the decision
	Bound  bool            // the proof covers the body
	Until  int64           // Unix milliseconds: when the token or the SVID ends, whichever is sooner
}

// A Verifier says who is calling. Its fields are set before its first use and
// not changed after; it is safe for concurrent use. What it is not told it
// refuses: the zero Verifier accepts nobody.
type Verifier struct {
	// Bundles are the trust domains whose X.509-SVIDs are accepted.
	Bundles *Bundles

	// Tokens gives the public keys of our own token endpoint by their kid,
	// as [Tokens.Key] does; nil if there is none of that name. An error
	// means that it cannot be known now.
	Tokens func(ctx context.Context, kid string) (ed25519.PublicKey, error)

	Issuer      string           // iss of the access tokens
	Audience    string           // their aud: this resource
	Development bool             // accept agents of [DevelopmentDomain]
	Now         func() time.Time // time.Now if nil

	tokens cache[token]
	seen   seen
}

// Verify says who sent a request. If it shows both a certificate and a token,
// both must hold, and name one agent. Every error is a *writ.Denial.
func (v *Verifier) Verify(ctx context.Context, e Evidence) (p Proven, err error) {
	defer rescue(&err)
	now := v.now()
	var channel svid
	if len(e.Chain) > 0 {
		if channel, err = v.channel(e.Chain, now); err != nil {
			return Proven{}, err
		}
	}
	switch {
	case len(e.Authorization) > 1:
		return Proven{}, writ.Refuse(writ.Unauthenticated, "more than one Authorization header: send exactly one", nil)
	case len(e.Authorization) == 1:
		return v.verifyToken(ctx, &e, channel, now)
	case len(e.Proof) > 0:
		return Proven{}, writ.Refuse(writ.Unauthenticated, "a DPoP proof without an access token: send it as Authorization: DPoP <token>", nil)
	case len(e.Chain) == 0:
		return Proven{}, writ.Refuse(writ.Unauthenticated, "no identity was proven: connect with an X.509-SVID, or send Authorization: DPoP <token> and a DPoP proof", nil)
	}
	return Proven{
		Caller: writ.Caller{Agent: channel.agent, Key: channel.key, Proof: writ.ProofTLS},
		Bound:  true,
		Until:  channel.notAfter.UnixMilli(),
	}, nil
}

// channel verifies the certificates of mutual TLS.
func (v *Verifier) channel(chain []*x509.Certificate, now time.Time) (svid, error) {
	if v.Bundles == nil {
		return svid{}, badSVID(fmt.Errorf("no trust domain is accepted here"))
	}
	s, err := v.Bundles.verify(chain, now)
	if err != nil {
		return svid{}, badSVID(err)
	}
	if err := v.Admits(s.agent); err != nil {
		return svid{}, badSVID(err)
	}
	return s, nil
}

func badSVID(err error) error {
	return writ.Refuse(writ.BadSVID, "the certificate is not an X.509-SVID that is accepted here now", err)
}

// Admits says whether agents of this one's trust domain may be accepted at
// all: the development domain's only by a verifier of development.
func (v *Verifier) Admits(agent writ.AgentID) error {
	id, err := spiffeid.FromString(string(agent))
	if err != nil {
		return err
	}
	if id.TrustDomain().Name() == DevelopmentDomain && !v.Development {
		return fmt.Errorf("%s is of the development trust domain, and this is no development gateway", agent)
	}
	return nil
}

// verifyToken verifies an access token with the proof of its key.
func (v *Verifier) verifyToken(ctx context.Context, e *Evidence, channel svid, now time.Time) (Proven, error) {
	scheme, credentials, _ := strings.Cut(e.Authorization[0], " ")
	switch {
	case strings.EqualFold(scheme, "Bearer"):
		return Proven{}, writ.Refuse(writ.NoPossession, "bearer tokens are not accepted: get a token that is bound to your key, and send Authorization: DPoP <token> with a DPoP proof for each request (RFC 9449)", nil)
	case !strings.EqualFold(scheme, "DPoP"):
		return Proven{}, writ.Refuse(writ.Unauthenticated, "this Authorization scheme is not accepted: send Authorization: DPoP <token>", nil)
	case len(e.Proof) != 1: // before anything that costs
		_, err := v.prove(e, "", "", now)
		return Proven{}, err
	}
	credentials = strings.TrimLeft(credentials, " ") // RFC 9110, 11.4: one space or more
	t, err := v.token(ctx, credentials, now)
	if err != nil {
		return Proven{}, err
	}
	if err := v.Admits(t.agent); err != nil {
		return Proven{}, badToken(err)
	}
	if channel.agent != "" && channel.agent != t.agent {
		return Proven{}, writ.Refuse(writ.NoPossession, "the access token is another agent's than the certificate", nil)
	}
	ath := sha256.Sum256([]byte(credentials))
	p, err := v.prove(e, b64.EncodeToString(ath[:]), t.key, now)
	if err != nil {
		return Proven{}, err
	}
	until := t.exp * 1000
	if channel.agent != "" {
		until = min(until, channel.notAfter.UnixMilli())
	}
	return Proven{
		Caller: writ.Caller{Agent: t.agent, Key: p.key, Proof: writ.ProofDPoP, User: t.user},
		Task:   t.task,
		Once:   []ledger.Change{p.once},
		Bound:  p.bound,
		Until:  until,
	}, nil
}

func (v *Verifier) now() time.Time {
	if v.Now == nil {
		return time.Now()
	}
	return v.Now()
}

// rescue turns a panic into a refusal: whoever could not be checked is nobody.
func rescue(err *error) {
	if r := recover(); r != nil {
		// What it panicked with may hold a token.
		*err = writ.Refuse(writ.IdentityUnavailable, "identity cannot be checked now: try again", fmt.Errorf("panic with a %T", r))
	}
}
