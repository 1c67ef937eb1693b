package flow

import (
	"fmt"
	"strings"
	"testing"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"pgregory.net/rapid"
)

// TestShelfFindsWhatReadingFinds holds the shelf to reading every text in
// turn.
func TestShelfFindsWhatReadingFinds(t *testing.T) {
	text := rapid.StringOfN(rapid.RuneFrom([]rune("ab1é -.\ufffd")), 1, 20, -1)
	rapid.Check(t, func(t *rapid.T) {
		var s shelf
		var all []string
		for i, l := range rapid.SliceOfN(text, 0, 60).Draw(t, "texts") {
			if !s.texts[l] {
				want := len(different(l, &s))
				if want > 0 {
					before := len(s.words)
					if got := s.put(leaf{text: l}, false, want-1); got != -1 || len(s.words) != before {
						t.Fatalf("put(%q) without room = %d, and %d words more", l, got, len(s.words)-before)
					}
				}
				if got := s.put(leaf{text: l, field: fmt.Sprint(i)}, false, want); got != want {
					t.Fatalf("put(%q) = %d, want %d", l, got, want)
				}
				all = append(all, l)
			}
		}
		value := strings.Join(rapid.SliceOfN(text, 1, 3).Draw(t, "value"), "")
		if len(all) > 0 && rapid.Bool().Draw(t, "quotes") {
			value += rapid.SampledFrom(all).Draw(t, "quoted")
		}
		want, wantAt := "", 0
		for _, l := range all {
			at := (&search{left: maxWork}).word(l, value)
			if at >= 0 || len(l) >= minQuote && strings.Contains(value, l) {
				want, wantAt = l, max(at, 0)
				break
			}
		}
		got, at := s.find(&search{left: maxWork}, value)
		switch {
		case got == nil && want != "":
			t.Fatalf("find(%q) found nothing, want %q of %q", value, want, all)
		case got != nil && (got.text != want || at != wantAt):
			t.Fatalf("find(%q) = %q at %d, want %q at %d of %q", value, got.text, at, want, wantAt, all)
		}
	})
}

// different are the words of a text that a shelf does not have.
func different(text string, s *shelf) map[string]bool {
	all := map[string]bool{}
	for w := range words(text) {
		if s.words[w] == nil {
			all[w] = true
		}
	}
	return all
}

func TestNormal(t *testing.T) {
	for in, want := range map[string]string{
		"": "", " ": "", "a": "a", " A\tb ": "a b", "a  b": "a b", "a b ": "a b", "Äé\u00a0\n x": "äé x", "a\x01b": "a\x01b", "a\u0085b": "a b",
	} {
		if got := normal(in); got != want {
			t.Errorf("normal(%q) = %q, want %q", in, got, want)
		}
		if got := strings.Join(strings.Fields(strings.ToLower(in)), " "); got != want {
			t.Errorf("%q has one space for each run of white space as %q", in, got)
		}
	}
}

// BenchmarkTrace asks where the arguments of a call come from that follows so
// many, each of which read something else.
func BenchmarkTrace(b *testing.B) {
	for _, calls := range []int{1, 100, 3000} {
		b.Run(fmt.Sprint(calls), func(b *testing.B) {
			m, task := New(), writ.Task{ID: "task_1", Purpose: writ.Purpose{Origin: writ.OriginUser, Instructions: "look up order 8812"}}
			m.Begin(&task)
			args, err := canon.Parse(fmt.Appendf(nil, `{"limit":20,"order":"8812","question":%q}`, strings.Repeat("where is it, and when does it arrive? ", 25)), canon.Limits{})
			if err != nil {
				b.Fatal(err)
			}
			for i := range calls {
				result, err := canon.Parse(fmt.Appendf(nil, `{"id":%d,"text":"Parcel %d of %s"}`, i, i, strings.Repeat("many words ", 90)), canon.Limits{})
				if err != nil {
					b.Fatal(err)
				}
				m.Remember(task.ID, writ.CallID(fmt.Sprint(i)), writ.Label{}, args, result)
			}
			b.ReportAllocs()
			for b.Loop() {
				m.Trace(&task, args)
			}
		})
	}
}

// TestMemoryIsBounded fills a history, and all of them: what there is no room
// for makes the task cautious, and what a task took is given back when it
// ends, and not taken again by a result that comes after.
func TestMemoryIsBounded(t *testing.T) {
	said := func(text string) *canon.Value {
		v, err := canon.Parse(fmt.Appendf(nil, `{"text":%q}`, text), canon.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	task := writ.Task{ID: "task_1", Purpose: writ.Purpose{Instructions: "x", Origin: writ.OriginUser}}
	t.Run("of words", func(t *testing.T) {
		m := New()
		m.Begin(&task)
		h := m.of(task.ID)
		for i := range 3 {
			var b strings.Builder
			for j := range maxWords / 2 {
				fmt.Fprintf(&b, "%d ", i*maxWords+j)
			}
			m.Remember(task.ID, writ.CallID(fmt.Sprint(i)), writ.Label{}, nil, said(b.String()))
			if n := len(h.untrusted.words); n > maxWords || h.over != (i == 2) {
				t.Errorf("after %d texts: %d words, over: %v", i+1, n, h.over)
			}
		}
	})
	t.Run("of all", func(t *testing.T) {
		m := New()
		m.Begin(&task)
		m.held.Store(maxAll - 10)
		m.Remember(task.ID, "call_1", writ.Label{}, nil, said("a text"))
		if h := m.of(task.ID); !h.over || m.held.Load() != maxAll-10 {
			t.Errorf("over: %v, and %d bytes are held", h.over, m.held.Load())
		}
	})
	t.Run("and given back", func(t *testing.T) {
		m := New()
		m.Begin(&task)
		m.Remember(task.ID, "call_1", writ.Label{}, nil, said("a text"))
		m.Remember(task.ID, "call_2", writ.Clean, nil, said("another"))
		h := m.of(task.ID)
		if m.held.Load() != h.size || h.size == 0 {
			t.Errorf("%d bytes are held, %d by the task", m.held.Load(), h.size)
		}
		m.Forget(task.ID)
		h.mu.Lock()
		defer h.mu.Unlock()
		m.shelve(h, new(search), &h.untrusted, leaf{text: "late"}) // by who had it before
		m.trust(h, leaf{text: "later"})
		if m.held.Load() != 0 {
			t.Errorf("%d bytes are held when nothing is remembered", m.held.Load())
		}
	})
}
