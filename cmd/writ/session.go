package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/policy"
	"github.com/writgate/writ/server/admin/api"
)

// A session is one command at work. Only its methods write: whatever text a
// stranger had a hand in reaches the terminal as visible characters, or not
// at all.
type session struct {
	settings
	ctx       context.Context
	client    *api.Client
	in        io.Reader
	out, errs io.Writer
}

func (s *session) wantsJSON() bool { return s.Output == "json" }

// json prints v as one line.
func (s *session) json(v any) error { return writeJSON(s.out, v) }

func writeJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := io.WriteString(w, escapeJSON(b.String()))
	return err
}

// printf prints. Everything that is filled into the format is made visible;
// the format itself is ours.
func (s *session) printf(format string, args ...any) { fprintf(s.out, format, args...) }

// print prints a text of lines.
func (s *session) print(text string) {
	for line := range strings.Lines(text) {
		s.printf("%s\n", strings.TrimSuffix(line, "\n"))
	}
}

func fprintf(w io.Writer, format string, args ...any) {
	for i, a := range args {
		args[i] = harmless(a)
	}
	fmt.Fprintf(w, format, args...)
}

// harmless makes what is text visible, and leaves what is a number.
func harmless(a any) any {
	switch v := a.(type) {
	case trusted:
		return string(v)
	case fmt.Stringer:
		return visible(v.String())
	case error:
		return visible(v.Error())
	}
	v := reflect.ValueOf(a)
	switch {
	case v.Kind() == reflect.String:
		return visible(v.String())
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8: // json.RawMessage too
		return visible(string(v.Bytes()))
	case v.CanInt(), v.CanFloat(), v.Kind() == reflect.Bool:
		return a
	}
	return visible(fmt.Sprint(a))
}

// trusted is text that was put together of visible parts.
type trusted string

// visible shows what a terminal would act on or not show: control and format
// characters, line ends, white space that is no space, variation selectors,
// and bytes that are no text (hostile case H88).
func visible(s string) string {
	clean := true
	for _, r := range s {
		clean = clean && !hidden(r)
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, "⟦%02X⟧", s[i])
		case hidden(r):
			fmt.Fprintf(&b, "⟦U+%04X⟧", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func hidden(r rune) bool {
	switch {
	case r == ' ':
		return false
	case r == '⟦', r == '⟧', r == utf8.RuneError:
		return true // so that nobody can write what we write
	case r >= 0xFE00 && r <= 0xFE0F, r >= 0xE0100 && r <= 0xE01EF, r == 0x034F, r == 0x115F, r == 0x1160, r == 0x3164, r == 0xFFA0, r == 0x2800:
		return true // selectors, fillers and blanks
	}
	return unicode.In(r, unicode.C, unicode.Z)
}

// escapeJSON writes hidden characters of a JSON text as escapes, which say the
// same. They occur only in strings, but for line ends and spaces.
func escapeJSON(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r == '\n' || r == '⟦' || r == '⟧' || !hidden(r):
			b.WriteRune(r)
		case r > 0xFFFF:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xD800+r>>10, 0xDC00+r&0x3FF)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// list prints every item: as a line of JSON, or as a row of a table.
func list[T any](s *session, items []T, none string, row func(T) []any) error {
	if s.wantsJSON() {
		for _, item := range items {
			if err := s.json(item); err != nil {
				return err
			}
		}
		return nil
	}
	if len(items) == 0 {
		fprintf(s.errs, "%s\n", none)
		return nil
	}
	var rows [][]string
	for _, item := range items {
		var cells []string
		for _, a := range row(item) {
			cells = append(cells, fmt.Sprint(harmless(a)))
		}
		rows = append(rows, cells)
	}
	s.table(rows)
	return nil
}

// table prints rows of visible cells in columns.
func (s *session) table(rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			b.WriteString(cell)
			b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
		}
		fmt.Fprintln(s.out, strings.TrimRight(b.String(), " "))
	}
}

