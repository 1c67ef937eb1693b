package canon

import (
	"fmt"
	"strconv"
	"strings"

	"pgregory.net/rapid"
)

// genNumber draws numbers as people and programs write them, some of which
// Parse refuses.
var genNumber = rapid.OneOf(
	rapid.Custom(func(t *rapid.T) string { return strconv.FormatInt(rapid.Int64().Draw(t, "int"), 10) }),
	rapid.Custom(func(t *rapid.T) string {
		return strconv.FormatFloat(rapid.Float64().Draw(t, "float"), rapid.SampledFrom([]byte("eg")).Draw(t, "form"), -1, 64)
	}),
	rapid.StringMatching(`-?(0|[1-9][0-9]{0,39})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?`),
	rapid.StringMatching(`-?(0|[1-9][0-9]?)(\.[0-9]{1,2})?([eE][+-]?[0-3])?`),
)

// genText draws the text of strings and names: short, with collisions, and
// with everything that needs an escape.
var genText = rapid.OneOf(
	rapid.StringMatching(`[abAB]{0,2}`),
	rapid.SampledFrom([]string{"__proto__", "constructor", "10", "2", "a/b", "~", "~1", "\u017f", "\ufeff", "\uffff", "\U00010000", "é", "e\u0301"}),
	rapid.StringOf(rapid.RuneFrom([]rune("a\"\\/\b\f\n\r\t\x01\x1f\x7f<>&\u2028\ufffd\U0001F600"))),
)

// genDoc draws the text of a document, written in all the ways there are.
// Names of one object are distinct, numbers are ones that Parse accepts.
var genDoc = rapid.Custom(func(t *rapid.T) string {
	var b strings.Builder
	writeValue(t, &b, 3)
	return b.String()
})

// genObject is genDoc for objects.
var genObject = rapid.Custom(func(t *rapid.T) string {
	var b strings.Builder
	writeObject(t, &b, 3)
	return b.String()
})

func writeSpace(t *rapid.T, b *strings.Builder) {
	b.WriteString(rapid.SampledFrom([]string{"", "", "", " ", "\n\t", "\r\n"}).Draw(t, "space"))
}

func writeValue(t *rapid.T, b *strings.Builder, depth int) {
	writeSpace(t, b)
	kinds := 3
	if depth > 0 {
		kinds = 5
	}
	switch rapid.IntRange(0, kinds).Draw(t, "kind") {
	case 0:
		b.WriteString(rapid.SampledFrom([]string{"null", "true", "false"}).Draw(t, "literal"))
	case 1:
		b.WriteString(genNumber.Filter(func(s string) bool {
			_, err := Parse([]byte(s), Limits{})
			return err == nil
		}).Draw(t, "number"))
	case 2, 3:
		writeString(t, b, genText.Draw(t, "text"))
	case 4:
		b.WriteByte('[')
		for i := range rapid.IntRange(0, 2*few).Draw(t, "elements") {
			if i > 0 {
				b.WriteByte(',')
			}
			writeValue(t, b, depth-1)
		}
		writeSpace(t, b)
		b.WriteByte(']')
	case 5:
		writeObject(t, b, depth)
	}
	writeSpace(t, b)
}

func writeObject(t *rapid.T, b *strings.Builder, depth int) {
	b.WriteByte('{')
	names := rapid.SliceOfNDistinct(genText, 0, 2*few, rapid.ID[string]).Draw(t, "names")
	for i, name := range names {
		if i > 0 {
			b.WriteByte(',')
		}
		writeSpace(t, b)
		writeString(t, b, name)
		writeSpace(t, b)
		b.WriteByte(':')
		writeValue(t, b, depth-1)
	}
	writeSpace(t, b)
	b.WriteByte('}')
}

func writeString(t *rapid.T, b *strings.Builder, s string) {
	b.WriteByte('"')
	for _, r := range s {
		form := rapid.SampledFrom([]string{"", "", "", "\\u%04x", "\\u%04X"}).Draw(t, "form")
		switch {
		case form == "" && r >= ' ' && r != '"' && r != '\\':
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(b, "\\u%04x\\u%04x", 0xd800+(r-0x10000)>>10, 0xdc00+(r-0x10000)&0x3ff)
		case form == "":
			fmt.Fprintf(b, "\\u%04x", r)
		default:
			fmt.Fprintf(b, form, r)
		}
	}
	b.WriteByte('"')
}
