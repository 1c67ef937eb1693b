package mcp_test

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/mcp"
	"pgregory.net/rapid"
)

func parse(t testing.TB, s string) *canon.Value {
	t.Helper()
	v, err := canon.Parse([]byte(s), canon.Limits{})
	if err != nil {
		t.Fatalf("%v in %s", err, s)
	}
	return v
}

func request(t testing.TB, body string) *mcp.Request {
	t.Helper()
	r, err := mcp.ParseRequest([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func header(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

func b64(s string) string { return "=?base64?" + base64.StdEncoding.EncodeToString([]byte(s)) + "?=" }

func TestCheckHeaders(t *testing.T) {
	const v, m, n = "MCP-Protocol-Version", "mcp-method", "Mcp-Name"
	modern := call("1", "pay", "")
	read := `{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///a b",` + modernMeta + `}}`
	list := `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{` + modernMeta + `}}`
	old := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"pay"}}`
	hello := `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}`
	good := []string{v, "2026-07-28", m, "tools/call", n, "pay"}
	for _, c := range []struct {
		name, body string
		header     []string
		ok         bool
	}{
		{"H19/good", modern, good, true},
		{"H19/sentinel", modern, []string{v, "2026-07-28", m, "tools/call", n, b64("pay")}, true},
		{"H19/resource", read, []string{v, "2026-07-28", m, "resources/read", n, "file:///a b"}, true},
		{"H19/list_without_name", list, []string{v, "2026-07-28", m, "tools/list"}, true},
		{"H19/no_version", modern, good[2:], false},
		{"H19/no_method", modern, []string{v, "2026-07-28", n, "pay"}, false},
		{"H19/no_name", modern, good[:4], false},
		{"H19/empty_name", modern, []string{v, "2026-07-28", m, "tools/call", n, ""}, false},
		{"H19/wrong_version", modern, []string{v, "2025-11-25", m, "tools/call", n, "pay"}, false},
		{"H19/wrong_method", modern, []string{v, "2026-07-28", m, "tools/list", n, "pay"}, false},
		{"H19/method_case", modern, []string{v, "2026-07-28", m, "Tools/Call", n, "pay"}, false},
		{"H19/wrong_name", modern, []string{v, "2026-07-28", m, "tools/call", n, "read"}, false},
		{"H19/name_case", modern, []string{v, "2026-07-28", m, "tools/call", n, "Pay"}, false},
		{"H19/two_versions", modern, append([]string{v, "2026-07-28"}, good...), false},
		{"H19/two_methods", modern, append([]string{m, "tools/call"}, good...), false},
		{"H19/two_names", modern, append([]string{n, "pay"}, good...), false},
		{"H19/joined_names", modern, []string{v, "2026-07-28", m, "tools/call", n, "pay, pay"}, false},
		{"H19/bad_base64", modern, []string{v, "2026-07-28", m, "tools/call", n, "=?base64?cGF5!?="}, false},
		{"H19/unpadded_base64", modern, []string{v, "2026-07-28", m, "tools/call", n, "=?base64?cGF5eA?="}, false},
		{"H19/double_encoded", modern, []string{v, "2026-07-28", m, "tools/call", n, b64(b64("pay"))}, false},
		{"H19/sentinel_case", modern, []string{v, "2026-07-28", m, "tools/call", n, "=?BASE64?cGF5?="}, false},
		{"H19/no_suffix", modern, []string{v, "2026-07-28", m, "tools/call", n, "=?base64?cGF5"}, false},
		{"H19/sentinel_method", modern, []string{v, "2026-07-28", m, b64("tools/call"), n, "pay"}, false},
		{"H19/raw_utf8", call("1", "p\u00e4y", ""), []string{v, "2026-07-28", m, "tools/call", n, "p\u00e4y"}, false},
		{"H19/encoded_utf8", call("1", "p\u00e4y", ""), []string{v, "2026-07-28", m, "tools/call", n, b64("p\u00e4y")}, true},
		{"H20/legacy_body", old, []string{v, "2025-11-25"}, true},
		{"H20/legacy_initialize", hello, nil, true},
		{"H20/legacy_body_no_version", old, nil, false},
		{"H20/modern_header_legacy_body", old, good, false},
		{"H20/legacy_agreeing", old, []string{v, "2025-11-25", m, "tools/call", n, "pay"}, true},
		{"H20/legacy_other_name", old, []string{v, "2025-11-25", m, "tools/call", n, "read"}, false},
		{"H20/legacy_other_method", old, []string{v, "2025-11-25", m, "tools/list"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := mcp.CheckHeaders(header(c.header...), request(t, c.body), nil)
			if (err == nil) != c.ok {
				t.Fatalf("CheckHeaders(%q) = %v", c.header, err)
			}
			if e, ok := errors.AsType[*mcp.Error](err); err != nil && (!ok || e.Code != mcp.CodeHeaderMismatch || e.HTTP != 400 || e.ID != "1") {
				t.Errorf("refused with %+v, want -32020, status 400, the request's id", e)
			}
		})
	}
}

const mirrored = `{"type":"object","properties":{
	"region":{"type":"string","x-mcp-header":"Region"},
	"page":{"type":"object","properties":{"size":{"type":"integer","x-mcp-header":"Page-Size"}}},
	"dry":{"type":"boolean","x-mcp-header":"Dry"},
	"x-mcp-header":{"type":"string"},
	"q":{"type":"string","default":{"x-mcp-header":"no"}}}}`

func TestCheckParamHeaders(t *testing.T) {
	params, err := mcp.HeaderParams(parse(t, mirrored))
	if err != nil || len(params) != 3 {
		t.Fatalf("HeaderParams = %v, %v, want three", params, err)
	}
	const r, s, d = "Mcp-Param-Region", "Mcp-Param-Page-Size", "Mcp-Param-Dry"
	for _, c := range []struct {
		name, arguments string
		header          []string
		ok              bool
	}{
		{"all", `{"region":"eu","page":{"size":42},"dry":true}`, []string{r, "eu", s, "42", d, "true"}, true},
		{"none", `{"q":"x"}`, nil, true},
		{"null", `{"region":null}`, nil, true},
		{"header_for_null", `{"region":null}`, []string{r, "eu"}, false},
		{"header_for_absent", `{}`, []string{r, "eu"}, false},
		{"empty_header_for_absent", `{}`, []string{r, ""}, false},
		{"missing", `{"region":"eu"}`, nil, false},
		{"differs", `{"region":"eu"}`, []string{r, "us"}, false},
		{"case", `{"region":"eu"}`, []string{r, "EU"}, false},
		{"twice", `{"region":"eu"}`, []string{r, "eu", r, "eu"}, false},
		{"encoded", `{"region":"e\u00fc"}`, []string{r, b64("eü")}, true},
		{"raw", `{"region":"e\u00fc"}`, []string{r, "eü"}, false},
		{"empty", `{"region":""}`, []string{r, ""}, true},
		{"number_as_decimal", `{"page":{"size":42}}`, []string{s, "42.0"}, true},
		{"decimal_as_number", `{"page":{"size":42.0}}`, []string{s, "42"}, true},
		{"number_differs", `{"page":{"size":42}}`, []string{s, "43"}, false},
		{"number_hex", `{"page":{"size":42}}`, []string{s, "0x2a"}, false},
		{"unsafe_number", `{"page":{"size":9007199254740993}}`, []string{s, "9007199254740993"}, false},
		{"fraction", `{"page":{"size":4.5}}`, []string{s, "4.5"}, false},
		{"boolean_differs", `{"dry":true}`, []string{d, "True"}, false},
		{"object", `{"region":{}}`, []string{r, "{}"}, false},
		{"not_annotated", `{"q":"x"}`, []string{"Mcp-Param-Q", "y"}, true},
	} {
		t.Run("H21/"+c.name, func(t *testing.T) {
			h := header(append([]string{"MCP-Protocol-Version", "2026-07-28", "Mcp-Method", "tools/call", "Mcp-Name", "pay"}, c.header...)...)
			err := mcp.CheckHeaders(h, request(t, call("1", "pay", `"arguments":`+c.arguments+`,`)), func(string) []mcp.HeaderParam { return params })
			if (err == nil) != c.ok {
				t.Errorf("CheckHeaders(%q over %s) = %v", c.header, c.arguments, err)
			}
		})
	}
}

func TestHeaderParamsRefused(t *testing.T) {
	for name, schema := range map[string]string{
		"empty":      `{"properties":{"a":{"type":"string","x-mcp-header":""}}}`,
		"space":      `{"properties":{"a":{"type":"string","x-mcp-header":"a b"}}}`,
		"crlf":       `{"properties":{"a":{"type":"string","x-mcp-header":"a\r\nb"}}}`,
		"not_string": `{"properties":{"a":{"type":"string","x-mcp-header":1}}}`,
		"number":     `{"properties":{"a":{"type":"number","x-mcp-header":"A"}}}`,
		"object":     `{"properties":{"a":{"type":"object","x-mcp-header":"A"}}}`,
		"union":      `{"properties":{"a":{"type":["string","null"],"x-mcp-header":"A"}}}`,
		"no_type":    `{"properties":{"a":{"x-mcp-header":"A"}}}`,
		"twice":      `{"properties":{"a":{"type":"string","x-mcp-header":"A"},"b":{"type":"string","x-mcp-header":"a"}}}`,
		"items":      `{"properties":{"a":{"type":"array","items":{"type":"string","x-mcp-header":"A"}}}}`,
		"any_of":     `{"anyOf":[{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}]}`,
		"defs":       `{"$defs":{"a":{"type":"string","x-mcp-header":"A"}}}`,
		"root":       `{"type":"object","x-mcp-header":"A"}`,
	} {
		t.Run(name, func(t *testing.T) {
			if p, err := mcp.HeaderParams(parse(t, schema)); err == nil {
				t.Errorf("HeaderParams = %v, want a refusal", p)
			}
		})
	}
}

// What SetHeaders writes, CheckHeaders takes, whatever the text is.
func TestHeadersRoundTrip(t *testing.T) {
	params, err := mcp.HeaderParams(parse(t, mirrored))
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[ \t]*=\?base64\?[a-zA-Z=]*\?=[ \t]*`), rapid.SampledFrom([]string{" a", "a\t", "", "é", "a\r\nb"}))
		clean := func(s string) string { return strings.ReplaceAll(strings.ToValidUTF8(s, ""), "\x00", "") }
		name, region := clean(text.Draw(t, "name")), clean(text.Draw(t, "region"))
		if name == "" {
			name = "x"
		}
		var b canon.Builder
		b.Text("region", region)
		b.Bool("dry", rapid.Bool().Draw(t, "dry"))
		b.Value("page", writJSON(`{"size":`+rapid.StringMatching(`-?[1-9][0-9]{0,15}`).Draw(t, "n")+`}`))
		arguments, err := b.JSON()
		if err != nil {
			t.Fatal(err)
		}
		v, _ := canon.Parse([]byte(arguments), canon.Limits{})
		if n, ok := canon.Int64(string(v.Pointer("/page/size").JSON())); !ok || n >= 1<<53 || n <= -(1<<53) {
			t.Skip("not a number that headers mirror")
		}
		var p canon.Builder
		p.Text("name", name)
		p.Value("arguments", arguments)
		p.Value("_meta", `{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}`)
		body, err := p.JSON()
		if err != nil {
			t.Fatal(err)
		}
		r, err := mcp.ParseRequest(mcp.Call("1", "tools/call", []byte(body)))
		if err != nil {
			t.Fatal(err)
		}
		h := http.Header{}
		mcp.SetHeaders(h, "tools/call", name, params, v)
		for k, vs := range h {
			if s := vs[0]; s != strings.Trim(s, " \t") || strings.ContainsAny(s, "\r\n\x00") {
				t.Fatalf("header %s: %q", k, s)
			}
		}
		if err := mcp.CheckHeaders(h, r, func(string) []mcp.HeaderParam { return params }); err != nil {
			t.Fatalf("%v: %v", err, h)
		}
	})
}
