// Package issue makes capabilities. It takes nothing but a permitting
// decision of package policy, and names a capability for exactly the action
// that was permitted: whoever has none has nothing to issue from.
//
// Naming comes first and costs nothing: the name goes into the transaction
// that records the intent. What is signed is signed when it is presented, so a
// call that is refused at its commit was never a token.
package issue

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/capability"
	"github.com/writgate/writ/policy"
)

// defaultLife is how long a capability lives if nobody says otherwise.
const defaultLife = time.Minute

// An Issuer issues capabilities. Its methods may be called from any goroutine.
type Issuer struct {
	name    string
	key     ed25519.PrivateKey
	header  string
	keys    capability.Keys
	gateway crypto.Signer
	holder  writ.Thumbprint // of the gateway's key
	now     func() time.Time
}

// New makes an Issuer of this name that signs with key. The gateway's own key,
// Ed25519 or ECDSA, is what it proves when it presents a capability; if it is
// nil, one is made that dies with the process. Others are public keys that
// verifiers need besides: those that signed before, for as long as what they
// signed may live, and the next one, before it signs.
func New(key ed25519.PrivateKey, name string, gateway crypto.Signer, now func() time.Time, others ...ed25519.PublicKey) (*Issuer, error) {
	if len(key) != ed25519.PrivateKeySize || name == "" || now == nil {
		return nil, errors.New("an issuer needs a key, a name and a clock")
	}
	if gateway == nil {
		_, made, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		gateway = made
	}
	holder, err := capability.Thumbprint(gateway.Public())
	if err != nil {
		return nil, fmt.Errorf("the gateway's key: %w", err)
	}
	public := key.Public().(ed25519.PublicKey)
	keys, err := capability.KeySet(append(others, public)...)
	if err != nil {
		return nil, err
	}
	kid, err := capability.Thumbprint(public)
	if err != nil {
		return nil, err
	}
	return &Issuer{
		name: name, key: key, header: `{"alg":"EdDSA","kid":"` + string(kid) + `","typ":"` + capability.Type + `"}`,
		keys: keys, gateway: gateway, holder: holder, now: now,
	}, nil
}

// Keys are the public keys that a tool server needs.
func (i *Issuer) Keys() capability.Keys { return i.keys }

// Issue names a capability for exactly p's action, which the gateway will
// present to the one server called audience. A life of 0 is one minute. It
// ends with its task at the latest.
func (i *Issuer) Issue(p *policy.Permit, audience string, life time.Duration) (*Token, error) {
	return i.issue(p, audience, life, i.holder)
}

// IssueToCaller is Issue for a caller who will present the capability itself,
// with the key it proved. A key that somebody else vouched for is no such key.
func (i *Issuer) IssueToCaller(p *policy.Permit, audience string, life time.Duration) (*Token, error) {
	q := p.Query()
	if q == nil || q.Caller.Key == "" || q.Caller.Proof != writ.ProofTLS && q.Caller.Proof != writ.ProofDPoP {
		return nil, errors.New("issuing a capability to a caller who proved no key")
	}
	return i.issue(p, audience, life, q.Caller.Key)
}

func (i *Issuer) issue(p *policy.Permit, audience string, life time.Duration, holder writ.Thumbprint) (*Token, error) {
	q := p.Query()
	switch {
	case q == nil:
		return nil, errors.New("issuing a capability without a permit")
	case q.Action.Kind == "" || q.Action.Name == "" || q.Action.Definition == "" || q.Action.Arguments == "":
		return nil, errors.New("issuing a capability for an action that is not complete")
	case q.Call == "" || q.Task.ID == "" || q.Task.Environment == "" || audience == "":
		return nil, errors.New("issuing a capability that does not say for which call, of which task, where and for whom")
	case len(q.Caller.Chain) >= capability.MaxActors:
		return nil, fmt.Errorf("issuing a capability for more than %d actors", capability.MaxActors)
	case life < 0 || life > capability.MaxLife:
		return nil, fmt.Errorf("issuing a capability for %v", life)
	case life == 0:
		life = defaultLife
	}
	issued := time.UnixMilli(q.Time)
	actors := []capability.Actor{{Agent: q.Caller.Agent, Key: q.Caller.Key}}
	for j := len(q.Caller.Chain) - 1; j >= 0; j-- {
		actors = append(actors, capability.Actor{Agent: q.Caller.Chain[j].Agent, Key: q.Caller.Chain[j].Key})
	}
	user := q.Caller.User
	if user == "" {
		user = q.Task.User
	}
	c := capability.Capability{
		ID: writ.NewID[writ.CapabilityID](issued), Issuer: i.name, Audience: audience, Key: holder,
		Actors: actors, User: user, Issued: issued, Expires: ends(q, life),
	}
	if !c.Expires.After(c.Issued) {
		return nil, errors.New("issuing a capability that ends before it begins")
	}
	return &Token{issuer: i, query: q, capability: c}, nil
}

