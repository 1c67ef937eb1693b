// Package flow knows what a task has read, and so where each argument of its
// next call came from.
//
// A task begins clean. Whatever a call returns joins its label to the task's,
// and its text is remembered, so that an argument that repeats it is known to
// come from there. What is remembered is bounded, and so is how long anything
// is looked for; beyond that the answer becomes more cautious, never less:
// what cannot be shown to come from a trusted place counts as untrusted.
//
// This first form looks at whole values, and at addresses inside longer ones.
// It does not see through encodings, nor know what was put in other words.
package flow

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
)

// Bounds of what is remembered.
const (
	maxText  = 4 << 20   // bytes of one task, of text and of what holds it
	maxWords = 1 << 17   // different words of one task's untrusted text
	maxAll   = 512 << 20 // bytes of all tasks, words included
	perLeaf  = 64        // bytes that a value takes besides its text
	perWord  = 96        // bytes that a word takes
)

// minQuote is the length in bytes from which a whole leaf of an untrusted
// result that stands inside an argument makes the argument untrusted. Shorter
// ones, such as "open" or "7", stand inside everything.
const minQuote = 8

// A Memory holds what every open task has read. Its methods may be called
// from any goroutine; tasks do not wait for each other.
type Memory struct {
	mu    sync.RWMutex // guards tasks alone
	tasks map[writ.TaskID]*history
	held  atomic.Int64 // bytes, of all tasks
}

// history is what one task has read, and sent.
type history struct {
	stale     atomic.Int64 // how often it became incomplete
	complete  atomic.Int64 // one more than what stale was when it was completed last
	mu        sync.RWMutex // guards what follows
	label     writ.Label
	prompt    string          // exact
	trusted   map[string]leaf // by exact text, the first that said it
	untrusted shelf
	sent      shelf                // by the task, and said by nobody who is trusted
	calls     map[writ.CallID]bool // that are remembered, or were too much
	text      int                  // bytes held, words aside
	size      int64                // bytes held
	over      bool                 // more was read or sent than is held
	gone      bool                 // the task has ended
}

// New gives an empty Memory.
func New() *Memory { return &Memory{tasks: map[writ.TaskID]*history{}} }

func (m *Memory) of(id writ.TaskID) *history {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.tasks[id]
}

// Knows says whether the task's history is held, and complete. If not, it must
// be begun and everything the task has read remembered anew before Trace may
// answer.
func (m *Memory) Knows(id writ.TaskID) bool {
	h := m.of(id)
	return h != nil && h.complete.Load() == h.stale.Load()+1
}

// Stale says that the task reads elsewhere, too: the history is not complete
// any more.
func (m *Memory) Stale(id writ.TaskID) {
	if h := m.of(id); h != nil {
		h.stale.Add(1)
	}
}

