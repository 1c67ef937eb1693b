package canon

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func codeOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return fmt.Sprint(err)
}

func mustParse(t testing.TB, doc string) *Value {
	t.Helper()
	v, err := Parse([]byte(doc), Limits{})
	if err != nil {
		t.Fatalf("Parse(%q): %v", doc, err)
	}
	return v
}

func TestLimits(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	list := func(n int) string { return "[0" + strings.Repeat(",0", n-2) + "]" } // n values with the array
	long := strings.Repeat("n", maxPath-1)
	for _, c := range []struct {
		name, doc string
		lim       Limits
		want      string // a code, or empty
	}{
		{"P13/bytes", strings.Repeat(" ", 1<<20-1) + "0", Limits{}, ""},
		{"P13/bytes_over", strings.Repeat(" ", 1<<20) + "0", Limits{}, TooLarge},
		{"P13/depth", nested(64), Limits{}, ""},
		{"P13/depth_over", nested(65), Limits{}, TooDeep},
		{"P13/depth_of_objects", strings.Repeat(`{"a":`, 65) + "0" + strings.Repeat("}", 65), Limits{}, TooDeep},
		{"P13/nodes", list(10_000), Limits{}, ""},
		{"P13/nodes_over", list(10_001), Limits{}, TooManyNodes},
		{"P13/bytes_set", "12", Limits{Bytes: 1}, TooLarge},
		{"P13/depth_set", "[[]]", Limits{Depth: 1}, TooDeep},
		{"P13/nodes_set", "[0]", Limits{Nodes: 1}, TooManyNodes},
		{"P13/raised", list(20_000), Limits{Nodes: 20_000}, ""},
		{"P13/negative_bytes", "0", Limits{Bytes: -1}, TooLarge},
		{"P13/negative_depth", "[]", Limits{Depth: -1}, TooDeep},
		{"P13/negative_nodes", "0", Limits{Nodes: -1}, TooManyNodes},
		{"P13/names_on_a_path", `{"` + long + `":[[{"":0}]]}`, Limits{}, TooDeep},
		{"P13/names_beside", `{"` + long + `":0,"` + long[1:] + `":0}`, Limits{}, ""},
		{"P13/name", `{"` + long + `n":0}`, Limits{}, TooDeep},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse([]byte(c.doc), c.lim)
			if got := codeOf(err); got != c.want && !(c.want == "" && err == nil) {
				t.Errorf("Parse(%.20q…) = %v, want %q", c.doc, err, c.want)
			}
		})
	}
}

// worst are documents made to cost much.
func worst() map[string]string {
	keys := func(n int, key func(int) string) string {
		var b strings.Builder
		b.WriteByte('{')
		for i := range n {
			fmt.Fprintf(&b, `"%s":0,`, key(i))
		}
		return b.String() + `"z":0}`
	}
	leaf := func(n int) string { return "[0" + strings.Repeat(",0", n) + "]" }
	return map[string]string{
		"depth_20k_arrays":  strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000),
		"million_keys":      keys(1_000_000, func(i int) string { return fmt.Sprint(i) }),
		"many_keys":         keys(100_000, func(i int) string { return fmt.Sprintf("%05d", i*7919%100_000) }),
		"million_elements":  leaf(1_000_000),
		"half_a_million":    leaf(500_000),
		"commas_in_text":    `"` + strings.Repeat(",", 1<<20-2) + `"`,
		"brackets_in_text":  `"` + strings.Repeat("[{", 1<<19-1) + `"`,
		"escapes":           `"` + strings.Repeat(`\u00e9`, 1<<17) + `"`,
		"unclosed_escapes":  `"` + strings.Repeat(`\"`, 1<<18),
		"digits":            strings.Repeat("9", 1<<20),
		"zeros":             "0." + strings.Repeat("0", 1<<20-3),
		"exponent":          "1e" + strings.Repeat("9", 1<<20-2),
		"spaces":            strings.Repeat(" ", 1<<20),
		"shuffled_keys":     keys(9_000, func(i int) string { return fmt.Sprintf("%0100d", i*7919%9_000) }),
		"long_name_leaves":  `{"` + strings.Repeat("n", 1<<19) + `":` + leaf(9_000) + `}`,
		"deep_names_leaves": strings.Repeat(`{"`+strings.Repeat("n", 60)+`":`, 63) + leaf(9_000) + strings.Repeat("}", 63),
	}
}

