package capability

import (
	"errors"
	"fmt"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
)

// Type is the typ of a capability. No other token of Writ has it.
const Type = "writ-cap+jwt"

// MaxLife is the longest that a capability may live.
const MaxLife = 5 * time.Minute

// Header names the HTTP header that a capability travels in.
const Header = "Writ-Capability"

// MaxActors is how long a chain may be: the agent, and four who delegated.
const MaxActors = 5

// A Capability is leave for one action, once, as its receiver reads it.
type Capability struct {
	ID       writ.CapabilityID
	Issuer   string
	Audience string          // its one receiver
	Key      writ.Thumbprint // of its one presenter: the gateway, or the agent itself
	Actors   []Actor         // the agent first, then who delegated to it, and so on
	User     writ.UserID     // on whose behalf; empty if nobody's
	Issued   time.Time       // when the action was decided, in milliseconds
	Expires  time.Time       // in seconds; refused at or after it
	Scope
}

// An Actor is an agent and the key it proved.
type Actor struct {
	Agent writ.AgentID
	Key   writ.Thumbprint
}

// A Scope is the one action, and how it came to be permitted.
type Scope struct {
	Call          writ.CallID
	Task          writ.TaskID
	Environment   string
	Kind          writ.Kind
	Tool          writ.ToolName // as the gateway knows it
	Name          string        // as the server knows it
	Definition    writ.Digest   // of the tool's whole definition, as it was reviewed
	Arguments     writ.Digest
	Inputs        writ.Digest // of input responses; empty if there are none
	State         writ.Digest // of the request state; empty if there is none
	Preconditions writ.Digest // empty if there are none
	Action        writ.Digest // of all of it: what an approval is bound to
	Bundle        writ.Digest // of the policies that decided
	Tier          writ.Tier
	Approval      writ.ApprovalID // empty if nobody was asked
}

// Domains of the digests in a Scope.
const (
	hashArguments     = "arguments"
	hashInputs        = "inputs"
	hashState         = "state"
	hashPreconditions = "preconditions"
)

// ScopeOf is the part of a Scope that says which action it is. Call, Task and
// the rest are for the issuer to add.
func ScopeOf(a *writ.Action) Scope {
	return Scope{
		Kind: a.Kind, Name: a.Name, Definition: a.Definition,
		Arguments: digest(hashArguments, string(a.Arguments)), Inputs: digest(hashInputs, string(a.Inputs)),
		State: digest(hashState, a.State), Preconditions: digest(hashPreconditions, string(a.Preconditions)),
	}
}

// digest is empty for what is not there.
func digest(what, text string) writ.Digest {
	if text == "" {
		return ""
	}
	return writ.Hash(what, []byte(text))
}

// A claim is one text of the private claims.
type claim struct {
	name     string
	text     *string
	optional bool
}

func (s *Scope) claims() []claim {
	return []claim{
		{"call", (*string)(&s.Call), false},
		{"task", (*string)(&s.Task), false},
		{"environment", &s.Environment, false},
		{"kind", (*string)(&s.Kind), false},
		{"tool", (*string)(&s.Tool), false},
		{"name", &s.Name, false},
		{"definition", (*string)(&s.Definition), false},
		{"arguments", (*string)(&s.Arguments), false},
		{"inputs", (*string)(&s.Inputs), true},
		{"state", (*string)(&s.State), true},
		{"preconditions", (*string)(&s.Preconditions), true},
		{"action", (*string)(&s.Action), false},
		{"bundle", (*string)(&s.Bundle), false},
		{"approval", (*string)(&s.Approval), true},
	}
}

// Claims is the canonical claim set, or an error if something that every
// capability says is missing. It is for issuers: only a signature makes claims
// a capability.
func (c *Capability) Claims() (writ.JSON, error) {
	tier, err := c.Tier.MarshalText()
	if err != nil {
		return "", err
	}
	var private, all canon.Builder
	private.Int("v", 1)
	private.Int("time", c.Issued.UnixMilli())
	private.Text("tier", string(tier))
	for _, f := range c.claims() {
		if *f.text != "" {
			private.Text(f.name, *f.text)
		}
	}
	scope, err := private.JSON()
	if err != nil {
		return "", err
	}
	act, err := actorClaims(c.Actors)
	if err != nil {
		return "", err
	}
	cnf, err := confirmation(c.Key)
	if err != nil {
		return "", err
	}
	all.Value("act", act)
	all.Text("aud", c.Audience)
	all.Value("cnf", cnf)
	all.Int("exp", c.Expires.Unix())
	all.Int("iat", c.Issued.Unix())
	all.Text("iss", c.Issuer)
	all.Text("jti", string(c.ID))
	if c.User != "" {
		all.Text("sub", string(c.User))
	}
	all.Value("writ", scope)
	text, err := all.JSON()
	if err != nil {
		return "", err
	}
	// What a verifier would not read is not issued.
	if _, err := parseClaims(text); err != nil {
		return "", err
	}
	return text, nil
}

