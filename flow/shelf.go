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
	words  map[string][]int32 // by word, the texts that it stands in
	starts map[string][]int32 // by their first minQuote bytes, the texts that are as long
}

// A leaf is one text that a task has read, and where.
type leaf struct {
	call  writ.CallID
	field string // JSON Pointer
	text  string // normalized
}

// put adds a text, and says how much that adds to what is held.
func (s *shelf) put(l leaf) int {
	if s.texts[l.text] {
		return 0 // whoever finds it finds the older one
	}
	if s.texts == nil {
		s.texts, s.words, s.starts = map[string]bool{}, map[string][]int32{}, map[string][]int32{}
	}
	n := int32(len(s.leaves))
	s.leaves = append(s.leaves, l)
	s.texts[l.text] = true
	for word := range words(l.text) {
		if in := s.words[word]; len(in) == 0 || in[len(in)-1] != n {
			s.words[word] = append(in, n)
		}
	}
	if len(l.text) >= minQuote {
		start := l.text[:minQuote]
		s.starts[start] = append(s.starts[start], n)
	}
	return len(l.text)
}

// find gives the first text that holds value, as words, or that value holds,
// and where in the text the value stands; nil if there is none.
func (s *shelf) find(value string) (*leaf, int) {
	first, at := s.holding(value)
	if held := s.held(value, first); held < first {
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
func (s *shelf) holding(value string) (first int32, at int) {
	wordless := true
	var in []int32
	for word := range words(value) {
		if list := s.words[word]; wordless || len(list) < len(in) {
			in, wordless = list, false
		}
		if len(in) == 0 {
			return none, 0
		}
	}
	if wordless {
		for n := range s.leaves {
			if at := wordIndex(s.leaves[n].text, value); at >= 0 {
				return int32(n), at
			}
		}
		return none, 0
	}
	for _, n := range in {
		if at := wordIndex(s.leaves[n].text, value); at >= 0 {
			return n, at
		}
	}
	return none, 0
}

// held finds the first text before limit that stands whole in value.
func (s *shelf) held(value string, limit int32) int32 {
	const few = 32 // are looked for one by one
	if len(s.starts) <= few {
		for start, list := range s.starts {
			if !strings.Contains(value, start) {
				continue
			}
			for _, n := range list {
				if n < limit && strings.Contains(value, s.leaves[n].text) {
					limit = n
				}
			}
		}
		return limit
	}
	for i := range max(0, len(value)-minQuote+1) {
		for _, n := range s.starts[value[i:i+minQuote]] {
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
