package canon

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writgate/writ"
)

func TestValue(t *testing.T) {
	v := mustParse(t, `{"s":"a\u0041","n":1.50,"t":true,"f":false,"z":null,"a":[1,[2,3],4],"o":{"x":{}}}`)
	if s, ok := v.Get("s").Str(); s != "aA" || !ok {
		t.Errorf("Str() = %q, %v", s, ok)
	}
	if n, ok := v.Get("n").Number(); n != "1.50" || !ok {
		t.Errorf("Number() = %q, %v", n, ok)
	}
	if b, ok := v.Get("t").Bool(); !b || !ok {
		t.Errorf("true.Bool() = %v, %v", b, ok)
	}
	if b, ok := v.Get("f").Bool(); b || !ok {
		t.Errorf("false.Bool() = %v, %v", b, ok)
	}
	if got := string(v.Get("a").Index(2).Raw()); got != "4" {
		t.Errorf("Index(2) = %s", got)
	}
	kinds := map[string]Kind{"s": String, "n": Number, "t": Bool, "f": Bool, "z": Null, "a": Array, "o": Object, "S": Absent, "": Absent}
	for name, want := range kinds {
		if got := v.Get(name).Kind(); got != want {
			t.Errorf("Get(%q).Kind() = %v, want %v", name, got, want)
		}
	}
}

// No accessor of one kind answers for another, or for nothing.
func TestValueRefuses(t *testing.T) {
	docs := map[Kind]string{Null: "null", Bool: "true", String: `"s"`, Number: "1", Array: "[0]", Object: `{"0":0}`}
	values := map[Kind]*Value{Absent: nil}
	for k, doc := range docs {
		values[k] = mustParse(t, doc)
	}
	for kind, v := range values {
		_, str := v.Str()
		_, number := v.Number()
		_, boolean := v.Bool()
		elems := len(slices.Collect(v.Elems()))
		members := len(maps.Collect(v.Members()))
		got := map[Kind]bool{
			Absent: v.JSON() == "" && v.Raw() == nil,
			String: str, Number: number, Bool: boolean,
			Array:  v.Index(0) != nil || elems > 0,
			Object: v.Get("0") != nil || members > 0,
		}
		for k, answers := range got {
			if answers != (k == kind) {
				t.Errorf("a %v answers as a %v: %v", kind, k, answers)
			}
		}
		if container := kind == Array || kind == Object; (v.Len() == 1) != container || v.Index(1) != nil || v.Index(-1) != nil {
			t.Errorf("a %v has %d children", kind, v.Len())
		}
	}
	var zero Kind
	if zero != Absent || values[Absent].Get("a").Index(0).Pointer("/x") != nil || values[Absent].Pointer("") != nil {
		t.Error("a nil Value is not absent")
	}
	for range Leaves(nil) {
		t.Error("a nil Value has a leaf")
	}
}

// Lookups find the same on both sides of the size from which an index is
// kept, whatever the order.
func TestIndex(t *testing.T) {
	for n := range 3 * few {
		var list, object []string
		for i := range n {
			list = append(list, fmt.Sprintf("[%d]", i))
			object = append(object, fmt.Sprintf(`"%03d":[%d]`, i*7%(3*few), i))
		}
		a := mustParse(t, "["+strings.Join(list, ",")+"]")
		o := mustParse(t, "{"+strings.Join(object, ",")+"}")
		for i := range n {
			want := fmt.Sprintf("[%d]", i)
			if got := string(a.Index(i).JSON()); got != want {
				t.Errorf("Index(%d) of %d = %s", i, n, got)
			}
			if got := string(o.Get(fmt.Sprintf("%03d", i*7%(3*few))).JSON()); got != want {
				t.Errorf("Get(%d) of %d = %s", i, n, got)
			}
		}
		if a.Index(n) != nil || o.Get("999") != nil || o.Get("") != nil || o.Get("00") != nil {
			t.Errorf("something beyond %d", n)
		}
	}
}

// RFC 6901 §5, with what it says is an error.
func TestPointer(t *testing.T) {
	v := mustParse(t, `{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8,"~1":9}`)
	for p, want := range map[string]string{
		"/foo": `["bar","baz"]`, "/foo/0": `"bar"`, "/": "0", "/a~1b": "1", "/c%d": "2", "/e^f": "3", "/g|h": "4",
		`/i\j`: "5", `/k"l`: "6", "/ ": "7", "/m~0n": "8", "/~01": "9",
		"/foo/00": "", "/foo/+1": "", "/foo/-": "", "/foo/-1": "", "/foo/2": "", "/foo/": "", "/foo/0/": "", "foo": "",
		"/m~n": "", "/m~2n": "", "/a/b": "", "//": "", "#/foo": "", "/foo/18446744073709551616": "",
	} {
		if got := string(v.Pointer(p).JSON()); got != want {
			t.Errorf("Pointer(%q) = %s, want %s", p, got, want)
		}
	}
	if v.Pointer("") != v {
		t.Error(`Pointer("") is not the whole`)
	}
}

