package policy

import (
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/writgate/writ"
	"go.yaml.in/yaml/v4"
)

// TestManual loads and runs every block of docs/policy.md, in its order. The
// first YAML is the tools; what follows a policy are its tests, which hold with
// the starter set beside it; and a policy that is refused says in comments
// what for.
func TestManual(t *testing.T) {
	text, err := os.ReadFile("../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```([a-z ]+)\n(.*?)^```$").FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 20 {
		t.Fatalf("the manual has %d blocks", len(blocks))
	}
	tools := manualTools(t, blocks[0][2])
	recipe := File{"recipe.cedar", nil}
	for _, block := range blocks[1:] {
		switch what, body := block[1], block[2]; what {
		case "cedar":
			recipe.Text = []byte(body)
			if _, err := Load(append(Starter(), recipe), tools); err != nil {
				t.Errorf("%s\n%v", body, err)
			}
		case "cedar refused":
			refused(t, tools, body)
		case "yaml":
			b, err := Load(append(Starter(), recipe), tools)
			if err != nil {
				continue // said above
			}
			results, err := RunTests(b, File{"manual.yaml", []byte(body)})
			if err != nil {
				t.Errorf("%v in\n%s", err, body)
			}
			for _, r := range results {
				if len(r.Problems) > 0 {
					t.Errorf("%q: %s", r.Name, strings.Join(r.Problems, "; "))
				}
			}
		default:
			t.Errorf("a block of %q is not tested", what)
		}
	}
}

func manualTools(t *testing.T, text string) []ToolSchema {
	t.Helper()
	var s suite
	if err := yaml.Load([]byte(text), &s, yaml.WithKnownFields(), yaml.WithUniqueKeys()); err != nil {
		t.Fatal(err)
	}
	var all []ToolSchema
	for _, tool := range s.Tools {
		input, err := jsonOf(&tool.Input)
		if err != nil {
			t.Fatal(err)
		}
		schema := toolSchema(string(tool.Name), tool.Tier, tool.Fetch, string(input))
		schema.Tool.Result = writ.Clean
		if tool.Result != nil {
			schema.Tool.Result = *tool.Result
		}
		all = append(all, schema)
	}
	return all
}

func refused(t *testing.T, tools []ToolSchema, body string) {
	t.Helper()
	var want []string
	for line := range strings.Lines(body) {
		if why, ok := strings.CutPrefix(line, "// "); ok {
			want = append(want, strings.TrimSpace(why))
		}
	}
	_, err := Load([]File{{"refused.cedar", []byte(body)}}, tools)
	bad, ok := errors.AsType[*LoadError](err)
	if !ok || !slices.Equal(bad.Problems, want) {
		t.Errorf("%s\nis refused with: %v", body, err)
	}
}
