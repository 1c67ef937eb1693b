package static_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/broker/static"
	"go.yaml.in/yaml/v4"
)

const secret = "ghp_s3cret0123456789"

func sealer(t *testing.T, fill string) *broker.Sealer {
	t.Helper()
	s, err := broker.NewSealer([]byte(strings.Repeat(fill, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSealedSecretIsInjected(t *testing.T) {
	s := sealer(t, "k")
	text, err := static.Seal(s, "github", secret)
	if err != nil || strings.Contains(text, secret) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(secret))) {
		t.Fatalf("Seal: %s, %v", text, err)
	}
	name := filepath.Join(t.TempDir(), "github.sealed")
	if err := os.WriteFile(name, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var c static.Config
	if err := yaml.Load([]byte("sealed: {file: "+name+"}"), &c, yaml.WithKnownFields(), yaml.WithUniqueKeys()); err != nil {
		t.Fatal(err)
	}
	d, err := static.New("github", c, s)
	if err != nil {
		t.Fatal(err)
	}
	m, err := d.Mint(t.Context(), broker.Row{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := m.Secret.Expose(); got != secret || err != nil || m.Until != 0 || d.Lifetime(time.Minute) != 0 {
		t.Errorf("minted %v until %d, %v", m.Secret, m.Until, err)
	}
	ev, err := d.Revoke(t.Context(), "lease_1")
	if err != nil || ev.Outcome != broker.Unrevocable || ev.String() != "cannot be revoked, never expires" {
		t.Errorf("Revoke: %v, %v", ev, err)
	}

	// A new secret is used without a restart; a spoiled one refuses.
	again, err := static.Seal(s, "github", secret+"-rotated")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{again: secret + "-rotated", again[:40]: ""} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := d.Mint(t.Context(), broker.Row{})
		if got, _ := m.Secret.Expose(); got != want || (err == nil) != (want != "") {
			t.Errorf("minted %v, %v", m.Secret, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	s := sealer(t, "k")
	good, err := static.Seal(s, "github", secret)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text    string
		backend string
		sealer  *broker.Sealer
	}{
		"another backend": {good, "gitlab", s}, "no backend": {good, "", s}, "another key": {good, "github", sealer(t, "x")}, "no key": {good, "github", nil},
		"not sealed": {secret, "github", s}, "cut": {good[:30], "github", s}, "not base64": {"writ-sealed-v1:" + secret, "github", s}, "absent": {"", "github", s},
	} {
		t.Setenv("WRIT_TEST_SEALED", c.text)
		_, err := static.New(c.backend, static.Config{Sealed: broker.Reference{Env: "WRIT_TEST_SEALED"}}, c.sealer)
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var c static.Config
	if err := yaml.Load([]byte("secret: "+secret), &c, yaml.WithKnownFields()); err == nil {
		t.Error("a secret in the configuration is accepted")
	}
	for _, value := range []string{"", "short", "two words of it"} {
		if _, err := static.Seal(s, "github", value); err == nil {
			t.Errorf("Seal(%q): accepted", value)
		}
	}
}
