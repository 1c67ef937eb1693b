package main

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/broker/static"
	"github.com/writgate/writ/upstream"
)

const operating = "../../docs/operating.md"

// blocks gives the fenced blocks of one language in a document.
func blocks(t *testing.T, name, language string) []string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		all = append(all, m[1])
	}
	if len(all) == 0 {
		t.Fatalf("%s has no block of %s", name, language)
	}
	return all
}

// TestOperatingManual loads every YAML block of the manual as what it is, a
// writ.yaml or a grant, and makes of it what a gateway makes.
func TestOperatingManual(t *testing.T) {
	for _, text := range blocks(t, operating, "yaml") {
		what, _, _ := strings.Cut(text, ":")
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "example.yaml")
			write(t, file, text)
			if what == "grant" {
				if _, err := readGrant(file); err != nil {
					t.Error(err)
				}
				return
			}
			c, err := readConfig(file)
			if err != nil {
				t.Fatal(err)
			}
			n := &node{dir: dir, config: c, keys: new(keys)}
			secrets(t, n)
			if _, err := n.backends(); err != nil {
				t.Error(err)
			}
			set, err := upstream.Open(c.Upstreams)
			if err != nil {
				t.Fatal(err)
			}
			set.Close()
		})
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// secrets makes the files that the backends of an example refer to.
func secrets(t *testing.T, n *node) {
	t.Helper()
	n.keys.static[0] = 1
	sealer, err := broker.NewSealer(n.keys.static[:])
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range n.config.Backends {
		switch {
		case b.OAuth != nil:
			write(t, b.OAuth.Key.File, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
		case b.Postgres != nil:
			write(t, b.Postgres.Admin.File, "postgres://writ:secret@db.acme.example:5432/reports?sslmode=verify-full")
		case b.Static != nil:
			text, err := static.Seal(sealer, name, "sk-0123456789abcdef")
			if err != nil {
				t.Fatal(err)
			}
			write(t, b.Static.Sealed.File, text)
		}
	}
}

// TestOperatingManualTrust reads the trust file of the manual.
func TestOperatingManualTrust(t *testing.T) {
	text, err := os.ReadFile(operating)
	if err != nil {
		t.Fatal(err)
	}
	lines := regexp.MustCompile(`(?m)^ +((?:log|witness \w+|quorum) \S+)$`).FindAllStringSubmatch(string(text), -1)
	var b strings.Builder
	for _, m := range lines {
		b.WriteString(m[1] + "\n")
	}
	trust, err := parseTrust(b.String())
	if err != nil {
		t.Fatalf("%v in\n%s", err, b.String())
	}
	if len(trust.Logs) != 1 || len(trust.Witnesses) != 1 || trust.quorum != "w1" {
		t.Errorf("the manual's trust file is read as %+v", trust)
	}
}

// TestConfigIsRefused: what can only be a mistake is named where it stands.
func TestConfigIsRefused(t *testing.T) {
	agent := "registry:\n  agents:\n    - {id: \"spiffe://a/b\", owner: o, environment: development"
	for text, want := range map[string]string{
		"upstream: []":                            "line 1: there is no key upstream here",
		"listen: a\nfoo:":                         "line 2: there is no key foo here",
		"listen: a:1\nlisten: b:1":                "already defined",
		"environment: production":                 "need to know where to come",
		"listen: 0.0.0.0:7442":                    "only loopback",
		"listen: localhost":                       "missing port",
		"listen: 127.0.0.1:http":                  "is no port",
		"url: http://localhost:7442":              "is not an https URL",
		"certificate: a.pem":                      "go together",
		"backends: {Erp: {header: X}}":            "is no name",
		agent + "}":                               "needs a highest_tier",
		agent + ", highest_tier: low}":            "unknown tier",
		agent + ", highest_tier: read-only, x: 1": "did not find expected",
		"registry: {operators: [{user: a, key: k}, {user: b, key: k}]}":                                           "each its own",
		"registry: {agents: [{id: a, environment: development, highest_tier: read-only}]}":                        "needs an owner",
		"environment: p\nurl: https://a\nissuer: {url: https://b}\nlisten: 127.0.0.1:1":                           "needs a certificate and a trust domain",
		"environment: p\nurl: https://a\nlisten: 127.0.0.1:1\ncertificate: c\nkey: k\ntrust: {acme.example: t}\n": "need to know its url",
	} {
		file := filepath.Join(t.TempDir(), "writ.yaml")
		write(t, file, text)
		if _, err := readConfig(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is read with %v, want %q", text, err, want)
		}
	}
}

// TestConfigFiles: files are found beside writ.yaml, wherever a gateway is
// started.
func TestConfigFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "writ.yaml")
	write(t, file, "certificate: a/b.crt\nkey: /c.key\ntrust: {acme.example: t.json}\nbackends: {x: {header: H, static: {sealed: {file: s}}}}\n")
	c, err := readConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		c.Certificate: "a/b.crt", c.Trust["acme.example"]: "t.json", c.Ledger.Anchor: "anchor", c.Backends["x"].Static.Sealed.File: "s",
	} {
		if got != filepath.Join(dir, want) {
			t.Errorf("%s is looked for at %s", want, got)
		}
	}
	if c.Key != "/c.key" {
		t.Errorf("/c.key is looked for at %s", c.Key)
	}
}
