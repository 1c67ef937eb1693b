package oauth

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/writgate/writ/broker"
)

// A Config says which authorization server, who asks, and for what.
type Config struct {
	// Issuer is the server's issuer identifier, the audience of what Writ
	// signs for it.
	Issuer             string `yaml:"issuer"`
	TokenEndpoint      string `yaml:"token_endpoint"`
	RevocationEndpoint string `yaml:"revocation_endpoint"` // empty: tokens cannot be revoked

	// ClientID is who Writ is there. Exactly one of Key and Secret says how
	// it proves that: with a private key, in PEM (PKCS #8; Ed25519, P-256 or
	// RSA), or with a secret. Both are read for every request.
	ClientID string           `yaml:"client_id"`
	Key      broker.Reference `yaml:"key"`
	KeyID    string           `yaml:"key_id"`
	Secret   broker.Reference `yaml:"client_secret"`

	Scopes   []string  `yaml:"scopes"`
	Resource string    `yaml:"resource"` // RFC 8707: the one server that the token is for
	Exchange *Exchange `yaml:"exchange"` // RFC 8693; nil: client credentials

	// Longest is the longest life that is accepted of a token; 0 means one
	// hour. Writ uses it no longer than its lease.
	Longest time.Duration `yaml:"longest"`
}

// An Exchange trades one token for another.
type Exchange struct {
	// Subject is the token that is traded, such as one that a platform keeps
	// fresh in a file. If it is not set, Writ signs a JWT with the client's
	// key: "sub" is the agent, "writ" holds task and tool.
	Subject     broker.Reference `yaml:"subject"`
	SubjectType string           `yaml:"subject_type"` // urn:ietf:params:oauth:token-type:jwt if empty
	Audience    string           `yaml:"audience"`
}

const (
	defaultLongest = time.Hour
	typeJWT        = "urn:ietf:params:oauth:token-type:jwt"
)

func (c *Config) check() error {
	own := c.Exchange != nil && c.Exchange.Subject == (broker.Reference{})
	switch {
	case c.ClientID == "":
		return errors.New("client_id is missing")
	case (c.Key == broker.Reference{}) == (c.Secret == broker.Reference{}):
		return errors.New("want exactly one of key and client_secret")
	case c.Key != broker.Reference{} && c.Issuer == "":
		return errors.New("with a key, the issuer is needed, for whom it signs")
	case own && c.Key == broker.Reference{}:
		return errors.New("to exchange what Writ signs itself, it needs a key")
	case c.Longest < 0:
		return fmt.Errorf("a longest life of %v", c.Longest)
	}
	for _, s := range c.Scopes {
		if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
			return fmt.Errorf("%q is no scope", s)
		}
	}
	if c.Resource != "" {
		if u, err := url.Parse(c.Resource); err != nil || !u.IsAbs() || strings.Contains(c.Resource, "#") {
			return fmt.Errorf("%q is no resource: want an absolute URI without fragment", c.Resource)
		}
	}
	if err := checkEndpoint(c.TokenEndpoint); err != nil {
		return fmt.Errorf("token_endpoint: %w", err)
	}
	if c.RevocationEndpoint == "" {
		return nil
	}
	if err := checkEndpoint(c.RevocationEndpoint); err != nil {
		return fmt.Errorf("revocation_endpoint: %w", err)
	}
	return nil
}

// checkEndpoint wants TLS, but on this machine.
func checkEndpoint(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return errors.New("not the URL of an endpoint")
	}
	ip := net.ParseIP(u.Hostname())
	if local := u.Hostname() == "localhost" || ip.IsLoopback(); u.Scheme != "https" && (u.Scheme != "http" || !local) {
		return fmt.Errorf("%s is not https", s)
	}
	return nil
}
