// Package token is Writ's token endpoint: it gives an agent that has proven
// who it is a short-lived access token, bound to a key that it has proven to
// hold.
//
// An agent authenticates itself by a JWT under one of its registered keys
// (private_key_jwt, RFC 7523) or by an X.509-SVID over mutual TLS (RFC 8705;
// the certificate's URI name is the client). It shows the key that it will
// call with by a DPoP proof (RFC 9449), without which nothing is issued: there
// are no bearer tokens, no client secrets and no refresh tokens here.
//
// Two grants are served: client_credentials (RFC 6749, 4.4), and token
// exchange (RFC 8693) of a statement that the agent signed about itself. A
// token names the task that its key is bound to, if there is one, and never a
// permission: whether a call may be made is decided when it is made.
//
// Proofs, assertions and statements are used once, across gateways and
// restarts: their rows are made in the transaction that records the token.
// What is refused before anybody is known is counted, what is refused after is
// a record.
package token

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/identity"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/registry"
	"github.com/writgate/writ/task"
)

// Where the endpoint and its documents are, below the issuer. The last is
// followed by the path of the resource (RFC 9728, 3.1).
const (
	Path           = "/oauth/token"
	PathAuthorize  = "/oauth/authorize"
	PathKeys       = "/oauth/jwks"
	PathServer     = "/.well-known/oauth-authorization-server"
	PathResource   = "/.well-known/oauth-protected-resource"
	maxConflicts   = 3
	maxDescription = 400
)

// A Config is what an Endpoint works with.
type Config struct {
	// Identity verifies what agents show. Its Issuer is this endpoint's, an
	// origin such as https://writ.example; its Audience is the one resource
	// that tokens are issued for.
	Identity *identity.Verifier
	Tokens   *identity.Tokens
	Catalog  *registry.Catalog
	Tasks    *task.Book
	Ledger   *ledger.Ledger
	Now      func() time.Time

	// Keys gives the public keys that are registered for an agent. Nil means
	// that agents authenticate by their SVIDs alone.
	Keys func(context.Context, writ.AgentID) ([]crypto.PublicKey, error)

	// Count counts a refusal of somebody who is not known. It may be nil.
	Count func(writ.Code)
}

// An Endpoint is a token endpoint with its documents. [New] makes one.
type Endpoint struct {
	Config
	resource string // path of the resource
	server   []byte // metadata of RFC 8414
	about    []byte // metadata of RFC 9728
}

// New gives an Endpoint, if issuer and audience can be what they should be.
func New(c Config) (*Endpoint, error) {
	if c.Identity == nil || c.Tokens == nil || c.Catalog == nil || c.Tasks == nil || c.Ledger == nil || c.Now == nil {
		return nil, errors.New("a token endpoint without all it works with")
	}
	issuer, err := url.Parse(c.Identity.Issuer)
	if err != nil || issuer.Scheme+"://"+issuer.Host != c.Identity.Issuer || issuer.Host == "" {
		return nil, errors.New("the issuer is not an origin such as https://writ.example") // RFC 8414, 2
	}
	if issuer.Scheme != "https" && !(issuer.Scheme == "http" && c.Identity.Development && loopback(issuer.Hostname())) {
		return nil, fmt.Errorf("the issuer %s is not https", issuer)
	}
	resource, err := url.Parse(c.Identity.Audience)
	if err != nil || resource.Host == "" || resource.Fragment != "" || resource.RawQuery != "" || resource.User != nil || resource.Scheme != issuer.Scheme {
		return nil, errors.New("the audience is not an absolute URI of the issuer's scheme without query and fragment") // RFC 9728, 1.2
	}
	e := &Endpoint{Config: c, resource: strings.TrimSuffix(resource.EscapedPath(), "/")}
	return e, e.describe()
}

// loopback says whether a host is this machine, by name: nothing is resolved.
func loopback(host string) bool {
	return host == "127.0.0.1" || host == "::1" || host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// ServeHTTP answers one request for a token.
func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{e: e, r: r}
	granted, err := x.serve()
	if err != nil {
		x.refuse(w, err)
		return
	}
	writeJSON(w, http.StatusOK, granted)
}

// An exchange is one request for a token.
type exchange struct {
	e    *Endpoint
	r    *http.Request
	form form
	body []byte

	agent writ.AgentID    // who was authenticated; empty before that
	key   writ.Thumbprint // that the token is bound to
	spent []spent
	until time.Time // the soonest end of what the token is issued on
}

// spent is something that is used up by a request, whatever comes of it, and
// the error if it was used before.
type spent struct {
	row        ledger.Change
	code, text string
}

