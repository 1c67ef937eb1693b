package identity

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/writgate/writ"
)

// DevelopmentDomain is the one trust domain that the built-in development
// authority issues for. A verifier that is not marked as one of development
// refuses its agents, whoever signed for them.
const DevelopmentDomain = "writ.localhost"

// Development is the one environment whose agents the development authority
// serves.
const Development = "development"

// Limits of the SPIFFE ID specification, in bytes.
const (
	maxSPIFFEID    = 2048
	maxTrustDomain = 255
)

// ParseAgent checks that s is the SPIFFE ID of a workload, letter for letter
// as the SPIFFE ID specification has it: nothing is normalised, so two
// spellings never name one agent. An ID without a path names a trust domain
// and no agent.
func ParseAgent(s string) (writ.AgentID, error) {
	id, err := parseSPIFFE(s)
	if err != nil {
		return "", err
	}
	return writ.AgentID(id.String()), nil
}

func parseSPIFFE(s string) (spiffeid.ID, error) {
	if len(s) > maxSPIFFEID {
		return spiffeid.ID{}, fmt.Errorf("SPIFFE ID of %d bytes, more than %d", len(s), maxSPIFFEID)
	}
	id, err := spiffeid.FromString(s)
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf("not a SPIFFE ID: %w", err)
	}
	if n := len(id.TrustDomain().Name()); n > maxTrustDomain {
		return spiffeid.ID{}, fmt.Errorf("trust domain of %d bytes, more than %d", n, maxTrustDomain)
	}
	if id.Path() == "" {
		return spiffeid.ID{}, errors.New("SPIFFE ID names a trust domain, not a workload")
	}
	return id, nil
}

// certID reads the SPIFFE ID of a leaf from the bytes of its certificate.
// Package x509 has parsed and re-spelled the URI: it lower-cases the scheme
// and drops an empty fragment, and so would take two spellings for one agent.
func certID(leaf *x509.Certificate) (spiffeid.ID, error) {
	uris, err := rawURIs(leaf)
	if err != nil {
		return spiffeid.ID{}, err
	}
	if len(uris) != 1 {
		return spiffeid.ID{}, fmt.Errorf("certificate has %d URI names, want exactly one", len(uris))
	}
	return parseSPIFFE(uris[0])
}

// rawURIs are the URI names (RFC 5280, 4.2.1.6) of a certificate, unparsed.
func rawURIs(c *x509.Certificate) ([]string, error) {
	const uriTag = 6
	var uris []string
	for _, ext := range c.Extensions {
		if !ext.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) {
			continue
		}
		var names asn1.RawValue
		if rest, err := asn1.Unmarshal(ext.Value, &names); err != nil || len(rest) != 0 {
			return nil, errors.New("subject alternative name is not well-formed")
		}
		for rest := names.Bytes; len(rest) > 0; {
			var name asn1.RawValue
			var err error
			if rest, err = asn1.Unmarshal(rest, &name); err != nil {
				return nil, errors.New("subject alternative name is not well-formed")
			}
			if name.Class == asn1.ClassContextSpecific && name.Tag == uriTag {
				uris = append(uris, string(name.Bytes))
			}
		}
	}
	return uris, nil
}
