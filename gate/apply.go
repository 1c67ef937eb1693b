package gate

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/policy"
	"github.com/writgate/writ/registry"
	"github.com/writgate/writ/replay"
)

// Draft validates policies against the tools as reviewed. Nothing is in force
// by it.
func (g *Gate) Draft(files []policy.File) (*policy.Bundle, error) {
	var tools []policy.ToolSchema
	for _, e := range g.Catalog.Entries("") {
		if e.Quarantine == "" {
			tools = append(tools, policy.ToolSchema{Tool: e.Tool, Kind: e.Kind, Input: []byte(e.Input)})
		}
	}
	return policy.Load(files, tools)
}

// Apply validates policies and puts them in force, by an operator's act. From
// the moment it returns no call is committed under another bundle.
func (g *Gate) Apply(ctx context.Context, files []policy.File, by writ.UserID) (*policy.Bundle, error) {
	return g.apply(ctx, files, by, nil)
}

// apply is Apply, if what was read is still so.
func (g *Gate) apply(ctx context.Context, files []policy.File, by writ.UserID, reads []ledger.Expect) (*policy.Bundle, error) {
	b, err := g.Draft(files)
	if err != nil {
		return nil, err
	}
	e, err := replay.Keep(b, by)
	if err != nil {
		return nil, err
	}
	e.Expect = reads
	if _, err := g.Ledger.Commit(ctx, e); err != nil {
		return nil, fmt.Errorf("recording the policy bundle: %w", err)
	}
	g.force.Store(b)
	return b, nil
}

// InForce gives the bundle that decides now; nil if there is none.
func (g *Gate) InForce(ctx context.Context) (*policy.Bundle, error) {
	b, err := g.bundle(ctx, new(attempt))
	if err != nil || b.Digest() == "" {
		return nil, err
	}
	return b, nil
}

// Review records an operator's reviews of tools, and validates the policies in
// force anew, against the tools as they are now. It brings none back that an
// operator replaces meanwhile.
func (g *Gate) Review(ctx context.Context, by writ.UserID, reviews map[writ.ToolName]registry.Review) error {
	if err := g.Catalog.Accept(ctx, by, reviews); err != nil {
		return err
	}
	var err error
	for range attempts {
		a := new(attempt)
		var b *policy.Bundle
		if b, err = g.bundle(ctx, a); err != nil || b.Digest() == "" {
			return err
		}
		var files []policy.File
		for _, f := range b.Files() {
			if strings.HasSuffix(f.Name, ".cedar") {
				files = append(files, f)
			}
		}
		if _, err = g.apply(ctx, files, by, a.reads); !errors.Is(err, ledger.ErrConflict) {
			break
		}
	}
	if err != nil {
		return errors.Join(errors.New("the reviews are recorded, and the policies in force do not fit the tools any more: the tools stay denied until policies are applied that do"), err)
	}
	return nil
}
