package ledger

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/writgate/writ"
	"pgregory.net/rapid"
)

// genLeaf draws leaves of every shape.
func genLeaf(t *rapid.T) *Leaf {
	text := rapid.StringN(0, 12, 30)
	l := &Leaf{
		V: 1, Type: rapid.SampledFrom(types).Draw(t, "type"), Time: rapid.Int64().Draw(t, "time"),
		Gateway: text.Draw(t, "gateway"), Call: writ.CallID(text.Draw(t, "call")), Task: writ.TaskID(text.Draw(t, "task")),
		Agent: writ.AgentID(text.Draw(t, "agent")), Key: writ.Thumbprint(text.Draw(t, "key")), User: text.Draw(t, "user"),
		Tool: writ.ToolName(text.Draw(t, "tool")), Definition: writ.Digest(text.Draw(t, "definition")), Tier: text.Draw(t, "tier"),
		Environment: text.Draw(t, "environment"), Bundle: writ.Digest(text.Draw(t, "bundle")), Effect: text.Draw(t, "effect"),
		Code: writ.Code(text.Draw(t, "code")), Reasons: rapid.SliceOfN(text, 0, 3).Draw(t, "reasons"),
		Approval: writ.ApprovalID(text.Draw(t, "approval")), Capability: text.Draw(t, "capability"), Lease: text.Draw(t, "lease"),
	}
	if len(l.Reasons) == 0 {
		l.Reasons = nil
	}
	if m := rapid.MapOfN(text, text, 0, 3).Draw(t, "note"); len(m) != 0 {
		l.Note = m
	}
	if m := rapid.MapOfN(text, text, 0, 3).Draw(t, "parts"); len(m) != 0 {
		l.Parts = map[string]writ.Digest{}
		for k, v := range m {
			l.Parts[k] = writ.Digest(v)
		}
	}
	return l
}

// TestLeafHasOneEncoding holds our encoder against encoding/json, and the
// reader against the encoder.
func TestLeafHasOneEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := genLeaf(t)
		valid := l.check() == nil
		b := l.append(nil)
		var std Leaf
		if err := json.Unmarshal(b, &std); err != nil {
			t.Fatalf("%s is not JSON: %v", b, err)
		}
		if valid && !reflect.DeepEqual(*l, std) {
			t.Fatalf("%s says %+v, want %+v", b, std, *l)
		}
		got, err := parseLeaf(b)
		if want := valid && len(b) <= maxLeaf; (err == nil) != want {
			t.Fatalf("%s: %v", b, err)
		}
		if err == nil && !reflect.DeepEqual(got, l) {
			t.Fatalf("%s is read as %+v", b, got)
		}
	})
}

func FuzzLeaf(f *testing.F) {
	for _, s := range []string{
		`{"v":1,"type":"admin","time":1}`,
		`{"v":1,"type":"intent","time":1767225600000,"gateway":"g","call":"call_x","task":"task_x","parts":{"changes":"sha256:00","query":"sha256:11"},"note":{"a":"b"}}`,
		`{"v":1,"type":"admin","time":1,"note":{"a":"b","a":"c"}}`, `{"v":2,"type":"admin","time":1}`,
		`{"v":1,"type":"admin","time":1,"Gateway":"g"}`, `{"v":1,"type":"admin","time":1e0}`, ` {}`, `{"v":1,"type":"admin","time":1}x`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseLeaf(b)
		if err != nil {
			return
		}
		if again := l.append(nil); !bytes.Equal(again, b) {
			t.Errorf("%q is another encoding of %q", b, again)
		}
		if err := l.check(); err != nil {
			t.Errorf("%q is read, and not allowed: %v", b, err)
		}
	})
}

