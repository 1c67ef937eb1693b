package mcp

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
)

// Error codes of JSON-RPC 2.0 and of MCP 2026-07-28 (basic, "Error Codes").
// Codes of our own are positive, outside every reserved range.
const (
	CodeParse              = -32700
	CodeInvalidRequest     = -32600
	CodeMethodNotFound     = -32601
	CodeInvalidParams      = -32602
	CodeInternal           = -32603
	CodeHeaderMismatch     = -32020
	CodeMissingCapability  = -32021 // data.requiredCapabilities
	CodeUnsupportedVersion = -32022 // data.supported, data.requested
)

// An Error is a JSON-RPC error: one to send, or one that a peer sent.
type Error struct {
	Code    int
	HTTP    int       // the status it goes with over HTTP; 0 if a peer sent it
	Message string    // for a person; a peer's is untrusted text
	Data    writ.JSON // empty: none
	ID      string    // of the request it answers, as JSON text, where known
}

// Error gives code and message. A peer's message is clipped.
func (e *Error) Error() string {
	const most = 200
	msg := e.Message
	if len(msg) > most {
		msg = msg[:most] + "…"
	}
	return fmt.Sprintf("json-rpc error %d: %q", e.Code, msg)
}

// Response is the error response. An empty ID leaves the member out, as MCP
// has it; JSON-RPC would have null.
func (e *Error) Response() []byte {
	b := append(make([]byte, 0, 128+len(e.Message)+len(e.Data)), `{"jsonrpc":"2.0"`...)
	if e.ID != "" {
		b = append(append(b, `,"id":`...), e.ID...)
	}
	b = append(b, `,"error":{"code":`...)
	b = strconv.AppendInt(b, int64(e.Code), 10)
	b = append(b, `,"message":`...)
	b = append(b, quote(e.Message)...)
	if e.Data != "" {
		b = append(append(b, `,"data":`...), e.Data...)
	}
	return append(b, "}}"...)
}

// UnsupportedVersion refuses a protocol version and names those that are
// enabled.
func UnsupportedVersion(requested string, supported ...string) *Error {
	data, err := json.Marshal(struct {
		Supported []string `json:"supported"`
		Requested string   `json:"requested"`
	}{supported, requested})
	if err != nil {
		panic(err) // strings always marshal
	}
	return &Error{Code: CodeUnsupportedVersion, HTTP: http.StatusBadRequest, Message: "unsupported protocol version", Data: writ.JSON(data)}
}

// refuse makes an error with the status that goes with its code. Word and
// pointer, where given, tell a program what was wrong and where.
func refuse(code int, message, word, pointer string) *Error {
	e := &Error{Code: code, HTTP: http.StatusBadRequest, Message: message}
	if code == CodeMethodNotFound {
		e.HTTP = http.StatusNotFound
	}
	if word == "" && pointer == "" {
		return e
	}
	if word == "" {
		word = "invalid"
	}
	e.Data = writ.JSON(`{"code":` + quote(word) + `,"pointer":` + quote(pointer) + `}`)
	return e
}

// notJSON turns what canon refused into a parse error.
func notJSON(err error) *Error {
	e := envelope(CodeParse, "", err)
	if c, ok := errors.AsType[*canon.Error](err); ok && c.Code == "too_large" {
		e.HTTP = http.StatusRequestEntityTooLarge
	}
	return e
}

// envelope turns what canon refused in the value at the pointer at into an
// error of this code, which says what and where but repeats no value.
func envelope(code int, at string, err error) *Error {
	if c, ok := errors.AsType[*canon.Error](err); ok {
		return refuse(code, "the message was refused: "+c.Code, c.Code, clip(at+c.Pointer, 256))
	}
	return refuse(code, "the message could not be read", "", "")
}

// peerError reads the error member of a response; nil if it has not the shape.
func peerError(v *canon.Value) *Error {
	lexeme, ok := v.Get("code").Number()
	if !ok {
		return nil
	}
	code, err := strconv.Atoi(lexeme)
	if err != nil {
		return nil
	}
	message, ok := v.Get("message").Str()
	if !ok {
		return nil
	}
	e := &Error{Code: code, Message: message}
	if d := v.Get("data"); d != nil {
		e.Data = writ.JSON(d.Raw())
	}
	return e
}

// quote writes s as a JSON string. Invalid UTF-8 becomes U+FFFD.
func quote(s string) string {
	plain := true
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			plain = false
			break
		}
	}
	if plain {
		return `"` + s + `"`
	}
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always marshals
	}
	return string(b)
}

// clip bounds a stranger's text.
func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}
