package admin

import (
	"bytes"
	"cmp"
	"context"
	jsonv1 "encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/policy"
	"github.com/writgate/writ/server/admin/api"
)

// A right is what a route asks for besides the socket.
type right int

const (
	reads   right = iota // a GET: changes nothing
	shows                // content, which is recorded
	removes              // authority
	grants               // authority: needs an operator's proof
	vouched              // an operator's proof makes it worth more
)

// A route is one endpoint.
type route struct {
	name         string // of what it does, in records and in openapi.yaml
	method, path string
	right        right
	in, out      reflect.Type
	serve        func(*Server) http.Handler
}

// maxBody bounds a request, in bytes.
const maxBody = 1 << 20

// at makes a route of a function that answers it. What the function is given
// has been proven, and has the shape of its type; what it returns is written
// as it is.
func at[In, Out any](r right, name, pattern string, answer func(*Server, context.Context, asker, In) (Out, error)) route {
	method, path, _ := strings.Cut(pattern, " ")
	ends := route{name: name, method: method, path: path, right: r, in: reflect.TypeFor[In](), out: reflect.TypeFor[Out]()}
	ends.serve = func(s *Server) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			out, err := serveJSON(s, &ends, req, answer)
			if err != nil {
				writeProblem(w, err)
				return
			}
			writeJSON(w, http.StatusOK, "application/json", out)
		})
	}
	return ends
}

// serveJSON is every request's way in.
func serveJSON[In, Out any](s *Server, route *route, req *http.Request, answer func(*Server, context.Context, asker, In) (Out, error)) (out Out, err error) {
	var in In
	// 1. Not for a browser, wherever the page came from.
	for name := range req.Header {
		if name == "Origin" || strings.HasPrefix(name, "Sec-Fetch-") {
			return out, &api.Problem{Status: http.StatusForbidden, Code: writ.InvalidRequest, Detail: "this socket is not for browsers"}
		}
	}

	// 2. Who asks, as the kernel tells it.
	uid, err := s.admits(req.Context())
	if err != nil {
		return out, &api.Problem{Status: http.StatusForbidden, Code: writ.Unauthenticated, Detail: "this user may not administer this gateway", Cause: err.Error()}
	}
	a := asker{uid: uid}

	// 3. What is asked, strictly.
	body, err := readBody(req)
	if err != nil {
		return out, err
	}
	if err := decode(req, body, &in); err != nil {
		return out, &api.Problem{Status: http.StatusBadRequest, Code: writ.InvalidRequest, Detail: err.Error()}
	}

	// 4. An operator's proof, if the act needs one. It is used up here.
	if route.right == grants || route.right == vouched && req.Header.Get(api.ProofHeader) != "" {
		if err := s.prove(req, route, &a, body); err != nil {
			return out, err
		}
	}
	return answer(s, req.Context(), a, in)
}

func readBody(req *http.Request) ([]byte, error) {
	if req.Method == http.MethodGet {
		return nil, nil
	}
	kind, params, err := mime.ParseMediaType(req.Header.Get("Content-Type"))
	if charset := params["charset"]; err != nil || kind != "application/json" || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return nil, &api.Problem{Status: http.StatusUnsupportedMediaType, Code: writ.InvalidRequest, Detail: "want application/json"}
	}
	body, err := io.ReadAll(io.LimitReader(req.Body, maxBody+1))
	if err != nil {
		return nil, &api.Problem{Status: http.StatusBadRequest, Code: writ.InvalidRequest, Detail: "the body could not be read"}
	}
	if len(body) > maxBody {
		return nil, &api.Problem{Status: http.StatusRequestEntityTooLarge, Code: writ.TooLarge, Detail: fmt.Sprintf("the body has more than %d bytes", maxBody)}
	}
	return body, nil
}