func TestLeaves(t *testing.T) {
	v := mustParse(t, `{"b":[1,{"x/y":"s"},[],[[true]]],"a":null,"":{},"~":{"":2}}`)
	var got []string
	for p, leaf := range Leaves(v) {
		got = append(got, p+" "+string(leaf.JSON()))
	}
	want := []string{"/b/0 1", `/b/1/x~1y "s"`, "/b/3/0/0 true", "/a null", "/~0/ 2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Leaves (-want +got):\n%s", diff)
	}
	for p, leaf := range Leaves(v.Get("b").Index(0)) {
		if p != "" || leaf != v.Get("b").Index(0) {
			t.Errorf("the leaf of a scalar is %q", p)
		}
	}
	n := 0
	for range Leaves(v) {
		if n++; n == 2 {
			break
		}
	}
	if n != 2 {
		t.Errorf("%d leaves after a break at 2", n)
	}
}

func TestMembersInOrder(t *testing.T) {
	v := mustParse(t, `{"b":1,"a":2,"\u0063":3}`)
	var got []string
	for name := range v.Members() {
		got = append(got, name)
	}
	if want := []string{"b", "a", "c"}; !slices.Equal(got, want) {
		t.Errorf("Members() = %q, want %q", got, want)
	}
}

func TestDigest(t *testing.T) {
	one, two := mustParse(t, `{"a":1,"b":[ ]}`), mustParse(t, "{\"b\":[],\n\"\\u0061\":1}")
	if one.Digest("args") != two.Digest("args") || one.Digest("args") != writ.Hash("args", []byte(`{"a":1,"b":[]}`)) {
		t.Error("one value has two digests")
	}
	if one.Digest("args") == one.Digest("result") {
		t.Error("two domains have one digest")
	}
	big, next := mustParse(t, "9007199254740993"), mustParse(t, "9007199254740992")
	if big.Digest("args") == next.Digest("args") {
		t.Error("H16: 9007199254740993 has the digest of 9007199254740992")
	}
}

func TestValueDoesNotPrint(t *testing.T) {
	v := mustParse(t, `{"prompt":"secret"}`)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if s := fmt.Sprintf(verb, v); strings.Contains(s, "secret") || strings.Contains(s, "prompt") {
			t.Errorf("%s prints %s", verb, s)
		}
	}
}

func TestBuilder(t *testing.T) {
	var b Builder
	if got, err := b.JSON(); got != "{}" || err != nil {
		t.Errorf("the zero Builder makes %s, %v", got, err)
	}
	b.Value("v", `{ "y":1, "x":[] }`)
	b.Text("text", "a\"<\n")
	b.Texts("texts", []string{"b", "a"})
	b.Texts("none", nil)
	b.Int("int", -1)
	b.Bool("bool", true)
	want := writ.JSON(`{"bool":true,"int":-1,"none":[],"text":"a\"<\n","texts":["b","a"],"v":{"x":[],"y":1}}`)
	if got, err := b.JSON(); got != want || err != nil {
		t.Errorf("JSON() = %s, %v, want %s", got, err, want)
	}
}

func TestBuilderRefuses(t *testing.T) {
	for name, add := range map[string]func(*Builder){
		"H13/duplicate":       func(b *Builder) { b.Int("a", 1); b.Int("a", 2) },
		"H13/second_member":   func(b *Builder) { b.Value("a", `1,"b":2`) },
		"H13/first_of_two":    func(b *Builder) { b.Value("a", `1},{"b":2`) },
		"H13/closed_and_open": func(b *Builder) { b.Value("a", `[`); b.Value("b", `]`) },
		"H15/text":            func(b *Builder) { b.Text("a", "\xff") },
		"H15/text_in_list":    func(b *Builder) { b.Texts("a", []string{"\xff"}) },
		"H15/name":            func(b *Builder) { b.Text("\xff", "a") },
		"H15/nul":             func(b *Builder) { b.Text("a", "\x00") },
		"H16/number":          func(b *Builder) { b.Value("a", "-0") },
		"H17/empty":           func(b *Builder) { b.Value("a", "") },
	} {
		t.Run(name, func(t *testing.T) {
			var b Builder
			add(&b)
			if got, err := b.JSON(); err == nil || got != "" {
				t.Errorf("JSON() = %s, want an error", got)
			}
		})
	}
}
