package canon

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

func FuzzParse(f *testing.F) {
	for _, c := range corpus(f) {
		f.Add([]byte(c.doc))
	}
	f.Fuzz(func(t *testing.T, b []byte) { checkParse(t, b) })
}

type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// checkParse holds what Parse does with b against jsontext and encoding/json,
// and against itself.
func checkParse(t failer, b []byte) {
	t.Helper()
	given := bytes.Clone(b)
	v, err := Parse(b, Limits{})
	tokens, oracle := tokensOf(b)

	// 1. What we refuse, jsontext refuses too, or it is ours to refuse.
	if err != nil {
		switch code := codeOf(err); {
		case oracle != nil, code == NumberNotExact, code == TooDeep, code == TooManyNodes, code == TooLarge:
		case code == InvalidText && bytes.Contains(b, []byte(`\u0000`)):
		default:
			t.Fatalf("Parse(%q) = %v, and jsontext accepts it", b, err)
		}
		return
	}

	// 2. What we accept, everybody accepts, and reads as we do.
	if oracle != nil {
		t.Fatalf("Parse(%q) accepts, and jsontext says %v", b, oracle)
	}
	if got := appendTokens(nil, v); !slices.Equal(got, tokens) {
		t.Fatalf("Parse(%q) reads %q, and jsontext %q", b, got, tokens)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var std any
	if err := dec.Decode(&std); err != nil {
		t.Fatalf("Parse(%q) accepts, and encoding/json says %v", b, err)
	}
	if !sameAsStd(v, std) {
		t.Fatalf("Parse(%q) reads %s, and encoding/json %#v", b, v.JSON(), std)
	}

	// 3. The canonical text is one, is what its flag says, and means the same.
	checkCanonical(t, v)
	text := v.JSON()
	again, err := Parse([]byte(text), Limits{})
	if err != nil || again.JSON() != text || !again.canonical || len(text) > len(b) {
		t.Fatalf("Parse(%q).JSON() = %s, and parsed again %v, %v", b, text, again.JSON(), err)
	}
	if !sameAsStd(again, std) {
		t.Fatalf("Parse(%q).JSON() = %s means something else", b, text)
	}

	// 4. Everything is found where it is said to be, and nothing was touched.
	n := 0
	for p, leaf := range Leaves(v) {
		if v.Pointer(p) != leaf {
			t.Fatalf("Parse(%q).Pointer(%q) is not the leaf there", b, p)
		}
		if n++; n > 100 {
			break
		}
	}
	if !bytes.Equal(b, given) || !bytes.Equal(bytes.Trim(b, " \t\r\n"), v.Raw()) {
		t.Fatalf("Parse(%q).Raw() = %q", given, v.Raw())
	}
}

// checkCanonical holds the flag of v and all below it against the text that
// is made without it.
func checkCanonical(t failer, v *Value) {
	t.Helper()
	plain := *v
	plain.canonical = false
	slow := v.raw()
	if v.kind == String || v.kind == Array || v.kind == Object {
		slow = string(plain.appendCanonical(nil))
	}
	if v.canonical != (slow == v.raw()) || string(v.JSON()) != slow {
		t.Fatalf("%q: canonical is %v and JSON() %s, want %s", v.raw(), v.canonical, v.JSON(), slow)
	}
	for child := range v.children {
		checkCanonical(t, child)
	}
}

// tokensOf reads b with jsontext, which refuses duplicate names and invalid
// UTF-8. A token is its kind and its text.
func tokensOf(b []byte) ([]string, error) {
	dec := jsontext.NewDecoder(bytes.NewReader(b))
	var tokens []string
	for {
		tok, err := dec.ReadToken()
		if err == io.EOF {
			if len(tokens) == 0 {
				return nil, io.ErrUnexpectedEOF
			}
			return tokens, nil
		}
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, string(rune(tok.Kind()))+tok.String())
		if dec.StackDepth() == 0 && len(bytes.Trim(b[dec.InputOffset():], " \t\r\n")) > 0 {
			return nil, io.ErrNoProgress // a second value
		}
	}
}

// appendTokens is tokensOf by our own reading.
func appendTokens(dst []string, v *Value) []string {
	switch v.Kind() {
	case Object:
		dst = append(dst, "{{")
		for name, m := range v.Members() {
			dst = appendTokens(append(dst, `"`+name), m)
		}
		return append(dst, "}}")
	case Array:
		dst = append(dst, "[[")
		for e := range v.Elems() {
			dst = appendTokens(dst, e)
		}
		return append(dst, "]]")
	case String:
		s, _ := v.Str()
		return append(dst, `"`+s)
	case Number:
		s, _ := v.Number()
		return append(dst, "0"+s)
	}
	raw := string(v.Raw())
	return append(dst, raw[:1]+raw)
}

// sameAsStd compares v with what encoding/json decoded, by lookups.
func sameAsStd(v *Value, std any) bool {
	switch std := std.(type) {
	case nil:
		return v.Kind() == Null
	case bool:
		b, ok := v.Bool()
		return ok && b == std
	case json.Number:
		lexeme, ok := v.Number()
		return ok && lexeme == string(std)
	case string:
		s, ok := v.Str()
		return ok && s == std
	case []any:
		if v.Kind() != Array || v.Len() != len(std) || v.Index(len(std)) != nil {
			return false
		}
		for i, e := range std {
			if !sameAsStd(v.Index(i), e) {
				return false
			}
		}
		return true
	case map[string]any:
		if v.Kind() != Object || v.Len() != len(std) {
			return false
		}
		for name, m := range std {
			if !sameAsStd(v.Get(name), m) || v.Get(name+"\x00") != nil || strings.Contains(name, "\x00") {
				return false
			}
		}
		return true
	}
	return false
}
