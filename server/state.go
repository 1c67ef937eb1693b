package server

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/mcp"
)

const (
	stateLife = 30 * time.Minute
	maxState  = 64 << 10 // bytes of a handle, as the client sends it
)

// A handle is what requestState holds: a call that is not over. The client
// keeps it, sealed, and may present it as often as it likes; it is good for
// nothing but to ask about that one call, by that one key, with the same
// request. That a call runs once is the ledger's to say.
type handle struct {
	Call     writ.CallID     `json:"call"` // of the waiting call, or of the call that will carry the answer up
	Key      writ.Thumbprint `json:"key"`
	Ask      writ.Digest     `json:"ask"`     // of the method and the action asked for
	Expires  int64           `json:"expires"` // Unix milliseconds
	Approval writ.ApprovalID `json:"approval,omitempty"`
	Answer   bool            `json:"answer,omitempty"`   // the upstream waits for input
	Upstream string          `json:"upstream,omitempty"` // its own requestState, if it gave one
}

// stateDomain keeps what is sealed here apart from whatever else might be
// sealed under the same key.
var stateDomain = []byte("writ/state/v1")

// seal encrypts h under the key of request states, AES-256-GCM with a random
// nonce: at most 2^32 handles a key.
func (m *MCP) seal(h *handle) string {
	plain, err := json.Marshal(h)
	if err != nil {
		panic(fmt.Sprintf("a handle of texts does not marshal: %v", err))
	}
	aead := m.aead()
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(plain)+aead.Overhead())
	rand.Read(nonce)
	return base64.RawURLEncoding.EncodeToString(aead.Seal(nonce, nonce, plain, stateDomain))
}

// open gives the handle in a requestState that this key was given for this
// same request. Whatever else it is, the refusal is the same: it is the
// sender's to correct, and tells nothing.
func (m *MCP) open(state string, key writ.Thumbprint, ask writ.Digest) (*handle, error) {
	refused := &mcp.Error{
		Code: mcp.CodeInvalidParams, HTTP: http.StatusBadRequest, Data: `{"code":"bad_state"}`,
		Message: "this requestState is not good for this request: make the request again without it",
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(state)
	aead := m.aead()
	if err != nil || strings.ContainsAny(state, "\r\n") || len(state) > maxState || len(sealed) < aead.NonceSize() { // the decoder skips line ends
		return nil, refused
	}
	plain, err := aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], stateDomain)
	if err != nil {
		return nil, refused
	}
	h := new(handle)
	if err := json.Unmarshal(plain, h); err != nil {
		return nil, refused
	}
	if h.Key != key || h.Ask != ask || key == "" || m.config.Now().UnixMilli() >= h.Expires {
		return nil, refused
	}
	return h, nil
}

func (m *MCP) aead() cipher.AEAD {
	block, err := aes.NewCipher(m.config.State[:])
	if err != nil {
		panic(fmt.Sprintf("a key of 32 bytes is no AES key: %v", err))
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(fmt.Sprintf("AES has no GCM: %v", err))
	}
	return aead
}

// askOf is the digest of what is asked for, without what a retry adds.
func askOf(method string, a *writ.Action) writ.Digest {
	b, err := json.Marshal([]string{method, string(a.Kind), a.Upstream, a.Name, string(a.Arguments)})
	if err != nil {
		panic(fmt.Sprintf("an action of texts does not marshal: %v", err))
	}
	return writ.Hash("ask", b)
}