// decode reads the members of in: those tagged "path" from the path, those
// tagged "query" from the query, the others from the body. Whatever else the
// request has is an error.
func decode[In any](req *http.Request, body []byte, in *In) error {
	if body != nil {
		if err := json.Unmarshal(body, in, json.RejectUnknownMembers(true)); err != nil {
			return fmt.Errorf("the body is not what this wants: %s", clip(err.Error()))
		}
	}
	query, err := url.ParseQuery(req.URL.RawQuery)
	if err != nil {
		return errors.New("the query cannot be read")
	}
	v := reflect.ValueOf(in).Elem()
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if name, ok := f.Tag.Lookup("path"); ok {
			v.Field(i).SetString(req.PathValue(name))
		}
		name, ok := f.Tag.Lookup("query")
		if !ok || !query.Has(name) {
			continue
		}
		values := query[name]
		delete(query, name)
		if len(values) != 1 {
			return fmt.Errorf("%s is given twice", name)
		}
		if err := setText(v.Field(i), values[0]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for name := range query {
		return fmt.Errorf("there is no parameter %q here", clip(name))
	}
	return nil
}

func setText(v reflect.Value, text string) error {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Int64:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return errors.New("want a whole number of at least 0")
		}
		v.SetInt(n)
	default:
		panic("unreachable: parameters are texts and numbers")
	}
	return nil
}

func missing(detail string) *api.Problem {
	return &api.Problem{Status: http.StatusNotFound, Code: api.NotFound, Detail: detail}
}

// statuses is the one place where a code becomes a status. What is not here
// is our own fault.
var statuses = map[writ.Code]int{
	api.NotFound:          http.StatusNotFound,
	writ.Unauthenticated:  http.StatusUnauthorized,
	writ.BadToken:         http.StatusUnauthorized,
	writ.WrongAudience:    http.StatusUnauthorized,
	writ.NoPossession:     http.StatusUnauthorized,
	writ.ProofMismatch:    http.StatusUnauthorized,
	writ.ProofReplayed:    http.StatusUnauthorized,
	writ.NotEntitled:      http.StatusForbidden,
	writ.SelfApproval:     http.StatusForbidden,
	writ.Forbidden:        http.StatusForbidden,
	writ.AgentNotActive:   http.StatusForbidden,
	writ.InvalidRequest:   http.StatusBadRequest,
	writ.TooLarge:         http.StatusRequestEntityTooLarge,
	writ.OutsideTask:      http.StatusConflict,
	writ.UnknownTool:      http.StatusNotFound,
	writ.ApprovalMismatch: http.StatusConflict,
	writ.AlreadyDecided:   http.StatusConflict,
	writ.AlreadyUsed:      http.StatusConflict,
	writ.StateChanged:     http.StatusConflict,
	writ.Halted:           http.StatusConflict,
	writ.Unavailable:      http.StatusServiceUnavailable,
	writ.AuditUnavailable: http.StatusServiceUnavailable,
}

// problemOf is the one place where an error becomes an answer.
func problemOf(err error) *api.Problem {
	if p, ok := errors.AsType[*api.Problem](err); ok {
		return p
	}
	d, ok := errors.AsType[*writ.Denial](err)
	switch {
	case ok:
	case errors.Is(err, ledger.ErrConflict):
		d = writ.Refuse(writ.StateChanged, "somebody else changed it meanwhile; look again", err)
	case errors.Is(err, ledger.ErrFull), errors.Is(err, ledger.ErrUnavailable), errors.Is(err, ledger.ErrUnknown), errors.Is(err, ledger.ErrFatal), errors.Is(err, ledger.ErrClosed):
		d = writ.Refuse(writ.Unavailable, "the ledger cannot be used now", err)
	case isLoadError(err):
		d = writ.Refuse(writ.StateChanged, "the policies do not fit the tools", err)
	default:
		d = writ.AsDenial(err)
	}
	p := &api.Problem{Status: cmp.Or(statuses[d.Code], http.StatusInternalServerError), Code: d.Code, Detail: d.Reason, Argument: d.Argument}
	if d.Err != nil {
		p.Cause = d.Err.Error()
	}
	return p
}

func isLoadError(err error) bool {
	_, ok := errors.AsType[*policy.LoadError](err)
	return ok
}

func writeProblem(w http.ResponseWriter, err error) {
	p := *problemOf(err)
	p.Title = http.StatusText(p.Status)
	writeJSON(w, p.Status, "application/problem+json", p)
}

func writeJSON(w http.ResponseWriter, status int, kind string, v any) {
	var b bytes.Buffer
	enc := jsonv1.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		status, kind = http.StatusInternalServerError, "application/problem+json"
		b.Reset()
		fmt.Fprintf(&b, `{"status":500,"title":"Internal Server Error","code":%q,"detail":"the answer could not be written"}`, writ.InternalError)
	}
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(b.Bytes())
}
