package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/writgate/writ/ledger/durable"
	"golang.org/x/mod/sumdb/tlog"
)

// An anchor keeps the newest checkpoint in a file outside the database.
// Commits do not wait for it. It is never ahead of what is durable, and
// behind it for as long as one write of the file takes, or anchorEvery.
type anchor struct {
	path string
	wake chan struct{}
	quit chan struct{}
	done sync.WaitGroup

	mu   sync.Mutex
	kept bool   // by a goroutine
	next []byte // the checkpoint to write; nil if that is done
	size int64  // of the checkpoint in the file
	err  error  // why it is not newer
}

// anchorEvery is how often the file is written at most, so that its fsync
// takes nothing from those of the commits.
const anchorEvery = 250 * time.Millisecond

// Anchored says how many records the anchor knows of, and why those are not
// more, if writing it has failed. Without an anchor it is 0.
func (l *Ledger) Anchored() (int64, error) {
	a := &l.anchor
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.size, a.err
}

// readAnchor reads the file, before the log is read: it may grow meanwhile.
func (l *Ledger) readAnchor() ([]byte, error) {
	l.anchor.path = l.config.Anchor
	if l.anchor.path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(l.anchor.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the anchor: %w", err)
	}
	return b, nil
}

// meetAnchor holds the log, as verifyEnd found it, against what the anchor
// saw.
func (l *Ledger) meetAnchor(ctx context.Context, b []byte) error {
	e := &l.writer.edge
	switch {
	case l.anchor.path == "":
		return nil
	case b == nil && e.size <= 1:
		return nil // a log that has only its key
	case b == nil:
		return fmt.Errorf("%w: it has %d records, and its anchor is missing", ErrRollback, e.size)
	}
	seen, err := l.keys.Load().open(b)
	if err != nil {
		return fmt.Errorf("%w: the anchor is not of this log: %v", ErrRollback, err)
	}
	if seen.size > e.size {
		return fmt.Errorf("%w: it has %d records, and the anchor has seen %d", ErrRollback, e.size, seen.size)
	}
	return l.store.View(ctx, func(v View) error {
		path, err := tlog.ProveTree(e.size, seen.size, &hashes{ctx: ctx, view: v})
		if err != nil {
			return err
		}
		if err := tlog.CheckTree(path, e.size, e.root(), seen.size, seen.root); err != nil {
			return fmt.Errorf("%w: its first %d records are not those that the anchor has seen", ErrRollback, seen.size)
		}
		return nil
	})
}

// adopt puts on record that the log goes on in spite of its anchor.
func (l *Ledger) adopt(ctx context.Context, b []byte) error {
	e := *l.config.Adopt
	if e.Leaf.Type != TypeAdmin {
		return fmt.Errorf("%w: a log is adopted by a record of type %s", ErrInvalid, TypeAdmin)
	}
	note := map[string]string{}
	for k, v := range e.Leaf.Note {
		note[k] = v
	}
	note["act"], note["anchor"] = "adopt", "missing"
	if b != nil {
		note["anchor"] = "not a checkpoint"
		e.Parts = append(e.Parts[:len(e.Parts):len(e.Parts)], Part{Name: "anchor", Bytes: b})
		if c, err := unverified(b); err == nil {
			note["anchor"] = strings.Join(strings.Fields(c.text())[1:], " ")
		}
	}
	e.Leaf.Note = note
	if _, err := l.Commit(ctx, &e); err != nil {
		return fmt.Errorf("adopting the log: %w", err)
	}
	if b == nil {
		return nil
	}
	return os.Remove(l.anchor.path)
}

// raiseAnchor writes the anchor, and keeps it from then on.
func (l *Ledger) raiseAnchor(ctx context.Context) error {
	a := &l.anchor
	if a.path == "" {
		return nil
	}
	b, err := l.Checkpoint(ctx)
	if err != nil {
		return err
	}
	if err := a.write(b); err != nil {
		return fmt.Errorf("writing the anchor: %w", err)
	}
	a.wake, a.quit = make(chan struct{}, 1), make(chan struct{})
	a.done.Go(a.keep)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.kept = true
	return nil
}

// follow is told of each commit.
func (a *anchor) follow(note []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.kept {
		return
	}
	a.next = note
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// keep writes the file as commits come.
func (a *anchor) keep() {
	for {
		select {
		case <-a.wake:
			a.flush()
		case <-a.quit:
			return
		}
		select {
		case <-time.After(anchorEvery):
		case <-a.quit:
			return
		}
	}
}

// flush writes what there is to write.
func (a *anchor) flush() {
	a.mu.Lock()
	next := a.next
	a.next = nil
	a.mu.Unlock()
	if next == nil {
		return
	}
	err := a.write(next)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = err
	if err != nil && a.next == nil {
		a.next = next
	}
}

// write writes the file, unless it is as far already: another process over
// the same database keeps it too.
func (a *anchor) write(note []byte) error {
	c, err := unverified(note)
	if err != nil {
		return err
	}
	unlock, err := durable.Lock(a.path+".lock", true)
	if err != nil {
		return err
	}
	size := c.size
	if b, rerr := os.ReadFile(a.path); rerr == nil {
		if there, perr := unverified(b); perr == nil && there.size >= size {
			size, note = there.size, nil
		}
	}
	if note != nil {
		err = durable.Write(a.path, note)
	}
	if err = errors.Join(err, unlock()); err == nil {
		a.mu.Lock()
		a.size = size
		a.mu.Unlock()
	}
	return err
}

// stop writes what is still to write, and ends.
func (a *anchor) stop() error {
	a.mu.Lock()
	kept := a.kept
	a.kept = false
	a.mu.Unlock()
	if !kept {
		return nil
	}
	close(a.quit)
	a.done.Wait()
	a.flush()
	return a.err
}

// unverified reads a checkpoint without its signatures.
func unverified(b []byte) (checkpoint, error) {
	text, _, ok := strings.Cut(string(b), "\n\n")
	if !ok {
		return checkpoint{}, errors.New("not a checkpoint")
	}
	return parseCheckpoint(text + "\n")
}
