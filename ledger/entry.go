package ledger

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/writgate/writ"
)

// An Entry is one record to be: what is committed, what is sealed, what must
// still hold, and what changes. It belongs to one commit at a time.
type Entry struct {
	Leaf    Leaf        // V, Time, Gateway, User and Parts are the ledger's to set
	User    writ.UserID // becomes a keyed pseudonym in the leaf
	Parts   []Part
	Expect  []Expect
	Changes []Change
}

// A Part is a named piece of a record's payload: content, which is encrypted
// and can be erased. The leaf holds the digest of Salt and Bytes, so that
// whoever is shown both can check them against a receipt, and whoever is not
// cannot guess them.
type Part struct {
	Name  string         // a-z, 0-9, "_" and ".", at most 32; "changes" is the ledger's own
	Bytes []byte         // all the parts and values of an entry: at most 16 MiB
	Salt  [saltSize]byte // random; set by the ledger
}

// Digest is what the leaf's Parts holds for p.
func (p *Part) Digest() writ.Digest {
	return writ.Hash("payload", p.Salt[:], p.Bytes)
}

// An Op is what a Change does. The zero Op is refused.
type Op uint8

const (
	// Put sets the value of a row, which it makes if need be. Its count stays.
	Put Op = iota + 1
	// Delete removes a row.
	Delete
	// Once makes a row, and is refused with ErrUsed if it exists. Nothing
	// changes or deletes the row after that, until its time is over.
	Once
	// Add adds Delta to the count of a row, which it makes if need be, and is
	// refused with ErrExceeded if the count would be above Limit or below 0.
	Add
)

// A Change changes one row of state. Kind and Key name the row; both are
// visible to whoever reads the database, Value is not.
type Change struct {
	Op           Op
	Kind, Key    string
	Value        []byte // Put, Once
	Delta, Limit int64  // Add
	Until        int64  // Once: Unix milliseconds after which the row is forgotten; 0 is never
}

// An Expect says that a row is as it was read. All of a commit's are checked
// against the state before any of its changes.
type Expect struct {
	Kind, Key string
	At        int64 // Row.At as it was read; Absent if there was no row
}

// Absent is the version of a row that does not exist.
const Absent int64 = -1

// A Row is one row of state.
type Row struct {
	Kind, Key string
	Value     []byte
	Count     int64
	At        int64 // the index of the record that last changed it
	Until     int64 // not 0: made by Once
}

// A Receipt says that a record is durable. Only a commit makes one; the zero
// Receipt is a receipt for nothing.
type Receipt struct {
	r *receipt
}

type receipt struct {
	index int64
	bytes []byte
	leaf  *Leaf
}

// Valid says whether r is a receipt at all. The other methods answer with
// nothing, or -1, if it is not.
func (r Receipt) Valid() bool { return r.r != nil }

// Index is the record's place in the log.
func (r Receipt) Index() int64 {
	if r.r == nil {
		return -1
	}
	return r.r.index
}

// Call is the call the record is about.
func (r Receipt) Call() writ.CallID { return r.leaf().Call }

// Task is the task the record is about.
func (r Receipt) Task() writ.TaskID { return r.leaf().Task }

// Type is the type of the record's leaf.
func (r Receipt) Type() string { return r.leaf().Type }

// Capability is the capability that the record's leaf names.
func (r Receipt) Capability() string { return r.leaf().Capability }

// Lease is the lease that the record's leaf names.
func (r Receipt) Lease() string { return r.leaf().Lease }

// Time is the time of the record, in Unix milliseconds.
func (r Receipt) Time() int64 { return r.leaf().Time }

// Leaf is the leaf as it was committed. It must not be changed.
func (r Receipt) Leaf() []byte {
	if r.r == nil {
		return nil
	}
	return r.r.bytes
}

func (r Receipt) leaf() Leaf {
	if r.r == nil {
		return Leaf{}
	}
	return *r.r.leaf
}

