package identity

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"
)

// TestSeenIsBounded floods the memory of proofs. It forgets the oldest
// seconds, and accepts nothing of them any more.
func TestSeenIsBounded(t *testing.T) {
	const now = int64(1_800_000_000)
	s := new(seen)
	name := func(i int) (id [32]byte) {
		binary.BigEndian.PutUint64(id[:], uint64(i))
		return id
	}
	first := name(-1)
	if !s.add(first, now-60, now) || s.add(first, now-60, now) {
		t.Fatal("a new proof is not accepted once")
	}
	per := maxSeen / 8
	for i := range maxSeen + maxSeen/4 {
		if !s.add(name(i), now-59+int64(i/per), now) {
			t.Fatalf("proof %d is refused", i)
		}
		if s.count > maxSeen {
			t.Fatalf("%d proofs are remembered", s.count)
		}
	}
	for i := range maxSeen + maxSeen/4 {
		if s.add(name(i), now-59+int64(i/per), now) {
			t.Fatalf("proof %d is accepted again", i)
		}
	}
	if s.add(first, now-60, now) {
		t.Error("what was forgotten is accepted again")
	}
	if used, forgotten := s.look(first, now-60, now); used || !forgotten {
		t.Errorf("what was forgotten: used %v, forgotten %v", used, forgotten)
	}
	if !s.add(name(-2), now, now) {
		t.Error("a proof of this second is refused under a flood")
	}
	if s.look(first, now, now+200); s.count != 0 || len(s.held) != 0 {
		t.Errorf("%d proofs are remembered after their time", s.count)
	}
}

func TestCacheIsBounded(t *testing.T) {
	var c cache[int]
	for i := range maxCached * 2 {
		c.put(sha256.Sum256(fmt.Append(nil, i)), i)
	}
	if len(c.held) != maxCached {
		t.Errorf("%d entries, want %d", len(c.held), maxCached)
	}
}

// TestTarget is RFC 3986, 6.2.2 and 6.2.3, on URIs as RFC 9449, 4.3 compares
// them.
func TestTarget(t *testing.T) {
	for uri, want := range map[string]string{
		"https://h":                     "https://h/",
		"https://h/":                    "https://h/",
		"HTTPS://H/a":                   "https://h/a",
		"https://h:443/a":               "https://h/a",
		"https://h:/a":                  "https://h/a",
		"http://h:80/a":                 "http://h/a",
		"http://h:443/a":                "http://h:443/a",
		"https://h:80/a":                "https://h:80/a",
		"https://[::1]:443/a":           "https://[::1]/a",
		"https://[2001:DB8::1]:8443/a":  "https://[2001:db8::1]:8443/a",
		"https://h/a?b#c":               "https://h/a",
		"https://h/a?":                  "https://h/a",
		"https://h/%7ea%2D%5F":          "https://h/~a-_",
		"https://h/a%2fb":               "https://h/a%2Fb",
		"https://h/a%2Fb":               "https://h/a%2Fb",
		"https://h/a%20b":               "https://h/a%20b",
		"https://h/a/./b/../c":          "https://h/a/c",
		"https://h/a/b/..":              "https://h/a/",
		"https://h/a/.":                 "https://h/a/",
		"https://h/..":                  "https://h/",
		"https://h/../../a":             "https://h/a",
		"https://h/%2e%2e/a":            "https://h/a",
		"https://h/a//b":                "https://h/a//b",
		"https://h//a":                  "https://h//a",
		"https://h/a/":                  "https://h/a/",
		"":                              "",
		"/a":                            "",
		"h/a":                           "",
		"https:a":                       "",
		"https:///a":                    "",
		"https://u@h/a":                 "",
		"https://u:p@h/a":               "",
		"ftp://h/a":                     "",
		"javascript:alert(1)":           "",
		"https://h/%zz":                 "",
		"https://h\x00/":                "",
		"https://h /a":                  "",
		"https://h:port/a":              "",
		"spiffe://acme.example/agent/a": "",
	} {
		got, err := target(uri)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("target(%q) = %q, %v, want %q", uri, got, err, want)
			continue
		}
		if again, err := target(got); want != "" && (err != nil || again != got) {
			t.Errorf("target(%q) = %q, %v: it is not its own normal form", got, again, err)
		}
	}
}