// scopeOf is what a capability for q is good for.
func scopeOf(q *writ.Query) capability.Scope {
	scope := capability.ScopeOf(&q.Action)
	scope.Call, scope.Task, scope.Environment = q.Call, q.Task.ID, q.Task.Environment
	scope.Tool, scope.Tier, scope.Bundle = q.Tool.Name, q.Tool.Tier, q.Bundle
	scope.Action = q.Action.Digest()
	return scope
}

// ends is when a capability expires: in whole seconds, and never after its
// task.
func ends(q *writ.Query, life time.Duration) time.Time {
	return time.UnixMilli(min(q.Time+life.Milliseconds(), q.Task.Expires)).Truncate(time.Second)
}

// A Token is a capability that was named. Only an Issuer makes one; the zero
// Token presents nothing.
type Token struct {
	issuer     *Issuer
	query      *writ.Query
	approval   writ.ApprovalID
	capability capability.Capability // without its scope: most are never shown to anybody

	once   sync.Once
	signed string
	err    error
}

// ID is the name of the capability, which the intent's transaction uses up.
func (t *Token) ID() writ.CapabilityID { return t.capability.ID }

// Action is the digest of the action it is for.
func (t *Token) Action() writ.Digest {
	if t.query == nil {
		return ""
	}
	return t.query.Action.Digest()
}

// UnderApproval adds which approval let the action through, for the server to
// see. It is called before the token is presented, or not at all.
func (t *Token) UnderApproval(id writ.ApprovalID) { t.approval = id }

// Present gives the headers that carry the capability in one request to this
// address: the capability, signed now if it was not before, and a new proof of
// the gateway's key.
func (t *Token) Present(method, url string) (http.Header, error) {
	if t.issuer != nil && t.capability.Key != t.issuer.holder {
		return nil, errors.New("presenting a capability that is its caller's")
	}
	token, err := t.sign()
	if err != nil {
		return nil, err
	}
	proof, err := capability.Prove(t.issuer.gateway, token, method, url, t.issuer.now())
	if err != nil {
		return nil, fmt.Errorf("proving the gateway's key: %w", err)
	}
	h := http.Header{}
	h.Set(capability.Header, token)
	h.Set(capability.ProofHeader, proof)
	return h, nil
}

// Give is the capability itself, for the caller it was issued to. It may be
// given once its intent is on record.
func (t *Token) Give() (string, error) {
	if t.issuer != nil && t.capability.Key == t.issuer.holder {
		return "", errors.New("giving away a capability that is the gateway's")
	}
	return t.sign()
}

func (t *Token) sign() (string, error) {
	if t.issuer == nil {
		return "", errors.New("this is no capability")
	}
	t.once.Do(func() {
		t.capability.Scope = scopeOf(t.query)
		t.capability.Approval = t.approval
		claims, err := t.capability.Claims()
		if err != nil {
			t.err = fmt.Errorf("signing a capability: %w", err)
			return
		}
		b64 := base64.RawURLEncoding
		text := b64.EncodeToString([]byte(t.issuer.header)) + "." + b64.EncodeToString([]byte(claims))
		t.signed = text + "." + b64.EncodeToString(ed25519.Sign(t.issuer.key, []byte(text)))
	})
	return t.signed, t.err
}

func (t *Token) String() string { return "[capability " + string(t.ID()) + "]" }

// Format holds for every verb: a struct printed whole would show the token.
func (t *Token) Format(f fmt.State, _ rune) { fmt.Fprint(f, t.String()) }