// What the errors of this package wrap, besides those of a Store.
var (
	ErrConflict = errors.New("state has changed")                  // *Error names the row
	ErrUsed     = errors.New("used before")                        // *Error names the row
	ErrExceeded = errors.New("above its limit")                    // *Error names the counter
	ErrInvalid  = errors.New("not a valid entry")                  // it could never be committed
	ErrRollback = errors.New("history was taken back or replaced") // the log is behind its anchor, or another log
	ErrDamaged  = errors.New("the log does not verify")            // what is stored is not what was committed
	ErrDiverged = errors.New("state is not what the records say")  // the log verifies; Rebuild makes state anew
	ErrInUse    = errors.New("current state still depends on it")  // an erasure of what is not over; *Error names the row
	ErrClosed   = errors.New("the ledger is closed")               // nothing was committed
)

// An Error is a commit that was refused because of one row.
type Error struct {
	Err         error // ErrConflict, ErrUsed, ErrExceeded or ErrInUse
	Kind, Key   string
	Have, Limit int64 // ErrExceeded: the count as it is, and what it may not exceed
}

func (e *Error) Error() string {
	if e.Err == ErrExceeded {
		return fmt.Sprintf("%s %q: %v: %d of %d", e.Kind, e.Key, e.Err, e.Have, e.Limit)
	}
	return fmt.Sprintf("%s %q: %v", e.Kind, e.Key, e.Err)
}

// Unwrap gives Err.
func (e *Error) Unwrap() error { return e.Err }

// kindOpen holds a row for every call between its intent and its outcome.
// The ledger alone writes it.
const kindOpen = "open"

// kindLog holds what the ledger keeps about itself.
const kindLog = "log"

const (
	maxPayload = 16 << 20
	maxKey     = 512 // bytes of a row's kind and key
	maxChanges = 256 // rows that one entry names
)

// check refuses what could never be committed.
func (e *Entry) check() error {
	l := &e.Leaf
	if l.V != 0 || l.Time != 0 || l.Gateway != "" || l.User != "" || l.Parts != nil {
		return errors.New("a leaf with members that only the ledger sets")
	}
	if len(e.Changes) > maxChanges || len(e.Expect) > maxChanges {
		return fmt.Errorf("more than %d rows in one entry", maxChanges)
	}
	size := 0
	for i := range e.Changes {
		size += len(e.Changes[i].Value)
	}
	for i, p := range e.Parts {
		if !validName(p.Name) || p.Name == partChanges {
			return fmt.Errorf("a part must not be named %q", p.Name)
		}
		for _, q := range e.Parts[:i] {
			if p.Name == q.Name {
				return fmt.Errorf("two parts named %q", p.Name)
			}
		}
		size += len(p.Bytes)
	}
	if size > maxPayload {
		return fmt.Errorf("a payload of %d bytes; the most is %d", size, maxPayload)
	}
	for _, x := range e.Expect {
		if err := validRow(x.Kind, x.Key); err != nil {
			return err
		}
	}
	for i := range e.Changes {
		if err := e.Changes[i].check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Change) check() error {
	if err := validRow(c.Kind, c.Key); err != nil {
		return err
	}
	if c.Kind == kindOpen || c.Kind == kindLog || c.Kind == kindWitness {
		return fmt.Errorf("rows of kind %q are the ledger's own", c.Kind)
	}
	switch {
	case c.Op < Put || c.Op > Add:
		return errors.New("a change without an operation")
	case c.Op != Add && (c.Delta != 0 || c.Limit != 0),
		c.Op != Once && c.Until != 0,
		(c.Op == Delete || c.Op == Add) && c.Value != nil,
		c.Limit < 0, c.Until < 0, c.Delta == math.MinInt64:
		return errors.New("a change with members that its operation does not have")
	}
	return nil
}

func validName(s string) bool {
	return s != "" && len(s) <= 32 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_.") == ""
}

func validRow(kind, key string) error {
	if !validName(kind) || key == "" || len(key) > maxKey || strings.ContainsRune(key, 0) {
		return fmt.Errorf("a row cannot be named %.40q %.80q", kind, key)
	}
	return nil
}
