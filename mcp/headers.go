package mcp

import (
	"encoding/base64"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/writgate/writ/canon"
)

// Headers that mirror the body (2026-07-28, transports, "Request Metadata"),
// and those of the sessions before.
const (
	HeaderVersion = "Mcp-Protocol-Version"
	HeaderMethod  = "Mcp-Method"
	HeaderName    = "Mcp-Name"
	HeaderSession = "Mcp-Session-Id" // 2025-11-25 and before

	paramPrefix  = "Mcp-Param-"
	base64Prefix = "=?base64?"
	base64Suffix = "?="

	maxSafe = 1<<53 - 1 // the largest integer a header may mirror
)

// A HeaderParam is an argument that a tool's schema mirrors into the header
// Mcp-Param-<Name> with x-mcp-header.
type HeaderParam struct {
	Name string
	Path []string // property names from the arguments down
}

// value finds the argument; nil if it is absent or null.
func (p HeaderParam) value(arguments *canon.Value) *canon.Value {
	v := arguments
	for _, name := range p.Path {
		v = v.Get(name)
	}
	if v.Kind() == canon.Null {
		return nil
	}
	return v
}

// HeaderParams reads the x-mcp-header annotations of an input schema. A schema
// that has one where the specification does not allow it is refused, and the
// tool with it: an unclear mirror is a way around whoever reads headers.
func HeaderParams(inputSchema *canon.Value) ([]HeaderParam, error) {
	var found []HeaderParam
	reached := 0
	if err := walkProperties(inputSchema, nil, &found, &reached); err != nil {
		return nil, err
	}
	if n := countAnnotations(inputSchema); n != reached {
		return nil, errors.New("x-mcp-header stands where properties alone do not lead")
	}
	seen := make([]string, 0, len(found))
	for _, p := range found {
		lower := strings.ToLower(p.Name)
		if slices.Contains(seen, lower) {
			return nil, fmt.Errorf("x-mcp-header %q stands twice", p.Name)
		}
		seen = append(seen, lower)
	}
	return found, nil
}

func walkProperties(schema *canon.Value, path []string, found *[]HeaderParam, reached *int) error {
	for name, property := range schema.Get("properties").Members() {
		below := append(slices.Clone(path), name)
		if x := property.Get("x-mcp-header"); x != nil {
			*reached++
			header, ok := x.Str()
			if !ok || !isToken(header) || len(header) > 128 {
				return fmt.Errorf("x-mcp-header of %q is not a field name", clip(name, 64))
			}
			switch typ, _ := property.Get("type").Str(); typ {
			case "string", "integer", "boolean":
			default:
				return fmt.Errorf("x-mcp-header of %q is not on a string, integer or boolean", clip(name, 64))
			}
			*found = append(*found, HeaderParam{Name: header, Path: below})
		}
		if err := walkProperties(property, below, found, reached); err != nil {
			return err
		}
	}
	return nil
}

// countAnnotations counts x-mcp-header wherever a subschema may stand. A
// property that is itself named so counts only if it could be an annotation.
func countAnnotations(v *canon.Value) int {
	n := 0
	for name, member := range v.Members() {
		switch {
		case name == "properties" || name == "$defs" || name == "patternProperties" || name == "dependentSchemas" || name == "definitions":
			for _, sub := range member.Members() {
				n += countAnnotations(sub)
			}
		case name == "x-mcp-header":
			n++
		case name == "default" || name == "const" || name == "enum" || name == "examples":
		default:
			n += countAnnotations(member)
		}
	}
	for e := range v.Elems() {
		n += countAnnotations(e)
	}
	return n
}

func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		alnum := c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
		if !alnum && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// CheckHeaders compares what the headers mirror with the body, and refuses any
// difference with -32020. Every decision is taken from the body; this keeps
// whoever read the headers before us from having seen another request. params
// gives the annotations of a tool's schema as the client knows it; it may be
// nil.
//
// On the legacy wire Mcp-Method and Mcp-Name are not required, but must agree
// where they are.
func CheckHeaders(h http.Header, r *Request, params func(tool string) []HeaderParam) error {
	if err := checkHeaders(h, r, params); err != nil {
		err.ID = r.ID
		return err
	}
	return nil
}

func checkHeaders(h http.Header, r *Request, params func(tool string) []HeaderParam) *Error {
	modern := r.Meta.Version != ""
	version, err := single(h, HeaderVersion)
	switch {
	case err != nil:
		return err
	case modern && version != r.Meta.Version:
		return mismatch(HeaderVersion)
	case !modern && version == "" && r.Method != "initialize":
		return mismatch(HeaderVersion)
	case !modern && version >= Modern:
		return mismatch(HeaderVersion) // a modern header over a body that is not
	}
	method, err := single(h, HeaderMethod)
	if err != nil || (method != r.Method && (modern || method != "")) {
		return mismatch(HeaderMethod)
	}
	if r.Name != "" {
		name, err := single(h, HeaderName)
		if err != nil || (name == "" && modern) {
			return mismatch(HeaderName)
		}
		if plain, ok := decode(name); name != "" && (!ok || plain != r.Name) {
			return mismatch(HeaderName)
		}
	}
	if r.Method != "tools/call" || params == nil || !modern {
		return nil
	}
	for _, p := range params(r.Name) {
		if err := checkParam(h, p, r.Params.Get("arguments")); err != nil {
			return err
		}
	}
	return nil
}

