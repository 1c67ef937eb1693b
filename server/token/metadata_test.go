package token_test

import (
	"encoding/json"
	"io"
	"net/http/httptest"
	"testing"

	"github.com/writgate/writ/identity"
	"github.com/writgate/writ/server/token"
)

// TestH69Metadata holds that the documents say what is so: the issuer letter
// for letter, and nothing that is not served.
func TestH69Metadata(t *testing.T) {
	w := newWorld(t)
	get := func(path string) map[string]any {
		rec := httptest.NewRecorder()
		w.handler.ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
		text, err := io.ReadAll(rec.Body)
		if err != nil || rec.Code != 200 || rec.Header().Get("Content-Type") != "application/json" {
			t.Fatalf("%s: %d, %v", path, rec.Code, err)
		}
		var m map[string]any
		if err := json.Unmarshal(text, &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	server := get("/.well-known/oauth-authorization-server")
	if server["issuer"] != issuer || server["token_endpoint"] != issuer+token.Path || server["jwks_uri"] != issuer+token.PathKeys {
		t.Errorf("%v", server)
	}
	for _, never := range []string{"registration_endpoint", "scopes_supported", "code_challenge_methods_supported"} {
		if server[never] != nil {
			t.Errorf("%s is announced", never)
		}
	}
	if types := server["response_types_supported"].([]any); len(types) != 0 {
		t.Errorf("response types %v", types)
	}
	if server["authorization_endpoint"] != issuer+token.PathAuthorize {
		t.Errorf("the authorization endpoint is %v", server["authorization_endpoint"])
	}
	for _, method := range []string{"GET", "POST"} {
		rec := httptest.NewRecorder()
		w.handler.ServeHTTP(rec, httptest.NewRequest(method, token.PathAuthorize+"?response_type=code&redirect_uri=https://elsewhere.example/", nil))
		if rec.Code != 400 || rec.Header().Get("Location") != "" {
			t.Errorf("%s of the authorization endpoint: %d, to %q", method, rec.Code, rec.Header().Get("Location"))
		}
	}
	for _, grant := range server["grant_types_supported"].([]any) {
		if a := w.post(t, w.request(t, map[string]string{"grant_type": grant.(string)}), nil); a.Error == "unsupported_grant_type" {
			t.Errorf("%v is announced and not served", grant)
		}
	}
	about := get("/.well-known/oauth-protected-resource/mcp")
	if about["resource"] != audience || about["authorization_servers"].([]any)[0] != issuer || about["dpop_bound_access_tokens_required"] != true {
		t.Errorf("%v", about)
	}
	if w.endpoint.Metadata() != "/.well-known/oauth-protected-resource/mcp" {
		t.Errorf("the challenge points to %s", w.endpoint.Metadata())
	}
	key := get(token.PathKeys)["keys"].([]any)[0].(map[string]any)
	if key["alg"] != "EdDSA" || key["use"] != "sig" || key["d"] != nil {
		t.Errorf("%v", key)
	}
}

func TestNew(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*identity.Verifier){
		"http":                     func(v *identity.Verifier) { v.Issuer = "http://writ.example" },
		"http on this machine":     func(v *identity.Verifier) { v.Issuer = "http://writ.localhost:7443" },
		"a path":                   func(v *identity.Verifier) { v.Issuer = issuer + "/" },
		"a query":                  func(v *identity.Verifier) { v.Issuer = issuer + "?x" },
		"a user":                   func(v *identity.Verifier) { v.Issuer = "https://a@writ.example" },
		"no host":                  func(v *identity.Verifier) { v.Issuer = "https://" },
		"nothing":                  func(v *identity.Verifier) { v.Issuer = "" },
		"no audience":              func(v *identity.Verifier) { v.Audience = "" },
		"an audience of a name":    func(v *identity.Verifier) { v.Audience = "writ" },
		"an audience with a part":  func(v *identity.Verifier) { v.Audience = audience + "#x" },
		"an audience over http":    func(v *identity.Verifier) { v.Audience = "http://writ.example/mcp" },
		"development, another's":   func(v *identity.Verifier) { v.Development, v.Issuer = true, "http://writ.example" },
		"development, no loopback": func(v *identity.Verifier) { v.Development, v.Issuer = true, "http://localhost.example" },
	} {
		c := w.endpoint.Config
		c.Identity = &identity.Verifier{Issuer: issuer, Audience: audience}
		change(c.Identity)
		if _, err := token.New(c); err == nil {
			t.Errorf("New took %s: %s for %s", name, c.Identity.Issuer, c.Identity.Audience)
		}
	}
	c := w.endpoint.Config
	c.Identity = &identity.Verifier{Issuer: "http://writ.localhost:7443", Audience: "http://writ.localhost:7443/mcp", Development: true}
	if _, err := token.New(c); err != nil {
		t.Error(err)
	}
	if _, err := token.New(token.Config{}); err == nil {
		t.Error("New took nothing")
	}
}
