package broker

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
)

// redacted stands where a secret was. It needs no escaping in JSON, in a
// header or in a URL's query.
const redacted = "[redacted]"

// A scrubber finds secrets in bytes that came from outside. It knows a secret
// as it is; in base64, standard and URL alphabet, padded or not, at each of
// the three alignments that it can have inside something longer; in
// hexadecimal of either case; and each of these again behind JSON escapes to
// any depth, percent-encoding, and percent-encoding inside JSON, whichever
// characters are escaped.
//
// It is there for tools that echo what they were sent. A tool that wants to
// leak its own credential can: reversed, split, compressed or enciphered
// secrets are not found. It works on bytes, before they are parsed.
//
// Time is linear in the bytes for each secret, memory at most twice the bytes.
type scrubber struct{ needles []needle }

// A needle is one form of a secret. Base64 shares a character with what
// stands before or after the secret, unless the secret fills it; before and
// after say that such a character belongs to the match.
type needle struct {
	text          []byte
	before, after bool
}

type span struct{ start, end int }

func newScrubber(secrets ...Secret) *scrubber {
	s := new(scrubber)
	for _, secret := range secrets {
		if secret.value == nil {
			continue
		}
		v := *secret.value
		s.needles = append(s.needles,
			needle{text: []byte(v)},
			needle{text: []byte(hex.EncodeToString([]byte(v)))},
			needle{text: []byte(strings.ToUpper(hex.EncodeToString([]byte(v))))})
		for offset := range 3 {
			s.addBase64(v, offset)
		}
	}
	return s
}

// addBase64 adds the characters that v alone determines when offset bytes
// stand before it in its group of three.
func (s *scrubber) addBase64(v string, offset int) {
	full := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("\x00", offset) + v))
	start := (offset*8 + 5) / 6
	end := (offset + len(v)) * 8 / 6
	n := needle{before: offset > 0, after: (offset+len(v))%3 != 0}
	std := full[start:end]
	url := strings.NewReplacer("+", "-", "/", "_").Replace(std)
	n.text = []byte(std)
	s.needles = append(s.needles, n)
	if url != std {
		n.text = []byte(url)
		s.needles = append(s.needles, n)
	}
}

// clean redacts. Without an echo it returns b itself.
func (s *scrubber) clean(b []byte) ([]byte, bool) {
	spans := s.find(b)
	if bytes.IndexByte(b, '\\') >= 0 {
		spans = append(spans, s.findDecoded(b, token{json: true})...)
	}
	if bytes.IndexByte(b, '%') >= 0 || bytes.Contains(b, []byte("u0025")) {
		spans = append(spans, s.findDecoded(b, token{json: true, percent: true})...)
	}
	if len(spans) == 0 {
		return b, false
	}
	slices.SortFunc(spans, func(a, b span) int { return a.start - b.start })
	var out []byte
	done := 0 // b[:done] is dealt with
	for _, sp := range spans {
		if sp.start >= done {
			out = append(out, b[done:sp.start]...)
			out = append(out, redacted...)
		}
		done = max(done, sp.end)
	}
	return append(out, b[done:]...), true
}

// find gives the spans of all needles in b.
func (s *scrubber) find(b []byte) []span {
	var spans []span
	for _, n := range s.needles {
		for from := 0; ; {
			i := bytes.Index(b[from:], n.text)
			if i < 0 {
				break
			}
			sp := span{from + i, from + i + len(n.text)}
			from = sp.end
			if n.before && sp.start > 0 && isBase64(b[sp.start-1]) {
				sp.start--
			}
			if n.after && sp.end < len(b) && isBase64(b[sp.end]) {
				sp.end++
			}
			sp.start -= insideEscape(b, sp.start)
			spans = append(spans, sp)
		}
	}
	return spans
}

// findDecoded finds needles in b as t decodes it, in spans of b itself.
func (s *scrubber) findDecoded(b []byte, t token) []span {
	plain := make([]byte, 0, len(b))
	for i := 0; i < len(b); {
		run := i
		for i < len(b) && b[i] != '\\' && b[i] != '%' {
			i++
		}
		if plain = append(plain, b[run:i]...); i == len(b) {
			break
		}
		c, n := t.next(b[i:])
		plain = append(plain, c)
		i += n
	}
	spans := s.find(plain)
	if len(spans) == 0 {
		return nil
	}
	// Walk again, from places in plain to places in b. Needles overlap, so
	// the starts and the ends are two sorted lists.
	places := make(map[int]int, 2*len(spans))
	for _, sp := range spans {
		places[sp.start], places[sp.end] = len(b), len(b)
	}
	for i, at := 0, 0; i < len(b); at++ {
		if _, ok := places[at]; ok {
			places[at] = i
		}
		_, n := t.next(b[i:])
		i += n
	}
	for i, sp := range spans {
		spans[i] = span{places[sp.start], places[sp.end]}
	}
	return spans
}

// A token reads one character, escaped or not.
type token struct{ json, percent bool }

// next gives the first character of b, which is not empty, and how many bytes
// stand for it.
func (t token) next(b []byte) (c byte, n int) {
	c, n = t.char(b)
	if !t.percent || c != '%' {
		return c, n
	}
	var digits [2]byte // of which JSON may escape each
	end := n
	for i := range digits {
		if end == len(b) {
			return c, n
		}
		var m int
		digits[i], m = t.char(b[end:])
		end += m
	}
	if _, err := hex.Decode(digits[:], digits[:]); err != nil {
		return c, n
	}
	return digits[0], end
}

// char is next without percent-encoding.
func (t token) char(b []byte) (c byte, n int) {
	if t.json && b[0] == '\\' {
		return unescape(b)
	}
	return b[0], 1
}

// unescape reads a JSON escape behind any number of backslashes, as it stands
// in JSON within JSON. What cannot be part of a secret becomes a newline.
func unescape(b []byte) (c byte, n int) {
	n = len(b) - len(bytes.TrimLeft(b, `\`))
	if n == len(b) {
		return '\n', n
	}
	c, n = b[n], n+1
	if c != 'u' {
		if strings.IndexByte("bfnrt", c) >= 0 {
			c = '\n'
		}
		return c, n
	}
	if n+4 <= len(b) {
		if v, err := hex.DecodeString(string(b[n : n+4])); err == nil {
			if v[0] == 0 && v[1] < 0x80 {
				return v[1], n + 4
			}
			return '\n', n + 4
		}
	}
	return c, n
}

// insideEscape says how many bytes before b[at] the JSON escape begins that
// b[at] is part of, if it is. What is left of one would spoil the JSON.
func insideEscape(b []byte, at int) int {
	for back := 1; back <= min(at, len(`\u000`)); back++ {
		before := b[:at-back+1]
		if before[len(before)-1] != '\\' {
			continue
		}
		lone := (len(before)-len(bytes.TrimRight(before, `\`)))%2 == 1
		if lone && (back == 1 || b[at-back+1] == 'u') {
			return back
		}
		break
	}
	return 0
}

func isBase64(c byte) bool {
	return c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("+/-_", c) >= 0
}
