package mcp_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/mcp"
)

func writJSON(s string) writ.JSON { return writ.JSON(s) }

func TestStampKeepsEveryOtherByte(t *testing.T) {
	own := map[string]writ.JSON{mcp.KeyReceipt: `"r"`, mcp.KeyDecision: `{"effect":"permit"}`}
	for _, c := range []struct{ name, in, want string }{
		{
			"foreign",
			"{ \"content\" : [ {\"type\":\"text\",\"text\":\"a\\u0041\\/\"} ],\n \"x\":9007199254740993, \"y\":1.0,\"_meta\":{\"com.example/k\": 2.50 } }",
			"{ \"content\" : [ {\"type\":\"text\",\"text\":\"a\\u0041\\/\"} ],\n \"x\":9007199254740993, \"y\":1.0,\"_meta\":{\"com.example/k\": 2.50" +
				",\"io.github.writgate/decision\":{\"effect\":\"permit\"},\"io.github.writgate/receipt\":\"r\" } }",
		},
		{
			"forged",
			`{"_meta":{"io.github.writgate/receipt":"forged","io.github.writgate/x":1,"k":1},"content":[]}`,
			`{"_meta":{"io.github.writgate/receipt":"r","k":1,"io.github.writgate/decision":{"effect":"permit"}},"content":[]}`,
		},
		{
			"escaped_prefix",
			`{"_meta":{"io.github\u002ewritgate/x":1},"content":[]}`,
			`{"_meta":{"io.github.writgate/decision":{"effect":"permit"},"io.github.writgate/receipt":"r"},"content":[]}`,
		},
		{
			"none",
			`{"content":[]}`,
			`{"content":[],"_meta":{"io.github.writgate/decision":{"effect":"permit"},"io.github.writgate/receipt":"r"}}`,
		},
		{
			"empty",
			`{}`,
			`{"_meta":{"io.github.writgate/decision":{"effect":"permit"},"io.github.writgate/receipt":"r"}}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := mcp.NewResult(parse(t, c.in))
			if err != nil {
				t.Fatal(err)
			}
			got, err := r.Stamp(own)
			if err != nil || string(got) != c.want {
				t.Errorf("Stamp = %v\n%s\nwant\n%s", err, got, c.want)
			}
		})
	}
	for _, c := range []struct{ name, in, want string }{
		{"changed", `{"ttlMs":9,"_meta":{"k":1}}`, `{"ttlMs":0,"_meta":{"k":1,"io.github.writgate/decision":{"effect":"permit"},"io.github.writgate/receipt":"r"}}`},
		{"changed_without_meta", `{"ttlMs":9}`, `{"ttlMs":0,"_meta":{"io.github.writgate/decision":{"effect":"permit"},"io.github.writgate/receipt":"r"}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := parse(t, c.in)
			r, err := mcp.NewResult(v)
			if err != nil {
				t.Fatal(err)
			}
			got, err := r.Stamp(own, canon.Change{In: v, Name: "ttlMs", Value: "0"})
			if err != nil || string(got) != c.want {
				t.Errorf("Stamp = %v\n%s\nwant\n%s", err, got, c.want)
			}
		})
	}
	t.Run("nothing_of_ours", func(t *testing.T) {
		in := `{ "_meta" : { "io.github.writgate/decision": 1 , "k":2}}`
		r, err := mcp.NewResult(parse(t, in))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.Stamp(nil); err != nil || string(got) != `{ "_meta" : { "k":2}}` {
			t.Errorf("Stamp(nil) = %s, %v", got, err)
		}
	})
}

func TestResult(t *testing.T) {
	for _, c := range []struct {
		in, typ string
		failed  bool
	}{
		{`{}`, mcp.Complete, false},
		{`{"resultType":"complete","isError":true}`, mcp.Complete, true},
		{`{"resultType":"input_required","inputRequests":{}}`, mcp.InputRequired, false},
		{`{"isError":"true"}`, mcp.Complete, false},
	} {
		r, err := mcp.NewResult(parse(t, c.in))
		if err != nil || r.Type() != c.typ || r.IsError() != c.failed {
			t.Errorf("NewResult(%s): %q, %v, %v", c.in, r.Type(), r.IsError(), err)
		}
	}
	for _, bad := range []string{`[]`, `"x"`, `{"resultType":"task"}`, `{"resultType":1}`, `{"resultType":null}`, `{"_meta":[]}`} {
		if _, err := mcp.NewResult(parse(t, bad)); err == nil {
			t.Errorf("NewResult(%s) was taken", bad)
		}
	}
	if r, err := mcp.NewResult(parse(t, string(mcp.ToolError("no \"\n\u2028", map[string]writ.JSON{mcp.KeyDecision: `{}`})))); err != nil || !r.IsError() {
		t.Errorf("ToolError is not a failed result: %v", err)
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(call(`"a"`, "pay", `"arguments":{"n":9007199254740993},`)))
	f.Add([]byte(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}`))
	f.Add([]byte(`{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m"}}`))
	f.Add([]byte(`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := mcp.ParseRequest(b)
		if err != nil {
			e := err.(*mcp.Error)
			if _, err := canon.Parse(e.Response(), canon.Limits{}); err != nil {
				t.Fatalf("refusal of %q is no JSON: %v: %s", b, err, e.Response())
			}
			if e.HTTP < 400 {
				t.Fatalf("refusal with status %d", e.HTTP)
			}
			return
		}
		if r.Method == "" || len(r.ID) > 256 || (r.ID != "" && !bytes.Contains(b, []byte(r.ID))) {
			t.Fatalf("took %q with id %q, method %q", b, r.ID, r.Method)
		}
		if r.Meta.Version != "" && r.Meta.Capabilities == "" {
			t.Fatalf("modern without capabilities: %q", b)
		}
		up, err := canon.Parse(r.Meta.Append(nil), canon.Limits{})
		if err != nil {
			t.Fatalf("what goes up is no JSON: %v", err)
		}
		for name := range up.Members() {
			if strings.HasPrefix(name, mcp.OurPrefix) {
				t.Fatalf("%s goes up", name)
			}
		}
		again, err := mcp.ParseRequest(mcp.Call(r.ID, r.Method, r.Params.Raw()))
		if err != nil || again.ID != r.ID || again.Method != r.Method || again.Name != r.Name || again.Params.JSON() != r.Params.JSON() {
			t.Fatalf("%q changed on the way: %v", b, err)
		}
	})
}
