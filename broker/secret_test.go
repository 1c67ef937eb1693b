package broker_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/broker"
	"go.yaml.in/yaml/v4"
)

const canary = "CANARY+wrasse/0123456789~gannet=="

// tells says in which form text holds the canary.
func tells(text string) string {
	decimal := strings.Trim(fmt.Sprint([]byte(canary)), "[]")
	quoted, _ := json.Marshal(canary)
	for _, form := range []string{
		canary, hex.EncodeToString([]byte(canary)), base64.StdEncoding.EncodeToString([]byte(canary)),
		base64.URLEncoding.EncodeToString([]byte(canary)), decimal, strings.ReplaceAll(decimal, " ", ", "),
		strings.Trim(fmt.Sprintf("%#v", []byte(canary)), "[]byte{}"), string(quoted),
	} {
		if strings.Contains(strings.ToLower(text), strings.ToLower(form)) {
			return form
		}
	}
	return ""
}

// A mint makes the canary.
type mint struct{}

func (mint) Mint(context.Context, broker.Row) (broker.Minted, error) {
	s, err := broker.NewSecret("canary", canary)
	return broker.Minted{Secret: s, Also: []broker.Secret{s}}, err
}

func (mint) Revoke(context.Context, string) (broker.Evidence, error) {
	return broker.Evidence{Outcome: broker.Revoked}, nil
}

func (mint) Lifetime(time.Duration) time.Duration { return 0 }

// holders are the values that a secret lives in, from driver to upstream.
func holders(t *testing.T) []any {
	t.Helper()
	h := newHouse(t)
	h.Backends["mint"] = broker.Backend{Driver: mint{}, Place: broker.Placement{Header: "X-Api-Key"}, Share: true}
	o := h.order(h.open(t))
	o.Backend, o.Tier = "mint", writ.ReadOnly
	_, lease := h.lease(t, o)
	minted, err := mint{}.Mint(t.Context(), broker.Row{})
	if err != nil {
		t.Fatal(err)
	}
	s := minted.Secret
	return []any{
		s, &s, []broker.Secret{s}, map[string]broker.Secret{"k": s}, struct{ S broker.Secret }{s}, struct{ s *broker.Secret }{&s}, struct{ s broker.Secret }{s},
		minted, &minted, lease, []*broker.Lease{lease}, struct{ l *broker.Lease }{lease}, h.Broker,
		fmt.Errorf("with %v", s), lease.ScrubError(errors.New("says " + canary)),
	}
}

func TestH63NoVerbPrintsASecret(t *testing.T) {
	for _, v := range holders(t) {
		for verb := byte('A'); verb <= 'z'; verb++ {
			for _, flags := range []string{"", "+", "#", "-", " ", "0", "+#", "# ", "9", ".3", "*"} {
				args := []any{v}
				if flags == "*" {
					args = []any{5, v}
				}
				if text := fmt.Sprintf("%"+flags+string(verb), args...); tells(text) != "" {
					t.Errorf("%%%s%c of a %T: %s", flags, verb, v, text)
				}
			}
		}
		if text := fmt.Sprint(v) + fmt.Sprintln(v); tells(text) != "" {
			t.Errorf("Print of a %T: %s", v, text)
		}
	}
	s, _ := broker.NewSecret("canary", canary)
	if got := fmt.Sprintf("%s|%v|%d|%#v|%x", s, s, s, s, s); got != strings.Repeat("[secret canary]|", 4)+"[secret canary]" {
		t.Errorf("a secret prints as %s", got)
	}
}

func TestH63NoLogTellsASecret(t *testing.T) {
	var out bytes.Buffer
	loggers := []*slog.Logger{
		slog.New(slog.NewTextHandler(&out, nil)), slog.New(slog.NewJSONHandler(&out, nil)),
	}
	for _, v := range holders(t) {
		for _, l := range loggers {
			l.Info("leased", "it", v, slog.Group("g", "it", v))
			l.With("it", v).Error("lost")
		}
		log.New(&out, "", 0).Println("leased", v)
	}
	if form := tells(out.String()); form != "" {
		t.Errorf("a log holds %s:\n%s", form, out.String())
	}
}

func TestH63NoEncodingTellsASecret(t *testing.T) {
	for _, v := range holders(t) {
		if _, ok := v.(*broker.Broker); ok {
			continue // it has functions
		}
		j, _ := json.Marshal(v)
		x, _ := xml.Marshal(v)
		y, _ := yaml.Dump(v)
		var g bytes.Buffer
		_ = gob.NewEncoder(&g).Encode(v)
		for name, text := range map[string]string{"JSON": string(j), "XML": string(x), "YAML": string(y), "gob": g.String()} {
			if form := tells(text); form != "" {
				t.Errorf("%s of a %T holds %s: %s", name, v, form, text)
			}
		}
	}
}

