package mcp_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/mcp"
)

const modernMeta = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}`

func call(id, name, rest string) string {
	return `{"jsonrpc":"2.0","id":` + id + `,"method":"tools/call","params":{"name":"` + name + `",` + rest + modernMeta + `}}`
}

func TestRequest(t *testing.T) {
	body := `{"jsonrpc":"2.0","id":"a\u0062","method":"tools/call","params":{"name":"pay","arguments":{"n":9007199254740993},` +
		`"_meta":{"progressToken":7,"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","tracestate":"a=b",` +
		`"io.github.writgate/intent":{"intent":"pay the invoice","prompt":"please pay"},"io.github.writgate/call":"call_06eajrq8msv0q1bt3r4vckg5ym","com.example/other":1,` +
		`"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"},` +
		`"io.modelcontextprotocol/clientCapabilities":{"elicitation":{}}}}}`
	r, err := mcp.ParseRequest([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	if r.ID != `"a\u0062"` || r.Method != "tools/call" || r.Name != "pay" {
		t.Errorf("read id %s, method %s, name %s", r.ID, r.Method, r.Name)
	}
	if got := r.Params.Get("arguments").JSON(); got != `{"n":9007199254740993}` {
		t.Errorf("arguments = %s", got)
	}
	want := mcp.Meta{
		Version: mcp.Modern, Client: `{"name":"c","version":"1"}`, Capabilities: `{"elicitation":{}}`, ProgressToken: "7",
		Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Tracestate: "a=b",
		Claim: writ.Claim{Intent: "pay the invoice", Prompt: "please pay"},
		Call:  "call_06eajrq8msv0q1bt3r4vckg5ym",
	}
	if r.Meta != want {
		t.Errorf("meta = %+v, want %+v", r.Meta, want)
	}
	up := string(r.Meta.Append(nil))
	for _, no := range []string{"pay the invoice", "com.example", "writgate"} {
		if strings.Contains(up, no) {
			t.Errorf("%q goes up: %s", no, up)
		}
	}
	if v, err := canon.Parse([]byte(up), canon.Limits{}); err != nil || v.Len() != 6 {
		t.Errorf("what goes up has %d members, %v: %s", v.Len(), err, up)
	}
}

func TestRequestRefused(t *testing.T) {
	meta := func(m string) string {
		return `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{` + m + `}}}`
	}
	version := `"io.modelcontextprotocol/protocolVersion":"2026-07-28"`
	for _, c := range []struct {
		name, body string
		code, http int
		id         string
	}{
		{"H13/duplicate_key", call("1", "pay", `"arguments":{"a":1,"\u0061":2},`), mcp.CodeParse, 400, ""},
		{"H13/duplicate_method", `{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}`, mcp.CodeParse, 400, ""},
		{"H14/case_variant", `{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}`, mcp.CodeInvalidRequest, 400, "1"},
		{"H14/long_s", `{"jsonrpc":"2.0","id":1,"method":"ping","param` + "\u017f" + `":{}}`, mcp.CodeInvalidRequest, 400, "1"},
		{"H14/case_variant_in_params", call("1", "pay", `"Arguments":{},`), mcp.CodeInvalidParams, 400, "1"},
		{"H14/unknown_param", call("1", "pay", `"task":{},`), mcp.CodeInvalidParams, 400, "1"},
		{"H15/invalid_utf8", call("1", "pa\xff", ""), mcp.CodeParse, 400, ""},
		{"H16/not_exact", call("1", "pay", `"arguments":{"n":1e400},`), mcp.CodeParse, 400, ""},
		{"H17/batch", "[" + call("1", "pay", "") + "]", mcp.CodeInvalidRequest, 400, ""},
		{"H17/two", call("1", "pay", "") + "{}", mcp.CodeParse, 400, ""},
		{"H17/empty", "", mcp.CodeParse, 400, ""},
		{"H17/scalar", "7", mcp.CodeInvalidRequest, 400, ""},
		{"H27/null_id", `{"jsonrpc":"2.0","id":null,"method":"tools/list"}`, mcp.CodeInvalidRequest, 400, ""},
		{"H27/float_id", `{"jsonrpc":"2.0","id":1.5,"method":"tools/list"}`, mcp.CodeInvalidRequest, 400, ""},
		{"H27/exponent_id", `{"jsonrpc":"2.0","id":1e2,"method":"tools/list"}`, mcp.CodeInvalidRequest, 400, ""},
		{"H27/object_id", `{"jsonrpc":"2.0","id":{},"method":"tools/list"}`, mcp.CodeInvalidRequest, 400, ""},
		{"H27/long_id", `{"jsonrpc":"2.0","id":"` + strings.Repeat("x", 255) + `","method":"tools/list"}`, mcp.CodeInvalidRequest, 400, ""},
		{"H27/response", `{"jsonrpc":"2.0","id":1,"result":{}}`, mcp.CodeInvalidRequest, 400, "1"},
		{"H27/error_response", `{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m"}}`, mcp.CodeInvalidRequest, 400, "1"},
		{"H27/request_and_response", `{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}`, mcp.CodeInvalidRequest, 400, "1"},
		{"version_1", `{"jsonrpc":"1.0","id":1,"method":"tools/list"}`, mcp.CodeInvalidRequest, 400, "1"},
		{"no_version", `{"id":1,"method":"tools/list"}`, mcp.CodeInvalidRequest, 400, "1"},
		{"params_array", `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":[]}`, mcp.CodeInvalidParams, 400, "1"},
		{"arguments_array", call("1", "pay", `"arguments":[],`), mcp.CodeInvalidParams, 400, "1"},
		{"state_number", call("1", "pay", `"requestState":1,`), mcp.CodeInvalidParams, 400, "1"},
		{"no_name", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{` + modernMeta + `}}`, mcp.CodeInvalidParams, 400, "1"},
		{"no_params", `{"jsonrpc":"2.0","id":1,"method":"tools/call"}`, mcp.CodeInvalidParams, 400, "1"},
		{"name_number", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":1}}`, mcp.CodeInvalidParams, 400, "1"},
		{"no_capabilities", meta(version), mcp.CodeInvalidParams, 400, "1"},
		{"capabilities_array", meta(version + `,"io.modelcontextprotocol/clientCapabilities":[]`), mcp.CodeInvalidParams, 400, "1"},
		{"version_number", meta(`"io.modelcontextprotocol/protocolVersion":1`), mcp.CodeInvalidParams, 400, "1"},
		{"progress_float", meta(`"progressToken":1.0`), mcp.CodeInvalidParams, 400, "1"},
		{"intent_number", meta(`"io.github.writgate/intent":1`), mcp.CodeInvalidParams, 400, "1"},
		{"intent_long", meta(`"io.github.writgate/intent":"` + strings.Repeat("x", 4097) + `"`), mcp.CodeInvalidParams, 400, "1"},
		{"call_number", meta(`"io.github.writgate/call":1`), mcp.CodeInvalidParams, 400, "1"},
		{"call_of_another_kind", meta(`"io.github.writgate/call":"task_06eajrq8msv0q1bt3r4vckg5ym"`), mcp.CodeInvalidParams, 400, "1"},
		{"too_large", `{"jsonrpc":"2.0","id":1,"method":"` + strings.Repeat("x", 1<<20) + `"}`, mcp.CodeParse, 413, ""},
		{"long_method", `{"jsonrpc":"2.0","id":1,"method":"` + strings.Repeat("x", 129) + `"}`, mcp.CodeInvalidRequest, 400, "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := mcp.ParseRequest([]byte(c.body))
			var e *mcp.Error
			if !errors.As(err, &e) || r != nil {
				t.Fatalf("ParseRequest = %v, %v, want a refusal", r, err)
			}
			if e.Code != c.code || e.HTTP != c.http || e.ID != c.id {
				t.Errorf("refused with code %d, status %d, id %q, want %d, %d, %q (%s)", e.Code, e.HTTP, e.ID, c.code, c.http, c.id, e.Message)
			}
			if _, err := canon.Parse(e.Response(), canon.Limits{}); err != nil {
				t.Errorf("the response is no JSON: %v: %s", err, e.Response())
			}
		})
	}
}

