package identity

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
)

// Tokens issues access tokens, and knows the public keys of those that are
// out. Its keys sign nothing else. It is safe for concurrent use.
type Tokens struct {
	issuer string

	mu     sync.RWMutex
	signer ed25519.PrivateKey
	keys   []named // newest first: the first is signer's
}

type named struct {
	kid string
	pub ed25519.PublicKey
}

// NewTokens gives a Tokens for an issuer. The newest key signs; tokens of the
// older ones are accepted until they are retired.
func NewTokens(issuer string, newest ed25519.PrivateKey, older ...ed25519.PublicKey) (*Tokens, error) {
	if issuer == "" {
		return nil, errors.New("tokens without an issuer")
	}
	t := &Tokens{issuer: issuer}
	for _, pub := range slices.Backward(older) {
		if err := t.add(pub); err != nil {
			return nil, err
		}
	}
	return t, t.Rotate(newest)
}

func (t *Tokens) add(pub ed25519.PublicKey) error {
	kid, err := Thumbprint(pub)
	if err != nil {
		return err
	}
	t.keys = slices.DeleteFunc(t.keys, func(k named) bool { return k.kid == string(kid) })
	t.keys = slices.Insert(t.keys, 0, named{string(kid), pub})
	return nil
}

// Rotate makes a new key sign. The one before goes on verifying: retire it
// [MaxToken] later, when nothing that it signed is good any more.
func (t *Tokens) Rotate(newest ed25519.PrivateKey) error {
	if len(newest) != ed25519.PrivateKeySize {
		return errors.New("a signing key that is no Ed25519 key")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.add(newest.Public().(ed25519.PublicKey)); err != nil {
		return err
	}
	t.signer = newest
	return nil
}

// Retire forgets an older key. What it signed is refused from now on.
func (t *Tokens) Retire(kid string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.keys[0].kid == kid {
		return errors.New("the key that signs cannot be retired: rotate it first")
	}
	t.keys = slices.DeleteFunc(t.keys, func(k named) bool { return k.kid == kid })
	return nil
}

// Key is the public key of that name, nil if there is none. It never fails.
func (t *Tokens) Key(_ context.Context, kid string) (ed25519.PublicKey, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, k := range t.keys {
		if k.kid == kid {
			return k.pub, nil
		}
	}
	return nil, nil
}

// JWKS is the public keys as a JWK set (RFC 7517, 5), newest first.
func (t *Tokens) JWKS() writ.JSON {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var keys []string
	for _, k := range t.keys {
		keys = append(keys, `{"alg":"EdDSA","crv":"Ed25519","kid":"`+k.kid+`","kty":"OKP","use":"sig","x":"`+b64.EncodeToString(k.pub)+`"}`)
	}
	return writ.JSON(`{"keys":[` + strings.Join(keys, ",") + `]}`)
}

// A Binding is what an access token says: whose key may act, as which agent,
// for which task.
type Binding struct {
	Agent    writ.AgentID
	Key      writ.Thumbprint
	Audience string
	Task     writ.TaskID // what the key is bound to; empty if to none
	User     writ.UserID // of the task
	Until    time.Time   // the soonest end of what the token is issued on
}

// Issue signs an access token that ends at b.Until, and within [MaxToken].
func (t *Tokens) Issue(b Binding, now time.Time) (token string, ends time.Time, err error) {
	if _, err := ParseAgent(string(b.Agent)); err != nil {
		return "", time.Time{}, err
	}
	if b.Key == "" || b.Audience == "" {
		return "", time.Time{}, errors.New("a token needs a key and an audience")
	}
	ends = now.Add(MaxToken)
	if b.Until.Before(ends) {
		ends = b.Until
	}
	iat, exp := now.Unix(), ends.Unix()
	exp = min(exp, iat+int64(MaxToken.Seconds()))
	if exp <= iat {
		return "", time.Time{}, errors.New("what the token is issued on has ended")
	}
	var cnf, own, claims canon.Builder
	cnf.Text("jkt", string(b.Key))
	if b.Task != "" {
		own.Text("task", string(b.Task))
	}
	if b.User != "" {
		own.Text("user", string(b.User))
	}
	for name, object := range map[string]*canon.Builder{"cnf": &cnf, "writ": &own} {
		text, err := object.JSON()
		if err != nil {
			return "", time.Time{}, err
		}
		claims.Value(name, text)
	}
	claims.Text("iss", t.issuer)
	claims.Text("sub", string(b.Agent))
	claims.Text("client_id", string(b.Agent))
	claims.Text("aud", b.Audience)
	claims.Text("jti", rand.Text())
	claims.Int("iat", iat)
	claims.Int("exp", exp)
	body, err := claims.JSON()
	if err != nil {
		return "", time.Time{}, err
	}
	return t.sign(string(body)), time.Unix(exp, 0), nil
}

// IssueDevelopment is Issue for `writ run`: for a run's own key, of an agent
// that is of [DevelopmentDomain] and registered for [Development]. It is the
// caller's to know that the gateway is one of development, and who asks.
func (t *Tokens) IssueDevelopment(agent writ.Agent, b Binding, now time.Time) (token string, ends time.Time, err error) {
	id, err := parseSPIFFE(string(b.Agent))
	if err != nil {
		return "", time.Time{}, err
	}
	if id.TrustDomain().Name() != DevelopmentDomain || agent.ID != b.Agent || agent.Environment != Development {
		return "", time.Time{}, fmt.Errorf("%s of environment %q is not of the development domain and environment", b.Agent, agent.Environment)
	}
	return t.Issue(b, now)
}

func (t *Tokens) sign(claims string) string {
	t.mu.RLock()
	kid, key := t.keys[0].kid, t.signer
	t.mu.RUnlock()
	signed := b64.EncodeToString([]byte(`{"alg":"EdDSA","kid":"`+kid+`","typ":"at+jwt"}`)) + "." + b64.EncodeToString([]byte(claims))
	return signed + "." + b64.EncodeToString(ed25519.Sign(key, []byte(signed)))
}
