package demo

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// tokenLife is how long a credential lives that nobody revokes.
const tokenLife = 5 * time.Minute

// An authorization is a small OAuth 2.0 authorization server: client
// credentials (RFC 6749, 4.4), revocation (RFC 7009) and introspection (RFC
// 7662). It keeps the hashes of its tokens, and shows on a page what became
// of each.
type authorization struct {
	shared string

	mu     sync.Mutex
	tokens map[[sha256.Size]byte]*token
	issued []*token
}

type token struct {
	ID      string     `json:"id"`
	Client  string     `json:"client"`
	Issued  time.Time  `json:"issued"`
	Expires time.Time  `json:"expires"`
	Revoked *time.Time `json:"revoked,omitempty"`
	State   string     `json:"state"`
}

func openAuthorization(o *Options) (*server, error) {
	if o.Secret == "" {
		return nil, fmt.Errorf("it needs the demo's shared secret")
	}
	a := &authorization{shared: o.Secret, tokens: map[[sha256.Size]byte]*token{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", a.metadata)
	mux.HandleFunc("POST /token", a.grant)
	mux.HandleFunc("POST /revoke", a.revoke)
	mux.HandleFunc("POST /introspect", a.introspect)
	return &server{more: mux, pages: map[string]func(context.Context) (any, error){"/tokens": a.shown}, close: func() error { return nil }}, nil
}

// client authenticates the client of a request (RFC 6749, 2.3.1), and reads
// its form.
func (a *authorization) client(w http.ResponseWriter, r *http.Request, want string) bool {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	name, secret, ok := r.BasicAuth()
	if !ok || name != want || subtle.ConstantTimeCompare([]byte(secret), []byte(ClientSecret(a.shared, want))) != 1 {
		w.Header().Set("WWW-Authenticate", `Basic realm="acme"`)
		answer(w, http.StatusUnauthorized, map[string]string{"error": "invalid_client"})
		return false
	}
	if err := r.ParseForm(); err != nil {
		answer(w, http.StatusBadRequest, map[string]string{"error": "invalid_request"})
		return false
	}
	return true
}

func (a *authorization) metadata(w http.ResponseWriter, r *http.Request) {
	base := "http://" + r.Host
	answer(w, http.StatusOK, map[string]any{
		"issuer": base, "token_endpoint": base + "/token", "revocation_endpoint": base + "/revoke", "introspection_endpoint": base + "/introspect",
		"grant_types_supported": []string{"client_credentials"}, "scopes_supported": []string{Payments},
		"token_endpoint_auth_methods_supported": []string{"client_secret_basic"}, "response_types_supported": []string{},
	})
}

func (a *authorization) grant(w http.ResponseWriter, r *http.Request) {
	if !a.client(w, r, LeaseClient) {
		return
	}
	if r.PostForm.Get("grant_type") != "client_credentials" {
		answer(w, http.StatusBadRequest, map[string]string{"error": "unsupported_grant_type"})
		return
	}
	if scope := r.PostForm.Get("scope"); scope != "" && scope != Payments {
		answer(w, http.StatusBadRequest, map[string]string{"error": "invalid_scope"})
		return
	}
	text, now := rand.Text()+rand.Text(), time.Now().UTC()
	a.mu.Lock()
	defer a.mu.Unlock()
	t := &token{ID: fmt.Sprintf("credential-%d", len(a.issued)+1), Client: LeaseClient, Issued: now, Expires: now.Add(tokenLife)}
	a.tokens[sha256.Sum256([]byte(text))] = t
	a.issued = append(a.issued, t)
	answer(w, http.StatusOK, map[string]any{"access_token": text, "token_type": "Bearer", "expires_in": int(tokenLife.Seconds()), "scope": Payments})
}

// revoke ends a token. What never was one is revoked too (RFC 7009, 2.2).
func (a *authorization) revoke(w http.ResponseWriter, r *http.Request) {
	if !a.client(w, r, LeaseClient) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if t := a.tokens[sha256.Sum256([]byte(r.PostForm.Get("token")))]; t != nil && t.Revoked == nil {
		now := time.Now().UTC()
		t.Revoked = &now
	}
	w.WriteHeader(http.StatusOK)
}

// An introspection says what a token is worth (RFC 7662, 2.2).
type introspection struct {
	Active  bool   `json:"active"`
	Scope   string `json:"scope,omitempty"`
	Client  string `json:"client_id,omitempty"`
	ID      string `json:"jti,omitempty"`
	Expires int64  `json:"exp,omitempty"`
}

func (a *authorization) introspect(w http.ResponseWriter, r *http.Request) {
	if !a.client(w, r, Payments) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tokens[sha256.Sum256([]byte(r.PostForm.Get("token")))]
	if t == nil || t.state(time.Now()) != "alive" {
		answer(w, http.StatusOK, introspection{})
		return
	}
	answer(w, http.StatusOK, introspection{Active: true, Scope: Payments, Client: t.Client, ID: t.ID, Expires: t.Expires.Unix()})
}

func (t *token) state(now time.Time) string {
	switch {
	case t.Revoked != nil:
		return "revoked"
	case !now.Before(t.Expires):
		return "expired"
	}
	return "alive"
}

// shown is the page of every credential that there ever was.
func (a *authorization) shown(context.Context) (any, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := []token{}
	for _, t := range a.issued {
		one := *t
		one.State = t.state(time.Now())
		all = append(all, one)
	}
	return all, nil
}