// TestWorst bounds what one document can cost. The bound is far above what is
// measured (see BenchmarkWorst), and far below what a quadratic step takes.
func TestWorst(t *testing.T) {
	for name, doc := range worst() {
		t.Run("H71/"+name, func(t *testing.T) {
			begin := time.Now()
			v, err := Parse([]byte(doc), Limits{})
			if err == nil {
				_ = v.JSON()
				for p := range Leaves(v) {
					if v.Pointer(p) == nil {
						t.Fatalf("Pointer(%.50q) finds nothing", p)
					}
				}
			}
			if took := time.Since(begin); took > time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
	for name, want := range map[string]string{"depth_20k_arrays": TooDeep, "million_keys": TooLarge, "many_keys": TooManyNodes, "million_elements": TooLarge, "half_a_million": TooManyNodes} {
		if _, err := Parse([]byte(worst()[name]), Limits{}); codeOf(err) != want {
			t.Errorf("H71/%s: %v, want %s", name, err, want)
		}
	}
}

func TestParseKeepsACopy(t *testing.T) {
	b := []byte(`{"to":"alice", "n":1}`)
	v, err := Parse(b, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	before := v.JSON()
	copy(b, bytes.Repeat([]byte("x"), len(b)))
	copy(v.Raw(), bytes.Repeat([]byte("y"), len(b)))
	if s, _ := v.Get("to").Str(); v.JSON() != before || s != "alice" || string(v.Raw()) != `{"to":"alice", "n":1}` {
		t.Errorf("P14: the value changed with the bytes it was parsed from: %s", v.JSON())
	}
}

func TestErrorOffset(t *testing.T) {
	for doc, want := range map[string]int{
		`{"a":1,"a":2}`: 7, `{"a":-0}`: 5, `[1 2]`: 3, `{"a":"x\ud800"}`: 7, "[\"\x01\"]": 2, ` [tru]`: 2, `[1]x`: 3, `[`: 1,
	} {
		_, err := Parse([]byte(doc), Limits{})
		if e, ok := errors.AsType[*Error](err); !ok || e.Offset != want {
			t.Errorf("Parse(%q) = %v, want byte %d", doc, err, want)
		}
	}
}

func TestErrorIsBounded(t *testing.T) {
	name := strings.Repeat("\x01", 1000)
	quoted := string(appendQuoted(nil, name))
	_, err := Parse([]byte(`{`+quoted+`:1,`+quoted+`:2}`), Limits{})
	if codeOf(err) != DuplicateKey || len(err.Error()) > 700 {
		t.Errorf("an error of %d bytes: %v", len(err.Error()), err)
	}
	if s := err.Error(); strings.Contains(s, "\x01") {
		t.Errorf("control characters of a stranger in %q", s)
	}
	_, err = Parse([]byte(`{"password":"hunter2\ud800"}`), Limits{})
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a value in an error: %v", err)
	}
}

func TestEnvelope(t *testing.T) {
	known := []string{"jsonrpc", "id", "method", "params", "name", "arguments", "_meta", "task"}
	for _, c := range []struct{ name, doc, member, like string }{
		{"H14/known", `{"jsonrpc":"2.0","id":1,"method":"x","params":{}}`, "", ""},
		{"H14/empty", `{}`, "", ""},
		{"H14/escaped_known", `{"\u006dethod":1}`, "", ""},
		{"H14/title_case", `{"Name":1}`, "/Name", "name"},
		{"H14/upper_case", `{"name":1,"NAME":1}`, "/NAME", "name"},
		{"H14/long_s", `{"argument\u017f":{}}`, "/argument\u017f", "arguments"},
		{"H14/kelvin", `{"tas\u212a":{}}`, "/tas\u212a", "task"},
		{"H14/cyrillic", `{"n\u0430me":1}`, "/n\u0430me", ""},
		{"H14/zero_width", `{"name\u200b":1}`, "/name\u200b", ""},
		{"H14/space", `{"name ":1}`, "/name ", ""},
		{"H14/unknown", `{"id":1,"extra/x":1}`, "/extra~1x", ""},
		{"H14/prefix", `{"nam":1}`, "/nam", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := Envelope(mustParse(t, c.doc), known...)
			if c.member == "" {
				if err != nil {
					t.Errorf("Envelope(%s): %v", c.doc, err)
				}
				return
			}
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Code != UnknownMember || e.Pointer != c.member || e.Like != c.like {
				t.Errorf("Envelope(%s) = %v, want %s at %q like %q", c.doc, err, UnknownMember, c.member, c.like)
			}
		})
	}
	for _, v := range []*Value{nil, mustParse(t, "[]"), mustParse(t, "null")} {
		if err := Envelope(v); codeOf(err) != InvalidJSON {
			t.Errorf("Envelope(%v) = %v, want %s", v, err, InvalidJSON)
		}
	}
}

// Every generated document is accepted, and passes every check of FuzzParse.
func TestGenerated(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		doc := genDoc.Draw(t, "doc")
		if _, err := Parse([]byte(doc), Limits{}); err != nil {
			t.Fatalf("Parse(%q): %v", doc, err)
		}
		checkParse(t, []byte(doc))
	})
}

// A second member of one name is refused wherever it is put and however it is
// written.
func TestDuplicateAnywhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v, err := Parse([]byte(genObject.Draw(t, "doc")), Limits{})
		if err != nil || v.Len() == 0 {
			t.Skip("no member to repeat")
		}
		var names []string
		for name := range v.Members() {
			names = append(names, name)
		}
		again := rapid.SampledFrom(names).Draw(t, "name")
		at := rapid.SampledFrom(names).Draw(t, "before")
		var b strings.Builder
		writeString(t, &b, again)
		src, begin := v.doc.src, v.Get(at).begin
		doc := src[:begin] + b.String() + ":0," + src[begin:]
		_, err = Parse([]byte(doc), Limits{})
		if e, ok := errors.AsType[*Error](err); !ok || e.Code != DuplicateKey || e.Pointer != "/"+escapeToken(again) {
			t.Fatalf("H13: Parse(%q) = %v, want %s at %q", doc, err, DuplicateKey, again)
		}
	})
}