// Complete says that everything is remembered which the task had read when
// Begin gave begun. It is not complete if it became stale since.
func (m *Memory) Complete(id writ.TaskID, begun int64) {
	if h := m.of(id); h != nil && begun == h.stale.Load() {
		h.complete.Store(begun + 1)
	}
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
// anything from what it did before. A history that has begun goes on.
func (m *Memory) Begin(t *writ.Task) (begun int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if h := m.tasks[t.ID]; h != nil {
		return h.stale.Load()
	}
	h := &history{label: writ.Clean, prompt: exact(t.Purpose.Prompt()), trusted: map[string]leaf{}, calls: map[writ.CallID]bool{}}
	if t.Purpose.Data != "" {
		m.shelve(h, new(search), &h.untrusted, leaf{text: normal(t.Purpose.Data)})
		h.label.Integrity = writ.Untrusted
	}
	if t.Purpose.Origin == writ.OriginAgent {
		h.label = writ.Label{}
	}
	m.tasks[t.ID] = h
	return 0
}

// Sent notes what a call sends, and where that came from: a part of its action
// whose pointers begin with at in from. It must be called before the call is
// made. What a later result says is not trusted for it if the task itself put
// it there, whoever gives it back. A part that is not known any more could have
// been anything.
func (m *Memory) Sent(id writ.TaskID, from []writ.Provenance, at string, part *canon.Value) {
	h := m.of(id)
	if h == nil {
		return
	}
	said := map[string]bool{} // by somebody who is trusted
	for _, p := range from {
		said[p.Argument] = p.Origin >= writ.FromTrusted
	}
	look := search{left: maxWork}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = h.over || part == nil
	for pointer, text := range texts(part) {
		if text = normal(text); len(text) >= minQuote && !said[at+pointer] {
			m.shelve(h, &look, &h.sent, leaf{text: text})
		}
	}
}

// Remember adds what a call returned to the history of its task, once. It must
// be called before the result is released. A leaf that repeats one of the call's
// arguments, whole or in part, or what the task has sent before, is not
// trusted, however trusted its tool: else a value from anywhere could be
// laundered by asking about it, or by writing it down and reading it again.
func (m *Memory) Remember(id writ.TaskID, call writ.CallID, label writ.Label, args, result *canon.Value) {
	h := m.of(id)
	if h == nil {
		return // ended meanwhile: nothing of it will be judged again
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.calls[call] {
		return
	}
	h.calls[call] = true
	h.label = h.label.Join(label)
	trusted := label.Integrity == writ.Trusted && !h.over // else what was sent is not all known
	var asked []string
	if trusted {
		for _, text := range texts(args) {
			if text = normal(text); text != "" {
				asked = append(asked, text)
			}
		}
	}
	look := search{left: maxWork}
	for field, text := range texts(result) {
		l := leaf{call, field, normal(text)}
		switch {
		case l.text == "":
		case trusted && !look.repeats(h, l.text, asked):
			l.text = exact(text)
			m.trust(h, l)
		default:
			m.shelve(h, &look, &h.untrusted, l)
		}
	}
}

// Forget drops the history of a task that has ended.
func (m *Memory) Forget(id writ.TaskID) {
	m.mu.Lock()
	h := m.tasks[id]
	delete(m.tasks, id)
	m.mu.Unlock()
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	m.held.Add(-h.size)
	h.size, h.gone = 0, true
}

// shelve puts a text on a shelf of h, unless there is too much already.
// Whoever calls it holds h, or is the only one who knows it.
func (m *Memory) shelve(h *history, look *search, s *shelf, l leaf) {
	if s.texts[l.text] {
		return // whoever finds it finds the older one
	}
	words := -1
	if most := m.room(h, l); most >= 0 {
		words = s.put(l, look.standing(h.prompt, l.text) >= 0, min(most, maxWords-len(h.untrusted.words)-len(h.sent.words)))
	}
	m.take(h, l, words)
}

// trust remembers a text that somebody trusted said. One that was read before
// adds nothing.
func (m *Memory) trust(h *history, l leaf) {
	if _, known := h.trusted[l.text]; known {
		return
	}
	words := min(m.room(h, l), 0)
	if words == 0 {
		h.trusted[l.text] = l
	}
	m.take(h, l, words)
}

// room is how many new words there is room for, if there is room for a leaf;
// else it is negative.
func (m *Memory) room(h *history, l leaf) int {
	if h.gone || h.text+l.size() > maxText {
		return -1
	}
	left := maxAll - m.held.Load() - int64(l.size())
	if left < 0 {
		return -1
	}
	return int(left / perWord)
}

// take counts what a leaf takes, which has so many new words, or notes that
// there was no room for it.
func (m *Memory) take(h *history, l leaf, words int) {
	if words < 0 {
		h.over = true
		return
	}
	size := int64(l.size()) + int64(words)*perWord
	h.text += l.size()
	h.size += size
	m.held.Add(size)
}

// Trace gives the origin of every text and number in args, in order, and then
// of whatever has names in it that no schema has, for those are values too. It
// gives the label of what the task has read so far. Of a task that it does not
// know it says the worst.
func (m *Memory) Trace(t *writ.Task, args *canon.Value) ([]writ.Provenance, writ.Label) {
	h := m.of(t.ID)
	if h == nil {
		h = &history{over: true}
	}
	h.mu.RLock()
	defer h.mu.RUnlock()
	look := search{left: maxWork}
	var all []writ.Provenance
	for pointer, v := range canon.Leaves(args) {
		if text := textOf(v); text != "" {
			p := h.trace(&look, text)
			p.Argument = pointer
			all = append(all, p)
		}
	}
	h.traceNames(&look, args, "", &all)
	return all, h.label
}

// traceNames gives everything inside v that has such names in it the origin of
// the worst.
func (h *history) traceNames(look *search, v *canon.Value, at string, all *[]writ.Provenance) (worst writ.Provenance, any bool) {
	note := func(p writ.Provenance, ok bool) {
		if ok && (!any || p.Origin < worst.Origin) {
			worst, any = p, true
		}
	}
	for c := range children(v) {
		if chosen(c.name) {
			note(h.trace(look, c.name), true)
		}
		note(h.traceNames(look, c.value, at+c.step, all))
	}
	if any && at != "" {
		worst.Argument = at
		*all = append(*all, worst)
	}
	return worst, any
}

// trace finds where a value came from. What somebody trusted said first wins
// over what anybody else repeated.
func (h *history) trace(look *search, text string) writ.Provenance {
	value := normal(text)
	precise := value
	if !plain(text) {
		precise = exact(text)
	}
	// 1. The prompt names it: all of it, and nothing longer.
	if at := look.standing(h.prompt, precise); at >= 0 {
		return writ.Provenance{Origin: writ.FromPrompt, Start: at, End: at + len(precise)}
	}
	// 2. A whole leaf of a trusted result. Part of one may be chosen by
	// whoever filled in the rest.
	if l, ok := h.trusted[precise]; ok {
		return writ.Provenance{Origin: writ.FromTrusted, Source: l.call, Field: l.field, End: len(precise)}
	}
	// 3. Untrusted text that holds it, or that it holds.
	if l, at := h.untrusted.find(look, value); l != nil {
		return writ.Provenance{Origin: writ.FromUntrusted, Source: l.call, Field: l.field, Start: at, End: min(at+len(value), len(l.text))}
	}
	// 4. An address in it that stands in untrusted text alone.
	for _, address := range addresses(value) {
		if _, ok := h.trusted[address]; ok || look.standing(h.prompt, address) >= 0 {
			continue
		}
		if l, at := h.untrusted.find(look, address); l != nil {
			return writ.Provenance{Origin: writ.FromUntrusted, Source: l.call, Field: l.field, Start: at, End: min(at+len(address), len(l.text))}
		}
	}
	// 5. Nowhere that is remembered.
	if h.over || look.left <= 0 {
		return writ.Provenance{Origin: writ.FromUntrusted}
	}
	return writ.Provenance{Origin: writ.FromAgent}
}

// repeats says whether a text holds what was asked or sent, or is part of it.
// If it takes too long to tell, it does.
func (look *search) repeats(h *history, text string, asked []string) bool {
	for _, a := range asked {
		if look.word(text, a) >= 0 || look.word(a, text) >= 0 || look.left <= 0 {
			return true
		}
	}
	if len(text) >= minQuote {
		if l, _ := h.sent.find(look, text); l != nil {
			return true
		}
	}
	return look.left <= 0
}
