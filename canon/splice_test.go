package canon

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/writgate/writ"
)

func TestSplice(t *testing.T) {
	type change struct {
		in, name string
		value    writ.JSON
	}
	for _, c := range []struct {
		name, doc string
		changes   []change
		want      string
	}{
		{"nothing", ` { "a" : 1 } `, nil, `{ "a" : 1 }`},
		{"replace", `{ "a" : 1 , "b":2}`, []change{{"", "a", `[9]`}}, `{ "a" : [9] , "b":2}`},
		{"replace_escaped", `{"\u0061":1}`, []change{{"", "a", `2`}}, `{"\u0061":2}`},
		{"insert", "{ \"a\" : 1\n}", []change{{"", "b", `2`}}, "{ \"a\" : 1,\"b\":2\n}"},
		{"insert_in_empty", `{ }`, []change{{"", "b", `2`}, {"", "c", `3`}}, `{"b":2,"c":3 }`},
		{"insert_quoted", `{}`, []change{{"", "a\"\n", `2`}}, `{"a\"\n":2}`},
		{"remove_first", `{ "a":1 , "b":2 }`, []change{{"", "a", ""}}, `{ "b":2 }`},
		{"remove_middle", `{"a":1, "b":2 ,"c":3}`, []change{{"", "b", ""}}, `{"a":1 ,"c":3}`},
		{"remove_last", `{"a":1 , "b":2 }`, []change{{"", "b", ""}}, `{"a":1 }`},
		{"remove_only", `{ "a":1 }`, []change{{"", "a", ""}}, `{  }`},
		{"remove_absent", `{ "a":1 }`, []change{{"", "A", ""}}, `{ "a":1 }`},
		{"remove_all", `{"a":1,"b":2,"c":3}`, []change{{"", "b", ""}, {"", "c", ""}, {"", "a", ""}}, `{}`},
		{"remove_all_insert", `{"a":1, "b":2}`, []change{{"", "b", ""}, {"", "c", `3`}, {"", "a", ""}}, `{"c":3}`},
		{"remove_ends", `{"a":1,"b":2,"c":3}`, []change{{"", "c", ""}, {"", "a", ""}}, `{"b":2}`},
		{"remove_two_last_insert", `{"a":1,"b":2,"c":3}`, []change{{"", "c", ""}, {"", "b", ""}, {"", "d", "4"}}, `{"a":1,"d":4}`},
		{"replace_last_insert", `{"a":1}`, []change{{"", "d", "4"}, {"", "a", "2"}}, `{"a":2,"d":4}`},
		{"nested", `{"result":{"content":[ ],"_meta":{"x":1, "io.github.writgate/decision":{} }}}`,
			[]change{{"/result/_meta", "io.github.writgate/decision", ""}, {"/result/_meta", "io.github.writgate/receipt", `"r"`}, {"/result", "isError", "true"}, {"", "id", "7"}},
			`{"result":{"content":[ ],"_meta":{"x":1,"io.github.writgate/receipt":"r" },"isError":true},"id":7}`},
		{"in_array", `[{"a":1},{"a":1}]`, []change{{"/1", "a", ""}, {"/0", "b", "2"}}, `[{"a":1,"b":2},{}]`},
	} {
		t.Run("P14/"+c.name, func(t *testing.T) {
			v := mustParse(t, c.doc)
			var changes []Change
			for _, ch := range c.changes {
				changes = append(changes, Change{v.Pointer(ch.in), ch.name, ch.value})
			}
			got, err := Splice(v, changes...)
			if err != nil || string(got) != c.want {
				t.Errorf("Splice = %s, %v, want %s", got, err, c.want)
			}
		})
	}
}

func TestSpliceRefuses(t *testing.T) {
	v := mustParse(t, `{"a":{"b":{}},"l":[],"c":{}}`)
	other := mustParse(t, `{"a":{"b":{}},"l":[],"c":{}}`)
	a, b := v.Get("a"), v.Get("a").Get("b")
	for name, c := range map[string]struct {
		in      *Value
		changes []Change
	}{
		"nothing":              {nil, nil},
		"change_in_nothing":    {v, []Change{{nil, "x", "1"}}},
		"change_in_array":      {v, []Change{{v.Get("l"), "0", "1"}}},
		"other_document":       {v, []Change{{other.Get("a"), "x", "1"}}},
		"outside":              {a, []Change{{v, "x", "1"}}},
		"beside":               {a, []Change{{v.Get("c"), "x", "1"}}},
		"twice":                {v, []Change{{v, "x", "1"}, {v, "x", "2"}}},
		"twice_there":          {v, []Change{{v, "a", "1"}, {v, "a", ""}}},
		"inside_replaced":      {v, []Change{{a, "b", "1"}, {v, "a", "2"}}},
		"inside_removed":       {v, []Change{{b, "x", "1"}, {v, "a", ""}}},
		"insert_into_replaced": {v, []Change{{v, "a", "2"}, {a, "x", "1"}}},
		"H13/two_members":      {v, []Change{{v, "x", `1,"isError":false`}}},
		"H13/duplicate":        {v, []Change{{v, "x", `{"y":1,"y":2}`}}},
		"H15/name":             {v, []Change{{v, "\xff", "1"}}},
		"H15/name_nul":         {v, []Change{{v, "\x00", "1"}}},
		"H16/number":           {v, []Change{{v, "x", `-0`}}},
		"H17/not_json":         {v, []Change{{v, "x", `nope`}}},
		"H17/blank":            {v, []Change{{v, "x", ` `}}},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := Splice(c.in, c.changes...); err == nil || got != nil {
				t.Errorf("Splice = %s, want an error", got)
			}
		})
	}
}

// Whatever is spliced, the result says what a map would, in the same order,
// and the members that were not changed have their own bytes.
func TestSpliceProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		doc := genObject.Draw(t, "doc")
		v, err := Parse([]byte(doc), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		want := map[string]string{}
		for name, m := range v.Members() {
			names = append(names, name)
			want[name] = string(m.Raw())
		}
		var changes []Change
		for _, name := range rapid.SliceOfDistinct(rapid.OneOf(rapid.SampledFrom(append(names, "new")), genText), rapid.ID[string]).Draw(t, "changed") {
			value := rapid.SampledFrom([]writ.JSON{"", `"\u0061"`, "{}"}).Draw(t, "value")
			changes = append(changes, Change{v, name, value})
			if value == "" {
				delete(want, name)
			} else {
				want[name] = string(value)
			}
		}
		out, err := Splice(v, changes...)
		if err != nil {
			t.Fatal(err)
		}
		w, err := Parse(out, Limits{})
		if err != nil {
			t.Fatalf("Splice(%s) = %s: %v", doc, out, err)
		}
		got := map[string]string{}
		var order []string
		for name, m := range w.Members() {
			got[name] = string(m.Raw())
			if slices.Contains(names, name) {
				order = append(order, name)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("Splice(%s) = %s (-want +got):\n%s", doc, out, diff)
		}
		kept := slices.DeleteFunc(names, func(name string) bool { _, ok := want[name]; return !ok })
		if !slices.Equal(kept, order) {
			t.Fatalf("Splice(%s) = %s: order %q, want %q", doc, out, order, kept)
		}
		if len(changes) == 0 && string(out) != doc || len(maps.Collect(w.Members())) != w.Len() {
			t.Fatalf("Splice(%s) = %s", doc, out)
		}
	})
}
