// Package sqlite keeps a ledger in one SQLite file.
//
// The file is in WAL mode and every commit is synced before it is answered.
// Several processes may open one file: each write begins with SQLite's write
// lock and sees what the others wrote. A network file system has no such
// lock, and must not hold the file.
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/ledger/durable"
)

const (
	applicationID = 0x57524954 // "WRIT", in the file's header
	formatVersion = 1          // user_version, in the file's header
	readers       = 4          // connections that read
	walPages      = 1024       // of 8 KiB: when the log of writes is moved into the file
	busyWait      = 10 * time.Second
)

// A Store is one file. It implements ledger.Store.
type Store struct {
	mu    sync.Mutex // held by the writer
	write *conn
	wal   int   // pages written since the last checkpoint, roughly
	owed  bool  // an erased key may still be in the log of writes
	fatal error // once set, nothing is written again

	reserve reserve

	read    chan *conn
	dialled int // connections that read
	closed  chan struct{}
}

var busyTimeout = fmt.Sprint("busy_timeout=", busyWait.Milliseconds())

var errClosed = fmt.Errorf("%w: the file is closed", ledger.ErrUnavailable)

var _ ledger.Store = (*Store)(nil)

// Open opens the file at path, or makes it, readable by its owner only; a file
// that others can read is refused. The directory must exist. If the disk is so
// full that the file cannot even be opened, a piece of the reserve goes first.
func Open(path string) (*Store, error) {
	begin := time.Now()
	abs, err := filepath.Abs(path)
	if err == nil {
		err = private(abs)
	}
	for err == nil {
		s := &Store{read: make(chan *conn, readers), closed: make(chan struct{}), reserve: reserve{path: abs + "-reserve"}}
		if err = s.open("file:" + (&url.URL{Path: abs}).EscapedPath()); err == nil {
			return s, nil
		}
		err = errors.Join(err, s.Close())
		switch have, _ := s.reserve.have(); {
		case errors.Is(err, ledger.ErrFull) && have > 0:
			err = s.reserve.cut(have, piece)
		case busy(err) && time.Since(begin) < busyWait: // SQLite does not wait for the change to WAL mode
			time.Sleep(5 * time.Millisecond)
			err = nil
		}
	}
	return nil, fmt.Errorf("opening %s: %w", path, err)
}

func (s *Store) open(dsn string) (err error) {
	s.write, err = dial(dsn, busyTimeout, "page_size=8192", "journal_mode=WAL",
		"synchronous=FULL", "fullfsync=ON", "checkpoint_fullfsync=ON", "wal_autocheckpoint=0",
		"secure_delete=ON", "trusted_schema=OFF", "cell_size_check=ON", "cache_size=-4096")
	if err != nil {
		return classify(err, before)
	}
	if err := s.migrate(); err != nil {
		return err
	}
	if err := s.checkpoint(true); err != nil { // of what a crash has left
		return err
	}
	for range readers {
		c, err := dial(dsn, busyTimeout, "query_only=ON", "trusted_schema=OFF", "cache_size=-512")
		if err != nil {
			return classify(err, before)
		}
		s.read <- c
		s.dialled++
	}
	return nil
}

// private makes the file at path, if need be. SQLite gives its other files the
// same mode.
func private(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if m := info.Mode().Perm(); m&0o077 != 0 && runtime.GOOS != "windows" {
		return fmt.Errorf("its mode is %#o; others must not read it: chmod 600", m)
	}
	return durable.SyncDir(filepath.Dir(path))
}

// migrate makes the tables in an empty file, and refuses a file of another
// kind or of another version, or one whose tables, indexes and triggers are
// not exactly those of its version.
func (s *Store) migrate() error {
	return s.Update(context.Background(), func(ledger.View) (*ledger.Batch, error) {
		var version, app, tables int64
		for sql, v := range map[string]*int64{
			"PRAGMA user_version": &version, "PRAGMA application_id": &app,
			"SELECT count(*) FROM sqlite_schema": &tables,
		} {
			if err := s.write.query(sql, func(r *row) { *v = r.int(0) }); err != nil {
				return nil, classify(err, before)
			}
		}
		switch {
		case app == applicationID && version == formatVersion:
			return nil, s.write.checkSchema()
		case app != 0 || version != 0 || tables != 0:
			return nil, fmt.Errorf("not a ledger of format %d: application %#x, format %d", formatVersion, app, version)
		}
		header := fmt.Sprintf("PRAGMA application_id=%d; PRAGMA user_version=%d", applicationID, formatVersion)
		return nil, classify(s.write.once(schema+header), before)
	})
}

