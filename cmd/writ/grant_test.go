package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/writgate/writ"
)

func TestReadGrant(t *testing.T) {
	name := filepath.Join(t.TempDir(), "grant.yaml")
	read := func(text string) (*grantFile, error) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return readGrant(name)
	}
	got, err := read(`
grant:
  - tool: helpdesk.*
  - tool: payments.pay
    bounds:
      - {argument: /amount, max: 99.50, min: 1}
      - {argument: /to, in: [NL-204]}
budgets:
  - {name: euros, tool: payments.pay, sum: /amount, limit: 100}
`)
	want := &grantFile{
		Grant: writ.Grant{{Tool: "helpdesk.*"}, {Tool: "payments.pay", Bounds: []writ.Bound{
			{Argument: "/amount", Min: "1", Max: "99.50"}, {Argument: "/to", In: []string{"NL-204"}},
		}}},
		Budgets: []writ.Budget{{Name: "euros", Tool: "payments.pay", Sum: "/amount", Limit: 100}},
	}
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("%v, %s", err, cmp.Diff(want, got))
	}

	// What cannot be meant gives nothing, rather than everything.
	for text, why := range map[string]string{
		"":                                  "",
		"grant: []":                         "grants no tool",
		"budgets:\n  - {name: n, limit: 1}": "grants no tool",
		"grant:\n  - tools: a.b":            "tools",
		"grant:\n  - {tool: a.b, bounds: [{argument: /n, maximum: 1}]}": "maximum",
		"grant:\n  - tool: a.b\ngrant:\n  - tool: '*'":                  "grant",
		"grant: a.b": "grant",
	} {
		if got, err := read(text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	if _, err := readGrant(name + ".gone"); err == nil {
		t.Error("a file that is not there is read")
	}
}

// TestGrantNotBoth: tools on the command line and in a file are two answers
// to one question.
func TestGrantNotBoth(t *testing.T) {
	if _, err := granted([]writ.ToolName{"a.b"}, "grant.yaml"); err == nil {
		t.Error("both are accepted")
	}
	if g, err := granted([]writ.ToolName{"a.b"}, ""); err != nil || !cmp.Equal(g, &grantFile{Grant: writ.Grant{{Tool: "a.b"}}}) {
		t.Errorf("%+v, %v", g, err)
	}
	if g, err := granted(nil, ""); err != nil || !cmp.Equal(g, new(grantFile)) {
		t.Errorf("%+v, %v", g, err)
	}
}
