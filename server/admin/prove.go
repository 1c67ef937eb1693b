package admin

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/identity"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/registry"
	"github.com/writgate/writ/server/admin/api"
)

const (
	proofWindow = time.Minute // a proof's time may be this far from now
	kindJTI     = "jti"       // proofs that were used
)

// prove finds the operator whose key signed this very request, and uses the
// proof up.
func (s *Server) prove(req *http.Request, route *route, a *asker, body []byte) error {
	texts := req.Header.Values(api.ProofHeader)
	if len(texts) != 1 {
		return writ.Refuse(writ.NoPossession, "this adds authority: it needs one proof of an operator's key", nil)
	}

	// 1. A signature by the key it shows.
	proof, key, err := api.ParseProof(texts[0])
	if err != nil {
		return writ.Refuse(writ.BadToken, "the operator's proof does not verify", err)
	}

	// 2. An operator's key.
	thumbprint, err := identity.Thumbprint(key)
	if err != nil {
		return writ.Refuse(writ.BadToken, "the operator's proof does not verify", err)
	}
	if a.operator, a.reads, err = s.Gate.Catalog.Operator(req.Context(), thumbprint); err != nil {
		return err
	}

	// 3. For this request, now.
	switch {
	case proof.Audience != s.origin():
		return writ.Refuse(writ.WrongAudience, "the operator's proof is for another deployment", nil)
	case !proof.Covers(req.Method, req.URL.RequestURI(), body):
		return writ.Refuse(writ.ProofMismatch, "the operator's proof is for another request", nil)
	case time.Unix(proof.Issued, 0).Sub(s.Now()).Abs() > proofWindow:
		return writ.Refuse(writ.ProofMismatch, "the operator's proof is not of this minute; is the clock right?", nil)
	}

	// 4. Once.
	return s.useProof(req.Context(), route, a, proof, ledger.Part{Name: "proof", Bytes: []byte(texts[0])}, ledger.Part{Name: "request", Bytes: body})
}

// useProof records that an operator sets out to act, with the proof and what
// it is of, so that anybody can check later that the operator did. It is
// durable before anything is done; what came of it is a record of its own.
func (s *Server) useProof(ctx context.Context, route *route, a *asker, p *api.Proof, parts ...ledger.Part) error {
	id := sha256.Sum256([]byte("writ/operator/v1\x00" + string(a.operator.Key) + "\x00" + p.ID))
	_, err := s.Gate.Ledger.Commit(ctx, &ledger.Entry{
		Leaf: ledger.Leaf{
			Type: ledger.TypeAdmin, Key: a.operator.Key,
			Note: map[string]string{"act": route.name, "uid": strconv.FormatUint(uint64(a.uid), 10)},
		},
		User:   a.operator.User,
		Parts:  parts,
		Expect: a.reads,
		Changes: []ledger.Change{{
			Op: ledger.Once, Kind: kindJTI, Key: fmt.Sprintf("%016x%x", p.Issued, id),
			Until: time.Unix(p.Issued, 0).Add(2 * proofWindow).UnixMilli(),
		}},
	})
	if errors.Is(err, ledger.ErrUsed) {
		return writ.Refuse(writ.ProofReplayed, "this proof was used before; make a new one for every request", nil)
	}
	return err
}

// who is who makes a request: a user of this machine and, if they proved it,
// an operator.
type asker struct {
	uid      uint32
	operator registry.Operator // zero without a proof
	reads    []ledger.Expect   // what entitles the operator
}

// by names the asker in records.
func (a asker) by() writ.UserID {
	if a.operator.User != "" {
		return a.operator.User
	}
	return writ.UserID("uid:" + strconv.FormatUint(uint64(a.uid), 10))
}
