package ledger

import (
	"context"
	"errors"
)

// What a store's errors wrap, and so those of Commit. An error of Update that
// wraps none of them means that nothing was written.
var (
	ErrFull        = errors.New("the store is full")                    // nothing was written; the store still works, and has a reserve
	ErrUnavailable = errors.New("the store is unavailable")             // nothing was written; try again
	ErrExists      = errors.New("what was new is there already")        // nothing was written: a Row of New, or the intent or outcome of a call
	ErrUnknown     = errors.New("the outcome of the commit is unknown") // it may have been written
	ErrFatal       = errors.New("the store has failed")                 // what is durable is no longer known: stop
)

// A Store is a database: it keeps rows, and changes them in one durable
// transaction at a time. It knows nothing of what it keeps. Leaves arrive
// encoded, payloads and state sealed, hashes computed: a database and its
// administrator see identifiers, times and ciphertext.
//
// Its methods may be called from any goroutine. A store that can check its own
// structure has a method Check(context.Context) error, which VerifyAll calls.
type Store interface {
	// View calls fn with one consistent snapshot.
	View(ctx context.Context, fn func(View) error) error

	// Update calls fn with the state as the last Update left it, whichever
	// process made that, and makes the batch that fn returns durable: all of
	// it before Update returns nil, none of it if fn returns an error, which
	// Update then returns as it is. A nil batch writes nothing.
	//
	// From before fn is called until the batch is visible to the next, no
	// other Update runs in any process that shares the database: SQLite takes
	// BEGIN IMMEDIATE; a database without a single writer takes one advisory
	// lock. That is cheap, for one batch serves many callers. Once fn has
	// returned, Update ignores the cancellation of ctx.
	Update(ctx context.Context, fn func(View) (*Batch, error)) error

	// Close waits for what is under way.
	Close() error
}

// A View reads. What it returns is the caller's. Rows and records that do not
// exist are left out, and are no error. In a Row, Value is as it was sealed,
// and Count is not set. Of a Record, Index, LeafBytes, Sealed and Wrapped are
// set, and in its Leaf what its columns say: Type, Time, Call and Task.
type View interface {
	// Batch is the batch that holds record index, or the newest if index is
	// negative, with its hashes and its note; nil if there is none.
	Batch(ctx context.Context, index int64) (*Batch, error)
	// Rows reads state rows by kind and key, in any order.
	Rows(ctx context.Context, keys ...[2]string) ([]Row, error)
	// Scan reads the rows of a kind whose key is at least from, in the byte
	// order of their keys; of every kind if kind is empty, by kind and key.
	// A limit of 0 is none.
	Scan(ctx context.Context, kind, from string, limit int) ([]Row, error)
	// Records reads the records that each filter selects, one filter after
	// the other.
	Records(ctx context.Context, filters ...Filter) ([]Record, error)
}

// A Batch is what one transaction adds to the log, and changes. One without
// Records changes rows only, and its first four fields mean nothing.
type Batch struct {
	First, Last int64  // the indices of its records
	Hashes      []byte // the stored hashes of package tlog for them, 32 bytes each, in order
	Note        []byte // the signed checkpoint of the tree of Last+1 records

	Records []Record    // to insert
	New     []Row       // to insert; there are none of these names
	Put     []Row       // to insert or replace
	Delete  [][2]string // to delete, if they are there
	Erase   []int64     // records whose Wrapped becomes nil, overwritten where it was stored
	Reset   bool        // first delete every row
	Sweep   int64       // not 0: some rows whose Until is not 0 and less than this may be deleted
	Reserve bool        // the batch may use what the store keeps for when it is full
}
