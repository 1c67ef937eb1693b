// Package admin is the operators' side of Writ: the API under /api/v1 that
// the command line and the console use, and use alone.
//
// It listens on a Unix socket. Whoever may open the socket, as the kernel
// tells it, may read, and may take authority away: deny, end, revoke, halt.
// What adds authority needs a proof besides: a short text, signed with an
// operator's key over exactly this request, good for a minute and once. An
// agent that runs as the operator's own user can open the socket; the key is
// behind a passphrase that it does not know.
//
// A GET changes nothing. What people wrote and agents sent, the content of a
// record, is shown by a POST, because that is a record too: who read what.
//
// The API is described by openapi.yaml, which a test makes from the handlers
// and their types, and holds against their answers. Objects are never changed
// but by adding members. Times are RFC 3339 with milliseconds in what is made
// for people, and Unix milliseconds in what is a record.
package admin

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/writgate/writ/gate"
	"github.com/writgate/writ/identity"
	"github.com/writgate/writ/policy"
	"github.com/writgate/writ/server/admin/api"
)

// A Server answers operators. Gate and Now are required; what is not set is
// not there.
type Server struct {
	Gate    *gate.Gate
	Now     func() time.Time
	Version string
	UIDs    []uint32 // who may connect, beside the user this process runs as

	// Policies reads the policy files as they are on disk: what an operator
	// can put in force, and nothing else.
	Policies func() ([]policy.File, error)

	// Tokens makes access tokens for the development domain, for Audience.
	// In production there are none.
	Tokens   *identity.Tokens
	Audience string

	Lifters int               // how many operators it takes to lift a halt; 0 is one
	Facts   func() []api.Fact // what the doctor adds: the configuration as it was understood
}

// Handler serves the API to connections that Serve accepted; every other is
// refused, for nobody vouches for it.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range routes() {
		mux.Handle(r.method+" "+api.Prefix+r.path, r.serve(s))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, missing("there is no "+clip(r.Method+" "+r.URL.Path)))
	})
	return mux
}

// origin is the name of the log, and so of this deployment: whom a proof is
// for.
func (s *Server) origin() string {
	name, _, _ := strings.Cut(s.Gate.Ledger.VerifierKey(), "+")
	return name
}

// clip bounds a stranger's text.
func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
