package main

import (
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/writgate/writ"
	"github.com/writgate/writ/demo"
)

// A report is what became of one step.
type report struct {
	Step   string      `json:"step"`
	Call   writ.CallID `json:"call,omitempty"`
	Effect string      `json:"effect,omitempty"`
	Reason string      `json:"reason"`
	OK     bool        `json:"ok"`
}

// A teller prints the story: for people, or as one report a step.
type teller struct {
	s     *session
	color bool
	scene string
	step  string         // that is being told
	told  map[string]int // how often there was one of this name
	done  int
}

func newTeller(s *session) *teller {
	f, ok := s.out.(*os.File)
	return &teller{
		s: s, told: map[string]int{}, scene: "setting",
		color: ok && isTerminal(f) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb",
	}
}

// begin names the step that is told from here on.
func (t *teller) begin(what string) {
	t.step = t.scene + "/" + what
	if t.told[t.step]++; t.told[t.step] > 1 {
		t.step = fmt.Sprintf("%s#%d", t.step, t.told[t.step])
	}
}

// kept says that the step was as promised.
func (t *teller) kept(r report) {
	t.done++
	if r.Step, r.OK = t.step, true; t.s.wantsJSON() {
		t.s.json(r)
	}
}

// broken says that it was not.
func (t *teller) broken(err error) {
	if t.s.wantsJSON() {
		t.s.json(report{Step: t.step, Reason: err.Error()})
		return
	}
	fprintf(t.s.errs, "\nwrit: %s is not as promised: %s\n", t.step, err)
}

// How text looks on a terminal (ECMA-48, SGR).
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
)

func (t *teller) paint(how, text string) trusted {
	if text = visible(text); !t.color || how == "" {
		return trusted(text)
	}
	return trusted("\x1b[" + how + "m" + text + "\x1b[0m")
}

// The columns of what is printed.
const (
	tellWidth = 100
	whoColumn = 3
	sayColumn = whoColumn + 15
)

// wrap breaks text between words, where it fits.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

// cut ends text where it no longer fits.
func cut(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return string([]rune(text)[:width-1]) + "…"
}

// lines prints text at a column, with what stands before it in the first
// line.
func (t *teller) lines(before trusted, column int, how, text string) {
	if t.s.wantsJSON() {
		return
	}
	for _, line := range wrap(visible(text), tellWidth-column) {
		t.s.printf("%s%s\n", before, t.paint(how, line))
		before = trusted(strings.Repeat(" ", column))
	}
}

func (t *teller) gap() {
	if !t.s.wantsJSON() {
		t.s.printf("\n")
	}
}

// title begins a scene.
func (t *teller) title(n int, scene *demo.Scene) {
	t.scene = scene.Name
	t.gap()
	t.lines("", 0, bold, fmt.Sprintf("%d. %s", n, scene.Title))
}

// say tells what is about to be seen.
func (t *teller) say(text string) {
	if text != "" {
		t.gap()
		t.lines("   ", whoColumn, "", text)
	}
}

// by tells what somebody does.
func (t *teller) by(who, text string) {
	t.lines(trusted(fmt.Sprintf("   %-*s", sayColumn-whoColumn, who)), sayColumn, "", text)
}

// more tells more of the same.
func (t *teller) more(text string) {
	t.lines(trusted(strings.Repeat(" ", sayColumn)), sayColumn, dim, text)
}

// decides tells what Writ says, and why.
func (t *teller) decides(effect, why string) {
	word := words[effect]
	how := map[string]string{"permit": green, "deny": red, "step-up": yellow}[effect]
	t.lines(trusted(fmt.Sprintf("   %-*s%s  ", sayColumn-whoColumn, "writ", t.paint(how, string(word)))), sayColumn+len(word)+2, "", why)
}

// opening says what this is about.
func (t *teller) opening() {
	t.lines("", 0, "", "Acme's support desk has an agent. It is to answer three tickets, and to give one customer 40 euros back. "+
		"One of the tickets was written by somebody who knows that an agent will read it.")
	t.gap()
}

// closing says how it went.
func (t *teller) closing(took time.Duration, stays bool) {
	text := fmt.Sprintf("All %d steps were as promised, in %.1f seconds.", t.done, took.Seconds())
	if !stays {
		text += " With --keep everything stays up, to look around in."
	}
	t.lines("\n", 0, bold, text)
}

// invite says how to look around.
func (p *play) invite() {
	if p.s.wantsJSON() {
		return
	}
	p.printf("\nThe gateway and the servers are still up. In another terminal:\n\n")
	p.printf("  export WRIT_DIR=%s PATH=%s:$PATH\n", p.stage.gateway(), p.dir)
	lines := []string{"calls ls", "tasks ls", "tools ls", "policy show", "doctor"}
	if p.traced != "" { // the story has come so far
		lines = append(lines, "calls explain "+string(p.traced), "calls show --content "+string(p.calls["payments.pay"]))
	}
	for _, line := range lines {
		p.printf("  writ %s\n", line)
	}
	p.printf("\nCtrl-C ends them, and removes everything.\n")
}
