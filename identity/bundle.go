package identity

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
)

// Bundles are the X.509 authorities of the trust domains whose agents are
// accepted. The zero Bundles trust nobody. They are safe for concurrent use.
type Bundles struct {
	mu       sync.Mutex // serialises writers
	trusted  atomic.Pointer[map[spiffeid.TrustDomain]*bundle]
	verified cache[svid]
}

// bundle is one trust domain's authorities. It never changes: a new one takes
// its place, and what was verified under the old one is verified again.
type bundle struct {
	authorities *x509bundle.Bundle
	sequence    int64
	until       time.Time
}

// svid is a leaf that chains to an authority of from, while the time is
// within [notBefore, notAfter] of every certificate in that chain.
type svid struct {
	agent               writ.AgentID
	domain              spiffeid.TrustDomain
	key                 writ.Thumbprint
	from                *bundle
	notBefore, notAfter time.Time
}

// Set replaces the authorities of a trust domain. They are trusted until the
// given time, however long their own validity. An empty bundle is refused and
// changes nothing: it would neither be an error that somebody sees nor a
// decision that somebody took.
func (b *Bundles) Set(td spiffeid.TrustDomain, authorities []*x509.Certificate, until time.Time) error {
	return b.set(td, &bundle{authorities: x509bundle.FromX509Authorities(td, authorities), until: until})
}

// Read replaces the authorities of a trust domain with those of a SPIFFE
// bundle document, as a bundle endpoint serves it. What is no such document,
// holds no X.509 authority, or is older than what there is by its sequence
// number, is refused and changes nothing: the last good bundle stays, until
// its own time is over.
func (b *Bundles) Read(td spiffeid.TrustDomain, document []byte, until time.Time) error {
	if _, err := canon.ParseObject(document, canon.Limits{}); err != nil {
		return fmt.Errorf("trust bundle of %s: %w", td, err)
	}
	read, err := spiffebundle.Parse(td, document)
	if err != nil {
		return fmt.Errorf("trust bundle of %s: %w", td, err)
	}
	sequence, _ := read.SequenceNumber()
	if sequence > math.MaxInt64 {
		return fmt.Errorf("trust bundle of %s has a sequence number that nothing could follow", td)
	}
	return b.set(td, &bundle{authorities: read.X509Bundle(), sequence: int64(sequence), until: until})
}

func (b *Bundles) set(td spiffeid.TrustDomain, next *bundle) error {
	if td.IsZero() {
		return errors.New("trust bundle without a trust domain")
	}
	if next.authorities.Empty() {
		return fmt.Errorf("trust bundle of %s is empty", td)
	}
	for _, c := range next.authorities.X509Authorities() {
		if !c.IsCA {
			return fmt.Errorf("trust bundle of %s holds a certificate that is no authority", td)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	all := map[spiffeid.TrustDomain]*bundle{}
	if old := b.trusted.Load(); old != nil {
		maps.Copy(all, *old)
	}
	if old := all[td]; old != nil && next.sequence < old.sequence {
		return fmt.Errorf("trust bundle of %s has sequence %d, older than %d", td, next.sequence, old.sequence)
	}
	all[td] = next
	b.trusted.Store(&all)
	return nil
}

// of is the bundle of a trust domain, if there is one and now is before the
// end of our trust in it.
func (b *Bundles) of(td spiffeid.TrustDomain, now time.Time) *bundle {
	all := b.trusted.Load()
	if all == nil {
		return nil
	}
	if found := (*all)[td]; found != nil && now.Before(found.until) {
		return found
	}
	return nil
}

// verify validates a peer's chain, leaf first, as an X.509-SVID at the time
// now. A leaf that was verified before costs a hash and two comparisons: its
// expiry, its issuers' and the bundle are looked at each time, since a
// kept-alive connection outlives them.
func (b *Bundles) verify(chain []*x509.Certificate, now time.Time) (svid, error) {
	if len(chain) == 0 {
		return svid{}, errors.New("no certificate")
	}
	digest := sha256.Sum256(chain[0].Raw)
	if s, ok := b.verified.get(digest); ok && s.from == b.of(s.domain, now) &&
		!now.Before(s.notBefore) && !now.After(s.notAfter) {
		return s, nil
	}
	s, err := b.verifyAnew(chain, now)
	if err != nil {
		return svid{}, err
	}
	b.verified.put(digest, s)
	return s, nil
}

func (b *Bundles) verifyAnew(chain []*x509.Certificate, now time.Time) (svid, error) {
	leaf := chain[0]
	id, err := certID(leaf)
	if err != nil {
		return svid{}, err
	}
	if leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 { // X.509-SVID, 4.3
		return svid{}, errors.New("leaf may not sign")
	}
	if !clientAuth(leaf) {
		return svid{}, errors.New("leaf is not for client authentication")
	}
	key, err := Thumbprint(leaf.PublicKey)
	if err != nil {
		return svid{}, err
	}
	from := b.of(id.TrustDomain(), now)
	if from == nil {
		return svid{}, fmt.Errorf("trust domain %s is not trusted, or its bundle was not renewed in time", id.TrustDomain())
	}
	if now.IsZero() { // it would mean the present, by another clock than ours
		return svid{}, errors.New("no time to verify at")
	}
	_, chains, err := x509svid.Verify(chain, from.authorities, x509svid.WithTime(now))
	if err != nil {
		return svid{}, err
	}
	s := svid{agent: writ.AgentID(id.String()), domain: id.TrustDomain(), key: key, from: from}
	s.notBefore, s.notAfter = validity(chains[0])
	return s, nil
}

// clientAuth says whether the extended key usage, if there is one, lets the
// leaf authenticate a client (X.509-SVID, 4.4).
func clientAuth(leaf *x509.Certificate) bool {
	if len(leaf.ExtKeyUsage) == 0 && len(leaf.UnknownExtKeyUsage) == 0 {
		return true
	}
	for _, u := range leaf.ExtKeyUsage {
		if u == x509.ExtKeyUsageClientAuth {
			return true
		}
	}
	return false
}

// validity is the span in which every certificate of a chain is valid, both
// ends included.
func validity(chain []*x509.Certificate) (notBefore, notAfter time.Time) {
	notBefore, notAfter = chain[0].NotBefore, chain[0].NotAfter
	for _, c := range chain[1:] {
		if c.NotBefore.After(notBefore) {
			notBefore = c.NotBefore
		}
		if c.NotAfter.Before(notAfter) {
			notAfter = c.NotAfter
		}
	}
	return notBefore, notAfter
}