// TestH63NoCrashTellsASecret lets processes die with secrets in hand.
func TestH63NoCrashTellsASecret(t *testing.T) {
	if n := os.Getenv("WRIT_TEST_CRASH"); n != "" {
		vs := holders(t)
		for i, v := range vs {
			if fmt.Sprint(i) != n {
				continue
			}
			if i%2 == 0 {
				panic(v)
			}
			func(v any) {
				defer func() { panic(fmt.Errorf("again: %v", recover())) }()
				panic(v)
			}(v)
		}
		var nothing *int
		func(l any) { *nothing = len(vs) }(vs[9])
	}
	for _, n := range []string{"0", "7", "8", "9", "12", "none"} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestH63NoCrashTellsASecret$")
		cmd.Env = append(os.Environ(), "WRIT_TEST_CRASH="+n, "GOTRACEBACK=all")
		out, err := cmd.CombinedOutput()
		if err == nil || !bytes.Contains(out, []byte("goroutine ")) {
			t.Errorf("crash %s: %v\n%s", n, err, out)
		}
		if form := tells(string(out)); form != "" {
			t.Errorf("crash %s holds %s:\n%s", n, form, out)
		}
	}
}

func TestNewSecretRefuses(t *testing.T) {
	for _, value := range []string{"", "short", "has a space in it", "has\nnewline", `has"quote"inside`, `has\backslash`, "ünicode-secret", "nul\x00byte-in-it", strings.Repeat("x", 16<<10+1)} {
		if _, err := broker.NewSecret("name", value); err == nil {
			t.Errorf("NewSecret(%q) is a secret", value)
		} else if value != "" && strings.Contains(err.Error(), value) {
			t.Errorf("the error tells it: %v", err)
		}
	}
	if _, err := (broker.Secret{}).Expose(); err == nil || fmt.Sprint(broker.Secret{}) != "[no secret]" {
		t.Error("the zero secret is one")
	}
}

func TestSealed(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	s, err := broker.NewSealer(key)
	if err != nil {
		t.Fatal(err)
	}
	sealed := s.Seal("github", []byte(canary))
	if tells(string(sealed)) != "" || bytes.Equal(sealed, s.Seal("github", []byte(canary))) {
		t.Error("sealing hides nothing")
	}
	if got, err := s.Open("github", sealed); err != nil || string(got) != canary {
		t.Errorf("Open: %s, %v", got, err)
	}
	key[0]++
	other, _ := broker.NewSealer(key)
	changed := bytes.Clone(sealed)
	changed[len(changed)-1] ^= 1
	for name, err := range map[string]error{
		"another name": second(s.Open("gitlab", sealed)), "another key": second(other.Open("github", sealed)),
		"changed": second(s.Open("github", changed)), "cut": second(s.Open("github", sealed[:20])), "empty": second(s.Open("github", nil)),
	} {
		if err == nil {
			t.Errorf("%s opens", name)
		}
	}
	if _, err := broker.NewSealer(key[:16]); err == nil {
		t.Error("a key of 16 bytes seals")
	}
}

func second[T any](_ T, err error) error { return err }

func TestReference(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		return name
	}
	t.Setenv("WRIT_TEST_SECRET", canary)
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file("target", canary, 0o400), link); err != nil {
		t.Fatal(err)
	}
	for _, r := range []broker.Reference{
		{Env: "WRIT_TEST_SECRET"}, {File: file("owner", canary+"\n", 0o600)}, {File: file("group", canary+"\r\n", 0o440)}, {File: link},
	} {
		if b, err := r.Read(); err != nil || string(b) != canary {
			t.Errorf("%+v: %q, %v", r, b, err)
		}
	}
	for _, r := range []broker.Reference{
		{}, {Env: "WRIT_TEST_SECRET", File: link}, {Env: "WRIT_TEST_UNSET"}, {File: filepath.Join(dir, "none")}, {File: dir},
		{File: file("empty", "\n", 0o600)}, {File: file("world", canary, 0o644)}, {File: file("shared", canary, 0o660)},
		{File: file("large", strings.Repeat(canary, 4096), 0o600)},
	} {
		b, err := r.Read()
		if err == nil {
			t.Errorf("%+v reads %q", r, b)
		} else if tells(err.Error()) != "" {
			t.Errorf("the error tells it: %v", err)
		}
	}
}
