package token

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"unicode/utf8"

	"github.com/writgate/writ"
)

// maxForm is the largest request, in bytes.
const maxForm = 64 << 10

// A form is the parameters of a request, each of which is there once. One
// without a value counts as left out (RFC 6749, 3.2).
type form map[string]string

// read reads the request. Parameters come in the body alone, and anything
// that two parsers could read in two ways is refused.
func (x *exchange) read() error {
	r := x.r
	if r.Method != http.MethodPost {
		return &failure{status: http.StatusMethodNotAllowed, code: invalidRequest, text: "use POST", denial: writ.InvalidRequest}
	}
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		return refused(invalidRequest, "parameters belong in the body, not in the address", nil)
	}
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if charset := params["charset"]; err != nil || media != "application/x-www-form-urlencoded" || len(r.Header.Values("Content-Type")) != 1 ||
		charset != "" && charset != "utf-8" && charset != "UTF-8" {
		return refused(invalidRequest, "Content-Type must be application/x-www-form-urlencoded", err)
	}
	if r.Header.Values("Content-Encoding") != nil {
		return refused(invalidRequest, "the body must not be encoded further", nil)
	}
	if x.body, err = io.ReadAll(io.LimitReader(r.Body, maxForm+1)); err != nil {
		return refused(invalidRequest, "the body did not arrive", err)
	}
	if len(x.body) > maxForm {
		text := fmt.Sprintf("the body is larger than %d bytes", maxForm)
		return &failure{status: http.StatusRequestEntityTooLarge, code: invalidRequest, text: text, denial: writ.TooLarge}
	}
	if x.form, err = parseForm(string(x.body)); err != nil {
		return refused(invalidRequest, err.Error(), nil)
	}
	switch x.form["grant_type"] {
	case clientCredentials, tokenExchange:
		return nil
	case "":
		return refused(invalidRequest, "grant_type is missing", nil)
	}
	return refused(unsupportedGrant, "grant_type must be "+clientCredentials+" or "+tokenExchange, nil)
}

func parseForm(body string) (form, error) {
	values, err := url.ParseQuery(body)
	if err != nil {
		return nil, errors.New("the body is not application/x-www-form-urlencoded")
	}
	f := form{}
	for name, all := range values {
		if !utf8.ValidString(name) || !utf8.ValidString(all[0]) {
			return nil, errors.New("a parameter is not UTF-8")
		}
		if len(all) > 1 { // RFC 6749, 3.2
			return nil, fmt.Errorf("parameter %.40q is there %d times", name, len(all))
		}
		if all[0] != "" {
			f[name] = all[0]
		}
	}
	return f, nil
}
