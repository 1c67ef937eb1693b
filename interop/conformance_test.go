package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestConformance runs the official suite against the official everything
// server, through Writ: every scenario that a revision requires. What does not
// pass is listed in testdata with its reason, and nothing listed may pass.
//
// The suite has no credentials and knows no Writ: it runs as an agent does,
// behind a sidecar.
func TestConformance(t *testing.T) {
	suite := program(t, "@modelcontextprotocol/conformance/dist/index.js")
	everything := build(t, "github.com/modelcontextprotocol/go-sdk/conformance/everything-server", "everything-server")
	for _, x := range []struct{ revision, stateless string }{{"2026-07-28", "true"}, {"2025-11-25", "false"}} {
		t.Run(x.revision, func(t *testing.T) {
			port := freePort(t)
			start(t, exec.Command(everything, fmt.Sprintf("-http=127.0.0.1:%d", port), "-stateless="+x.stateless))
			time.Sleep(time.Second)
			g := up(t, fmt.Sprintf("upstreams:\n  - {name: every, url: 'http://localhost:%d', continuations: true}\n", port))
			g.cli("tools", "review", "--tier", "read-only", "--no-fetch")
			baseline, err := filepath.Abs("testdata/conformance-" + x.revision + ".yaml")
			if err != nil {
				t.Fatal(err)
			}
			// The suite's name for loopback is localhost.
			script := filepath.Join(t.TempDir(), "suite.sh")
			text := fmt.Sprintf("#!/bin/sh\nexec %s %s server --url \"$(echo \"$WRIT_MCP_URL\" | sed s/127.0.0.1/localhost/)\" --requirements %s --expected-failures %s --output-dir %s\n",
				node(t), suite, x.revision, baseline, t.TempDir())
			if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
				t.Fatal(err)
			}
			out, err := g.agent([]string{"--task", "conform", "--only", "every"}, script)
			_, summary, _ := strings.Cut(out, "=== SUMMARY ===")
			t.Log(summary)
			if err != nil {
				t.Error(err)
			}
			if n := g.effects()["permit"]; n < 20 {
				t.Errorf("only %d calls went through Writ", n)
			}
		})
	}
}
