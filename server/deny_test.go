package server

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"

	"github.com/writgate/writ"
)

// codes are all that package writ declares, read from its source, so that a
// new one cannot be forgotten here.
func codes(t *testing.T) []writ.Code {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "../denial.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var all []writ.Code
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if typ, ok := v.Type.(*ast.Ident); ok && typ.Name == "Code" {
			s, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, writ.Code(s))
		}
		return true
	})
	return all
}

func TestEveryCodeHasAShape(t *testing.T) {
	all := codes(t)
	if len(all) < 30 {
		t.Fatalf("%d codes found in package writ", len(all))
	}
	for _, code := range all {
		s, ok := shapes[code]
		if !ok {
			t.Errorf("%s has no shape", code)
			continue
		}
		if s.status < 400 || s.status > 599 {
			t.Errorf("%s has status %d", code, s.status)
		}
		if (s.status == 401) != (s.challenge != "") {
			t.Errorf("%s has status %d and challenge %q", code, s.status, s.challenge)
		}
		if s.status == 401 && !s.door {
			t.Errorf("%s is a question of identity, and not refused at the door", code)
		}
	}
	if len(shapes) != len(all) {
		t.Errorf("%d shapes for %d codes", len(shapes), len(all))
	}
}

func TestAdvice(t *testing.T) {
	for _, c := range []struct {
		d          *writ.Denial
		want, none string
	}{
		{&writ.Denial{Code: writ.Forbidden, Reason: "policy does not permit this."}, "Refused (forbidden): policy does not permit this. Do not try this again", "Call the same"},
		{
			&writ.Denial{Code: writ.OutsideTask, Reason: "too much", Argument: "/amount", Bounds: []writ.Bound{{Argument: "/amount", Min: "1", Max: "100"}, {Argument: "/to", In: []string{"a", "b"}}}, Remedy: writ.RemedyDelegate},
			"The argument is /amount. This task allows /amount from 1 up to 100. This task allows /to to be one of a, b. This task does not reach", "",
		},
		{&writ.Denial{Code: writ.ApprovalRequired, Reason: "a person", Approval: "appr_x", Remedy: writ.RemedyWait}, "The request for approval is appr_x. Nothing was done yet. Call the same tool again with exactly the same arguments after 15 seconds", ""},
		{&writ.Denial{Code: writ.ApprovalRequired, Reason: "the user declined", Remedy: writ.RemedyAskUser}, "Tell the user", "Call the same"},
		{&writ.Denial{Code: writ.RateLimited, Reason: "too fast", Remedy: writ.RemedyWait}, "Make the same request again after 15 seconds", ""},
		{&writ.Denial{Code: writ.InvalidArguments, Reason: "wrong", Remedy: writ.RemedyFix}, "Correct the request", "Do not"},
		{writ.Refuse(writ.InternalError, "something went wrong", errSecret), "something went wrong", "hunter2"},
	} {
		got := advice(c.d)
		if !strings.Contains(got, c.want) || c.none != "" && strings.Contains(got, c.none) {
			t.Errorf("advice(%s) = %q, want %q and not %q", c.d.Code, got, c.want, c.none)
		}
	}
}

var errSecret = errors.New("password hunter2")
