//go:build unix

package crash_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/writgate/writ/approval"
	"github.com/writgate/writ/ledger"
)

// A mutant is a gateway that is wrong in one way, by what stands between it
// and its ledger or by what it leaves out when it starts.
type mutant struct {
	wrap          func(ledger.Store) ledger.Store
	leavesOrphans bool // it does not recover
	leavesLeases  bool // it does not sweep
	does          kind // what it will be found out by
}

var mutants = map[string]mutant{
	"dispatches before the commit":   {wrap: early(ledger.TypeIntent), does: noIntent},
	"releases before the commit":     {wrap: early(ledger.TypeOutcome), does: noOutcome},
	"does not use up the approval":   {wrap: forgetful(approval.KindApproval), does: approvalTwice},
	"does not take from the budget":  {wrap: forgetful("budget"), does: overBudget},
	"goes on after a failed sync":    {wrap: deaf, does: wentOn},
	"does not close what was begun":  {leavesOrphans: true, does: leftOpen},
	"does not revoke what is minted": {leavesLeases: true, does: leftAlive},
}

// early answers before it is durable: its commit of a record of that type goes
// on while the gateway already acts on it.
func early(typ string) func(ledger.Store) ledger.Store {
	return func(s ledger.Store) ledger.Store { return &earlyStore{Store: s, typ: typ} }
}

type earlyStore struct {
	ledger.Store
	typ string
	one sync.Mutex // held until the commit is over
}

func (s *earlyStore) Update(ctx context.Context, fn func(ledger.View) (*ledger.Batch, error)) error {
	s.one.Lock()
	answer := make(chan error, 2)
	go func() {
		defer s.one.Unlock()
		answer <- s.Store.Update(ctx, func(v ledger.View) (*ledger.Batch, error) {
			b, err := fn(v)
			if err == nil && holds(b, s.typ) {
				answer <- nil
				time.Sleep(3 * time.Millisecond) // the disk is slow
			}
			return b, err
		})
	}()
	return <-answer
}

// forgetful does not write what an intent makes of rows of that kind.
func forgetful(kind string) func(ledger.Store) ledger.Store {
	return func(s ledger.Store) ledger.Store { return &forgetfulStore{s, kind} }
}

type forgetfulStore struct {
	ledger.Store
	kind string
}

func (s *forgetfulStore) Update(ctx context.Context, fn func(ledger.View) (*ledger.Batch, error)) error {
	return s.Store.Update(ctx, func(v ledger.View) (*ledger.Batch, error) {
		b, err := fn(v)
		if err != nil || b == nil {
			return b, err
		}
		less := *b
		less.Put = slices.DeleteFunc(slices.Clone(b.Put), func(r ledger.Row) bool {
			return r.Kind == s.kind && slices.ContainsFunc(b.Records, func(c ledger.Record) bool {
				return c.Index == r.At && c.Leaf.Type == ledger.TypeIntent
			})
		})
		return &less, nil
	})
}

// deaf does not hear that a sync has failed.
func deaf(s ledger.Store) ledger.Store { return &deafStore{s} }

type deafStore struct{ ledger.Store }

func (s *deafStore) Update(ctx context.Context, fn func(ledger.View) (*ledger.Batch, error)) error {
	err := s.Store.Update(ctx, fn)
	if errors.Is(err, ledger.ErrFatal) {
		return ledger.ErrUnavailable
	}
	return err
}

func holds(b *ledger.Batch, typ string) bool {
	return b != nil && slices.ContainsFunc(b.Records, func(r ledger.Record) bool { return r.Leaf.Type == typ })
}

// stopping is no mutant: it stops the process as soon as an intent is durable,
// until somebody continues it.
func stopping(s ledger.Store) ledger.Store { return &stoppingStore{s} }

type stoppingStore struct{ ledger.Store }

func (s *stoppingStore) Update(ctx context.Context, fn func(ledger.View) (*ledger.Batch, error)) error {
	intent := false
	err := s.Store.Update(ctx, func(v ledger.View) (*ledger.Batch, error) {
		b, err := fn(v)
		intent = err == nil && holds(b, ledger.TypeIntent)
		return b, err
	})
	if err == nil && intent {
		if err := syscall.Kill(os.Getpid(), syscall.SIGSTOP); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond) // the signal takes effect within this
	}
	return err
}

// later is a clock that goes ahead by an hour when a file says so.
func later(dir string) time.Time {
	now := time.Now()
	if _, err := os.Lstat(filepath.Join(dir, "later")); err == nil {
		now = now.Add(time.Hour)
	}
	return now
}
