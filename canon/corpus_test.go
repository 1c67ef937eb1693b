package canon

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
)

// A corpusCase is one line of testdata/corpus.txt: a name, the document, and
// what is wanted of it, separated by tabs. The document is a Go string
// literal, and so is a canonical text that is wanted; a refusal that is
// wanted is a code and a JSON Pointer.
type corpusCase struct {
	name, doc     string
	canonical     string
	code, pointer string
}

func corpus(t testing.TB) []corpusCase {
	t.Helper()
	text, err := os.ReadFile("testdata/corpus.txt")
	if err != nil {
		t.Fatal(err)
	}
	var cases []corpusCase
	for i, line := range strings.Split(string(text), "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) != 3 {
			t.Fatalf("corpus.txt:%d: %d fields, want 3", i+1, len(f))
		}
		doc, err := strconv.Unquote(f[1])
		if err != nil {
			t.Fatalf("corpus.txt:%d: document: %v", i+1, err)
		}
		c := corpusCase{name: f[0], doc: doc}
		if c.canonical, err = strconv.Unquote(f[2]); err != nil {
			c.code, c.pointer, _ = strings.Cut(f[2], " ")
		}
		cases = append(cases, c)
	}
	return cases
}

func TestCorpus(t *testing.T) {
	for _, c := range corpus(t) {
		t.Run(c.name, func(t *testing.T) {
			v, err := ParseObject([]byte(c.doc), Limits{})
			if c.code == "" {
				if err != nil {
					t.Fatalf("ParseObject(%q): %v", c.doc, err)
				}
				if got := string(v.JSON()); got != c.canonical {
					t.Errorf("ParseObject(%q).JSON() = %s, want %s", c.doc, got, c.canonical)
				}
				return
			}
			e, ok := errors.AsType[*Error](err)
			if !ok {
				t.Fatalf("ParseObject(%q) = %v, want %s", c.doc, err, c.code)
			}
			if e.Code != c.code || e.Pointer != c.pointer {
				t.Errorf("ParseObject(%q): %s at %q, want %s at %q", c.doc, e.Code, e.Pointer, c.code, c.pointer)
			}
		})
	}
}
