package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/writgate/writ"
	"github.com/writgate/writ/policy"
	"github.com/writgate/writ/replay"
	"github.com/writgate/writ/server/admin/api"
)

// getPolicy gives the policies in force, and says how those on disk differ.
func (s *Server) getPolicy(ctx context.Context, _ asker, _ struct{}) (*api.Policy, error) {
	out := &api.Policy{Files: map[string]string{}}
	active, err := s.Gate.InForce(ctx)
	if err != nil {
		return nil, err
	}
	if active != nil {
		out.Bundle = active.Digest()
		for _, f := range active.Files() {
			out.Files[f.Name] = string(f.Text)
		}
	}
	if s.Policies == nil {
		return out, nil
	}
	offered, err := s.offered()
	if bad, ok := errors.AsType[*policy.LoadError](err); ok {
		out.Problems = bad.Problems
		return out, nil
	}
	if err != nil {
		out.Problems = []string{err.Error()}
		return out, nil
	}
	out.Offered = offered.Digest()
	out.Drafts = map[string]string{}
	for _, f := range offered.Files() {
		out.Drafts[f.Name] = string(f.Text)
	}
	out.Changes = changes(out.Files, out.Drafts)
	return out, nil
}

// changes says which policies differ. The generated schema is none: it
// follows the tools.
func changes(old, now map[string]string) []string {
	var all []string
	for name, text := range now {
		switch was, ok := old[name]; {
		case !strings.HasSuffix(name, ".cedar"):
		case !ok:
			all = append(all, "+ "+name)
		case was != text:
			all = append(all, "~ "+name)
		}
	}
	for name := range old {
		if _, ok := now[name]; !ok {
			all = append(all, "- "+name)
		}
	}
	slices.SortFunc(all, func(a, b string) int { return strings.Compare(a[2:], b[2:]) })
	return all
}

// offered is the bundle that the files on disk make now.
func (s *Server) offered() (*policy.Bundle, error) {
	files, err := s.Policies()
	if err != nil {
		return nil, fmt.Errorf("reading the policy files: %w", err)
	}
	return s.Gate.Draft(files)
}

type applyRequest struct {
	Bundle writ.Digest `json:"bundle"` // what the files on disk make: "offered" of what was looked at
}

// apply puts the policy files on disk in force, if they are still what the
// operator looked at. Nothing that a request holds is ever a policy.
func (s *Server) apply(ctx context.Context, a asker, q applyRequest) (*api.Policy, error) {
	if s.Policies == nil {
		return nil, writ.Refuse(writ.InvalidRequest, "this gateway has no policy files", nil)
	}
	b, err := s.offered()
	if err != nil {
		return nil, writ.Refuse(writ.InvalidRequest, "the policy files cannot come into force", err)
	}
	if b.Digest() != q.Bundle {
		return nil, writ.Refuse(writ.StateChanged, "the policy files, or the tools, are not what was looked at; look again", nil)
	}
	entry, err := replay.Keep(b, a.by())
	if err != nil {
		return nil, err
	}
	entry.Expect = a.reads
	if _, err := s.Gate.Ledger.Commit(ctx, entry); err != nil {
		return nil, fmt.Errorf("putting policies in force: %w", err)
	}
	return s.getPolicy(ctx, a, struct{}{})
}
