package writ_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// cases are what docs/threats.md has to speak of.
var cases = func() (all []string) {
	for _, run := range []struct {
		kind        string
		first, last int
	}{
		{"P%d", 1, 12}, {"P%d", 14, 14}, {"P%d", 16, 16},
		{"H%02d", 1, 23}, {"H%02d", 27, 38}, {"H%02d", 41, 47}, {"H%02d", 59, 68}, {"H%02d", 70, 78}, {"H%02d", 88, 88}, {"H%02d", 93, 93},
		{"F%02d", 1, 6}, {"F%02d", 9, 10}, {"F%02d", 13, 15}, {"F%02d", 17, 21}, {"F%02d", 29, 29},
	} {
		for n := run.first; n <= run.last; n++ {
			if run.kind == "F%02d" && n == 16 {
				continue
			}
			all = append(all, fmt.Sprintf(run.kind, n))
		}
	}
	for part := range strings.SplitSeq("abcdefgh", "") {
		all = append(all, "H80"+part)
	}
	return all
}()

var proof = regexp.MustCompile("`([^`]+_test\\.go):((?:Test|Fuzz)\\w+)`|`([^`]+\\.txtar)`")

// TestThreats holds docs/threats.md to the tree: every case has its row, and
// every test and story that a row names is there.
func TestThreats(t *testing.T) {
	text, err := os.ReadFile("docs/threats.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) < 5 || !regexp.MustCompile(`^ [PHF]\d`).MatchString(cells[1]) {
			continue
		}
		id := strings.TrimSpace(cells[1])
		if rows[id] {
			t.Errorf("%s has two rows", id)
		}
		rows[id] = true
		proofs := proof.FindAllStringSubmatch(cells[4], -1)
		if len(proofs) == 0 || strings.Count(cells[4], "`") != 2*len(proofs) {
			t.Errorf("%s names no test, or one in a way that is not understood: %s", id, cells[4])
		}
		for _, p := range proofs {
			if p[3] != "" {
				if _, err := os.Stat(p[3]); err != nil {
					t.Errorf("%s: %v", id, err)
				}
				continue
			}
			source, err := os.ReadFile(p[1])
			if err != nil {
				t.Errorf("%s: %v", id, err)
			} else if !strings.Contains(string(source), "\nfunc "+p[2]+"(") {
				t.Errorf("%s: %s has no %s", id, p[1], p[2])
			}
		}
	}
	for _, id := range cases {
		if !rows[id] {
			t.Errorf("%s has no row", id)
		}
	}
	if len(rows) != len(cases) {
		t.Errorf("%d rows, want %d", len(rows), len(cases))
	}
}