func TestRequestIDIsEchoed(t *testing.T) {
	for _, id := range []string{"1", "-7", "0", "12345678901234567890", `""`, `"\u0041 \/"`, `"` + strings.Repeat("x", 254) + `"`} {
		t.Run("H27/"+id[:min(len(id), 20)], func(t *testing.T) {
			r, err := mcp.ParseRequest([]byte(call(id, "pay", "")))
			if err != nil {
				t.Fatal(err)
			}
			if got := string(mcp.Response(r.ID, []byte(`{}`))); got != `{"jsonrpc":"2.0","id":`+id+`,"result":{}}` {
				t.Errorf("response = %s", got)
			}
		})
	}
}

func TestMessageResponses(t *testing.T) {
	m, err := mcp.ParseMessage([]byte(`{"jsonrpc":"2.0","id":3,"error":{"code":-32022,"message":"no","data":{"supported":["2025-11-25"]}}}`), canon.Limits{})
	if err != nil || m.Err == nil || m.Err.Code != mcp.CodeUnsupportedVersion || m.Err.Data != `{"supported":["2025-11-25"]}` || m.ID != "3" {
		t.Errorf("ParseMessage(error) = %+v, %v", m, err)
	}
	if _, err := mcp.ParseMessage([]byte(`{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no"}}`), canon.Limits{}); err != nil {
		t.Errorf("an error without an id: %v", err)
	}
	for _, bad := range []string{
		`{"jsonrpc":"2.0","result":{}}`, `{"jsonrpc":"2.0","id":null,"result":{}}`, `{"jsonrpc":"2.0","id":1,"result":[]}`,
		`{"jsonrpc":"2.0","id":1}`, `{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}`,
		`{"jsonrpc":"2.0","id":1,"error":{"code":1.5,"message":""}}`, `{"jsonrpc":"2.0","id":1,"error":{"code":1}}`,
		`{"jsonrpc":"2.0","id":1,"error":"no"}`, `{"jsonrpc":"2.0","id":1,"result":{},"params":{}}`,
	} {
		if m, err := mcp.ParseMessage([]byte(bad), canon.Limits{}); err == nil {
			t.Errorf("ParseMessage(%s) = %+v, want a refusal", bad, m)
		}
	}
}

