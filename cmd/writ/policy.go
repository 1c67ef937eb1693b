package main

import (
	"github.com/writgate/writ/policy"
	"github.com/writgate/writ/server/admin/api"
)

// A policyShowCmd shows the policies in force.
type policyShowCmd struct {
	File string `arg:"" optional:"" help:"Print this file of them."`
}

// Run shows them.
func (c policyShowCmd) Run(s *session) error {
	var p api.Policy
	if err := s.client.Get(s.ctx, "/policy", &p); err != nil {
		return err
	}
	if c.File != "" {
		text, ok := p.Files[c.File]
		if !ok {
			return refuse("the policies in force have no file %s", c.File)
		}
		if s.wantsJSON() {
			return s.json(map[string]string{"file": c.File, "text": text})
		}
		s.print(text)
		return nil
	}
	if s.wantsJSON() {
		return s.json(p)
	}
	if p.Bundle == "" {
		s.printf("none in force: every call is denied\n")
	} else {
		s.printf("in force  %s\n", p.Bundle)
	}
	for _, name := range sorted(p.Files) {
		s.printf("          %s\n", name)
	}
	s.printDisk(&p)
	return nil
}

func (s *session) printDisk(p *api.Policy) {
	for _, problem := range p.Problems {
		s.printf("on disk   %s\n", problem)
	}
	if p.Offered == "" {
		return
	}
	if p.Offered == p.Bundle {
		s.printf("on disk   the same\n")
		return
	}
	s.printf("on disk   %s\n", p.Offered)
	for _, change := range p.Changes {
		s.printf("          %s\n", change)
	}
	if len(p.Changes) == 0 {
		s.printf("          the same files, made for the tools as they are now\n")
	}
}

// A policyApplyCmd puts policies in force.
type policyApplyCmd struct {
	Bundle string `help:"Apply only if the files on disk make the bundle with this digest. It is needed where nobody can be asked for the passphrase."`
}

// Help says where policies come from.
func (policyApplyCmd) Help() string {
	return `The files are those in the gateway's own policy directory, and what is signed names the digest of what they make. A policy never comes out of a request.`
}

// Run shows what differs, asks and signs.
func (c policyApplyCmd) Run(s *session) error {
	var p api.Policy
	if err := s.client.Get(s.ctx, "/policy", &p); err != nil {
		return err
	}
	switch {
	case len(p.Problems) > 0:
		return &policy.LoadError{Problems: p.Problems}
	case p.Offered == "":
		return refuse("this gateway has no policy files")
	case c.Bundle == "" && unattended():
		return &usageError{"--bundle: the passphrase is in a file, so nobody sees what is applied; say what was seen"}
	case c.Bundle != "" && c.Bundle != string(p.Offered):
		return refuse("the files on disk make %s, not %s", p.Offered, c.Bundle)
	}
	if err := checkDrafts(&p); err != nil {
		return err
	}
	if !s.wantsJSON() {
		s.printDisk(&p)
		s.printDiff(&p)
	}
	if p.Offered == p.Bundle {
		if s.wantsJSON() {
			return s.json(p)
		}
		return nil
	}
	var applied api.Policy
	if err := s.act("/policy/apply", map[string]any{"bundle": p.Offered}, &applied); err != nil {
		return err
	}
	if s.wantsJSON() {
		return s.json(applied)
	}
	s.printf("in force  %s\n", applied.Bundle)
	return nil
}

// checkDrafts makes the digest of the files itself: what is signed is what is
// shown, whoever answers at the socket.
func checkDrafts(p *api.Policy) error {
	var files []policy.File
	for name, text := range p.Drafts {
		files = append(files, policy.File{Name: name, Text: []byte(text)})
	}
	b, err := policy.Restore(files)
	if err != nil {
		return err
	}
	if b.Digest() != p.Offered {
		return refuse("the gateway shows policies with digest %s and calls them %s", b.Digest(), p.Offered)
	}
	return nil
}

// printDiff prints what changes in the policies, line by line.
func (s *session) printDiff(p *api.Policy) {
	for _, change := range p.Changes {
		name := change[2:]
		s.printf("\n%s\n", change)
		for _, line := range diff(lines(p.Files[name]), lines(p.Drafts[name])) {
			s.printf("  %s\n", line)
		}
	}
}
