package main

import (
	"time"

	"github.com/writgate/writ/server/admin/api"
)

// A doctorCmd says how everything is.
type doctorCmd struct{}

// Help says what the exit code means.
func (doctorCmd) Help() string {
	return `It exits with 1 if anything is bad: if calls are refused, or history is at risk, until somebody does something. What is only a warning does not change the exit code.`
}

// Run prints every fact.
func (doctorCmd) Run(s *session) error {
	var page api.Page[api.Fact]
	if err := s.client.Get(s.ctx, "/doctor", &page); err != nil {
		return err
	}
	bad := false
	var about []string
	of := map[string][]api.Fact{}
	for _, f := range page.Items {
		bad = bad || f.Level == "bad"
		if s.wantsJSON() {
			if err := s.json(f); err != nil {
				return err
			}
			continue
		}
		if of[f.About] == nil {
			about = append(about, f.About)
		}
		of[f.About] = append(of[f.About], f)
	}
	for _, what := range about {
		s.printf("%s\n", what)
		s.facts(of[what])
	}
	if bad {
		return verdict(exitNo)
	}
	return nil
}

// facts prints what is about one thing. A name that stands above is not
// repeated.
func (s *session) facts(all []api.Fact) {
	above := ""
	for _, f := range all {
		name := f.Name
		if name == above {
			name = ""
		}
		above = f.Name
		s.printf("%-3s %-20s %s\n", marks[f.Level], name, f.Value)
		if f.Hint != "" {
			s.printf("    %-20s %s\n", trusted(""), f.Hint)
		}
	}
}

var marks = map[string]trusted{"ok": "", "note": " -", "warning": " !", "bad": " X"}

// A statusCmd says how the gateway is.
type statusCmd struct{}

// Run prints it.
func (statusCmd) Run(s *session) error {
	var st api.Status
	if err := s.client.Get(s.ctx, "/status", &st); err != nil {
		return err
	}
	if s.wantsJSON() {
		return s.json(st)
	}
	s.printf("writ %s\n", st.Version)
	s.printf("log       %s, %d records\n", st.Origin, st.Size)
	s.printf("key       %s\n", st.Key)
	switch {
	case st.Failed:
		s.printf("FAILED    nothing is recorded, and nothing is called: start it again\n")
	case st.Halted && st.LiftNeeds == 0:
		s.printf("HALTED    no call begins while the file halt is in the data directory\n")
	case st.Halted:
		s.printf("HALTED    no call begins; writ lift needs %s\n", operators(st.LiftNeeds))
	default:
		s.printf("calls go on\n")
	}
	if behind := time.Duration(st.Behind) * time.Millisecond; behind > 2*time.Second {
		s.printf("CLOCK     %s behind the log: calls are refused\n", behind)
	}
	return nil
}
