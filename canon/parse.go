package canon

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// few is the most children that are found by walking. A container with more
// keeps an index, so that no lookup is linear in what a stranger sent.
const few = 8

// A document is what the values of one parse share.
type document struct {
	src    string
	values []Value // in document order, each container before its children
	index  []int32 // children of containers with more than few: an array's in order, an object's by name
}

// A parser is a recursive descent over src. A value's next is set when the
// value is complete: while parsing, those without it are the open ones.
type parser struct {
	doc     *document
	src     string
	lim     Limits
	pos     int
	n       int    // values begun
	spaces  int    // bytes of whitespace passed
	scratch []byte // for unescaping
}

// newParser makes room for every value at once.
func newParser(src string, lim Limits) *parser {
	doc := &document{src: src, values: make([]Value, max(0, min(mostValues(src), lim.Nodes)))}
	return &parser{doc: doc, src: src, lim: lim}
}

// mostValues is at least as many as there are values before the first fault:
// each follows the beginning of the text or, outside of strings, a bracket or
// a comma of its own.
func mostValues(src string) int {
	n := 1
	for {
		quote := strings.IndexByte(src, '"')
		outside := src
		if quote >= 0 {
			outside = src[:quote]
		}
		for i := range len(outside) {
			if c := outside[i]; c == ',' || c == '{' || c == '[' {
				n++
			}
		}
		if quote < 0 {
			return n
		}
		src = src[quote+1:]
		for escaped := true; escaped; {
			end := strings.IndexByte(src, '"')
			if end < 0 {
				return n
			}
			inside := src[:end]
			escaped = (len(inside)-len(strings.TrimRight(inside, `\`)))%2 == 1
			src = src[end+1:]
		}
	}
}

// fail makes an error at an offset, whose pointer leads to the innermost open
// value, and from there to the names below.
func (p *parser) fail(code, detail string, offset int, below ...string) *Error {
	var path []byte
	var parent *Value
	for i := range p.n {
		v := &p.doc.values[i]
		if v.next != 0 {
			continue
		}
		switch {
		case parent == nil:
		case parent.kind == Object:
			path = append(append(path, '/'), escapeToken(v.name)...)
		default:
			path = strconv.AppendInt(append(path, '/'), int64(parent.count-1), 10)
		}
		parent = v
	}
	for _, name := range below {
		path = append(append(path, '/'), escapeToken(name)...)
	}
	return &Error{Code: code, Pointer: string(path), Offset: offset, Detail: detail}
}

// unexpected fails at the byte at p.pos, which does not belong there.
func (p *parser) unexpected(want string) *Error {
	rest := p.src[p.pos:]
	if rest == "" {
		return p.fail(InvalidJSON, "unexpected end, want "+want, p.pos)
	}
	switch r, size := utf8.DecodeRuneInString(rest); {
	case r == utf8.RuneError && size == 1:
		return p.fail(InvalidText, "not UTF-8", p.pos)
	case r == '\ufeff':
		return p.fail(InvalidText, "byte order mark", p.pos)
	}
	return p.fail(InvalidJSON, "want "+want, p.pos)
}

// next passes whitespace and gives the byte after it, or 0, which begins no
// token, at the end.
func (p *parser) next() byte {
	for p.pos < len(p.src) {
		switch c := p.src[p.pos]; c {
		case ' ', '\t', '\n', '\r':
			p.pos++
			p.spaces++
		default:
			return c
		}
	}
	return 0
}

func (p *parser) document() *Error {
	p.next()
	if err := p.value("", p.pos, 0, 0); err != nil {
		return err
	}
	p.next()
	if p.pos < len(p.src) {
		return p.unexpected("the end")
	}
	p.doc.values = p.doc.values[:p.n]
	return nil
}

// value reads the value at p.pos, of the member called name that begins at
// begin. It stands in depth containers, under path bytes of names.
func (p *parser) value(name string, begin, depth, path int) *Error {
	if p.n >= p.lim.Nodes {
		return p.fail(TooManyNodes, "", p.pos)
	}
	v := &p.doc.values[p.n]
	*v = Value{doc: p.doc, name: name, begin: int32(begin), start: int32(p.pos), at: int32(p.n)}
	p.n++

	var err *Error
	switch c := p.next(); {
	case c == '"':
		v.kind = String
		_, v.canonical, err = p.text(false)
	case c == '{' || c == '[':
		v.kind = Array
		if c == '{' {
			v.kind = Object
		}
		switch {
		case depth >= p.lim.Depth:
			return p.fail(TooDeep, "", p.pos)
		case c == '{':
			err = p.object(v, depth+1, path)
		default:
			err = p.array(v, depth+1, path)
		}
	case c == '-' || '0' <= c && c <= '9':
		v.kind, v.canonical = Number, true
		err = p.number()
	default:
		v.kind, v.canonical = Bool, true
		switch rest := p.src[p.pos:]; {
		case strings.HasPrefix(rest, "true"):
			p.pos += 4
		case strings.HasPrefix(rest, "false"):
			p.pos += 5
		case strings.HasPrefix(rest, "null"):
			v.kind = Null
			p.pos += 4
		default:
			return p.unexpected("a value")
		}
	}
	if err != nil {
		return err
	}
	v.end, v.next = int32(p.pos), int32(p.n)
	return nil
}

func (p *parser) array(v *Value, depth, path int) *Error {
	spaces, canonical := p.spaces, true
	p.pos++ // [
	for p.next() != ']' {
		if v.count > 0 {
			if err := p.comma("the array's end"); err != nil {
				return err
			}
		}
		v.count++
		child := p.n
		if err := p.value("", p.pos, depth, path); err != nil {
			return err
		}
		canonical = canonical && p.doc.values[child].canonical
	}
	p.pos++ // ]
	v.canonical = canonical && spaces == p.spaces
	if v.count > few {
		p.listChildren(v)
	}
	return nil
}

func (p *parser) object(v *Value, depth, path int) *Error {
	spaces, canonical := p.spaces, true
	sorted, last := true, ""
	p.pos++ // {
	for p.next() != '}' {
		if v.count > 0 {
			if err := p.comma("the object's end"); err != nil {
				return err
			}
		}
		begin := p.pos
		name, plain, err := p.name(path)
		if err != nil {
			return err
		}
		sorted = sorted && (v.count == 0 || last < name)
		last = name
		v.count++
		child := p.n
		if err := p.value(name, begin, depth, path+1+len(name)); err != nil {
			return err
		}
		canonical = canonical && plain && p.doc.values[child].canonical
	}
	p.pos++ // }
	v.canonical = canonical && sorted && spaces == p.spaces
	return p.unique(v, sorted)
}

// comma passes a comma and the whitespace after it.
func (p *parser) comma(or string) *Error {
	if p.next() != ',' {
		return p.unexpected("a comma or " + or)
	}
	p.pos++
	p.next()
	return nil
}

// name reads a member's name and colon, up to its value.
func (p *parser) name(path int) (name string, canonical bool, err *Error) {
	begin := p.pos
	if p.next() != '"' {
		return "", false, p.unexpected("a name")
	}
	name, canonical, err = p.text(true)
	if err != nil {
		return "", false, err
	}
	if path+1+len(name) > maxPath {
		return "", false, p.fail(TooDeep, "names too long", begin)
	}
	if p.next() != ':' {
		return "", false, p.unexpected("a colon")
	}
	p.pos++
	p.next()
	return name, canonical, nil
}

// unique refuses two members of v with one name, and indexes v if it has
// many. Sorted says that each name is greater than the one before.
func (p *parser) unique(v *Value, sorted bool) *Error {
	values := p.doc.values
	if v.count <= few {
		for i := v.at + 1; !sorted && i < int32(p.n); i = values[i].next {
			for j := v.at + 1; j < i; j = values[j].next {
				if values[i].name == values[j].name {
					return p.duplicate(i)
				}
			}
		}
		return nil
	}
	children := p.listChildren(v)
	if sorted {
		return nil
	}
	slices.SortFunc(children, func(i, j int32) int {
		return cmp.Or(strings.Compare(values[i].name, values[j].name), cmp.Compare(i, j))
	})
	for k := 1; k < len(children); k++ {
		if values[children[k]].name == values[children[k-1]].name {
			return p.duplicate(children[k])
		}
	}
	return nil
}

func (p *parser) duplicate(i int32) *Error {
	again := &p.doc.values[i]
	return p.fail(DuplicateKey, "", int(again.begin), again.name)
}

// listChildren appends the positions of v's children to the index.
func (p *parser) listChildren(v *Value) []int32 {
	v.index = int32(len(p.doc.index))
	for i := v.at + 1; i < int32(p.n); i = p.doc.values[i].next {
		p.doc.index = append(p.doc.index, i)
	}
	return p.doc.index[v.index:]
}
