package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"testing"
)

// Every target answers, and every call through a gateway is governed: as many
// intents and outcomes are on record as calls were made, or bench fails. How
// long they took is not for a test to say.
func TestBench(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "writ", "bench", "-o", "json",
		"--rounds", "2", "--seconds", "0.02", "--callers", "1,5", "--calls", "100", "--data", t.TempDir())
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &errs)
	}
	seen := map[string]int{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var r benchResult
		d := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		d.DisallowUnknownFields()
		if err := d.Decode(&r); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		if r.RPS <= 0 || r.P50 <= 0 || r.P99 < r.P50 || r.Alloc <= 0 {
			t.Errorf("nobody can have measured %s", lines.Text())
		}
		seen[fmt.Sprint(r.Target, " ", r.Callers)]++
	}
	for _, target := range []string{"direct", "reverseproxy", "writ-dpop", "writ-mtls"} {
		for _, callers := range []int{1, 5} {
			if n := seen[fmt.Sprint(target, " ", callers)]; n != 1 {
				t.Errorf("%d results of %s with %d callers, want one", n, target, callers)
			}
		}
	}
	governed := regexp.MustCompile(`(?m)^writ-(dpop|mtls): (\d{3,}) calls, (\d+) intents and (\d+) outcomes on record$`).FindAllSubmatch(errs.Bytes(), -1)
	for _, g := range governed {
		if !bytes.Equal(g[2], g[3]) || !bytes.Equal(g[2], g[4]) {
			t.Errorf("%s", g[0])
		}
	}
	if len(governed) != 2 {
		t.Errorf("of the gateways' logs it says\n%s", &errs)
	}
}
