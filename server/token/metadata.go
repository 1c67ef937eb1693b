package token

import (
	"net/http"

	"github.com/writgate/writ/canon"
)

// algorithms are those that agents may sign with. EdDSA and Ed25519 (RFC
// 9864) are two names of one.
var algorithms = []string{"EdDSA", "Ed25519", "ES256", "ES384"}

// describe makes the documents. They say what is served, and nothing more.
func (e *Endpoint) describe() error {
	issuer := e.Identity.Issuer
	var server, about canon.Builder
	server.Text("issuer", issuer)
	server.Text("token_endpoint", issuer+Path)
	server.Text("jwks_uri", issuer+PathKeys)
	// There is nobody to ask at the authorization endpoint. RFC 8414 would let
	// us leave it out; clients that are about reject a document without it.
	server.Text("authorization_endpoint", issuer+PathAuthorize)
	server.Texts("response_types_supported", nil)
	server.Texts("grant_types_supported", []string{clientCredentials, tokenExchange})
	var methods []string
	if e.Keys != nil {
		methods = append(methods, "private_key_jwt")
		server.Texts("token_endpoint_auth_signing_alg_values_supported", algorithms)
	}
	if e.Identity.Bundles != nil {
		methods = append(methods, "tls_client_auth")
	}
	server.Texts("token_endpoint_auth_methods_supported", methods)
	server.Texts("dpop_signing_alg_values_supported", algorithms)
	server.Texts("protected_resources", []string{e.Identity.Audience}) // RFC 9728, 4

	about.Text("resource", e.Identity.Audience)
	about.Texts("authorization_servers", []string{issuer})
	about.Texts("bearer_methods_supported", []string{"header"})
	about.Bool("dpop_bound_access_tokens_required", true)
	about.Texts("dpop_signing_alg_values_supported", algorithms)
	for _, d := range []struct {
		b    *canon.Builder
		into *[]byte
	}{{&server, &e.server}, {&about, &e.about}} {
		text, err := d.b.JSON()
		if err != nil {
			return err
		}
		*d.into = []byte(text)
	}
	return nil
}

// Handlers are the endpoint and its documents, by their patterns of
// [http.ServeMux]. They are all that an unknown client may see.
func (e *Endpoint) Handlers() map[string]http.Handler {
	document := func(text func() []byte) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			h := w.Header()
			h.Set("Content-Type", "application/json")
			h.Set("Cache-Control", "no-cache")
			h.Set("X-Content-Type-Options", "nosniff")
			w.Write(text())
		})
	}
	return map[string]http.Handler{
		Path:                  e,
		PathAuthorize:         http.HandlerFunc(authorize),
		"GET " + PathKeys:     document(func() []byte { return []byte(e.Tokens.JWKS()) }),
		"GET " + PathServer:   document(func() []byte { return e.server }),
		"GET " + e.Metadata(): document(func() []byte { return e.about }),
	}
}

// authorize answers whoever comes to have a user asked. It sends nobody back:
// it knows no client whose address it could trust (RFC 6749, 4.1.2.1).
func authorize(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	http.Error(w, "unsupported_response_type: agents prove a key at "+Path+"; nobody signs in here", http.StatusBadRequest)
}

// Metadata is the path of the resource's document, to which a challenge
// points (RFC 9728, 5.1).
func (e *Endpoint) Metadata() string { return PathResource + e.resource }
