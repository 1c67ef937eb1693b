package broker

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// alphabet is what secrets are made of.
const alphabet = "!#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_`abcdefghijklmnopqrstuvwxyz{|}~"

// forms are the ways an echo can be written, each of which Scrub knows.
var forms = map[string]func(r *rapid.T, secret string) string{
	"plain": func(_ *rapid.T, s string) string { return s },
	"hex":   func(_ *rapid.T, s string) string { return hex.EncodeToString([]byte(s)) },
	"HEX":   func(_ *rapid.T, s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) },
	"base64": func(r *rapid.T, s string) string {
		e := rapid.SampledFrom([]*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.RawURLEncoding}).Draw(r, "encoding")
		around := rapid.StringN(0, 9, 9)
		return e.EncodeToString([]byte(around.Draw(r, "before") + s + around.Draw(r, "after")))
	},
	"basic": func(_ *rapid.T, s string) string { return base64.StdEncoding.EncodeToString([]byte("user:" + s)) },
}

// escapes are the ways a form can be written again.
var escapes = map[string]func(r *rapid.T, text string) string{
	"none":    func(_ *rapid.T, s string) string { return s },
	"query":   func(_ *rapid.T, s string) string { return url.QueryEscape(s) },
	"path":    func(_ *rapid.T, s string) string { return url.PathEscape(s) },
	"percent": func(r *rapid.T, s string) string { return percent(r, s) },
	"json":    func(_ *rapid.T, s string) string { return inJSON(s) },
	"json in json": func(_ *rapid.T, s string) string {
		return inJSON(`{"error":"` + inJSON("Bearer "+s) + `"}`)
	},
	"unicode":              func(r *rapid.T, s string) string { return unicode(r, s, `\u`) },
	"unicode in json":      func(r *rapid.T, s string) string { return unicode(r, s, `\\u`) },
	"percent in json":      func(r *rapid.T, s string) string { return inJSON(percent(r, s)) },
	"query behind unicode": func(r *rapid.T, s string) string { return unicode(r, url.QueryEscape(s), `\u`) },
	"slashes in json":      func(_ *rapid.T, s string) string { return strings.ReplaceAll(inJSON(s), "/", `\/`) },
}

func inJSON(s string) string {
	b, _ := json.Marshal(s)
	return string(b[1 : len(b)-1])
}

