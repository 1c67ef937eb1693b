package interop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestClient has the official TypeScript client come to Writ as an agent of
// its own: no sidecar, no code of ours. It is told a URL and has its key, and
// finds the rest, in both eras. What it asks without anybody's task, it may
// only read.
func TestClient(t *testing.T) {
	const agent = "spiffe://writ.localhost/agent/typescript"
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	key := filepath.Join(dir, "agent.pem")
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644); err != nil {
		t.Fatal(err)
	}
	if der, err = x509.MarshalPKCS8PrivateKey(private); err != nil {
		t.Fatal(err)
	}
	secret := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))

	g := up(t, fmt.Sprintf(`  agents:
    - {id: %q, owner: omar, purpose: to be somebody else's, environment: development, highest_tier: privileged, keys: [%q]}
upstreams:
  - {name: memory, command: [%q, %q]}
`, agent, key, node(t), program(t, "@modelcontextprotocol/server-memory/dist/index.js")))
	g.cli("tools", "review", "memory.read_graph", "--tier", "read-only")
	g.cli("tools", "review", "memory.create_entities", "--tier", "bounded-write")
	script := g.script("client.mjs")

	for _, mode := range []string{"auto", "legacy"} {
		t.Run(mode, func(t *testing.T) {
			call := func(tool, args string) (said struct {
				Tools      []string
				Text, Type string
				Error      bool
			}) {
				cmd := exec.Command(node(t), script, g.url+"/mcp", g.issuer, agent, mode, tool, args)
				cmd.Env = append(os.Environ(), "AGENT_KEY="+secret, "NODE_EXTRA_CA_CERTS="+filepath.Join(g.dir, "keys", "devca.pem"))
				out, err := cmd.Output()
				if err != nil {
					t.Fatalf("%v\n%s%s", err, out, stderr(err))
				}
				if err := json.Unmarshal(out, &said); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				return said
			}
			read := call("memory.read_graph", `{}`)
			if read.Error || !strings.EqualFold(read.Type, "DPoP") || !strings.Contains(read.Text, "entities") {
				t.Errorf("reading: %+v", read)
			}
			wrote := call("memory.create_entities", `{"entities":[{"name":"Lena","entityType":"person","observations":[]}]}`)
			if !wrote.Error {
				t.Errorf("writing without a task: %+v", wrote)
			}
		})
	}
	if got := g.effects(); got["permit memory.read_graph"] != 2 || got["permit memory.create_entities"] != 0 {
		t.Errorf("decided: %v", got)
	}
}

// stderr is what a process wrote to its standard error before it failed.
func stderr(err error) string {
	if e, ok := err.(*exec.ExitError); ok {
		return string(e.Stderr)
	}
	return ""
}
