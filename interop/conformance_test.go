package interop

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
)

// TestConformance runs the official suite against the official everything
// server twice: directly, and through Writ. Whatever passes directly passes
// through Writ too, check by check, scored or not, or is listed in testdata
// with its reason; and nothing that is listed passes.
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
			listening(t, port)
			server := fmt.Sprintf("http://localhost:%d", port) // the only name that it answers to
			dir := t.TempDir()
			// The suite fails where a check does; what counts is said below.
			script := filepath.Join(dir, "suite.sh")
			text := fmt.Sprintf("#!/bin/sh\n%s %s server --url \"$(echo \"$1$WRIT_MCP_URL\" | sed s/127.0.0.1/localhost/)\" --requirements %s --output-dir \"$2\" || true\n",
				node(t), suite, x.revision)
			if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(script, server, filepath.Join(dir, "direct")).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			g := up(t, fmt.Sprintf("upstreams:\n  - {name: every, url: '%s', continuations: true}\n", server))
			g.cli("tools", "review", "--tier", "read-only", "--no-fetch")
			if _, err := g.agent([]string{"--task", "conform", "--only", "every"}, script, "", filepath.Join(dir, "through")); err != nil {
				t.Error(err)
			}
			if n := g.effects()["permit"]; n < 20 {
				t.Errorf("only %d calls went through Writ", n)
			}
			compare(t, checks(t, filepath.Join(dir, "direct")), checks(t, filepath.Join(dir, "through")), baseline(t, x.revision))
		})
	}
}

// compare fails for what passed directly and not through Writ, and for what is
// listed without need.
func compare(t *testing.T, direct, through map[string]string, listed []string) {
	t.Helper()
	passed := 0
	for _, check := range slices.Sorted(maps.Keys(direct)) {
		excused := slices.Contains(listed, check)
		switch {
		case direct[check] != "":
		case through[check] == "":
			passed++
			if excused {
				t.Errorf("%s is listed, and passes", check)
			}
		case !excused:
			t.Errorf("%s passes directly, and not through Writ: %s", check, through[check])
		}
	}
	for _, check := range listed {
		if why, ok := direct[check]; !ok || why != "" {
			t.Errorf("%s is listed, and does not pass directly: %q", check, why)
		}
	}
	if passed < 60 {
		t.Errorf("only %d checks passed both ways", passed)
	}
	t.Logf("%d checks pass directly and through Writ, %d only directly", passed, len(listed))
}

var stamp = regexp.MustCompile(`^server-(.*)-\d{4}-\d\d-\d\dT[-\dZ]+$`)

// checks reads what a run of the suite found, by scenario and check: nothing
// for one that passed every time, else what was wrong. What could not be run
// is no check.
func checks(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*", "checks.json"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, file := range files {
		name := stamp.FindStringSubmatch(filepath.Base(filepath.Dir(file)))
		text, err := os.ReadFile(file)
		if err != nil || name == nil {
			t.Fatalf("%s: %v", file, err)
		}
		var all []struct{ ID, Status, ErrorMessage string }
		if err := json.Unmarshal(text, &all); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, c := range all {
			check := name[1] + ":" + c.ID
			switch c.Status {
			case "SUCCESS":
				found[check] += ""
			case "FAILURE", "WARNING":
				found[check] += c.Status + " " + c.ErrorMessage
			}
		}
	}
	return found
}

// baseline is the list of what passes directly only.
func baseline(t *testing.T, revision string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "conformance-"+revision+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var list struct{ Server []string }
	if err := yaml.Load(text, &list, yaml.WithKnownFields()); err != nil {
		t.Fatal(err)
	}
	return list.Server
}

// listening waits until a port is open.
func listening(t *testing.T, port int) {
	t.Helper()
	for range 100 {
		if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			c.Close()
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("nobody listens on port %d", port)
}
