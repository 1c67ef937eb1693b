// Package flow knows what a task has read, and so where each argument of its
// next call came from.
//
// A task begins clean. Whatever a call returns joins its label to the task's,
// and its text is remembered, so that an argument that repeats it is known to
// come from there. What is remembered is bounded; once a task has read more,
// the answer becomes more cautious, never less: what cannot be shown to come
// from a trusted place counts as untrusted.
//
// This first form looks at whole values. It forgets case and the amount of
// white space; it does not see through encodings.
package flow

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
)

// maxText bounds what is remembered of one task, in bytes of text.
const maxText = 4 << 20

// minQuote is the length in bytes from which a whole leaf of an untrusted
// result that stands inside an argument makes the argument untrusted. Shorter
// ones, such as "open" or "7", stand inside everything.
const minQuote = 8

// A Memory holds what every open task has read. Its methods may be called
// from any goroutine.
type Memory struct {
	mu    sync.RWMutex
	tasks map[writ.TaskID]*history
}

// history is what one task has read.
type history struct {
	label     writ.Label
	said      string          // the prompt
	prompt    string          // normalized
	trusted   map[string]leaf // by text, the first that said it
	untrusted shelf
	calls     map[writ.CallID]bool // that are remembered, or were too much
	text      int                  // bytes held
	over      bool                 // more was read than is held
}

// New gives an empty Memory.
func New() *Memory { return &Memory{tasks: map[writ.TaskID]*history{}} }

// Knows says whether the task's history is held. If not, it must be begun and
// everything the task has read remembered anew before Trace may answer.
func (m *Memory) Knows(id writ.TaskID) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.tasks[id] != nil
}

// Tasks are those whose history is held.
func (m *Memory) Tasks() []writ.TaskID {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.Collect(maps.Keys(m.tasks))
}

// Begin starts the history of a task. Data that came with its purpose is the
// first thing it has read, and is nobody's instruction. A task whose purpose
// nobody attests begins with the worst label: its agent may carry over
// anything from what it did before.
func (m *Memory) Begin(t *writ.Task) {
	h := &history{label: writ.Clean, said: t.Purpose.Prompt(), trusted: map[string]leaf{}}
	h.prompt = normal(h.said)
	if t.Purpose.Data != "" {
		h.add(leaf{text: normal(t.Purpose.Data)}, false)
		h.label.Integrity = writ.Untrusted
	}
	if t.Purpose.Origin == writ.OriginAgent {
		h.label = writ.Label{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tasks[t.ID] == nil {
		m.tasks[t.ID] = h
	}
}

// Remember adds what a call returned to the history of its task, once. It must
// be called before the result is released. A leaf that repeats one of the call's
// arguments is not trusted, however trusted its tool: else a value from
// anywhere could be laundered by asking about it.
func (m *Memory) Remember(id writ.TaskID, call writ.CallID, label writ.Label, args, result *canon.Value) {
	var asked []string
	for _, v := range canon.Leaves(args) {
		if text := normal(textOf(v)); text != "" {
			asked = append(asked, text)
		}
	}
	var read []leaf
	var trusted []bool
	for field, v := range canon.Leaves(result) {
		if text := normal(textOf(v)); text != "" {
			repeats := slices.ContainsFunc(asked, func(a string) bool { return wordIndex(text, a) >= 0 })
			read = append(read, leaf{call, field, text})
			trusted = append(trusted, label.Integrity == writ.Trusted && !repeats)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.tasks[id]
	if h == nil {
		return // ended meanwhile: nothing of it will be judged again
	}
	if h.calls[call] {
		return
	}
	if h.calls == nil {
		h.calls = map[writ.CallID]bool{}
	}
	h.calls[call] = true
	h.label = h.label.Join(label)
	for i, l := range read {
		h.add(l, trusted[i])
	}
}

// Forget drops the history of a task that has ended.
func (m *Memory) Forget(id writ.TaskID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.tasks, id)
}

// Trace gives the origin of every text and number in args, in order, and the
// label of what the task has read so far. Of a task that it does not know it
// says the worst.
func (m *Memory) Trace(t *writ.Task, args *canon.Value) ([]writ.Provenance, writ.Label) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	h := m.tasks[t.ID]
	if h == nil {
		h = &history{over: true}
	}
	prompt := h.prompt
	if said := t.Purpose.Prompt(); said != h.said {
		prompt = normal(said)
	}
	var all []writ.Provenance
	for pointer, v := range canon.Leaves(args) {
		if text := textOf(v); text != "" {
			p := h.trace(normal(text), prompt)
			p.Argument = pointer
			all = append(all, p)
		}
	}
	return all, h.label
}

// add remembers a text, unless there is too much already. One that was read
// before, and was worth as much then, adds nothing.
func (h *history) add(l leaf, trusted bool) {
	switch _, known := h.trusted[l.text]; {
	case trusted && known:
	case h.text+len(l.text) > maxText && !h.untrusted.texts[l.text]:
		h.over = true
	case trusted:
		h.trusted[l.text] = l
		h.text += len(l.text)
	default:
		h.text += h.untrusted.put(l)
	}
}

// trace finds where a value came from. What somebody trusted said first wins
// over what anybody else repeated.
func (h *history) trace(value, prompt string) writ.Provenance {
	// 1. The prompt.
	if at := wordIndex(prompt, value); at >= 0 {
		return writ.Provenance{Origin: writ.FromPrompt, Start: at, End: at + len(value)}
	}
	// 2. A whole leaf of a trusted result. Part of one may be chosen by
	// whoever filled in the rest.
	if l, ok := h.trusted[value]; ok {
		return writ.Provenance{Origin: writ.FromTrusted, Source: l.call, Field: l.field, End: len(value)}
	}
	// 3. Untrusted text that holds it, or that it holds.
	if l, at := h.untrusted.find(value); l != nil {
		return writ.Provenance{Origin: writ.FromUntrusted, Source: l.call, Field: l.field, Start: at, End: min(at+len(value), len(l.text))}
	}
	// 4. Nowhere that is remembered.
	if h.over {
		return writ.Provenance{Origin: writ.FromUntrusted}
	}
	return writ.Provenance{Origin: writ.FromAgent}
}

func textOf(v *canon.Value) string {
	if s, ok := v.Str(); ok {
		return s
	}
	n, _ := v.Number()
	return n
}

// normal is s in lower case, with every run of white space as one space.
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

// wordIndex is where word stands in text and is not part of a longer word, or
// -1: the account "12" is not named by "4123".
func wordIndex(text, word string) int {
	if word == "" {
		return -1
	}
	for from := 0; ; {
		i := strings.Index(text[from:], word)
		if i < 0 {
			return -1
		}
		at := from + i
		before, _ := utf8.DecodeLastRuneInString(text[:at])
		after, _ := utf8.DecodeRuneInString(text[at+len(word):])
		first, _ := utf8.DecodeRuneInString(word)
		last, _ := utf8.DecodeLastRuneInString(word)
		if !(inWord(before) && inWord(first)) && !(inWord(after) && inWord(last)) {
			return at
		}
		from = at + 1
	}
}

func inWord(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r == '_'
	}
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_')
}