// serve takes a request through its steps. Whoever is a stranger is refused
// before anything is remembered of them.
func (x *exchange) serve() (granted string, err error) {
	defer func() {
		if r := recover(); r != nil {
			granted, err = "", unavailable("tokens cannot be issued now: try again", fmt.Errorf("panic with a %T", r)) // it may hold an assertion
		}
	}()
	if err := x.read(); err != nil {
		return "", err
	}
	x.until = x.e.Now().Add(identity.MaxToken)
	if err := x.authenticate(); err != nil {
		return "", err
	}
	if err := x.possess(); err != nil {
		return "", err
	}
	if err := x.grant(); err != nil {
		return "", err
	}
	for range maxConflicts {
		text, err := x.issue()
		if !errors.Is(err, ledger.ErrConflict) {
			return text, err
		}
	}
	return "", unavailable("the agent or its task is changing: try again", nil)
}

// issue reads what the token depends on, makes it, and records that, in this
// order: a token that is not on record does not leave.
func (x *exchange) issue() (string, error) {
	ctx, e := x.r.Context(), x.e
	agent, reads, err := e.Catalog.Agent(ctx, x.agent)
	if err != nil {
		return "", err
	}
	ends := x.until
	for _, ms := range []int64{agent.Expires, agent.RecertifyBy} {
		if ms != 0 {
			ends = sooner(ends, time.UnixMilli(ms))
		}
	}
	bound, more, err := x.task()
	if err != nil {
		return "", err
	}
	if bound.ID != "" {
		ends = sooner(ends, time.UnixMilli(bound.Expires))
	}
	now := e.Now()
	text, ends, err := e.Tokens.Issue(identity.Binding{
		Agent: x.agent, Key: x.key, Audience: e.Identity.Audience, Task: bound.ID, User: bound.User, Until: ends,
	}, now)
	if err != nil {
		return "", refused(invalidGrant, "what the token would be issued on is over", err)
	}
	_, err = e.Ledger.Commit(ctx, &ledger.Entry{
		Leaf: ledger.Leaf{
			Type: ledger.TypeAgent, Agent: x.agent, Key: x.key, Task: bound.ID, Environment: agent.Environment, Effect: writ.Permit.String(),
			Note: map[string]string{"act": "token", "until": strconv.FormatInt(ends.UnixMilli(), 10)},
		},
		User: bound.User, Expect: append(reads, more...), Changes: x.changes(),
	})
	if err != nil {
		return "", x.unrecorded(err)
	}
	return answer(text, int64(ends.Sub(now).Seconds())), nil
}

// task gives the task that the key is bound to, with no ID if there is none,
// and what a commit must find unchanged. It opens none: a key that calls
// without a task gets one then.
func (x *exchange) task() (writ.Task, []ledger.Expect, error) {
	ctx, e := x.r.Context(), x.e
	row, found, err := e.Ledger.Get(ctx, task.KindKey, string(x.key))
	if err != nil {
		return writ.Task{}, nil, unavailable("the key's task cannot be read now: try again", err)
	}
	if !found {
		return writ.Task{}, []ledger.Expect{{Kind: task.KindKey, Key: string(x.key), At: ledger.Absent}}, nil
	}
	held, err := e.Tasks.Get(ctx, writ.TaskID(row.Value))
	if err != nil {
		return writ.Task{}, nil, unavailable("the key's task cannot be read now: try again", err)
	}
	reads := append(held.Reads, ledger.Expect{Kind: task.KindKey, Key: string(x.key), At: row.At})
	t := held.Task
	if t.State == writ.Ended || e.Now().UnixMilli() >= t.Expires {
		return writ.Task{}, reads, nil
	}
	if t.Agent != x.agent {
		return writ.Task{}, nil, refused(invalidGrant, "this key is bound to another agent's task: use one key for each agent", nil)
	}
	return t, reads, nil
}

// changes are the rows that make what was spent single use.
func (x *exchange) changes() []ledger.Change {
	var all []ledger.Change
	for _, s := range x.spent {
		all = append(all, s.row)
	}
	return all
}

// unrecorded is why a commit failed.
func (x *exchange) unrecorded(err error) error {
	used, ok := errors.AsType[*ledger.Error](err)
	switch {
	case errors.Is(err, ledger.ErrConflict):
		return err
	case !ok || !errors.Is(err, ledger.ErrUsed):
		return unavailable("the token cannot be recorded now: try again", err)
	}
	i := slices.IndexFunc(x.spent, func(s spent) bool { return s.row.Kind == used.Kind && s.row.Key == used.Key })
	first := x.spent[max(i, 0)]
	x.spent = nil // it is spent already
	return refused(first.code, first.text, err)
}

func sooner(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
