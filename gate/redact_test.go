package gate_test

import (
	"context"
	"strings"
	"testing"

	"github.com/writgate/writ"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/mcp"
	"github.com/writgate/writ/policy"
	"github.com/writgate/writ/upstream"
	"github.com/writgate/writ/writtest"
)

// TestRedactIsAnObligation permits a read but for one field of what it gives.
// The field is in nothing that is told or kept, and a result that cannot be
// taken apart is not given at all.
func TestRedactIsAnObligation(t *testing.T) {
	for name, x := range map[string]struct {
		answer upstream.Answer
		want   string // in what is told; empty: it is withheld
	}{
		"a field":               {upstream.Answer{Body: []byte(`{"content":[{"type":"text","text":"ada, S3CRET"}],"structuredContent":{"name":"ada","card":"S3CRET"}}`)}, `{"name":"ada","card":"[redacted]"}`},
		"a field inside":        {upstream.Answer{Body: []byte(`{"content":[],"structuredContent":{"name":"ada","pay":{"iban":"S3CRET","bank":"x"}}}`)}, `"iban":"[redacted]"`},
		"a field that is not":   {upstream.Answer{Body: []byte(`{"content":[],"structuredContent":{"name":"ada"}}`)}, `{"name":"ada"}`},
		"a copy in _meta":       {upstream.Answer{Body: []byte(`{"_meta":{"x":"S3CRET"},"content":[],"structuredContent":{"name":"ada"}}`)}, `{"name":"ada"}`},
		"no structure":          {upstream.Answer{Body: []byte(`{"content":[{"type":"text","text":"S3CRET"}]}`)}, ""},
		"a structured list":     {upstream.Answer{Body: []byte(`{"content":[],"structuredContent":["S3CRET"]}`)}, ""},
		"an unknown member":     {upstream.Answer{Body: []byte(`{"content":[],"structuredContent":{"name":"ada"},"also":"S3CRET"}`)}, ""},
		"an error of the tool":  {upstream.Answer{Err: &mcp.Error{Code: -32000, Message: "S3CRET", Data: `"S3CRET"`}}, "policy withholds"},
		"a field in no object":  {upstream.Answer{Body: []byte(`{"content":[],"structuredContent":{"pay":"S3CRET"}}`)}, ""},
		"a field in a list":     {upstream.Answer{Body: []byte(`{"content":[],"structuredContent":{"pay":[{"iban":"S3CRET"}]}}`)}, ""},
		"a field in a null":     {upstream.Answer{Body: []byte(`{"content":[],"structuredContent":{"name":"ada","pay":null}}`)}, `{"name":"ada","pay":null}`},
		"a field twice":         {upstream.Answer{Body: []byte(`{"content":[],"structuredContent":{"name":"ada","deep":{"a":{"b":"S3CRET"}}}}`)}, ""},
		"an element of a list?": {upstream.Answer{Body: []byte(`{"content":[],"structuredContent":{"list":["S3CRET"]}}`)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := writtest.New(t, writtest.Setup{
				Tools:    []writtest.Tool{{Name: "crm.get", Tier: writ.ReadOnly}},
				Policies: []policy.File{{Name: "crm.cedar", Text: []byte("@redact(\"/card /pay/iban /list/0 /deep/a /deep/a/b\")\npermit (principal, action == Action::\"crm.get\", resource);")}},
			})
			w.Tools.Do = func(context.Context, *broker.Lease, upstream.Order) (*upstream.Answer, error) { return &x.answer, nil }
			a := w.Agent("billing")
			a.Open(everything())
			res, err := a.Call("crm.get", `{}`)
			if x.want == "" {
				if writ.AsDenial(err).Code != writ.ResultWithheld {
					t.Errorf("told %v, %v, want it withheld", res, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			told := ""
			if res.Err != nil {
				told = res.Err.Message + string(res.Err.Data)
			} else {
				told = string(res.Body.Value().Raw())
			}
			if !strings.Contains(told, x.want) {
				t.Errorf("told %s, want %s in it", told, x.want)
			}
			if strings.Contains(told, "S3CRET") && !strings.Contains(x.want, "S3CRET") {
				t.Errorf("told %s", told)
			}
		})
	}
}
