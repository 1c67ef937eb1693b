package identity

import (
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/ledger"
)

// KindJTI is the kind of the rows that make proofs and assertions single use.
const KindJTI = "jti"

// A proof is a DPoP proof (RFC 9449, 4.2) that was made with key for this
// request.
type proof struct {
	key   writ.Thumbprint
	bound bool // it covers the body
	once  ledger.Change
}

// parsed is a proof of which everything but its signature, its key's owner
// and its freshness has been checked.
type parsed struct {
	*jws
	pub   crypto.PublicKey
	key   writ.Thumbprint
	jti   string
	iat   int64
	bound bool
}

// prove checks the proof in e as RFC 9449, 4.3 has it, item by item: made for
// e's method, address and body, over the access token whose hash is ath (none
// if empty), with the key named want (any if empty), at about now.
func (v *Verifier) prove(e *Evidence, ath string, want writ.Thumbprint, now time.Time) (proof, error) {
	if len(e.Proof) == 0 {
		return proof{}, writ.Refuse(writ.NoPossession, "no proof of the key: send one DPoP header with a proof for this request (RFC 9449)", nil)
	}
	if len(e.Proof) > 1 {
		return proof{}, writ.Refuse(writ.NoPossession, "more than one DPoP header: send exactly one proof", nil)
	}
	p, err := parseProof(e.Proof[0])
	if err != nil {
		return proof{}, writ.Refuse(writ.NoPossession, "the DPoP proof is not well-formed", err)
	}
	if want != "" && p.key != want {
		return proof{}, writ.Refuse(writ.NoPossession, "the DPoP proof was made with another key than the token is bound to", nil)
	}
	if err := p.fits(e, ath, now); err != nil {
		return proof{}, err
	}
	id := proofID(p.key, p.jti)
	if used, forgotten := v.seen.look(id, p.iat, now.Unix()); used {
		return proof{}, errReplayed()
	} else if forgotten {
		return proof{}, writ.Refuse(writ.ProofMismatch, "the DPoP proof is from before what this gateway remembers (iat): make a new one", nil)
	}
	if err := p.verify(p.pub); err != nil {
		return proof{}, writ.Refuse(writ.NoPossession, "the DPoP proof does not verify", err)
	}
	if !v.seen.add(id, p.iat, now.Unix()) {
		return proof{}, errReplayed()
	}
	return proof{key: p.key, bound: p.bound, once: once(id, p.iat)}, nil
}

func errReplayed() error {
	return writ.Refuse(writ.ProofReplayed, "this DPoP proof was used before: make a new one for each request", nil)
}

// parseProof reads a proof without believing it.
func parseProof(s string) (*parsed, error) {
	j, err := parseJWS(s)
	if err != nil {
		return nil, err
	}
	if typ, _ := j.header.Get("typ").Str(); typ != "dpop+jwt" {
		return nil, fmt.Errorf("typ is %.20q, want dpop+jwt", typ)
	}
	if err := canon.Envelope(j.header, "typ", "alg", "jwk", "kid"); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	p := &parsed{jws: j}
	if p.pub, err = parseJWK(j.header.Get("jwk")); err != nil {
		return nil, err
	}
	if p.key, err = Thumbprint(p.pub); err != nil {
		return nil, err
	}
	if p.jti, err = text(j.claims, "jti", maxJTI); err != nil {
		return nil, err
	}
	if p.iat, err = seconds(j.claims, "iat"); err != nil {
		return nil, err
	}
	return p, nil
}

// fits says whether the proof is for this request, and of this minute.
func (p *parsed) fits(e *Evidence, ath string, now time.Time) error {
	mismatch := func(reason string, err error) error { return writ.Refuse(writ.ProofMismatch, reason, err) }
	if htm, _ := p.claims.Get("htm").Str(); htm != e.Method || htm == "" {
		return mismatch("the DPoP proof is for another method (htm)", nil)
	}
	htu, _ := p.claims.Get("htu").Str()
	if htu != e.URL || htu == "" { // one spelling is the rule
		here, err := target(e.URL)
		if err != nil {
			return writ.Refuse(writ.IdentityUnavailable, "the gateway does not know its own address", err)
		}
		if there, err := target(htu); err != nil || there != here {
			return mismatch("the DPoP proof is for another address (htu)", err)
		}
	}
	if away := now.Sub(time.Unix(p.iat, 0)); away > skew || away < -skew {
		return mismatch(fmt.Sprintf("the DPoP proof is not of the last %d seconds (iat): set the clock, and make a proof for each request", int(skew.Seconds())), nil)
	}
	if exp := p.claims.Get("exp"); exp != nil {
		if end, err := seconds(p.claims, "exp"); err != nil || now.Unix() >= end {
			return mismatch("the DPoP proof has expired (exp)", err)
		}
	}
	if p.claims.Get("nbf") != nil {
		if begin, err := seconds(p.claims, "nbf"); err != nil || now.Add(skew).Unix() < begin {
			return mismatch("the DPoP proof is not valid yet (nbf)", err)
		}
	}
	if got, _ := p.claims.Get("ath").Str(); got != ath {
		return mismatch("the DPoP proof is for another access token (ath)", nil)
	}
	if body := p.claims.Get("body"); body != nil {
		sum := sha256.Sum256(e.Body)
		if got, _ := body.Str(); got != b64.EncodeToString(sum[:]) {
			return mismatch("the DPoP proof is for another body (body)", nil)
		}
		p.bound = true
	}
	return nil
}

// proofID names a proof. A jti is its maker's own: another key's is another.
func proofID(key writ.Thumbprint, jti string) [32]byte {
	return sha256.Sum256([]byte("writ/proof/v1\x00" + string(key) + "\x00" + jti))
}

// once is the row that makes a signed statement of the second sec single use.
// It is kept for twice as long as the statement could be accepted, since the
// clock of another gateway is not ours.
func once(id [32]byte, sec int64) ledger.Change {
	ms := sec * 1000
	return ledger.Change{
		Op: ledger.Once, Kind: KindJTI, Key: hex16(ms) + hex.EncodeToString(id[:]),
		Until: ms + 2*skew.Milliseconds(),
	}
}

func hex16(ms int64) string {
	s := strconv.FormatInt(ms, 16)
	return "0000000000000000"[:16-len(s)] + s
}

// Possession checks the DPoP proof of a request that carries no access token,
// such as one for a token: which key it was made with. Its row is to be made
// in the transaction that records what comes of it. Every error is a
// *writ.Denial.
func (v *Verifier) Possession(e Evidence) (key writ.Thumbprint, row ledger.Change, err error) {
	defer rescue(&err)
	p, err := v.prove(&e, "", "", v.now())
	if err != nil {
		return "", ledger.Change{}, err
	}
	return p.key, p.once, nil
}