// clock is a time as people read it, in their zone.
func clock(t api.Time) trusted {
	if t == 0 {
		return "-"
	}
	return trusted(time.UnixMilli(int64(t)).Local().Format("2006-01-02 15:04:05"))
}

// A usageError is a command line that cannot be meant.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// A declined is a no of this command's own: it asked the gateway for nothing.
type declined struct{ text string }

func (e *declined) Error() string { return e.text }

// refuse makes a declined.
func refuse(format string, args ...any) error { return &declined{fmt.Sprintf(format, args...)} }

// A verdict is an answer that was printed, and that is not yes.
type verdict int

func (v verdict) Error() string { return fmt.Sprintf("exit code %d", int(v)) }

// fail says what went wrong, if anything did, what to do about it, and the
// exit code.
func (s *session) fail(err error) int {
	if err == nil {
		return exitOK
	}
	if v, ok := errors.AsType[verdict](err); ok {
		return int(v)
	}
	if e, ok := errors.AsType[exited](err); ok {
		fprintf(s.errs, "writ: %s\n", e)
		return int(e)
	}
	code, hint := s.judge(err)
	if s.wantsJSON() {
		if p, ok := errors.AsType[*api.Problem](err); ok {
			writeJSON(s.errs, p)
			return code
		}
		word := writ.InternalError
		switch code {
		case exitNo:
			word = writ.Forbidden
		case exitUsage:
			word = writ.InvalidRequest
		case exitUnavailable:
			word = writ.Unavailable
		}
		writeJSON(s.errs, map[string]any{"code": word, "detail": err.Error()})
		return code
	}
	fprintf(s.errs, "writ: %s\n", err)
	if hint != "" {
		fprintf(s.errs, "      %s\n", hint)
	}
	return code
}

// judge gives the exit code of an error, and a hint. All hints are here.
func (s *session) judge(err error) (code int, hint string) {
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage, "writ --help"
	}
	if errors.Is(err, context.Canceled) {
		return exitNo, "interrupted: whether the gateway did it, its records say"
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "listen" {
		return exitFault, "where to listen is in writ.yaml: listen, and issuer.listen"
	} else if ok {
		return exitUnavailable, "is the gateway running? writ up starts one; --socket says where another one listens (now " + s.Socket + ")"
	}
	if _, ok := errors.AsType[*declined](err); ok {
		return exitNo, ""
	}
	if _, ok := errors.AsType[*policy.LoadError](err); ok {
		return exitNo, ""
	}
	switch {
	case errors.Is(err, ledger.ErrRollback):
		return exitUnavailable, "if it was set back on purpose, such as from a backup: writ up --adopt WHY"
	case errors.Is(err, ledger.ErrDamaged), errors.Is(err, ledger.ErrFatal):
		return exitUnavailable, "nothing was changed: keep a copy of it, and restore a backup"
	}
	p, ok := errors.AsType[*api.Problem](err)
	if !ok {
		if errors.Is(err, os.ErrNotExist) && strings.Contains(err.Error(), s.OperatorKey) {
			return exitNo, "writ operator init makes your key"
		}
		return exitFault, ""
	}
	switch p.Code {
	case writ.NotEntitled:
		hint = "the gateway's writ.yaml lists operators by thumbprint, under registry: writ operator show"
	case writ.ProofMismatch:
		hint = "a proof is good for a minute: is the clock of this machine right?"
	case writ.StateChanged, writ.ApprovalMismatch:
		hint = "look again, and decide again"
	case writ.AgentNotActive:
		hint = "writ agents ls lists those that are registered"
	case writ.SelfApproval:
		hint = "somebody who is neither the user nor the agent's owner has to approve"
	case writ.AlreadyDecided:
		if p.Approval != nil {
			hint = "writ approvals show " + string(p.Approval.ID)
		}
	case api.NotFound:
		hint = "identifiers can be pasted whole from any output"
	case writ.Unavailable, writ.AuditUnavailable:
		return exitUnavailable, "writ doctor"
	case writ.InternalError:
		return exitFault, "writ doctor"
	}
	return exitNo, hint
}
