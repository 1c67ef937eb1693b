package canon

import (
	"slices"
	"strings"

	"github.com/writgate/writ"
)

// JSON gives the canonical text of v; empty, which is no JSON, if v is nil.
// What was written canonically is given as it is, without copying.
func (v *Value) JSON() writ.JSON {
	switch {
	case v == nil:
		return ""
	case v.canonical:
		return writ.JSON(v.raw())
	}
	room := make([]byte, 0, v.end-v.start) // the canonical form is never longer
	return writ.JSON(v.appendCanonical(room))
}

func (v *Value) appendCanonical(dst []byte) []byte {
	if v.canonical {
		return append(dst, v.raw()...)
	}
	switch v.kind {
	case String:
		text, _ := v.Str()
		return appendQuoted(dst, text)
	case Array:
		dst = append(dst, '[')
		for e := range v.children {
			dst = append(e.appendCanonical(dst), ',')
		}
		return closed(dst, ']')
	}
	dst = append(dst, '{')
	var room [few]int32
	for _, i := range v.sorted(room[:0]) {
		m := &v.doc.values[i]
		dst = append(appendQuoted(dst, m.name), ':')
		dst = append(m.appendCanonical(dst), ',')
	}
	return closed(dst, '}')
}

// closed ends an array or object that was not empty: a comma is in the place
// of its end. An empty one that is not canonical had spaces in it.
func closed(dst []byte, end byte) []byte {
	if last := len(dst) - 1; dst[last] == ',' {
		dst[last] = end
		return dst
	}
	return append(dst, end)
}

// sorted gives the positions of an object's members in the order of their
// names; room is for few of them.
func (v *Value) sorted(room []int32) []int32 {
	if v.count > few {
		return v.doc.index[v.index : v.index+v.count]
	}
	for m := range v.children {
		room = append(room, m.at)
	}
	slices.SortFunc(room, func(i, j int32) int {
		return strings.Compare(v.doc.values[i].name, v.doc.values[j].name)
	})
	return room
}
