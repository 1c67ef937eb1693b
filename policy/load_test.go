package policy

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/writgate/writ"
)

var update = flag.Bool("update", false, "rewrite what the stories in testdata want")

// Each story in testdata/load holds files that are no bundle, and in "want"
// every problem that must be named, a line each.
func TestLoadRefuses(t *testing.T) {
	stories, err := filepath.Glob("testdata/load/*.txtar")
	if err != nil || len(stories) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, path := range stories {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var files []File
			var want []string
			for _, f := range ar.Files {
				if f.Name == "want" {
					want = strings.Split(strings.TrimSpace(string(f.Data)), "\n")
					continue
				}
				files = append(files, File{f.Name, f.Data})
			}
			_, err = Load(files, testTools)
			bad, ok := errors.AsType[*LoadError](err)
			if !ok {
				t.Fatalf("Load = %v, want a LoadError", err)
			}
			if *update {
				ar.Files[len(ar.Files)-1] = txtar.File{Name: "want", Data: []byte(strings.Join(bad.Problems, "\n") + "\n")}
				if err := os.WriteFile(path, txtar.Format(ar), 0o666); err != nil {
					t.Fatal(err)
				}
				return
			}
			if !slices.Equal(bad.Problems, want) {
				t.Errorf("Load says:\n%s\nwant:\n%s", strings.Join(bad.Problems, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

func TestLoadRefusesTools(t *testing.T) {
	good := testTools[0]
	for what, change := range map[string]func(*ToolSchema){
		"not a tool of upstream":    func(s *ToolSchema) { s.Tool.Upstream = "web" },
		"unknown kind":              func(s *ToolSchema) { s.Kind = "favour" },
		"no pinned definition":      func(s *ToolSchema) { s.Tool.Definition = "" },
		"out of range":              func(s *ToolSchema) { s.Tool.Tier = writ.ReadOnly + 1 },
		"not UTF-8":                 func(s *ToolSchema) { s.Tool.Name = "mail.\xff" },
		"input schema":              func(s *ToolSchema) { s.Input = []byte(`{"type":`) },
		"arguments are of type":     func(s *ToolSchema) { s.Input = []byte(`{"type":"array"}`) },
		"not a tool of upstream \"": func(s *ToolSchema) { s.Tool.Name, s.Tool.Upstream = "*.x", "*" },
	} {
		bad := good
		change(&bad)
		if _, err := Load(nil, []ToolSchema{bad}); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("Load = %v, want %q", err, what)
		}
	}
	if _, err := Load(nil, []ToolSchema{good, good}); err == nil {
		t.Error("a tool that is there twice was taken")
	}
}

func TestLoadLimits(t *testing.T) {
	deep := "permit (principal, action, resource) when { " + strings.Repeat("(", 300) + "true" + strings.Repeat(")", 300) + " };"
	if _, err := Load([]File{{"deep.cedar", []byte(deep)}}, testTools); err == nil || !strings.Contains(err.Error(), "deep.cedar:1: brackets") {
		t.Errorf("Load = %v, want it to refuse 300 brackets", err)
	}
	harmless := "// " + strings.Repeat("(", 300) + "\n" + `permit (principal, action, resource) when { context.task.purpose != "` + strings.Repeat("(", 300) + `\"" };`
	if _, err := Load([]File{{"text.cedar", []byte(harmless)}}, testTools); err != nil {
		t.Errorf("brackets in texts and comments: %v", err)
	}
	if _, err := Load([]File{{"big.cedar", make([]byte, maxText+1)}}, testTools); err == nil {
		t.Error("too much text was taken")
	}
	if _, err := Restore([]File{{"a.cedar", []byte(permitAll)}}); err == nil || !strings.Contains(err.Error(), "schema.cedarschema: missing") {
		t.Errorf("Restore without a schema = %v", err)
	}
}

// A name that does not exist is a load error wherever it stands: a condition
// on it would be never true, and its policy disarmed.
func TestLoadTakesWhatExists(t *testing.T) {
	for _, p := range []string{
		`permit (principal, action, resource);`,
		`@id("x") @doc("why") permit (principal, action in Action::"class:restricted", resource);`, // no tool is in it now
		`permit (principal is Agent in Group::"support", action, resource is Tool in Upstream::"mail");`,
		`permit (principal, action in [Action::"mail.send", Action::"mail.read"], resource) when { context.label.trusted };`,
		`forbid (principal, action, resource) when { action in Action::"fetch" && context.label.secrecy > 1 };`,
		`forbid (principal, action == Action::"mail.send", resource) when { context.args has note && context.args.note == "" };`,
		`forbid (principal, action, resource) unless { context.assurance.reviewers >= 1 };`,
		`forbid (principal, action, resource) when { !(context.assurance.level > 2) };`,
		`permit (principal, action, resource) when { if context.label.trusted then true else context.assurance.level >= 1 };`,
		`permit (principal, action, resource) when { 0 - context.assurance.level < 0 };`,
		`permit (principal, action, resource) when { context.caller.user == User::"anybody" || true };`,
	} {
		_, err := Load([]File{{"a.cedar", []byte(p)}}, testTools)
		if strings.Contains(p, "anybody") {
			if err == nil {
				t.Error("an optional attribute was read without asking whether it is there")
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}