// percent escapes what it must and, drawn, what it likes.
func percent(r *rapid.T, s string) string {
	var b strings.Builder
	for i := range len(s) {
		if s[i] == '%' || s[i] == '+' || rapid.Bool().Draw(r, "escape") {
			fmt.Fprintf(&b, rapid.SampledFrom([]string{"%%%02X", "%%%02x"}).Draw(r, "case"), s[i])
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func unicode(r *rapid.T, s, u string) string {
	var b strings.Builder
	for i := range len(s) {
		if rapid.Bool().Draw(r, "escape") {
			fmt.Fprintf(&b, "%s%04x", u, s[i])
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func secretOf(t interface{ Fatal(...any) }, value string) Secret {
	s, err := NewSecret("canary", value)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// H60: a secret that comes back is redacted, however it was written, and what
// stood around it stands.
func TestH60EchoIsRedacted(t *testing.T) {
	secrets := rapid.StringOfN(rapid.RuneFrom([]rune(alphabet)), minSecret, 80, -1)
	for form, write := range forms {
		for escape, again := range escapes {
			t.Run(form+", "+escape, func(t *testing.T) {
				t.Parallel()
				rapid.Check(t, func(r *rapid.T) {
					secret := secrets.Draw(r, "secret")
					echo := again(r, write(r, secret))
					text := `{"said":"before ` + echo + ` after"}`
					got, echoed := newScrubber(secretOf(r, secret)).clean([]byte(text))
					if !echoed {
						r.Fatalf("not found in %s", text)
					}
					if !bytes.HasPrefix(got, []byte(`{"said":"before `)) || !bytes.HasSuffix(got, []byte(` after"}`)) {
						r.Fatalf("%s\nbecame %s", text, got)
					}
					if json.Valid([]byte(text)) && !json.Valid(got) {
						r.Fatalf("%s\nis no JSON any more: %s", text, got)
					}
					if again, echoed := newScrubber(secretOf(r, secret)).clean(got); echoed && !strings.Contains(redacted, secret) {
						r.Fatalf("%s\nstill held it: %s", got, again)
					}
				})
			})
		}
	}
}

// What is no echo keeps every byte.
func TestScrubKeepsTheRest(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := newScrubber(secretOf(r, "s3cret-"+rapid.StringMatching("[a-z]{20}").Draw(r, "secret")))
		text := rapid.SliceOf(rapid.Byte()).Draw(r, "text")
		if got, echoed := s.clean(text); echoed || !bytes.Equal(got, text) {
			r.Fatalf("%q became %q", text, got)
		}
	})
}

func TestScrubSeveral(t *testing.T) {
	s := newScrubber(secretOf(t, "postgres://writ_1:hunter22hunter@db/shop"), secretOf(t, "hunter22hunter"))
	for text, want := range map[string]string{
		"": "",
		"at postgres://writ_1:hunter22hunter@db/shop": "at [redacted]",
		"password hunter22hunter.":                    "password [redacted].",
		"hunter22hunterhunter22hunter":                "[redacted][redacted]",
		`{"a":"\u0068unter22hunter"}`:                 `{"a":"[redacted]"}`,
		`{"a":"\\hunter22hunter"}`:                    `{"a":"[redacted]"}`,
		`{"a":"\hunter22hunter"}`:                     `{"a":"[redacted]"}`,
		"hunter22":                                    "hunter22",
	} {
		if got, echoed := s.clean([]byte(text)); string(got) != want || echoed != (text != want) {
			t.Errorf("Scrub(%q) = %q, %v, want %q", text, got, echoed, want)
		}
	}
	if got, echoed := (&Lease{}).Scrub([]byte("x")); echoed || string(got) != "x" {
		t.Error("the zero Lease scrubs")
	}
}

// FuzzScrub: whatever surrounds it, a secret does not get through; and what
// was JSON still is, unless the secret can stand in JSON outside a string.
func FuzzScrub(f *testing.F) {
	f.Add([]byte(`{"a":"`), []byte(`"}`), "hunter22hunter")
	f.Add([]byte(`{"a":"\`), []byte(`"}`), "nhunter22")
	f.Add([]byte(`{"a":"\u00`), []byte(`"}`), "41abcdef")
	f.Add([]byte(`%`), []byte(`%`), "41%41%41")
	f.Add([]byte("\\\\\\"), []byte("\\"), "aaaaaaaaaa")
	f.Fuzz(func(t *testing.T, before, after []byte, value string) {
		secret, err := NewSecret("canary", value)
		if err != nil || strings.Contains(redacted, value) || strings.Contains(value, "[") || strings.Contains(value, "]") {
			t.Skip()
		}
		s := newScrubber(secret)
		text := append(append(bytes.Clone(before), value...), after...)
		got, echoed := s.clean(text)
		if !echoed || bytes.Contains(got, []byte(value)) {
			t.Fatalf("Scrub(%q) = %q, %v", text, got, echoed)
		}
		if strings.Trim(value, "0123456789+-.,:{}truefalsnE") != "" && json.Valid(text) && !json.Valid(got) {
			t.Fatalf("Scrub(%q) = %q is no JSON any more", text, got)
		}
	})
}

func BenchmarkScrub(b *testing.B) {
	s := newScrubber(secretOf(b, "postgres://writ_06hj5mnvs1zvhd4g5pngs3c7t8:hunter22hunterhunter22@db/shop"), secretOf(b, "hunter22hunterhunter22"))
	text := bytes.Repeat([]byte(`{"id":9007199254740993,"name":"caf\u00e9 \"Zur Post\"","url":"https://a.example/?q=%C3%A9"},`), 700)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, echoed := s.clean(text); echoed {
			b.Fatal("echo")
		}
	}
}

// Time is linear, whatever a tool returns.
func TestScrubIsLinear(t *testing.T) {
	secret := strings.Repeat("a", 39) + "b"
	s := newScrubber(secretOf(t, secret))
	for _, unit := range []string{`\`, `%`, `\u`, `%\`, `\\%`, `\u0025`, "a", secret, `\` + secret, "%61", `\\\\\\\\a`} {
		text := bytes.Repeat([]byte(unit), 1<<20/len(unit))
		start := time.Now()
		s.clean(text)
		if took := time.Since(start); took > time.Second {
			t.Errorf("a megabyte of %q takes %v", unit, took)
		}
	}
}
