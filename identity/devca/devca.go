// Package devca is the built-in development trust domain: a certificate
// authority in one file, so that one machine needs nothing else to give every
// agent an identity of its own.
//
// It issues X.509-SVIDs for one trust domain, spiffe://writ.localhost, each
// for an hour: whoever needs longer asks again. It is for development: [Parse]
// refuses any other environment, and a verifier that is not marked as one of
// development refuses its agents, whatever bundle it is given.
//
// The authority is a PEM file of two blocks, PRIVATE KEY (PKCS #8, P-256) and
// CERTIFICATE. Keeping it (mode 0600) is the caller's business; this package
// reads and writes no file.
package devca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

const (
	// TrustDomain is the only one this authority issues for.
	TrustDomain = "writ.localhost"

	// Environment is the only one this authority works in.
	Environment = "development"

	// Lifetime is how long an issued SVID is valid.
	Lifetime = time.Hour

	caLifetime = 365 * 24 * time.Hour
	skew       = time.Minute // how far a verifier's clock may be behind ours
)

// A CA is the development authority. Only [Parse] makes one; the zero CA
// issues nothing.
type CA struct {
	key  crypto.Signer
	cert *x509.Certificate
}

// Generate makes a new authority, valid for a year from now, and gives its
// file.
func Generate(now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{Organization: []string{"Writ"}, CommonName: "Writ development authority"},
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: TrustDomain}},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(caLifetime),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	file := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	return append(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...), nil
}

// Parse reads an authority's file. It refuses any environment but
// development, and a key that is not the certificate's.
func Parse(file []byte, environment string) (*CA, error) {
	if environment != Environment {
		return nil, fmt.Errorf("the development trust domain is for environment %q, not %q", Environment, environment)
	}
	keyBlock, rest := pem.Decode(file)
	if keyBlock == nil || keyBlock.Type != "PRIVATE KEY" {
		return nil, errors.New("authority file does not begin with a PRIVATE KEY")
	}
	certBlock, rest := pem.Decode(rest)
	if certBlock == nil || certBlock.Type != "CERTIFICATE" || len(rest) != 0 {
		return nil, errors.New("authority file does not end with one CERTIFICATE")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, errors.New("authority key is not PKCS #8") // the parser's error may quote the key
	}
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("authority certificate: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("authority key and certificate are not a pair")
	}
	if !cert.IsCA || len(cert.URIs) != 1 || cert.URIs[0].String() != "spiffe://"+TrustDomain {
		return nil, errors.New("authority certificate is not the development trust domain's")
	}
	return &CA{key: key, cert: cert}, nil
}

// Authority is the certificate that a verifier of this trust domain trusts.
func (ca *CA) Authority() *x509.Certificate { return ca.cert }

// Bundle is the trust bundle as PEM, for clients that connect to the gateway.
func (ca *CA) Bundle() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}

// Issue signs an X.509-SVID (DER) for the workload at path, such as
// "/agent/billing", over its public key. It is valid for an hour.
func (ca *CA) Issue(path string, pub crypto.PublicKey, now time.Time) ([]byte, error) {
	return ca.sign(path, pub, now, nil)
}

// IssueServer signs the gateway's own serving certificate (DER): an SVID that
// is also valid for the given DNS names and IP addresses. It is valid for an
// hour.
func (ca *CA) IssueServer(path string, pub crypto.PublicKey, now time.Time, hosts []string) ([]byte, error) {
	if len(hosts) == 0 {
		return nil, errors.New("a serving certificate needs a host")
	}
	return ca.sign(path, pub, now, hosts)
}

func (ca *CA) sign(path string, pub crypto.PublicKey, now time.Time, hosts []string) ([]byte, error) {
	if ca == nil || ca.key == nil {
		return nil, errors.New("no authority")
	}
	id, err := spiffeid.FromPath(spiffeid.RequireTrustDomainFromString(TrustDomain), path)
	if err != nil || path == "" {
		return nil, fmt.Errorf("%q is no path of a workload", path)
	}
	if now.Before(ca.cert.NotBefore) || now.Add(Lifetime).After(ca.cert.NotAfter) {
		return nil, errors.New("the authority's own certificate ends too soon: make a new one")
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		URIs:                  []*url.URL{id.URL()},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(Lifetime),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	return x509.CreateCertificate(rand.Reader, template, ca.cert, pub, ca.key)
}

// serial is 120 random bits: positive, and unique without a counter.
func serial() *big.Int {
	var b [15]byte
	rand.Read(b[:])
	return new(big.Int).SetBytes(b[:])
}
