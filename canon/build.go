package canon

import (
	"errors"
	"strconv"

	"github.com/writgate/writ"
)

// A Builder makes one canonical object of our own, to be digested or
// recorded. The zero Builder is empty. Members may be added in any order.
type Builder struct {
	text    []byte
	members int
}

func (b *Builder) name(name string) {
	b.text = append(b.text, ',')
	b.text = append(appendQuoted(b.text, name), ':')
	b.members++
}

// Text adds a string.
func (b *Builder) Text(name, s string) {
	b.name(name)
	b.text = appendQuoted(b.text, s)
}

// Texts adds an array of strings.
func (b *Builder) Texts(name string, list []string) {
	b.name(name)
	b.text = append(b.text, '[')
	for i, s := range list {
		if i > 0 {
			b.text = append(b.text, ',')
		}
		b.text = appendQuoted(b.text, s)
	}
	b.text = append(b.text, ']')
}

// Int adds an integer.
func (b *Builder) Int(name string, n int64) {
	b.name(name)
	b.text = strconv.AppendInt(b.text, n, 10)
}

// Bool adds a boolean.
func (b *Builder) Bool(name string, t bool) {
	b.name(name)
	b.text = strconv.AppendBool(b.text, t)
}

// Value adds what is JSON already.
func (b *Builder) Value(name string, j writ.JSON) {
	b.name(name)
	b.text = append(b.text, j...)
}

// ownLimits are for documents that we build: what they are made of was
// bounded when it came.
var ownLimits = Limits{Bytes: 64 << 20, Depth: 256, Nodes: 1 << 20}

// JSON gives the object. It reads back what was added, so whatever Parse
// refuses is an error: a name added twice, text that is not UTF-8, a Value
// that is not one JSON value.
func (b *Builder) JSON() (writ.JSON, error) {
	text := make([]byte, 0, len(b.text)+2)
	text = append(text, '{')
	if b.members > 0 {
		text = append(text, b.text[1:]...)
	}
	v, err := Parse(append(text, '}'), ownLimits)
	if err != nil {
		return "", err
	}
	if v.Len() != b.members {
		return "", errors.New("a value that is not one JSON value")
	}
	return v.JSON(), nil
}