// Close waits for the views and the update under way, and closes the file.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fatal == errClosed {
		return nil
	}
	s.fatal = errClosed
	close(s.closed)
	var errs []error
	for range s.dialled {
		errs = append(errs, (<-s.read).close())
	}
	if s.write != nil {
		errs = append(errs, s.write.close()) // last: it empties the log of writes
	}
	return errors.Join(errs...)
}

// View implements ledger.Store.
func (s *Store) View(ctx context.Context, fn func(ledger.View) error) error {
	return s.reading(ctx, func(c *conn) error { return fn(view{c}) })
}

// reading calls fn with a connection, in a transaction.
func (s *Store) reading(ctx context.Context, fn func(*conn) error) error {
	var c *conn
	select {
	case c = <-s.read:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closed:
		return errClosed
	}
	defer func() { s.read <- c }()
	if err := c.exec("BEGIN"); err != nil {
		return classify(err, before)
	}
	defer c.exec("ROLLBACK") // it only read
	return fn(c)
}

// Update implements ledger.Store.
func (s *Store) Update(ctx context.Context, fn func(ledger.View) (*ledger.Batch, error)) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fatal != nil {
		return s.fatal
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	defer func() {
		if errors.Is(err, ledger.ErrFatal) {
			s.fatal = err
		}
	}()

	// 1. The write lock, before anything is read.
	if err := s.write.exec("BEGIN IMMEDIATE"); err != nil {
		return classify(err, before)
	}
	open := true
	defer func() {
		if open { // something failed, or fn panicked
			err = errors.Join(err, s.rollback())
		}
	}()

	// 2. What the caller read, and wants written.
	b, err := fn(view{s.write})
	if err != nil {
		return err
	}
	stage := before
	if b != nil {
		if err := s.reserve.admit(b); err != nil {
			return classify(err, before)
		}
		err = s.insert(b)
	}

	// 3. Durable, or not at all.
	if err == nil {
		stage = during
		err = s.write.exec("COMMIT")
	}
	err = classify(err, stage)
	s.reserve.full = errors.Is(err, ledger.ErrFull)
	if err != nil {
		return err
	}
	open = false
	if b != nil && (len(b.Erase) != 0 || s.wal > walPages) {
		return s.checkpoint(len(b.Erase) != 0 || s.owed)
	}
	return nil
}

// rollback ends a transaction that failed. SQLite may have ended it itself,
// and then has nothing to roll back; what cannot be ended cannot be used.
func (s *Store) rollback() error {
	if s.write.exec("ROLLBACK") == nil {
		return nil
	}
	err := s.write.exec("BEGIN")
	if err == nil {
		err = s.write.exec("ROLLBACK")
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ledger.ErrFatal, err)
	}
	return nil
}

// checkpoint moves the log of writes into the file. It is not left to SQLite,
// which ignores the answer: a sync that fails here would let the next one
// drop records that were promised. What was committed is durable already, so
// only that is an error. If truncate, nothing of the log is left behind, and
// so nothing of a wrapped key that was in it.
func (s *Store) checkpoint(truncate bool) error {
	mode := "PASSIVE"
	if truncate {
		mode = "TRUNCATE"
	}
	s.owed = truncate
	err := s.write.query("PRAGMA wal_checkpoint("+mode+")", func(r *row) {
		s.owed = truncate && r.int(0) != 0 // somebody reads what is to be truncated
	})
	s.wal = 0
	if err = classify(err, during); errors.Is(err, ledger.ErrFatal) {
		return err
	}
	return nil
}

// Check has SQLite compare every row with every index and constraint, and
// follow every page.
func (s *Store) Check(ctx context.Context) error {
	return s.reading(ctx, func(c *conn) error {
		var found []string
		err := c.query("PRAGMA integrity_check(4)", func(r *row) { found = append(found, r.text(0)) })
		if err = classify(err, before); err == nil && !slices.Equal(found, []string{"ok"}) {
			err = fmt.Errorf("%w: SQLite finds %q", ledger.ErrDamaged, found)
		}
		if err == nil {
			err = c.checkSchema()
		}
		return err
	})
}
