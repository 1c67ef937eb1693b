package api_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/writgate/writ/server/admin/api"
)

var (
	key  = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	made = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
)

func signed(t *testing.T, p *api.Proof) string {
	t.Helper()
	text, err := p.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// jws signs any header and payload with the key.
func jws(head, claims string) string {
	b64 := base64.RawURLEncoding
	text := b64.EncodeToString([]byte(head)) + "." + b64.EncodeToString([]byte(claims))
	return text + "." + b64.EncodeToString(ed25519.Sign(key, []byte(text)))
}

func TestProofSaysWhatItIsFor(t *testing.T) {
	body := []byte(`{"shown":"sha256:00"}`)
	p, pub, err := api.ParseProof(signed(t, api.NewProof("acme.example/writ", "POST", "/api/v1/lift", body, made)))
	if err != nil {
		t.Fatal(err)
	}
	if !pub.Equal(key.Public()) || p.Audience != "acme.example/writ" || p.Issued != made.Unix() {
		t.Errorf("parsed %+v by %x", p, pub)
	}
	if !p.Covers("POST", "/api/v1/lift", body) {
		t.Error("the proof does not cover its own request")
	}
	for _, other := range []struct{ method, target, body string }{
		{"GET", "/api/v1/lift", string(body)},
		{"POST", "/api/v1/lift?x=1", string(body)},
		{"POST", "/api/v1/halt", string(body)},
		{"POST", "/api/v1/lift", string(body) + " "},
		{"POST", "/api/v1/lift", ""},
	} {
		if p.Covers(other.method, other.target, []byte(other.body)) {
			t.Errorf("the proof covers %v", other)
		}
	}
	again, _, err := api.ParseProof(signed(t, api.NewProof("acme.example/writ", "POST", "/api/v1/lift", body, made)))
	if err != nil || again.ID == p.ID {
		t.Errorf("two proofs have one id: %q, %v", p.ID, err)
	}
}

// Whatever is changed in a proof, by whoever holds no key, it does not parse.
func TestProofChanged(t *testing.T) {
	text := signed(t, api.NewProof("a", "POST", "/x", nil, made))
	for i := range text {
		for _, c := range []byte{'A', 'b', '0', '.', '=', '\n'} {
			if text[i] == c {
				continue
			}
			for _, changed := range []string{text[:i] + string(c) + text[i+1:], text[:i] + string(c) + text[i:]} {
				if _, _, err := api.ParseProof(changed); err == nil {
					t.Fatalf("%q at byte %d is accepted", c, i)
				}
			}
		}
	}
}

// What the key itself signed must still have the one form there is.
func TestH02ProofForms(t *testing.T) {
	head := fmt.Sprintf(`{"alg":"EdDSA","jwk":{"crv":"Ed25519","kty":"OKP","x":%q},"typ":"writ-operator+jwt"}`, base64.RawURLEncoding.EncodeToString(key.Public().(ed25519.PublicKey)))
	claims := `{"aud":"a","body":"b","htm":"POST","htu":"/x","iat":1,"jti":"ABCDEFGHIJKLMNOPQRSTUVWXYZ"}`
	if _, _, err := api.ParseProof(jws(head, claims)); err != nil {
		t.Fatalf("the plain form: %v", err)
	}
	replace := strings.Replace
	for name, text := range map[string]string{
		"another type":      jws(replace(head, "writ-operator+jwt", "dpop+jwt", 1), claims),
		"no algorithm":      jws(replace(head, "EdDSA", "none", 1), claims),
		"a critical member": jws(replace(head, `"typ"`, `"crit":["x"],"typ"`, 1), claims),
		"a key elsewhere":   jws(replace(head, `"typ"`, `"jku":"https://example.com","typ"`, 1), claims),
		"white space":       jws(head+" ", claims),
		"a member twice":    jws(head, replace(claims, `"jti"`, `"iat":2,"jti"`, 1)),
		"another case":      jws(head, replace(claims, `"iat"`, `"IAT"`, 1)),
		"one more member":   jws(head, replace(claims, `}`, `,"x":1}`, 1)),
		"a short id":        jws(head, replace(claims, "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "A", 1)),
		"no id":             jws(head, replace(claims, `,"jti":"ABCDEFGHIJKLMNOPQRSTUVWXYZ"`, "", 1)),
		"no claims":         jws(head, "null"),
		"four parts":        jws(head, claims) + ".",
		"nothing":           "",
	} {
		if _, _, err := api.ParseProof(text); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func FuzzParseProof(f *testing.F) {
	text, err := api.NewProof("a", "POST", "/x", nil, made).Sign(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add("..")
	f.Add(strings.Repeat("A", 100) + ".e30.")
	f.Fuzz(func(t *testing.T, text string) {
		p, pub, err := api.ParseProof(text)
		if err != nil {
			return
		}
		if !pub.Equal(key.Public()) { // nobody else's key signs by chance
			t.Fatalf("%q is signed by %x", text, pub)
		}
		again, err := p.Sign(key)
		if err != nil || again != text { // Ed25519 signs one text in one way
			t.Fatalf("%q is a second form of %q", text, again)
		}
	})
}

func TestTime(t *testing.T) {
	for ms, want := range map[api.Time]string{
		0:             "1970-01-01T00:00:00.000Z",
		1795435471118: "2026-11-23T12:04:31.118Z",
		1795435471100: "2026-11-23T12:04:31.100Z",
	} {
		b, err := ms.MarshalText()
		if err != nil || string(b) != want {
			t.Errorf("%d is %q, %v; want %q", ms, b, err, want)
		}
		var back api.Time
		if err := back.UnmarshalText(b); err != nil || back != ms {
			t.Errorf("%q reads as %d, %v", b, back, err)
		}
	}
	var zone api.Time
	if err := zone.UnmarshalText([]byte("2026-11-23T13:04:31.118+01:00")); err != nil || zone != 1795435471118 {
		t.Errorf("another zone reads as %d, %v", zone, err)
	}
	if err := zone.UnmarshalText([]byte("2026-11-23")); err == nil {
		t.Error("a day is accepted as a time")
	}
}
