// Package oauth leases access tokens of an OAuth 2.0 authorization server,
// with Writ as a confidential client: by client credentials (RFC 6749, section
// 4.4), or by token exchange (RFC 8693). The client proves itself with a
// signed assertion (RFC 7523) or with a secret; a token is for one resource
// (RFC 8707) and is revoked by RFC 7009.
//
// The server is not believed beyond what was asked: a token that lives longer
// than is accepted, or nobody knows how long, that has a scope which was not
// asked for, that is bound to a key, or that comes with a refresh token, is
// revoked and not used.
//
// A server cannot be asked for a token whose making nobody heard of, so that
// one expires. And a resource that does not ask the issuer accepts a revoked
// token until it expires. The evidence says so.
package oauth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/writgate/writ"
	"github.com/writgate/writ/broker"
)

// A Driver leases tokens of one client.
type Driver struct {
	config Config
	http   *http.Client
	sealer *broker.Sealer
	now    func() time.Time
}

// New checks c, and that what it refers to can be read. The client connects to
// the server and nowhere else: no redirect is followed. The sealer closes the
// handles of tokens, which are the tokens themselves.
func New(c Config, client *http.Client, sealer *broker.Sealer, now func() time.Time) (*Driver, error) {
	if client == nil || sealer == nil || now == nil {
		return nil, errors.New("oauth: a client, a sealer and a clock are needed")
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("oauth: %w", err)
	}
	if c.Longest == 0 {
		c.Longest = defaultLongest
	}
	direct := *client
	direct.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	d := &Driver{config: c, http: &direct, sealer: sealer, now: now}
	if err := d.authenticate(make(url.Values), make(http.Header)); err != nil {
		return nil, fmt.Errorf("oauth: %w", err)
	}
	return d, nil
}

// Lifetime implements broker.Driver.
func (d *Driver) Lifetime(time.Duration) time.Duration { return d.config.Longest }

// A handle is what ends tokens. It is sealed: the tokens are in it.
type handle struct {
	Tokens []token `json:"tokens"`
	Until  int64   `json:"until"` // Unix milliseconds
}

type token struct {
	Value string `json:"value"`
	Hint  string `json:"hint"` // RFC 7009, section 2.1
}

const sealedAs = "oauth tokens"

// Mint implements broker.Driver.
func (d *Driver) Mint(ctx context.Context, row broker.Row) (broker.Minted, error) {
	form, err := d.request(row)
	if err != nil {
		return broker.Minted{}, err
	}
	body, err := d.post(ctx, d.config.TokenEndpoint, form)
	if err != nil {
		return broker.Minted{}, fmt.Errorf("asking for a token: %w", err)
	}
	r, err := parseResponse(body)
	if err != nil {
		return broker.Minted{}, err
	}

	// Something exists from here on: say first how to end it.
	h := handle{Until: d.now().Add(d.config.Longest).UnixMilli(), Tokens: []token{{r.Access, "access_token"}}}
	if r.life > 0 {
		h.Until = d.now().Add(r.life).UnixMilli()
	}
	m := broker.Minted{Until: h.Until}
	if r.Refresh != "" {
		h.Tokens = append(h.Tokens, token{r.Refresh, "refresh_token"})
		if s, err := broker.NewSecret(string(row.Lease)+" refresh token", r.Refresh); err == nil {
			m.Also = []broker.Secret{s}
		}
	}
	plain, err := json.Marshal(h)
	if err != nil {
		return m, err
	}
	m.Handle = base64.RawURLEncoding.EncodeToString(d.sealer.Seal(sealedAs, plain))
	if m.Secret, err = broker.NewSecret(string(row.Lease), r.Access); err != nil {
		return m, err
	}
	return m, d.judge(r)
}

