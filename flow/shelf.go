package flow

import (
	"math"
	"strings"

	"github.com/writgate/writ"
)

// A shelf holds texts, each once, and finds those that hold a value and those
// that a value holds without reading them all. Where several do, it is the
// first that was put there.
type shelf struct {
	leaves []leaf
	texts  map[string]bool
	words  map[string]*[]int32 // by word, the texts that it stands in
	starts map[string][]int32  // by their first minQuote bytes, the texts that are as long
}

// A leaf is one text that a task has read, and where.
type leaf struct {
	call  writ.CallID
	field string // JSON Pointer
	text  string // exact if it is trusted, normal if not
}

// size is what a leaf takes, words aside.
func (l *leaf) size() int { return len(l.text) + len(l.field) + perLeaf }

// put adds a text that is not here yet, and says how many words were not. If
// those are more than most it adds nothing, and says -1. A text that is named
// is the user's own word as well: a value may hold it.
func (s *shelf) put(l leaf, named bool, most int) (fresh int) {
	if s.texts == nil {
		s.texts, s.words, s.starts = map[string]bool{}, map[string]*[]int32{}, map[string][]int32{}
	}
	n := int32(len(s.leaves))
	for word := range words(l.text) {
		in := s.words[word]
		if in == nil {
			if fresh >= most {
				s.undo(l.text, n)
				return -1
			}
			fresh++
			in = new([]int32)
			s.words[word] = in
		}
		if len(*in) == 0 || (*in)[len(*in)-1] != n {
			*in = append(*in, n)
		}
	}
	s.leaves = append(s.leaves, l)
	s.texts[l.text] = true
	if len(l.text) >= minQuote && !named {
		start := l.text[:minQuote]
		s.starts[start] = append(s.starts[start], n)
	}
	return fresh
}

// undo takes the words of a text out again.
func (s *shelf) undo(text string, n int32) {
	for word := range words(text) {
		in := s.words[word]
		if in == nil || (*in)[len(*in)-1] != n {
			continue
		}
		if *in = (*in)[:len(*in)-1]; len(*in) == 0 {
			delete(s.words, word)
		}
	}
}

// find gives the first text that holds value, as words, or that value holds,
// and where in the text the value stands; nil if there is none.
func (s *shelf) find(look *search, value string) (*leaf, int) {
	first, at := s.holding(look, value)
	if held := s.held(look, value, first); held < first {
		first, at = held, 0
	}
	if first == none {
		return nil, 0
	}
	return &s.leaves[first], at
}

const none = math.MaxInt32

// holding finds the first text in which value stands. Each word of a value
// that stands in a text is a word of the text, so that only those with its
// rarest word are read.
func (s *shelf) holding(look *search, value string) (first int32, at int) {
	wordless := true
	var in []int32
	for word := range words(value) {
		look.left -= each
		list := s.words[word]
		if list == nil {
			return none, 0
		}
		if wordless || len(*list) < len(in) {
			in, wordless = *list, false
		}
	}
	if wordless {
		for n := range s.leaves {
			if at := look.word(s.leaves[n].text, value); at >= 0 {
				return int32(n), at
			}
		}
		return none, 0
	}
	for _, n := range in {
		if at := look.word(s.leaves[n].text, value); at >= 0 {
			return n, at
		}
	}
	return none, 0
}

// held finds the first text before limit that stands whole in value.
func (s *shelf) held(look *search, value string, limit int32) int32 {
	const few = 32 // are looked for one by one
	if len(s.starts) <= few {
		for start, list := range s.starts {
			if !look.within(value, start) {
				continue
			}
			for _, n := range list {
				if n < limit && look.within(value, s.leaves[n].text) {
					limit = n
				}
			}
		}
		return limit
	}
	for i := range max(0, len(value)-minQuote+1) {
		list := s.starts[value[i:i+minQuote]]
		if look.left -= 1 + len(list)*each; look.left <= 0 {
			return limit
		}
		for _, n := range list {
			if n < limit && strings.HasPrefix(value[i:], s.leaves[n].text) {
				limit = n
			}
		}
	}
	return limit
}

// words yields the words of a text: the longest runs of what is in words.
func words(text string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		begin := -1
		for i, r := range text {
			switch in := inWord(r); {
			case in && begin < 0:
				begin = i
			case !in && begin >= 0:
				if !yield(text[begin:i]) {
					return
				}
				begin = -1
			}
		}
		if begin >= 0 {
			yield(text[begin:])
		}
	}
}
