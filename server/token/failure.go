package token

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/ledger"
)

// The error codes of RFC 6749, 5.2, RFC 8693, RFC 9396 and RFC 9449.
// temporarily_unavailable is of RFC 6749, 4.1.2.1, for want of one for here.
const (
	invalidRequest   = "invalid_request"
	invalidClient    = "invalid_client"
	invalidGrant     = "invalid_grant"
	unauthorized     = "unauthorized_client"
	unsupportedGrant = "unsupported_grant_type"
	invalidScope     = "invalid_scope"
	invalidTarget    = "invalid_target"
	invalidDetails   = "invalid_authorization_details"
	invalidProof     = "invalid_dpop_proof"
	tryAgain         = "temporarily_unavailable"
)

// A failure is an error answer of the endpoint.
type failure struct {
	status int
	code   string
	text   string    // for the agent
	denial writ.Code // as it is counted and recorded
	err    error     // for the operator
}

// Error is the operator's view.
func (f *failure) Error() string {
	if f.err != nil {
		return f.code + ": " + f.text + ": " + f.err.Error()
	}
	return f.code + ": " + f.text
}

// Unwrap gives the operator's error.
func (f *failure) Unwrap() error { return f.err }

// denials says what a code of OAuth is among our own.
var denials = map[string]writ.Code{
	invalidClient: writ.Unauthenticated, unauthorized: writ.AgentNotActive, invalidProof: writ.NoPossession, tryAgain: writ.IdentityUnavailable,
}

func refused(code, text string, err error) error {
	denial := denials[code]
	if denial == "" {
		denial = writ.InvalidRequest
	}
	return &failure{status: http.StatusBadRequest, code: code, text: text, denial: denial, err: err}
}

func unavailable(text string, err error) error {
	return &failure{status: http.StatusServiceUnavailable, code: tryAgain, text: text, denial: writ.IdentityUnavailable, err: err}
}

// denied is a refusal of package identity or registry, under a code of OAuth.
func denied(code string, err error) error {
	d := writ.AsDenial(err)
	if d.Code == writ.IdentityUnavailable || d.Code == writ.InternalError {
		return unavailable(d.Reason, err)
	}
	return &failure{status: http.StatusBadRequest, code: code, text: d.Reason, denial: d.Code, err: err}
}

// refuse answers with an error, and counts or records it.
func (x *exchange) refuse(w http.ResponseWriter, err error) {
	f, ok := errors.AsType[*failure](err)
	if !ok {
		f, _ = errors.AsType[*failure](denied(unauthorized, err))
	}
	x.account(f)
	if f.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", http.MethodPost)
	}
	if scheme, _, _ := strings.Cut(x.r.Header.Get("Authorization"), " "); f.code == invalidClient && token68(scheme) {
		f.status = http.StatusUnauthorized // RFC 6749, 5.2: 401 if the client used this header, and its scheme
		w.Header().Set("WWW-Authenticate", scheme+` realm="`+x.e.Identity.Issuer+`"`)
	}
	if f.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "5")
	}
	var b canon.Builder
	b.Text("error", f.code)
	b.Text("error_description", printable(f.text))
	text, _ := b.JSON() // of printable text: it cannot fail
	writeJSON(w, f.status, string(text))
}

// account makes a record of a refusal if it is known whose it is. That it
// cannot be recorded does not make it less of a refusal.
func (x *exchange) account(f *failure) {
	if x.agent == "" {
		if x.e.Count != nil {
			x.e.Count(f.denial)
		}
		return
	}
	if f.code == tryAgain {
		return // nothing was decided
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.r.Context()), 5*time.Second)
	defer cancel()
	for _, changes := range [][]ledger.Change{x.changes(), nil} {
		_, err := x.e.Ledger.Commit(ctx, &ledger.Entry{
			Leaf: ledger.Leaf{
				Type: ledger.TypeAgent, Agent: x.agent, Key: x.key, Effect: writ.Deny.String(), Code: f.denial,
				Note: map[string]string{"act": "token", "error": f.code},
			},
			Changes: changes,
		})
		if !errors.Is(err, ledger.ErrUsed) {
			return
		}
	}
}

// printable keeps what RFC 6749, 5.2 allows in a description.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '"':
			return '\''
		case r < 0x20 || r > 0x7e || r == '\\':
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), maxDescription)]
}

// token68 says whether s is the name of a scheme that may be sent back.
func token68(s string) bool {
	return s != "" && len(s) <= 32 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// answer is what RFC 6749, 5.1 and RFC 8693, 2.2.1 have.
func answer(token string, seconds int64) string {
	var b canon.Builder
	b.Text("access_token", token)
	b.Text("issued_token_type", typeAccessToken)
	b.Text("token_type", "DPoP")
	b.Int("expires_in", seconds)
	text, _ := b.JSON() // of base64url and constants: it cannot fail
	return string(text)
}

func writeJSON(w http.ResponseWriter, status int, text string) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	io.WriteString(w, text)
}
