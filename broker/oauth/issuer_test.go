package oauth_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/broker/oauth"
)

// An issuer is an authorization server that keeps to the RFCs, unless it is
// told how not to.
type issuer struct {
	*httptest.Server
	t      testing.TB
	public ed25519.PublicKey
	secret string

	mu       sync.Mutex
	scopes   map[string]string // of tokens that are alive
	jtis     map[string]bool
	subjects []string // of exchanges
	extra    map[string]any
	answer   http.HandlerFunc // instead of tokens
	revoke   http.HandlerFunc // instead of revoking
}

const (
	clientID = "writ gateway:1" // to be encoded in Basic authentication
	password = "cl1ent/s3cret+%"
	resource = "https://tool.example/mcp"
)

func newIssuer(t testing.TB) (*issuer, oauth.Config) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	is := &issuer{t: t, public: public, secret: password, scopes: map[string]string{}, jtis: map[string]bool{}, extra: map[string]any{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", is.token)
	mux.HandleFunc("POST /revoke", is.revocation)
	is.Server = httptest.NewTLSServer(mux)
	t.Cleanup(is.Close)
	return is, oauth.Config{
		Issuer: is.URL, TokenEndpoint: is.URL + "/token", RevocationEndpoint: is.URL + "/revoke", ClientID: clientID,
		Key: file(t, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))), KeyID: "k1",
		Scopes: []string{"orders.read", "orders.write"}, Resource: resource,
	}
}

func file(t testing.TB, text string) broker.Reference {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return broker.Reference{File: name}
}

func fail(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"error":%q,"error_description":"what you sent me is s3cret-echo"}`, code)
}

// client authenticates whoever asks.
func (is *issuer) client(r *http.Request) bool {
	if user, pass, ok := r.BasicAuth(); ok {
		user, _ = url.QueryUnescape(user)
		pass, _ = url.QueryUnescape(pass)
		return user == clientID && pass == is.secret
	}
	if r.PostFormValue("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" || r.PostFormValue("client_id") != clientID {
		return false
	}
	return is.verify(r.PostFormValue("client_assertion"), clientID) != nil
}

// verify checks what the client signed, and that it was not seen before.
func (is *issuer) verify(text, subject string) map[string]any {
	tok, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil || tok.Headers[0].KeyID != "k1" {
		is.t.Logf("an assertion that does not parse: %v", err)
		return nil
	}
	var c jwt.Claims
	all := map[string]any{}
	if err := tok.Claims(is.public, &c, &all); err != nil {
		is.t.Logf("an assertion that does not verify: %v", err)
		return nil
	}
	err = c.ValidateWithLeeway(jwt.Expected{Issuer: clientID, Subject: subject, AnyAudience: jwt.Audience{is.URL}, Time: time.Now()}, 0)
	if err != nil || c.ID == "" || len(c.Audience) != 1 || c.Expiry.Time().After(time.Now().Add(2*time.Minute)) {
		is.t.Logf("an assertion with the claims %v: %v", all, err)
		return nil
	}
	is.mu.Lock()
	defer is.mu.Unlock()
	if is.jtis[c.ID] {
		return nil
	}
	is.jtis[c.ID] = true
	return all
}

func (is *issuer) token(w http.ResponseWriter, r *http.Request) {
	is.mu.Lock()
	answer := is.answer
	is.mu.Unlock()
	if answer != nil {
		answer(w, r)
		return
	}
	if !is.client(r) {
		fail(w, 401, "invalid_client")
		return
	}
	switch r.PostFormValue("grant_type") {
	case "client_credentials":
	case "urn:ietf:params:oauth:grant-type:token-exchange":
		subject := r.PostFormValue("subject_token")
		if subject != "platform-token" {
			claims := is.verify(subject, "spiffe://acme.example/agent/billing")
			if claims == nil || r.PostFormValue("subject_token_type") != "urn:ietf:params:oauth:token-type:jwt" {
				fail(w, 400, "invalid_grant")
				return
			}
			subject = fmt.Sprintf("%v %v", claims["sub"], claims["writ"])
		}
		is.mu.Lock()
		is.subjects = append(is.subjects, subject+" "+r.PostFormValue("subject_token_type")+" "+r.PostFormValue("audience"))
		is.mu.Unlock()
	default:
		fail(w, 400, "unsupported_grant_type")
		return
	}
	if r.PostFormValue("resource") != resource {
		fail(w, 400, "invalid_target")
		return
	}
	value := "s3cret-" + rand.Text()
	res := map[string]any{"access_token": value, "token_type": "Bearer", "expires_in": 300, "scope": r.PostFormValue("scope")}
	is.mu.Lock()
	is.scopes[value] = r.PostFormValue("scope")
	for k, v := range is.extra {
		if res[k] = v; v == nil {
			delete(res, k)
		}
		if k == "refresh_token" {
			is.scopes[v.(string)] = "refresh"
		}
	}
	is.mu.Unlock()
	w.Header().Set("Content-Type", "application/json;charset=UTF-8")
	_ = json.NewEncoder(w).Encode(res)
}

func (is *issuer) revocation(w http.ResponseWriter, r *http.Request) {
	is.mu.Lock()
	answer := is.revoke
	is.mu.Unlock()
	if answer != nil {
		answer(w, r)
		return
	}
	if !is.client(r) {
		fail(w, 401, "invalid_client")
		return
	}
	is.mu.Lock()
	defer is.mu.Unlock()
	delete(is.scopes, r.PostFormValue("token"))
}

// misbehave has other answers given; nil is the honest one.
func (is *issuer) misbehave(token, revoke http.HandlerFunc) {
	is.mu.Lock()
	defer is.mu.Unlock()
	is.answer, is.revoke = token, revoke
}

// alive is what a resource that asks the issuer would accept.
func (is *issuer) alive() int {
	is.mu.Lock()
	defer is.mu.Unlock()
	return len(is.scopes)
}

func (is *issuer) driver(c oauth.Config) *oauth.Driver {
	is.t.Helper()
	sealer, err := broker.NewSealer([]byte(strings.Repeat("k", 32)))
	if err != nil {
		is.t.Fatal(err)
	}
	d, err := oauth.New(c, is.Client(), sealer, time.Now)
	if err != nil {
		is.t.Fatal(err)
	}
	return d
}