func TestMediaType(t *testing.T) {
	for _, c := range []struct {
		values []string
		ok     bool
	}{
		{[]string{"application/json"}, true},
		{[]string{"Application/JSON"}, true},
		{[]string{"application/json; charset=utf-8"}, true},
		{[]string{`application/json;charset="UTF-8"`}, true},
		{nil, false},
		{[]string{""}, false},
		{[]string{"application/json", "application/json"}, false},
		{[]string{"application/json;charset=utf-16"}, false},
		{[]string{"application/json; boundary=x"}, false},
		{[]string{"text/json"}, false},
		{[]string{"application/jsonx"}, false},
		{[]string{"application/json-rpc"}, false},
		{[]string{"application/json, text/plain"}, false},
		{[]string{"application/vnd.api+json"}, false},
	} {
		t.Run("H18/"+strings.Join(c.values, "|"), func(t *testing.T) {
			err := mcp.CheckMediaType(http.Header{"Content-Type": c.values})
			if (err == nil) != c.ok {
				t.Fatalf("CheckMediaType(%q) = %v", c.values, err)
			}
			if e, ok := errors.AsType[*mcp.Error](err); err != nil && (!ok || e.HTTP != http.StatusUnsupportedMediaType) {
				t.Errorf("refused with %v, want status 415", err)
			}
		})
	}
	if mcp.CheckMediaType(http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}}) == nil {
		t.Error("a compressed body is let past")
	}
}
