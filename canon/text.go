package canon

import (
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// text reads the string at p.pos. It gives the unescaped text if want is set,
// and says whether the string is written canonically.
func (p *parser) text(want bool) (text string, canonical bool, err *Error) {
	start := p.pos + 1
	i, high, escaped := start, byte(0), false
	for ; ; i++ {
		if i >= len(p.src) {
			return "", false, p.fail(InvalidJSON, "unexpected end of a string", len(p.src))
		}
		c := p.src[i]
		if c == '"' {
			break
		}
		if c == '\\' {
			escaped = true
			i++ // whatever it is, it does not end the string
			continue
		}
		if c < ' ' {
			code := InvalidJSON
			if c == 0 {
				code = InvalidText
			}
			return "", false, p.fail(code, "control character in a string", i)
		}
		high |= c
	}
	raw := p.src[start:i]
	if high >= utf8.RuneSelf && !utf8.ValidString(raw) {
		return "", false, p.fail(InvalidText, "not UTF-8", start)
	}
	if !escaped {
		p.pos = i + 1
		return raw, true, nil
	}
	u := unescape(p.scratch[:0], raw)
	if u.code != "" {
		return "", false, p.fail(u.code, u.detail, start+u.at)
	}
	p.scratch = u.text
	p.pos = i + 1
	if want {
		text = string(u.text)
	}
	return text, u.canonical, nil
}

// An unescaped is the text of a string, or why there is none.
type unescaped struct {
	text      []byte
	canonical bool // every escape is the one that the canonical form has
	code      string
	detail    string
	at        int // where code applies
}

func notText(code, detail string, at int) unescaped {
	return unescaped{code: code, detail: detail, at: at}
}

// unescape appends to dst the text of raw, the inside of a string.
func unescape(dst []byte, raw string) unescaped {
	canonical := true
	for i := 0; i < len(raw); {
		if raw[i] != '\\' {
			run := strings.IndexByte(raw[i:], '\\')
			if run < 0 {
				run = len(raw) - i
			}
			dst = append(dst, raw[i:i+run]...)
			i += run
			continue
		}
		if c := escapes[raw[i+1]]; c != 0 { // text never ends a string after a lone backslash
			dst = append(dst, c)
			canonical = canonical && c != '/'
			i += 2
			continue
		}
		r, ok := hex4(raw[i:])
		if !ok {
			return notText(InvalidJSON, "not an escape", i)
		}
		size := 6
		if utf16.IsSurrogate(r) {
			low, _ := hex4(raw[i+6:])
			r = utf16.DecodeRune(r, low)
			if r == utf8.RuneError {
				return notText(InvalidText, "lone surrogate", i)
			}
			size = 12
		}
		if r == 0 {
			return notText(InvalidText, "NUL", i)
		}
		lower := (raw[i+5] > 'F') == (r&0xf > 9)
		canonical = canonical && r < ' ' && shortEscape[r] == 0 && lower
		dst = utf8.AppendRune(dst, r)
		i += size
	}
	return unescaped{text: dst, canonical: canonical}
}

// hex4 reads the \uXXXX that s begins with.
func hex4(s string) (r rune, ok bool) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	for i := 2; i < 6; i++ {
		c := s[i]
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// escapes gives what a letter after a backslash stands for (RFC 8259 §7),
// shortEscape the letter for a byte that the canonical form escapes.
var (
	escapes     = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}
	shortEscape = [256]byte{'"': '"', '\\': '\\', '\b': 'b', '\f': 'f', '\n': 'n', '\r': 'r', '\t': 't'}
)

// appendQuoted appends s as a canonical string. It checks nothing: s was
// parsed, or the result is.
func appendQuoted(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	done := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[done:i]...)
		done = i + 1
		if short := shortEscape[c]; short != 0 {
			dst = append(dst, '\\', short)
		} else {
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		}
	}
	dst = append(dst, s[done:]...)
	return append(dst, '"')
}