func checkParam(h http.Header, p HeaderParam, arguments *canon.Value) *Error {
	name := paramPrefix + p.Name
	v := p.value(arguments)
	got := h.Values(name)
	if v == nil && len(got) == 0 {
		return nil
	}
	if v == nil || len(got) != 1 {
		return mismatch(name)
	}
	plain, ok := decode(got[0])
	if !ok {
		return mismatch(name)
	}
	if lexeme, isNumber := v.Number(); isNumber {
		if _, safe := safeInteger(lexeme); !safe || !canon.SameNumber(plain, lexeme) {
			return mismatch(name)
		}
		return nil
	}
	want, ok := primitive(v)
	if !ok || plain != want {
		return mismatch(name)
	}
	return nil
}

func mismatch(header string) *Error {
	return refuse(CodeHeaderMismatch, "header mismatch: "+header+" does not match the body", "header_mismatch", "")
}

// single gives the only value of a header; empty if it is absent. Two are
// refused even if they are equal.
func single(h http.Header, name string) (string, *Error) {
	switch v := h.Values(name); len(v) {
	case 0:
		return "", nil
	case 1:
		return v[0], nil
	}
	return "", mismatch(name)
}

// decode undoes the Base64 sentinel once, and refuses what a header may not
// hold.
func decode(s string) (string, bool) {
	if inner, ok := strings.CutPrefix(s, base64Prefix); ok {
		if inner, ok = strings.CutSuffix(inner, base64Suffix); ok {
			b, err := base64.StdEncoding.Strict().DecodeString(inner)
			return string(b), err == nil && !strings.ContainsAny(inner, "\r\n")
		}
	}
	for i := range len(s) {
		if c := s[i]; (c < 0x20 || c > 0x7e) && c != '\t' {
			return "", false
		}
	}
	return s, true
}

// encode makes s fit for a header, with the sentinel where it must.
func encode(s string) string {
	plain := s == strings.Trim(s, " \t") && !(strings.HasPrefix(s, base64Prefix) && strings.HasSuffix(s, base64Suffix))
	for i := 0; plain && i < len(s); i++ {
		plain = s[i] >= 0x20 && s[i] <= 0x7e
	}
	if plain {
		return s
	}
	return base64Prefix + base64.StdEncoding.EncodeToString([]byte(s)) + base64Suffix
}

// primitive is a value as a header mirrors it; not ok for what none does.
func primitive(v *canon.Value) (string, bool) {
	switch v.Kind() {
	case canon.String:
		return v.Str()
	case canon.Bool:
		b, _ := v.Bool()
		return strconv.FormatBool(b), true
	case canon.Number:
		lexeme, _ := v.Number()
		return safeInteger(lexeme)
	}
	return "", false
}

// safeInteger is an integer in decimal, if a header may mirror it.
func safeInteger(lexeme string) (string, bool) {
	n, ok := canon.Int64(lexeme)
	if !ok || n > maxSafe || n < -maxSafe {
		return "", false
	}
	return strconv.FormatInt(n, 10), true
}

// SetHeaders writes the headers of a modern request that mirror its body,
// computed anew from what is sent. Arguments may be nil.
func SetHeaders(h http.Header, method, name string, params []HeaderParam, arguments *canon.Value) {
	h[HeaderVersion] = []string{Modern}
	h[HeaderMethod] = []string{method}
	if nameMember(method) != "" {
		h[HeaderName] = []string{encode(name)}
	}
	for _, p := range params {
		if s, ok := primitive(p.value(arguments)); ok {
			h.Set(paramPrefix+p.Name, encode(s))
		}
	}
}

// CheckMediaType refuses, with status 415, a body that is not labelled
// application/json in UTF-8. A request we cannot read is never let past as
// somebody else's.
func CheckMediaType(h http.Header) error {
	no := &Error{Code: CodeInvalidRequest, HTTP: http.StatusUnsupportedMediaType, Message: "content type must be application/json"}
	values := h.Values("Content-Type")
	if len(values) != 1 || len(h.Values("Content-Encoding")) > 0 {
		return no
	}
	typ, attributes, err := mime.ParseMediaType(values[0])
	if err != nil || typ != "application/json" {
		return no
	}
	for name, value := range attributes {
		if name != "charset" || !strings.EqualFold(value, "utf-8") {
			return no
		}
	}
	return nil
}
