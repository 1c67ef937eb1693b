package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/broker/oauth"
	"github.com/writgate/writ/broker/postgres"
	"github.com/writgate/writ/broker/static"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/registry"
	"github.com/writgate/writ/upstream"
	"go.yaml.in/yaml/v4"
)

// A config is writ.yaml. Every key may be left out; one that is not listed
// here is an error. There is no key that turns a step of the gate off.
type config struct {
	// Environment is "development", where the built-in trust domain issues
	// identities to this machine's agents, or any other name, such as
	// "production", where it is refused.
	Environment string `yaml:"environment"`

	// Listen is where agents come in: a TCP address. Loopback by default.
	Listen string `yaml:"listen"`

	// URL is how agents reach the gateway; https://localhost and the port of
	// Listen if it is empty.
	URL string `yaml:"url"`

	// Certificate and Key are PEM files to serve URL with. In development
	// they may be left out.
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`

	// Issuer is where tokens come from: the token endpoint, its metadata, and
	// the page that says how an approval stands.
	Issuer issuerConfig `yaml:"issuer"`

	// Trust names the SPIFFE trust domains whose X.509-SVIDs are accepted,
	// each with a file that holds its bundle (SPIFFE trust bundle document).
	Trust map[string]string `yaml:"trust"`

	Registry  registry.Config    `yaml:"registry"`
	Upstreams []upstream.Config  `yaml:"upstreams"`
	Backends  map[string]backend `yaml:"backends"`
	Ledger    ledgerConfig       `yaml:"ledger"`

	adopt *ledger.Entry // of no file: an operator's word on one start
}

// An issuerConfig says where tokens are issued.
type issuerConfig struct {
	Listen string `yaml:"listen"` // 127.0.0.1 and the second port after that of the gateway, if it is empty
	URL    string `yaml:"url"`
}

// A ledgerConfig says how the log is kept.
type ledgerConfig struct {
	Origin    string          `yaml:"origin"`    // the log's name, a URL without a scheme; it never changes
	Gateway   string          `yaml:"gateway"`   // this gateway's name in its records
	Anchor    string          `yaml:"anchor"`    // a file on another volume, that remembers how long the log was
	Witnesses []witnessConfig `yaml:"witnesses"` // who cosigns the log's checkpoints
}

// A witnessConfig is somebody else who watches the log.
type witnessConfig struct {
	Key string `yaml:"key"` // its verifier key (c2sp.org/tlog-cosignature)
	URL string `yaml:"url"`
}

// A backend makes credentials. Exactly one of OAuth, Postgres and Static is
// set, and exactly one of Header, Env and Argument says where the tool gets
// them.
type backend struct {
	Header   string           `yaml:"header"`
	Scheme   string           `yaml:"scheme"`
	Env      string           `yaml:"env"`
	Argument bool             `yaml:"argument"`
	Share    bool             `yaml:"share"` // read-only tools of one task may share a credential
	Allow    []netip.Prefix   `yaml:"allow"` // addresses of an authorization server that are not public
	OAuth    *oauth.Config    `yaml:"oauth"`
	Postgres *postgres.Config `yaml:"postgres"`
	Static   *static.Config   `yaml:"static"`
}

func (b *backend) placement() broker.Placement {
	return broker.Placement{Header: b.Header, Scheme: b.Scheme, Env: b.Env, Argument: b.Argument}
}

const development = "development"

// readConfig reads a file strictly. A file that is not there is an empty one.
// Files that it names are relative to its own directory.
func readConfig(name string) (*config, error) {
	c := new(config)
	text, err := os.ReadFile(name)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		if err := errors.Join(loadYAML(text, c), saysTiers(text)); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := c.complete(filepath.Dir(name)); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// saysTiers makes sure that every agent's highest tier was written down: what
// is left out reads as the zero Tier, and that is privileged.
func saysTiers(text []byte) error {
	var c struct {
		Registry struct {
			Agents []map[string]any `yaml:"agents"`
		} `yaml:"registry"`
	}
	if yaml.Load(text, &c) != nil {
		return nil // and loadYAML says why
	}
	for _, a := range c.Registry.Agents {
		if a["highest_tier"] == nil {
			return fmt.Errorf("agent %q needs a highest_tier: read-only, bounded-write or privileged", a["id"])
		}
	}
	return nil
}

// loadYAML reads a text strictly: a key that is not known is an error, as is
// one that stands twice.
func loadYAML(text []byte, into any) error {
	err := yaml.Load(text, into, yaml.WithKnownFields(), yaml.WithUniqueKeys())
	if err == nil {
		return nil
	}
	what := strings.TrimPrefix(err.Error(), "yaml: construct errors: ")
	return errors.New(unknownKey.ReplaceAllString(what, "there is no key $1 here"))
}

var unknownKey = regexp.MustCompile(`field (\S+) not found in type [^\s;]+`)

var backendName = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)

// complete fills in what was left out, and refuses what cannot be meant.
func (c *config) complete(dir string) error {
	if c.Environment == "" {
		c.Environment = development
	}
	if c.Listen == "" {
		c.Listen = "127.0.0.1:7442"
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if c.URL == "" {
		if c.Environment != development {
			return errors.New("url: outside development agents need to know where to come")
		}
		c.URL = "https://localhost:" + port
	}
	if c.Issuer.Listen == "" {
		n, err := strconv.ParseUint(port, 10, 15)
		if err != nil {
			return fmt.Errorf("listen: %q is no port; say where the issuer listens", port)
		}
		c.Issuer.Listen = net.JoinHostPort("127.0.0.1", strconv.FormatUint(n+2, 10))
	}
	if c.Issuer.URL == "" {
		if c.Environment != development {
			return errors.New("issuer: outside development agents need to know its url")
		}
		_, port, _ := net.SplitHostPort(c.Issuer.Listen)
		c.Issuer.URL = "https://localhost:" + port
	}
	for _, s := range []string{c.URL, c.Issuer.URL} {
		if u, err := url.Parse(s); err != nil || u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
			return fmt.Errorf("url: %q is not an https URL", s)
		}
	}
	if (c.Certificate == "") != (c.Key == "") {
		return errors.New("certificate and key go together")
	}
	ip := net.ParseIP(host)
	if c.Environment == development && c.Certificate == "" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("listen: in development without a certificate only loopback is served, not %q", host)
	}
	if c.Environment != development && (c.Certificate == "" || len(c.Trust) == 0) {
		return fmt.Errorf("environment %q needs a certificate and a trust domain: the development ones are refused", c.Environment)
	}
	c.Ledger.complete(c.Environment)
	c.locate(dir)
	if err := c.Registry.Check(); err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	for name := range c.Backends {
		if !backendName.MatchString(name) {
			return fmt.Errorf("backends: %q is no name: a to z, 0 to 9 and hyphens, at most 32", name)
		}
	}
	for _, u := range c.Upstreams {
		if u.Continuations && !slices.Contains(c.Registry.Continuations, u.Name) {
			c.Registry.Continuations = append(c.Registry.Continuations, u.Name)
		}
	}
	return nil
}

func (l *ledgerConfig) complete(environment string) {
	l.Origin = cmp.Or(l.Origin, "writ.localhost/"+environment)
	l.Gateway = cmp.Or(l.Gateway, "gateway")
	l.Anchor = cmp.Or(l.Anchor, "anchor")
}

// locate makes the names of files absolute.
func (c *config) locate(dir string) {
	in := func(name string) string {
		if name == "" || filepath.IsAbs(name) {
			return name
		}
		return filepath.Join(dir, name)
	}
	c.Certificate, c.Key, c.Ledger.Anchor = in(c.Certificate), in(c.Key), in(c.Ledger.Anchor)
	for domain, name := range c.Trust {
		c.Trust[domain] = in(name)
	}
	for _, a := range c.Registry.Agents {
		for i, name := range a.Keys {
			a.Keys[i] = in(name)
		}
	}
	for _, b := range c.Backends {
		var refs []*broker.Reference
		if b.OAuth != nil {
			refs = append(refs, &b.OAuth.Key, &b.OAuth.Secret)
			if b.OAuth.Exchange != nil {
				refs = append(refs, &b.OAuth.Exchange.Subject)
			}
		}
		if b.Postgres != nil {
			refs = append(refs, &b.Postgres.Admin)
		}
		if b.Static != nil {
			refs = append(refs, &b.Static.Sealed)
		}
		for _, r := range refs {
			r.File = in(r.File)
		}
	}
}

// resource is the audience of access tokens: the MCP endpoint.
func (c *config) resource() string { return strings.TrimSuffix(c.URL, "/") + "/mcp" }

// hosts are the values of the Host header that are served besides the URL's.
func (c *config) hosts() []string {
	if c.Environment != development {
		return nil
	}
	_, port, _ := strings.Cut(strings.TrimPrefix(c.URL, "https://"), ":")
	return []string{"127.0.0.1:" + port, "localhost:" + port}
}
