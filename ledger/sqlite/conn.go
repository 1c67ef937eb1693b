package sqlite

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"io"

	"github.com/writgate/writ/ledger"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// A conn is one connection, with its statements prepared once. It is used by
// one goroutine at a time. It speaks to the driver itself: between the two,
// package database/sql costs more than some of the statements.
type conn struct {
	driver.Conn
	prepared map[string]driver.Stmt
}

func dial(dsn string, pragmas ...string) (*conn, error) {
	d := new(sqlite.Driver)
	dc, err := d.Open(dsn)
	if err != nil {
		return nil, err
	}
	c := &conn{dc, map[string]driver.Stmt{}}
	for _, p := range pragmas {
		if err := c.once("PRAGMA " + p); err != nil {
			c.close()
			return nil, fmt.Errorf("%s: %w", p, err)
		}
	}
	return c, nil
}

func (c *conn) close() error {
	var errs []error
	for _, s := range c.prepared {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, c.Conn.Close())...)
}

func (c *conn) stmt(sql string) (driver.Stmt, error) {
	if s := c.prepared[sql]; s != nil {
		return s, nil
	}
	s, err := c.Prepare(sql)
	if err == nil {
		c.prepared[sql] = s
	}
	return s, err
}

// once runs statements that are not worth keeping.
func (c *conn) once(sql string) error {
	s, err := c.Prepare(sql)
	if err != nil {
		return err
	}
	//lint:ignore SA1019 without a context: what was begun is finished
	_, err = s.Exec(nil)
	return errors.Join(err, s.Close())
}

func (c *conn) exec(sql string, args ...driver.Value) error {
	s, err := c.stmt(sql)
	if err != nil {
		return err
	}
	//lint:ignore SA1019 without a context: what was begun is finished
	_, err = s.Exec(args)
	return err
}

// A row is one row of a result. A value of another type than its column has is
// damage, for SQLite checks types only when it writes.
type row struct {
	values []driver.Value
	bad    bool
}

func (r *row) int(i int) int64 {
	n, ok := r.values[i].(int64)
	r.bad = r.bad || !ok
	return n
}

func (r *row) text(i int) string {
	s, ok := r.values[i].(string)
	r.bad = r.bad || !ok
	return s
}

// blob may be NULL.
func (r *row) blob(i int) []byte {
	b, ok := r.values[i].([]byte)
	r.bad = r.bad || !ok && r.values[i] != nil
	return b
}

var errType = fmt.Errorf("%w: a value of another type than its column", ledger.ErrDamaged)

// query calls fn with each row, whose values are fn's to keep.
func (c *conn) query(sql string, fn func(r *row), args ...driver.Value) error {
	s, err := c.stmt(sql)
	if err != nil {
		return err
	}
	//lint:ignore SA1019 without a context: what was begun is finished
	rows, err := s.Query(args)
	if err != nil {
		return err
	}
	r := row{values: make([]driver.Value, len(rows.Columns()))}
	for !r.bad {
		if err = rows.Next(r.values); err != nil {
			break
		}
		fn(&r)
	}
	if r.bad {
		err = errType
	}
	if err == io.EOF {
		err = nil
	}
	return errors.Join(err, rows.Close())
}

// busy says whether somebody else had the file.
func busy(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && e.Code()&0xff == lib.SQLITE_BUSY
}

// A stage says how far a transaction had come when SQLite answered.
type stage int

const (
	before stage = iota // nothing can have been made durable
	during              // in COMMIT or in a checkpoint: a failed write is known, a failed sync is not
)

// classify says what an answer of SQLite means for what is durable. The full
// disk and the busy file come back; what a failed fsync left on disk is never
// known, and asking again would be told a lie.
func classify(err error, s stage) error {
	if err == nil || errors.Is(err, ledger.ErrFull) || errors.Is(err, ledger.ErrDamaged) {
		return err // it is not SQLite's
	}
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return fmt.Errorf("%w: %w", ledger.ErrUnavailable, err)
	}
	kind := ledger.ErrUnavailable
	switch code := e.Code(); {
	case code&0xff == lib.SQLITE_FULL, code == lib.SQLITE_IOERR_SHMSIZE && s == before:
		kind = ledger.ErrFull
	case code == lib.SQLITE_CONSTRAINT_PRIMARYKEY, code == lib.SQLITE_CONSTRAINT_UNIQUE:
		kind = ledger.ErrExists
	case code&0xff == lib.SQLITE_CORRUPT, code&0xff == lib.SQLITE_NOTADB:
		return fmt.Errorf("%w: %w: %w", ledger.ErrFatal, ledger.ErrDamaged, err)
	case code == lib.SQLITE_IOERR_FSYNC, code == lib.SQLITE_IOERR_DIR_FSYNC:
		kind = ledger.ErrFatal
	case s == during && code&0xff != lib.SQLITE_BUSY && code != lib.SQLITE_IOERR_WRITE:
		kind = ledger.ErrFatal
	}
	return fmt.Errorf("%w: %w", kind, err)
}
