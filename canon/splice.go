package canon

import (
	"errors"
	"fmt"
	"slices"

	"github.com/writgate/writ"
)

// A Change sets one member of the object In, or removes it if Value is empty.
// In is the spliced value, or an object inside it.
type Change struct {
	In    *Value
	Name  string
	Value writ.JSON
}

// Splice gives the bytes of v with the changes made, and every other byte as
// it was. A member that is there keeps its place, a new one comes last.
// Removing what is not there changes nothing. It is an error if a Value is
// not JSON that Parse accepts, if a Name is not valid text, if two changes
// concern the same bytes, or if In is not in v.
func Splice(v *Value, changes ...Change) ([]byte, error) {
	if v == nil {
		return nil, errors.New("splicing a value that is not there")
	}
	var edits []edit
	for i, c := range changes {
		if c.In.Kind() != Object || c.In.doc != v.doc || c.In.at < v.at || c.In.next > v.next {
			return nil, fmt.Errorf("splicing %q: not into an object of the value", clip(c.Name))
		}
		if err := c.check(); err != nil {
			return nil, fmt.Errorf("splicing %q: %w", clip(c.Name), err)
		}
		if slices.ContainsFunc(changes[:i], func(d Change) bool { return d.In == c.In && d.Name == c.Name }) {
			return nil, fmt.Errorf("splicing %q: changed twice", clip(c.Name))
		}
		if !slices.ContainsFunc(changes[:i], func(d Change) bool { return d.In == c.In }) {
			edits = append(edits, editsOf(c.In, changes[i:])...)
		}
	}
	// Of edits that begin together, the one that changes nothing, an
	// insertion, comes first.
	slices.SortStableFunc(edits, func(a, b edit) int {
		if a.start != b.start {
			return int(a.start - b.start)
		}
		return int(a.end - b.end)
	})
	dst := make([]byte, 0, int(v.end-v.start)+added(edits))
	at := v.start
	for _, e := range edits {
		if e.start < at {
			return nil, errors.New("splicing: two changes concern the same bytes")
		}
		dst = append(dst, v.doc.src[at:e.start]...)
		dst = append(dst, e.text...)
		at = e.end
	}
	return append(dst, v.doc.src[at:v.end]...), nil
}

// check refuses a change that would break the document, or smuggle a second
// member into it.
func (c Change) check() error {
	if _, err := Parse(appendQuoted(nil, c.Name), Limits{}); err != nil {
		return err
	}
	if c.Value == "" {
		return nil
	}
	_, err := Parse([]byte(c.Value), Limits{})
	return err
}

// An edit puts text in the place of the bytes from start to end.
type edit struct {
	start, end int32
	text       []byte
}

func added(edits []edit) int {
	n := 0
	for _, e := range edits {
		n += len(e.text)
	}
	return n
}

// editsOf gives the edits that make those of changes that concern obj. The
// bytes between two members belong to the later one, those before the first
// and after the last to the object.
func editsOf(obj *Value, changes []Change) []edit {
	var edits []edit
	change := func(name string) (Change, bool) {
		i := slices.IndexFunc(changes, func(c Change) bool { return c.In == obj && c.Name == name })
		if i < 0 {
			return Change{}, false
		}
		return changes[i], true
	}

	// 1. Members that are there: replaced, or removed with their comma.
	kept := false
	last := obj.start + 1 // the end of the last member kept
	before := last        // the end of the member before m
	for m := range obj.children {
		c, changed := change(m.name)
		switch {
		case !changed || c.Value != "":
			if changed {
				edits = append(edits, edit{m.start, m.end, []byte(c.Value)})
			}
			kept, last = true, m.end
		case kept:
			edits = append(edits, edit{before, m.end, nil})
		case m.next < obj.next:
			edits = append(edits, edit{m.begin, obj.doc.values[m.next].begin, nil})
		default:
			edits = append(edits, edit{m.begin, m.end, nil})
		}
		before = m.end
	}

	// 2. Members that are new, after the last one kept.
	for _, c := range changes {
		if c.In != obj || c.Value == "" || obj.Get(c.Name) != nil {
			continue
		}
		var text []byte
		if kept {
			text = append(text, ',')
		}
		text = append(appendQuoted(text, c.Name), ':')
		edits = append(edits, edit{last, last, append(text, c.Value...)})
		kept = true
	}
	return edits
}