func TestLeavesThatAreRefused(t *testing.T) {
	for _, s := range []string{
		``, `null`, `[]`, `{}`, `{"v":1}`, `{"v":1,"type":"admin"}`,
		`{"type":"admin","v":1,"time":1}`,
		`{"v":1, "type":"admin","time":1}`,
		`{"v":1,"type":"admin","time":1}` + "\n",
		`{"v":1,"type":"admin","time":1.0}`,
		`{"v":1,"type":"admin","time":"1"}`,
		`{"v":2,"type":"admin","time":1}`,
		`{"v":1,"type":"other","time":1}`,
		`{"v":1,"type":"intent","time":1}`,
		`{"v":1,"type":"outcome","time":1}`,
		`{"v":1,"type":"admin","time":1,"gateway":""}`,
		`{"v":1,"type":"admin","time":1,"gateway":null}`,
		`{"v":1,"type":"admin","time":1,"more":1}`,
		`{"v":1,"type":"admin","time":1,"time":1}`,
		`{"v":1,"type":"admin","time":1,"gateway":"\u0067"}`,
		`{"v":1,"type":"admin","time":1,"gateway":"\/"}`,
		`{"v":1,"type":"admin","time":1,"gateway":"` + "\xff" + `"}`,
		`{"v":1,"type":"admin","time":1,"gateway":"\ud800"}`,
		`{"v":1,"type":"admin","time":1,"note":{}}`,
		`{"v":1,"type":"admin","time":1,"note":{"b":"1","a":"1"}}`,
		`{"v":1,"type":"admin","time":1,"reasons":[]}`,
		`{"v":1,"type":"admin","time":1,"note":{"a":"` + strings.Repeat("x", maxLeaf) + `"}}`,
	} {
		if l, err := parseLeaf([]byte(s)); err == nil {
			t.Errorf("%q is read as %+v", s, l)
		}
	}
}

// TestEntriesThatAreRefused could never be committed.
func TestEntriesThatAreRefused(t *testing.T) {
	leaf := Leaf{Type: TypeAdmin}
	put := func(c Change) *Entry { return &Entry{Leaf: leaf, Changes: []Change{c}} }
	part := func(names ...string) *Entry {
		e := &Entry{Leaf: leaf}
		for _, n := range names {
			e.Parts = append(e.Parts, Part{Name: n})
		}
		return e
	}
	for name, e := range map[string]*Entry{
		"version":             {Leaf: Leaf{V: 1, Type: TypeAdmin}},
		"time":                {Leaf: Leaf{Time: 1, Type: TypeAdmin}},
		"gateway":             {Leaf: Leaf{Gateway: "g", Type: TypeAdmin}},
		"user":                {Leaf: Leaf{User: "u", Type: TypeAdmin}},
		"commitments":         {Leaf: Leaf{Parts: map[string]writ.Digest{}, Type: TypeAdmin}},
		"part changes":        part(partChanges),
		"part without a name": part(""),
		"part's name":         part("A"),
		"one part twice":      part("a", "b", "a"),
		"a huge part":         {Leaf: leaf, Parts: []Part{{Name: "a", Bytes: make([]byte, maxPayload+1)}}},
		"a huge value":        put(Change{Op: Put, Kind: "k", Key: "k", Value: make([]byte, maxPayload+1)}),
		"many changes":        {Leaf: leaf, Changes: slices.Repeat([]Change{{Op: Put, Kind: "k", Key: "k"}}, maxChanges+1)},
		"many expectations":   {Leaf: leaf, Expect: slices.Repeat([]Expect{{Kind: "k", Key: "k"}}, maxChanges+1)},
		"an expectation":      {Leaf: leaf, Expect: []Expect{{Kind: "", Key: "k"}}},
		"no operation":        put(Change{Kind: "k", Key: "k"}),
		"operation 5":         put(Change{Op: 5, Kind: "k", Key: "k"}),
		"no kind":             put(Change{Op: Put, Key: "k"}),
		"no key":              put(Change{Op: Put, Kind: "k"}),
		"zero in a key":       put(Change{Op: Put, Kind: "k", Key: "a\x00b"}),
		"a long key":          put(Change{Op: Put, Kind: "k", Key: strings.Repeat("k", maxKey+1)}),
		"open":                put(Change{Op: Delete, Kind: kindOpen, Key: "k"}),
		"log":                 put(Change{Op: Put, Kind: kindLog, Key: "k"}),
		"witness":             put(Change{Op: Put, Kind: kindWitness, Key: "k"}),
		"put with a delta":    put(Change{Op: Put, Kind: "k", Key: "k", Delta: 1}),
		"put until":           put(Change{Op: Put, Kind: "k", Key: "k", Until: 1}),
		"delete of a value":   put(Change{Op: Delete, Kind: "k", Key: "k", Value: []byte("v")}),
		"add of a value":      put(Change{Op: Add, Kind: "k", Key: "k", Value: []byte("v")}),
		"a limit below zero":  put(Change{Op: Add, Kind: "k", Key: "k", Delta: 1, Limit: -1}),
		"the lowest delta":    put(Change{Op: Add, Kind: "k", Key: "k", Delta: -1 << 63, Limit: 1}),
		"until below zero":    put(Change{Op: Once, Kind: "k", Key: "k", Until: -1}),
	} {
		if err := e.check(); err == nil {
			t.Errorf("%s: not refused", name)
		}
	}
}