// actorClaims nests each actor in the one it delegated to (RFC 8693, 4.1).
func actorClaims(actors []Actor) (writ.JSON, error) {
	var inner writ.JSON
	for i := len(actors) - 1; i >= 0; i-- {
		cnf, err := confirmation(actors[i].Key)
		if err != nil {
			return "", err
		}
		var b canon.Builder
		if inner != "" {
			b.Value("act", inner)
		}
		b.Value("cnf", cnf)
		b.Text("sub", string(actors[i].Agent))
		if inner, err = b.JSON(); err != nil {
			return "", err
		}
	}
	if inner == "" {
		return "", errors.New("no actor")
	}
	return inner, nil
}

func confirmation(key writ.Thumbprint) (writ.JSON, error) {
	var b canon.Builder
	b.Text("jkt", string(key))
	return b.JSON()
}

// parseClaims reads a claim set. It refuses what it does not know.
func parseClaims(text writ.JSON) (*Capability, error) {
	v, err := canon.ParseObject([]byte(text), tokenLimits)
	if err != nil {
		return nil, err
	}
	r := &reader{}
	r.known(v, "act", "aud", "cnf", "exp", "iat", "iss", "jti", "sub", "writ")
	c := &Capability{Issuer: r.text(v, "iss"), Audience: r.text(v, "aud"), Expires: time.Unix(r.integer(v, "exp"), 0)}
	if v.Get("sub") != nil {
		c.User = writ.UserID(r.text(v, "sub"))
	}
	if c.ID, err = writ.ParseID[writ.CapabilityID](r.text(v, "jti")); err != nil {
		r.fail(errors.New("jti is no capability's"))
	}
	c.Key = r.confirmation(v)
	for act := v.Get("act"); ; act = act.Get("act") {
		r.known(act, "act", "cnf", "sub")
		c.Actors = append(c.Actors, Actor{Agent: writ.AgentID(r.text(act, "sub")), Key: r.confirmation(act)})
		if act.Get("act") == nil {
			break
		}
		if len(c.Actors) == MaxActors {
			r.fail(errors.New("too many actors"))
			break
		}
	}
	r.scope(v.Get("writ"), &c.Scope)
	c.Issued = time.UnixMilli(r.integer(v.Get("writ"), "time"))
	if r.integer(v, "iat") != c.Issued.Unix() {
		r.fail(errors.New("iat and writ.time are different times"))
	}
	if life := c.Expires.Sub(c.Issued); life <= 0 || life > MaxLife {
		r.fail(fmt.Errorf("it lives for %v", life))
	}
	return c, r.err
}

// A reader takes members out of objects and keeps the first thing wrong.
type reader struct{ err error }

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) known(v *canon.Value, names ...string) {
	if err := canon.Envelope(v, names...); err != nil {
		r.fail(err)
	}
}

// text is a member that is a text, and not empty.
func (r *reader) text(v *canon.Value, name string) string {
	s, ok := v.Get(name).Str()
	if !ok || s == "" {
		r.fail(fmt.Errorf("%s is no text, or an empty one", name))
	}
	return s
}

func (r *reader) integer(v *canon.Value, name string) int64 {
	lexeme, _ := v.Get(name).Number()
	n, ok := canon.Int64(lexeme)
	if !ok || n < 0 || n > 1<<53 {
		r.fail(fmt.Errorf("%s is no time", name))
		return 0
	}
	return n
}

func (r *reader) confirmation(v *canon.Value) writ.Thumbprint {
	cnf := v.Get("cnf")
	r.known(cnf, "jkt")
	return writ.Thumbprint(r.text(cnf, "jkt"))
}

func (r *reader) scope(v *canon.Value, s *Scope) {
	names := []string{"v", "time", "tier"}
	for _, f := range s.claims() {
		names = append(names, f.name)
		if !f.optional || v.Get(f.name) != nil {
			*f.text = r.text(v, f.name)
		}
	}
	r.known(v, names...)
	if r.integer(v, "v") != 1 {
		r.fail(errors.New("writ.v is not 1"))
	}
	if err := s.Tier.UnmarshalText([]byte(r.text(v, "tier"))); err != nil {
		r.fail(err)
	}
}
