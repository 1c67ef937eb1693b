package capability

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
)

// Codes that only a tool server gives. The others are the gateway's own.
const (
	Expired    writ.Code = "capability_expired"
	WrongScope writ.Code = "capability_scope" // good for another action than the one at hand
)

// A Verifier checks capabilities for one tool server. Every field is
// required, and its methods may be called from any goroutine. New keys are a
// new Verifier.
type Verifier struct {
	Keys        Keys
	Issuer      string
	Audience    string // this server, and no other
	Environment string // the one this server belongs to
	Uses        Uses
	Now         func() time.Time
}

// Uses is where a server remembers which capabilities were used. A Once does
// it in memory, for one process; replicas need a store they share, and one
// that keeps effects in a database can count uses in the same transaction.
type Uses interface {
	// Use takes the one use of c. It is a *writ.Denial with AlreadyUsed if
	// it was taken before, by whoever; any other error refuses too.
	Use(ctx context.Context, c *Capability) error
}

// A Request is what a tool server received and is about to do.
type Request struct {
	Header http.Header
	Method string
	URL    string            // absolute, as the presenter addressed it: behind a proxy the proxy's
	Peer   *x509.Certificate // the client's, of mutual TLS; nil if none

	Kind          writ.Kind // empty means a tool
	Name          string    // of the tool, as this server knows it
	Arguments     []byte    // JSON, in any spelling; none means {}
	Inputs        []byte    // input responses, if there are any
	State         string    // the request state, if there is any
	Preconditions []byte    // if there are any
}

// Verify says whether a request may be carried out now, and if so takes its
// capability's one use: what Verify permits must be done or given up, and is
// never permitted again. An error is a *writ.Denial; a refused request takes
// nothing.
//
// Whatever else a server wants to hold a capability to (the definition of
// its tool, the tier, an approval, the user) it finds in the Capability.
func (v *Verifier) Verify(ctx context.Context, r Request) (*Capability, error) {
	if len(v.Keys) == 0 || v.Issuer == "" || v.Audience == "" || v.Environment == "" || v.Uses == nil || v.Now == nil {
		return nil, writ.Refuse(writ.InternalError, "this server cannot check capabilities", errors.New("a field of the Verifier is not set"))
	}
	now := v.Now()
	token, ok := single(r.Header, Header)
	if !ok {
		return nil, writ.Refuse(writ.Unauthenticated, "this tool takes one capability in the header "+Header, nil)
	}
	c, err := v.read(token)
	if err != nil {
		return nil, writ.Refuse(writ.BadToken, "the capability does not verify", err)
	}
	switch {
	case c.Issuer != v.Issuer:
		return nil, writ.Refuse(writ.BadToken, "the capability is from another issuer", nil)
	case c.Audience != v.Audience:
		return nil, writ.Refuse(writ.WrongAudience, "the capability is for another server", nil)
	case !now.Before(c.Expires):
		return nil, writ.Refuse(Expired, "the capability has expired", nil)
	case now.Add(maxAhead).Before(c.Issued):
		return nil, writ.Refuse(writ.BadToken, "the capability is from the future", nil)
	}
	if err := present(c, token, &r, now); err != nil {
		return nil, err
	}
	if err := v.covers(c, &r); err != nil {
		return nil, err
	}
	if err := v.Uses.Use(ctx, c); err != nil {
		if d, ok := errors.AsType[*writ.Denial](err); ok {
			return nil, d
		}
		return nil, writ.Refuse(writ.Unavailable, "this server cannot tell whether the capability was used; try again later", err)
	}
	return c, nil
}

// read verifies the signature of a capability, with the one key that its
// header names, and reads it.
func (v *Verifier) read(token string) (*Capability, error) {
	t, err := parseJWS(token)
	if err != nil {
		return nil, err
	}
	if err := canon.Envelope(t.header, "alg", "kid", "typ"); err != nil {
		return nil, err
	}
	if alg, _ := t.header.Get("alg").Str(); alg != "EdDSA" {
		return nil, errors.New("alg is not EdDSA")
	}
	if typ, _ := t.header.Get("typ").Str(); typ != Type {
		return nil, errors.New("typ is no capability's")
	}
	kid, _ := t.header.Get("kid").Str()
	key, ok := v.Keys[writ.Thumbprint(kid)]
	if !ok {
		return nil, errors.New("kid is no key of the issuer")
	}
	if !verifies(key, t.signed, t.signature) {
		return nil, errors.New("signature does not verify")
	}
	return parseClaims(writ.JSON(t.payload))
}

// present checks that whoever sent the request holds the capability's key. A
// proof that is there must hold; mutual TLS stands in only for one that is not.
func present(c *Capability, token string, r *Request, now time.Time) error {
	const reason = "the capability was not presented by the holder of its key"
	if len(r.Header.Values(ProofHeader)) == 0 {
		if r.Peer == nil {
			return writ.Refuse(writ.NoPossession, "a capability needs a proof in the header "+ProofHeader+", or mutual TLS", nil)
		}
		key, err := Thumbprint(r.Peer.PublicKey)
		if err != nil || key != c.Key {
			return writ.Refuse(writ.NoPossession, reason, err)
		}
		return nil
	}
	proof, ok := single(r.Header, ProofHeader)
	if !ok {
		return writ.Refuse(writ.NoPossession, "a capability takes one proof", nil)
	}
	key, claims, err := proofKey(proof)
	if err != nil {
		return writ.Refuse(writ.NoPossession, "the proof does not verify", err)
	}
	if key != c.Key {
		return writ.Refuse(writ.NoPossession, reason, nil)
	}
	if err := checkProof(claims, token, r.Method, r.URL, now); err != nil {
		return writ.Refuse(writ.ProofMismatch, "the proof is not for this request", err)
	}
	return nil
}

// covers checks that the request is the one action that c is good for.
func (v *Verifier) covers(c *Capability, r *Request) error {
	a := writ.Action{Kind: r.Kind, Name: r.Name, State: r.State}
	if a.Kind == "" {
		a.Kind = writ.KindTool
	}
	arguments := r.Arguments
	if len(arguments) == 0 {
		arguments = []byte("{}")
	}
	for _, part := range []struct {
		from []byte
		to   *writ.JSON
	}{{arguments, &a.Arguments}, {r.Inputs, &a.Inputs}, {r.Preconditions, &a.Preconditions}} {
		if len(part.from) == 0 {
			continue
		}
		value, err := canon.ParseObject(part.from, canon.Limits{})
		if err != nil {
			return writ.Refuse(writ.InvalidArguments, "the arguments are not one exact JSON object", err)
		}
		*part.to = value.JSON()
	}
	want := ScopeOf(&a)
	switch {
	case c.Environment != v.Environment:
		return writ.Refuse(WrongScope, "the capability is for another environment", nil)
	case c.Kind != want.Kind || c.Name != want.Name:
		return writ.Refuse(WrongScope, "the capability is for another tool", nil)
	case c.Arguments != want.Arguments:
		return writ.Refuse(WrongScope, "the capability is for other arguments", nil)
	case c.Inputs != want.Inputs || c.State != want.State || c.Preconditions != want.Preconditions:
		return writ.Refuse(WrongScope, "the capability is for another request", nil)
	}
	return nil
}

// single is the one value of a header that is there once.
func single(h http.Header, name string) (string, bool) {
	values := h.Values(name)
	if len(values) != 1 || values[0] == "" {
		return "", false
	}
	return values[0], true
}