// TestZeroReceiptIsForNothing: only a commit makes one that is for something.
func TestZeroReceiptIsForNothing(t *testing.T) {
	var r Receipt
	if r.Valid() || r.Index() != -1 || r.Call() != "" || r.Task() != "" || r.Type() != "" || r.Time() != 0 || r.Leaf() != nil {
		t.Errorf("%+v", r)
	}
}

// TestChangesReadAsWritten holds our encoder against encoding/json.
func TestChangesReadAsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text, n := rapid.StringN(0, 8, 20), rapid.Int64()
		var b []byte
		var want []changed
		for range rapid.IntRange(1, 4).Draw(t, "n") {
			c := Change{Op: Op(rapid.IntRange(1, 4).Draw(t, "op")), Kind: text.Draw(t, "kind"), Key: text.Draw(t, "key"), Delta: n.Draw(t, "delta"), Limit: n.Draw(t, "limit")}
			r := Row{Value: rapid.SliceOf(rapid.Byte()).Draw(t, "value"), Count: n.Draw(t, "count"), Until: n.Draw(t, "until")}
			b = appendChange(append(b, "[,"[min(len(b), 1)]), &c, &r)
			w := changed{Op: opNames[c.Op], Kind: c.Kind, Key: c.Key, Count: r.Count, Until: r.Until, Delta: c.Delta, Limit: c.Limit}
			if len(r.Value) != 0 {
				w.Value = r.Value
			}
			want = append(want, w)
		}
		b = append(b, ']')
		got, err := parseChanges(0, b)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%s is read as %+v, %v; want %+v", b, got, err, want)
		}
		std, err := json.Marshal(want)
		if err != nil || !json.Valid(b) || len(std) == 0 {
			t.Fatal(err)
		}
	})
}

// TestRanges writes the records of an erasure, and reads them.
func TestRanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := rapid.MapOfN(rapid.Int64Range(0, 400), rapid.Just(true), 1, 120).Draw(t, "records")
		var todo []erasing
		for _, i := range slices.Sorted(maps.Keys(set)) {
			todo = append(todo, erasing{index: i})
		}
		e := erasures{}
		for at := int64(1000); len(todo) != 0; at++ {
			text, n := ranges(todo)
			if n == 0 || len(text) > maxRanges {
				t.Fatalf("%d records in %q", n, text)
			}
			if err := e.add(&Leaf{Type: TypeErasure, Note: map[string]string{noteErased: text}}, at); err != nil {
				t.Fatal(err)
			}
			todo = todo[n:]
		}
		for i := range int64(402) {
			if e.has(i) != set[i] {
				t.Fatalf("record %d is erased: %v, want %v; runs %v", i, e.has(i), set[i], e.runs)
			}
		}
		for i := 1; i < len(e.runs); i++ {
			if e.runs[i].first <= e.runs[i-1].last+1 {
				t.Fatalf("runs %v touch", e.runs)
			}
		}
	})
	for _, s := range []string{"", ",", "1,", "2,1", "1-", "3-2", "1,1", "1-4,4", "01", "-1", "1-2-3", " 1"} {
		if r, err := parseRanges(s); err == nil {
			t.Errorf("%q is read as %v", s, r)
		}
	}
	for note, at := range map[string]int64{"5": 5, "1-9": 4, "x": 9} {
		if err := new(erasures).add(&Leaf{Type: TypeErasure, Note: map[string]string{noteErased: note}}, at); err == nil {
			t.Errorf("record %d erases %s", at, note)
		}
	}
}
