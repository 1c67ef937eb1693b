package flow

import (
	"iter"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/writgate/writ/canon"
)

// texts yields every text and number in v, each with its JSON Pointer, and
// every name in v that no schema has: it is a value, too.
func texts(v *canon.Value) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for pointer, l := range canon.Leaves(v) {
			if text := textOf(l); text != "" && !yield(pointer, text) {
				return
			}
		}
		names(v, "", yield)
	}
}

// names yields the names in v that no schema has, each with the JSON Pointer
// of what it names.
func names(v *canon.Value, at string, yield func(string, string) bool) bool {
	for c := range children(v) {
		if chosen(c.name) && !yield(at+c.step, c.name) || !names(c.value, at+c.step, yield) {
			return false
		}
	}
	return true
}

// A child is what is directly in an object or a list.
type child struct {
	step  string // of a JSON Pointer
	name  string // empty in a list
	value *canon.Value
}

func children(v *canon.Value) iter.Seq[child] {
	return func(yield func(child) bool) {
		for name, m := range v.Members() {
			if !yield(child{"/" + token.Replace(name), name, m}) {
				return
			}
		}
		i := 0
		for e := range v.Elems() {
			if !yield(child{"/" + strconv.Itoa(i), "", e}) {
				return
			}
			i++
		}
	}
}

var token = strings.NewReplacer("~", "~0", "/", "~1")

// chosen says whether a name is more than an identifier without digits, such
// as the properties of a schema are: an address, an account, a key.
func chosen(name string) bool {
	const most = 64
	return len(name) > most || strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '_' && r != '-' && r != '$'
	})
}

// textOf is what a leaf says; empty if it is no text and no number. An integer
// is written in one way, however it was.
func textOf(v *canon.Value) string {
	if s, ok := v.Str(); ok {
		return s
	}
	n, ok := v.Number()
	if i, whole := canon.Int64(n); ok && whole {
		return strconv.FormatInt(i, 10)
	}
	return n
}

// normal is s in lower case, with every run of white space as one space: what
// untrusted text is looked for by.
func normal(s string) string {
	s = strings.ToLower(s)
	before := byte(' ') // nothing stands in front
	for i := range len(s) {
		if c := s[i]; c == ' ' && before == ' ' || c < ' ' || c >= utf8.RuneSelf {
			return strings.Join(strings.Fields(s), " ")
		}
		before = s[i]
	}
	return strings.TrimSuffix(s, " ")
}

// exact is s as somebody trusted has to have said it. Letters of the other
// case are the same only if there is a way back: the Kelvin sign is no K. A run
// of spaces is one space, but a line end is none, nor is other white space.
func exact(s string) string {
	if plain(s) {
		return normal(s)
	}
	s = strings.Map(func(r rune) rune {
		if low := unicode.ToLower(r); unicode.ToUpper(low) == r {
			return low
		}
		return r
	}, strings.ReplaceAll(s, "\r\n", "\n"))
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '\t' }), " ")
}

// plain says whether s is ASCII on one line: then exact and normal are one.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// addresses are the mail addresses and links inside a value.
func addresses(value string) []string {
	if !strings.ContainsAny(value, "@/") && !strings.Contains(value, "www.") {
		return nil
	}
	var all []string
	for word := range strings.FieldsFuncSeq(value, func(r rune) bool { return strings.ContainsRune(" <>()[]{}\"'`,;|", r) }) {
		word = strings.Trim(word, ".!?:*_")
		link := strings.Contains(word, "://") || strings.HasPrefix(word, "www.")
		if i := strings.LastIndexByte(word, ':'); i >= 0 && !link {
			word = word[i+1:] // of mailto:
		}
		if link || strings.Contains(word, "@") {
			all = append(all, word)
		}
	}
	return all
}

// maxWork bounds a search, in bytes that are looked at.
const maxWork = 64 << 20

// A search looks for texts in texts until it has looked at too many bytes.
// From then on it finds nothing, and left is not positive.
type search struct{ left int }

// each is what one look costs besides its bytes.
const each = 16

// word is where word stands in text and is not part of a longer word, or -1:
// the account "12" is not named by "4123".
func (look *search) word(text, word string) int {
	first, last := ends(word)
	return look.find(text, word, func(before, after string) bool {
		_, b := ends(before)
		a, _ := ends(after)
		return !(inWord(b) && inWord(first)) && !(inWord(a) && inWord(last))
	})
}

// standing is where value stands in text as a whole, or -1. It does not if the
// text goes on to either side, be it behind a dot, a slash or an at sign: "/srv"
// is not named by "/srv/shared", nor "corp.example" by "lena@corp.example", nor
// 200 by "1,200".
func (look *search) standing(text, value string) int {
	first, last := ends(value)
	return look.find(text, value, func(before, after string) bool {
		return !joined(first, backward(before)) && !joined(last, forward(after))
	})
}

// within says whether part stands in text, be it inside a word.
func (look *search) within(text, part string) bool {
	return look.find(text, part, func(string, string) bool { return true }) >= 0
}

// find is where part stands in text for the first time that fits says yes.
func (look *search) find(text, part string, fits func(before, after string) bool) int {
	if part == "" {
		return -1
	}
	for from := 0; look.left > 0; {
		i := strings.Index(text[from:], part)
		if i < 0 {
			look.left -= len(text) - from + each
			return -1
		}
		look.left -= i + len(part) + each
		at := from + i
		if fits(text[:at], text[at+len(part):]) {
			return at
		}
		from = at + 1
	}
	return -1
}

// joined says whether a value that ends with edge goes on with the runes that
// follow it: with a part of a word, perhaps behind what joins words to longer
// ones, or with more digits of a number.
func joined(edge rune, runes iter.Seq[rune]) bool {
	group, n := false, 0
	for r := range runes {
		switch n++; {
		case inWord(r):
			return !group || unicode.IsDigit(r)
		case strings.ContainsRune(`./\-@%+~`, r) && !group && n < each:
		case (r == ',' || r == ':') && unicode.IsDigit(edge) && n == 1:
			group = true
		default:
			return n == each
		}
	}
	return false
}

func forward(s string) iter.Seq[rune] {
	return func(yield func(rune) bool) {
		for _, r := range s {
			if !yield(r) {
				return
			}
		}
	}
}

func backward(s string) iter.Seq[rune] {
	return func(yield func(rune) bool) {
		for len(s) > 0 {
			r, n := utf8.DecodeLastRuneInString(s)
			if s = s[:len(s)-n]; !yield(r) {
				return
			}
		}
	}
}

func ends(s string) (first, last rune) {
	first, _ = utf8.DecodeRuneInString(s)
	last, _ = utf8.DecodeLastRuneInString(s)
	return first, last
}

func inWord(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r == '_'
	}
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_')
}
