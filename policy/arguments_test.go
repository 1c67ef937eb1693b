package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go"
	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
)

// The fixed types: a JSON Schema of one argument, and its type in policy.
func TestTypes(t *testing.T) {
	tests := []struct{ schema, want string }{
		{`{"type":"string"}`, `"x"?: String`},
		{`{"type":"boolean"}`, `"x"?: Bool`},
		{`{"type":"integer"}`, `"x"?: Long`},
		{`{"type":"number"}`, `"x"?: decimal`},
		{`{"type":["integer","null"]}`, `@nullable("") "x"?: Long`},
		{`{"type":["null","string"]}`, `@nullable("") "x"?: String`},
		{`{"type":["integer","string"]}`, `"x"?: JSON`},
		{`{"anyOf":[{"type":"null"},{"type":"integer"}]}`, `@nullable("") "x"?: Long`},
		{`{"oneOf":[{"type":"string"},{"type":"null"}]}`, `@nullable("") "x"?: String`},
		{`{"oneOf":[{"type":"string"},{"type":"integer"}]}`, `"x"?: JSON`},
		{`{"anyOf":[{"type":"null"},{"type":"null"}]}`, `"x"?: JSON`},
		{`{"anyOf":[{"type":"null"},{}]}`, `"x"?: JSON`},
		{`{"anyOf":[{"type":"string"}]}`, `"x"?: JSON`},
		{`{"const":"a"}`, `"x"?: String`},
		{`{"const":1}`, `"x"?: JSON`},
		{`{"enum":["a","b"]}`, `"x"?: String`},
		{`{"enum":["a",1]}`, `"x"?: JSON`},
		{`{"enum":[]}`, `"x"?: JSON`},
		{`{}`, `"x"?: JSON`},
		{`true`, `"x"?: JSON`},
		{`{"type":"object"}`, `"x"?: JSON`},
		{`{"type":"object","additionalProperties":true}`, `"x"?: JSON`},
		{`{"type":"object","additionalProperties":false,"patternProperties":{"^a":{}}}`, `"x"?: JSON`},
		{`{"type":"object","additionalProperties":false}`, `"x"?: {}`},
		{`{"type":"object","additionalProperties":false,"properties":{"a":{"type":"integer"}},"required":["a"]}`, "\"x\"?: {\n        \"a\": Long,\n      }"},
		{`{"type":"array"}`, `"x"?: JSON`},
		{`{"type":"array","items":{"type":"string"}}`, `"x"?: Set<String>`},
		{`{"type":"array","items":{}}`, `"x"?: Set<JSON>`},
		{`{"type":"array","items":{"type":"array","items":{"type":"integer"}}}`, `"x"?: Set<Set<Long>>`},
		{`{"type":"array","items":{"type":["string","null"]}}`, `"x"?: Set<JSON>`},
		{`{"type":"array","items":{"type":"string"},"prefixItems":[{"type":"integer"}]}`, `"x"?: JSON`},
		{`{"type":"array","items":{"type":"object","additionalProperties":false,"properties":{"a":{"type":["string","null"]}}}}`, `"x"?: Set<JSON>`},
	}
	for _, tt := range tests {
		s := toolSchema("t.u", writ.ReadOnly, false, `{"type":"object","properties":{"x":`+tt.schema+`}}`)
		b, err := Load(nil, []ToolSchema{s})
		if err != nil {
			t.Errorf("%s: %v", tt.schema, err)
			continue
		}
		text := string(b.Files()[0].Text)
		if !strings.Contains(text, "args: {\n      "+tt.want+",\n    },") {
			t.Errorf("%s: %s\nwant %s", tt.schema, text[strings.Index(text, "args: "):], tt.want)
		}
	}
}

// Names that Cedar could misread come back as they were.
func TestStrangeNames(t *testing.T) {
	const property = `a"b\c` + "\u00e9\u202e\n"
	v, err := canon.Parse([]byte(fmt.Sprintf(`{"type":"object","properties":{%q:{"type":"string"},"if":{"type":"string"},"":{"type":"string"}}}`, property)), canon.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	s := toolSchema(`odd.to"ol\ `+"\u00e9", writ.Privileged, true, string(v.JSON()))
	s.Tool.Credential = `post"gres`
	b, err := Load(nil, []ToolSchema{s})
	if err != nil {
		t.Fatal(err)
	}
	op := b.ops[s.Tool.Name]
	if op == nil || op.tool != s.Tool || op.kind != s.Kind {
		t.Fatalf("the tool came back as %+v", op)
	}
	want := []string{"/", "/" + property, "/if"}
	if got := op.args.pointers(); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("arguments came back as %q, want %q", got, want)
	}
}

// sees reports whether policy sees exactly what v says.
func sees(c cedar.Value, v *canon.Value, s shape) bool {
	switch s.kind {
	case asRecord:
		rec, ok := c.(cedar.Record)
		nulls := 0
		for name, m := range v.Members() {
			in, there := rec.Get(cedar.String(name))
			for _, a := range s.attrs {
				switch {
				case a.name != name:
				case m.Kind() == canon.Null && a.nullable:
					nulls++
					ok = ok && !there
				default:
					ok = ok && there && sees(in, m, a.shape)
				}
			}
		}
		return ok && rec.Len()+nulls == v.Len()
	case asSet:
		set, ok := c.(cedar.Set)
		for e := range v.Elems() {
			found := false
			for in := range set.All() {
				found = found || sees(in, e, *s.elem)
			}
			ok = ok && found
		}
		return ok && set.Len() <= v.Len()
	case asJSON:
		return c == cedar.String(v.JSON())
	case asString:
		text, ok := v.Str()
		return ok && c == cedar.String(text)
	case asBool:
		is, ok := v.Bool()
		return ok && c == cedar.Boolean(is)
	}
	lexeme, _ := v.Number()
	return canon.SameNumber(lexeme, c.String())
}

// FuzzArguments: whatever an agent sends, policy sees all of it exactly, or
// the call is refused.
func FuzzArguments(f *testing.F) {
	for _, s := range []string{
		`{"to":"a"}`, `{"to":"a","cc":["x","x"],"count":1e3,"amount":-0.0001,"urgent":true,"note":null,"level":"low"}`,
		`{"to":"","address":{"city":"x","a/b~c":"y"},"extra":{"a":[null,{"b":1.50}]}}`, `{"to":"a","amount":922337203685477.5807}`,
		`{"to":"a","count":-9223372036854775808}`, `{"to":"a","bcc":1}`, `{"to":["a"]}`, `[]`, `{"cc":[["x"]],"to":"a"}`,
	} {
		f.Add([]byte(s))
	}
	b := load(f, permitAll)
	op := b.ops["mail.send"]
	f.Fuzz(func(t *testing.T, text []byte) {
		args, err := canon.ParseObject(text, canon.Limits{})
		if err != nil {
			return
		}
		q := &writ.Query{}
		r, err := see(q, args, op.args)
		if err != nil {
			if _, ok := err.(*misfit); !ok {
				t.Fatalf("see = %v, want a misfit", err)
			}
			return
		}
		if !sees(r.seen, args, op.args) {
			t.Fatalf("policy sees %v of %s", r.seen, args.JSON())
		}
		traced := 0
		for _, pointers := range r.origins {
			traced += len(pointers)
		}
		if traced < args.Len() {
			t.Fatalf("%d arguments, and %d have an origin", args.Len(), traced)
		}
	})
}
