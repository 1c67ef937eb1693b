package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/policy"
	"github.com/writgate/writ/server/admin/api"
)

// policySource is where policies are checked, and for which tools.
type policySource struct {
	Path  string `arg:"" optional:"" type:"path" placeholder:"PATH" help:"A directory of policy files; the gateway's own if it is left out."`
	Tools string `placeholder:"FILE" help:"For the tools in this file, as writ tools export prints them, or none. The gateway is asked if it is left out."`
}

func (c *policySource) dir(s *session) string {
	if c.Path == "" {
		return filepath.Join(s.Dir, "policy")
	}
	return c.Path
}

// bundle loads the policies.
func (c *policySource) bundle(s *session) (*policy.Bundle, error) {
	files, err := readFiles(c.dir(s), "*.cedar")
	if err != nil {
		return nil, err
	}
	tools, err := c.schemas(s)
	if err != nil {
		return nil, err
	}
	return policy.Load(files, tools)
}

func readFiles(dir, pattern string) ([]policy.File, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		return nil, err
	}
	var files []policy.File
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		files = append(files, policy.File{Name: filepath.Base(name), Text: text})
	}
	return files, nil
}

// schemas gives the tools that policies may speak of.
func (c *policySource) schemas(s *session) ([]policy.ToolSchema, error) {
	var tools []*api.Tool
	var err error
	switch c.Tools {
	case "":
		tools, err = s.accepted()
	case "none":
	default:
		tools, err = importTools(c.Tools)
	}
	var all []policy.ToolSchema
	for _, t := range tools {
		v, err := canon.Parse(t.Offered, canon.Limits{})
		if err != nil {
			return nil, fmt.Errorf("the definition of %s: %w", t.Name, err)
		}
		all = append(all, policy.ToolSchema{
			Tool: writ.Tool{Name: t.Name, Upstream: t.Upstream, Definition: t.Definition, Tier: t.Tier, Fetch: t.Fetch, Result: t.Result, Credential: t.Credential},
			Kind: t.Kind, Input: []byte(v.Get("inputSchema").JSON()),
		})
	}
	if _, ok := errors.AsType[*net.OpError](err); ok {
		err = fmt.Errorf("%w (--tools names a file with the tools, or none)", err)
	}
	return all, err
}

func importTools(name string) ([]*api.Tool, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []*api.Tool
	for d := json.NewDecoder(bufio.NewReader(f)); ; {
		t := new(api.Tool)
		if err := d.Decode(t); err == io.EOF {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, t)
	}
}

// A policyCheckCmd validates policies.
type policyCheckCmd struct {
	policySource
}

// Run says what is wrong with them, if anything is.
func (c policyCheckCmd) Run(s *session) error {
	b, err := c.bundle(s)
	bad, ok := errors.AsType[*policy.LoadError](err)
	if err != nil && !ok {
		return err
	}
	out := struct {
		Bundle   writ.Digest `json:"bundle,omitempty"`
		Empty    bool        `json:"empty,omitempty"`
		Problems []string    `json:"problems,omitempty"`
	}{}
	if ok {
		out.Problems = bad.Problems
	} else {
		out.Bundle, out.Empty = b.Digest(), b.Empty()
	}
	if s.wantsJSON() {
		if err := s.json(out); err != nil {
			return err
		}
	} else if out.Bundle != "" {
		s.printf("%s\n", out.Bundle)
		if out.Empty {
			s.printf("there is no policy, which denies everything\n")
		}
	}
	if !ok {
		return nil
	}
	if !s.wantsJSON() {
		for _, problem := range bad.Problems {
			s.printf("%s\n", problem)
		}
	}
	return verdict(exitNo)
}

// A policyTestCmd runs the tests of policies.
type policyTestCmd struct {
	policySource
	Verbose bool `short:"v" help:"Print those that pass, too."`
}

// Help says what tests are.
func (policyTestCmd) Help() string {
	return `Tests are in the files *.yaml beside the policies. Each says a call, and what must come of it; each is also decided under every stronger assurance, which may never permit less.`
}

// Run runs every file of tests.
func (c policyTestCmd) Run(s *session) error {
	b, err := c.bundle(s)
	if err != nil {
		return err
	}
	suites, err := readFiles(c.dir(s), "*.yaml")
	if err != nil {
		return err
	}
	passed, failed := 0, 0
	for _, file := range suites {
		results, err := policy.RunTests(b, file)
		if err != nil {
			return err
		}
		for _, r := range results {
			if len(r.Problems) == 0 {
				passed++
			} else {
				failed++
			}
			if err := c.print(s, &r); err != nil {
				return err
			}
		}
	}
	if !s.wantsJSON() {
		s.printf("%d passed, %d failed\n", passed, failed)
	}
	if failed > 0 {
		return verdict(exitNo)
	}
	return nil
}

func (c *policyTestCmd) print(s *session, r *policy.TestResult) error {
	switch {
	case s.wantsJSON():
		return s.json(r)
	case len(r.Problems) > 0:
		s.printf("FAIL  %s:%d  %s\n", r.File, r.Line, r.Name)
		for _, problem := range r.Problems {
			s.printf("      %s\n", problem)
		}
	case c.Verbose:
		s.printf("ok    %s:%d  %s\n", r.File, r.Line, r.Name)
	}
	return nil
}