// judge says what is wrong with what the server answered.
func (d *Driver) judge(r *response) error {
	switch {
	case !strings.EqualFold(r.Type, "Bearer"):
		return errors.New("the server made a token that is no bearer token")
	case r.life <= 0:
		return errors.New("the server does not say how long its token lives")
	case r.life > d.config.Longest:
		return fmt.Errorf("the server made a token that lives %v; at most %v is accepted", r.life, d.config.Longest)
	case r.Refresh != "":
		return errors.New("the server made a refresh token, which nobody asked for")
	}
	for _, s := range strings.Fields(r.Scope) {
		if len(d.config.Scopes) > 0 && !slices.Contains(d.config.Scopes, s) {
			return errors.New("the server made a token with a scope that was not asked for")
		}
	}
	return nil
}

// request is the body of a token request, but for who asks.
func (d *Driver) request(row broker.Row) (url.Values, error) {
	form := url.Values{"grant_type": {"client_credentials"}}
	if len(d.config.Scopes) > 0 {
		form.Set("scope", strings.Join(d.config.Scopes, " "))
	}
	if d.config.Resource != "" {
		form.Set("resource", d.config.Resource)
	}
	x := d.config.Exchange
	if x == nil {
		return form, nil
	}
	form.Set("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
	form.Set("requested_token_type", "urn:ietf:params:oauth:token-type:access_token")
	form.Set("subject_token_type", typeJWT)
	if x.SubjectType != "" {
		form.Set("subject_token_type", x.SubjectType)
	}
	if x.Audience != "" {
		form.Set("audience", x.Audience)
	}
	if x.Subject == (broker.Reference{}) {
		subject, err := d.assert(map[string]any{
			"sub": row.Agent, "jti": row.Lease,
			"writ": map[string]any{"task": row.Task, "tool": row.Tool},
		})
		if err != nil {
			return nil, err
		}
		form.Set("subject_token", subject)
		return form, nil
	}
	subject, err := x.Subject.Read()
	if err != nil {
		return nil, fmt.Errorf("reading the subject token: %w", err)
	}
	form.Set("subject_token", string(subject))
	return form, nil
}

// Revoke implements broker.Driver.
func (d *Driver) Revoke(ctx context.Context, sealed string) (broker.Evidence, error) {
	if _, err := writ.ParseID[writ.LeaseID](sealed); err == nil {
		return broker.Evidence{Outcome: broker.Expires, Steps: []string{"no answer was received, so if there is a token nobody can name it"}}, nil
	}
	h, err := d.open(sealed)
	if err != nil {
		return broker.Evidence{}, err
	}
	ev := broker.Evidence{Outcome: broker.RevokedAtIssuer, Until: h.Until}
	if d.config.RevocationEndpoint == "" {
		return broker.Evidence{Outcome: broker.Expires, Until: h.Until, Steps: []string{"revocation_unsupported: the issuer has no revocation endpoint"}}, nil
	}
	for _, t := range h.Tokens {
		_, err := d.post(ctx, d.config.RevocationEndpoint, url.Values{"token": {t.Value}, "token_type_hint": {t.Hint}})
		refused, _ := errors.AsType[*refusal](err)
		switch {
		case refused != nil && refused.code == "unsupported_token_type":
			ev.Outcome = broker.Expires
			ev.Steps = append(ev.Steps, "revocation_unsupported: the issuer does not revoke this kind of "+t.Hint)
		case err != nil:
			return ev, fmt.Errorf("revoking the %s: %w", t.Hint, err)
		default:
			ev.Steps = append(ev.Steps, t.Hint+" revoked at the issuer")
		}
	}
	return ev, nil
}

func (d *Driver) open(sealed string) (h handle, err error) {
	b, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil {
		return h, errors.New("the handle is none of this driver's")
	}
	if b, err = d.sealer.Open(sealedAs, b); err != nil {
		return h, err
	}
	if err := json.Unmarshal(b, &h); err != nil {
		return h, errors.New("the handle does not parse") // the error might quote it
	}
	return h, nil
}
