package capability_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestOnlyStandardLibrary: a tool server that checks writs takes on no module
// but this one.
func TestOnlyStandardLibrary(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for path := range strings.FieldsSeq(string(out)) {
		if !strings.HasPrefix(path, "github.com/writgate/writ") {
			t.Errorf("depends on %s", path)
		}
	}
}
