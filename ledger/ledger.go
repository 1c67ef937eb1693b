// Package ledger is what Writ remembers, and can prove.
//
// The log is the truth, and state is a fold of it. Every durable fact is a
// record: one leaf of an RFC 6962 tree, and a payload that is encrypted and
// can be erased without breaking a proof. Tasks, approvals, budgets, leases
// and used ids are rows of one table, changed only by records, in the same
// transaction, and rebuilt from the records when in doubt. The version of a
// row is the index of the record that last changed it.
//
// Four things serve every noun: an Expect holds if a row is as it was read;
// Put and Delete set a row; Once makes a row that may exist only once; Add
// counts, never above a limit. A Commit checks and does all of it in one
// durable transaction, together with whoever else waits, and answers nobody
// before it is durable.
//
// What it does not do: it reads no policy, decides nothing about a caller,
// and keeps no keys. It cannot prove that what an agent said is so, nor that
// history was not rewritten by somebody who holds the log's key, unless a
// witness has seen it.
package ledger

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/writgate/writ"
	"golang.org/x/mod/sumdb/note"
)

// Keys are what a ledger is opened with. They are used for nothing else, and
// the ledger stores none of them. Losing Seal loses every payload and all
// state; losing Log ends the log.
type Keys struct {
	Log       ed25519.PrivateKey // signs checkpoints
	Seal      [32]byte           // seals payloads and state
	Pseudonym [32]byte           // names users in leaves
}

// A Config says how to open a ledger. Origin and Keys are required.
type Config struct {
	// Origin is the log's name in its checkpoints, a URL without a scheme,
	// such as "acme.example/writ/prod". It never changes.
	Origin  string
	Gateway string // this process, in the leaves it writes
	Keys    Keys
	Now     func() time.Time // time.Now if nil

	// Anchor is a file that remembers how long the log was, on another
	// volume than the database if there is one. A database that is shorter,
	// or another, is refused with ErrRollback; so is one that is not new if
	// the file is missing. Empty is no anchor.
	//
	// The file follows each commit within a moment, and no commit waits for
	// it: what is lost of it is lost only if the anchor's machine and the
	// database are set back within that moment.
	Anchor string

	// Adopt goes on with a log that the anchor refuses, because an operator
	// says so: the entry, of type TypeAdmin, becomes a record that stays, with
	// what the anchor held. It is for one start, not for a configuration.
	Adopt *Entry
}

// A Ledger is an open log with its state. Its methods may be called from any
// goroutine.
type Ledger struct {
	config  Config
	store   Store
	vault   vault
	keys    atomic.Pointer[keyring]
	cache   cache
	erased  erasures
	anchor  anchor
	now     func() time.Time
	newest  atomic.Int64 // time of the newest record
	inbox   inbox
	writing sync.Mutex // held for each transaction
	writer  writer
	fatal   atomic.Pointer[error]
	failed  chan struct{}
}

// Open opens the ledger in s, which it closes when it is closed itself; a new
// one is begun if there is none. It verifies the keys, the end of the log, and
// that the log goes on from where the anchor saw it. If it fails, s is still
// the caller's.
func Open(ctx context.Context, s Store, c Config) (*Ledger, error) {
	l := &Ledger{config: c, store: s, now: c.Now, failed: make(chan struct{})}
	l.inbox.queue = make(chan *request, maxBatch)
	if l.now == nil {
		l.now = time.Now
	}
	if err := l.open(ctx); err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", errors.Join(err, l.stop()))
	}
	return l, nil
}

func (l *Ledger) open(ctx context.Context) error {
	// 1. The keys.
	c := &l.config
	if c.Keys.Seal == [32]byte{} || c.Keys.Pseudonym == [32]byte{} {
		return errors.New("a key is missing")
	}
	l.vault = vault{deriveSealer(c.Keys.Seal, "wrap"), deriveSealer(c.Keys.Seal, "state"), c.Keys.Pseudonym}
	signer, err := newSigner(c.Origin, c.Keys.Log)
	if err != nil {
		return err
	}
	l.keys.Store(&keyring{signer: signer, all: []note.Verifier{signer}})

	// 2. The log, as it is, after what was last seen of it.
	seen, err := l.readAnchor()
	if err != nil {
		return err
	}
	if err := l.store.View(ctx, func(v View) error { return l.verifyEnd(ctx, v) }); err != nil {
		return err
	}

	// 3. Does it go on from there?
	refused := l.meetAnchor(ctx, seen)
	if refused != nil && (c.Adopt == nil || !errors.Is(refused, ErrRollback)) {
		return refused
	}

	// 4. From here on it is written.
	l.inbox.done.Go(l.run)
	if err := l.begin(ctx); err != nil {
		return err
	}
	if refused != nil {
		if err := l.adopt(ctx, seen); err != nil {
			return err
		}
	}
	return l.raiseAnchor(ctx)
}

// begin makes the first record of a new log: its own key. If another process
// was first, that is as good.
func (l *Ledger) begin(ctx context.Context) error {
	if l.writer.edge.size != 0 {
		return nil
	}
	vkey := l.VerifierKey()
	p, err := l.prepare(&Entry{
		Leaf:   Leaf{Type: TypeKey, Note: map[string]string{noteKey: vkey}},
		Expect: []Expect{{Kind: kindLog, Key: keyRow, At: Absent}},
	})
	if err != nil {
		return err
	}
	p.set(l, Change{Op: Put, Kind: kindLog, Key: keyRow, Value: l.keyCheck(vkey)})
	_, err = l.submit(ctx, []*pending{p})
	if errors.Is(err, ErrConflict) {
		err = l.store.View(ctx, func(v View) error { return l.readKeys(ctx, v) })
	}
	return err
}

// VerifierKey is what an auditor needs to verify receipts of this log: its
// public key, as c2sp.org/signed-note writes it. A log whose key was changed has
// had others before.
func (l *Ledger) VerifierKey() string { return l.keys.Load().signer.vkey }

// Pseudonym is how leaves name a user.
func (l *Ledger) Pseudonym(u writ.UserID) string { return l.vault.pseudonym(u) }

// Behind says how far the clock is behind the newest record: more than a
// moment means that it was set back. Records go on, at the newest record's
// time, so that no time in the log runs backwards; whoever grants authority
// by the clock should wait.
func (l *Ledger) Behind() time.Duration {
	return max(0, time.UnixMilli(l.newest.Load()).Sub(l.now().Truncate(time.Millisecond)))
}

// Time is the time that the next record would have, in Unix milliseconds.
func (l *Ledger) Time() int64 { return max(l.now().UnixMilli(), l.newest.Load()) }

// Failed is closed when the ledger has failed for good: what is durable is no
// longer known, nothing is committed any more, and nothing should be
// dispatched. The process should end, and open the ledger anew.
func (l *Ledger) Failed() <-chan struct{} { return l.failed }

// Close waits for the commits under way, and closes the store.
func (l *Ledger) Close() error {
	return errors.Join(l.stop(), l.store.Close())
}

// An inbox is what waits for the writer.
type inbox struct {
	closing sync.RWMutex // held to read by whoever puts into queue
	closed  bool
	queue   chan *request
	done    sync.WaitGroup
}

func (l *Ledger) stop() error {
	in := &l.inbox
	in.closing.Lock()
	if in.closed {
		in.closing.Unlock()
		return nil
	}
	in.closed = true
	close(in.queue)
	in.closing.Unlock()
	in.done.Wait()
	return l.anchor.stop()
}

// Get reads a row. It may be a moment old if another process writes too;
// what must not be old belongs into an Expect.
func (l *Ledger) Get(ctx context.Context, kind, key string) (Row, bool, error) {
	k := rowKey{kind, key}
	r := l.cache.get(k)
	if r == nil {
		at := l.cache.at()
		err := l.store.View(ctx, func(v View) (err error) {
			r, err = l.row(ctx, v, k)
			return err
		})
		if err != nil {
			return Row{}, false, err
		}
		l.cache.learn(at, r)
	}
	if r = r.live(l.Time()); r.At == Absent {
		return Row{}, false, nil
	}
	return *r, true, nil
}

func (l *Ledger) row(ctx context.Context, v View, k rowKey) (*Row, error) {
	rows, err := v.Rows(ctx, k)
	if err != nil || len(rows) == 0 {
		return absent(k), err
	}
	return l.vault.openRow(&rows[0])
}

// Scan reads the rows of a kind whose key is at least from, in the order of
// their keys; all of them if limit is 0.
func (l *Ledger) Scan(ctx context.Context, kind, from string, limit int) ([]Row, error) {
	var out []Row
	now := l.Time()
	err := l.store.View(ctx, func(v View) error {
		sealed, err := v.Scan(ctx, kind, from, limit)
		if err != nil {
			return err
		}
		for i := range sealed {
			r, err := l.vault.openRow(&sealed[i])
			if err != nil {
				return err
			}
			if r.live(now).At != Absent {
				out = append(out, *r)
			}
		}
		return nil
	})
	return out, err
}

// Orphans are the calls whose intent is on record and whose outcome is not:
// after a restart, calls that may have happened. Nobody may make them again.
func (l *Ledger) Orphans(ctx context.Context) ([]writ.CallID, error) {
	rows, err := l.Scan(ctx, kindOpen, "", 0)
	var calls []writ.CallID
	for _, r := range rows {
		calls = append(calls, writ.CallID(r.Key))
	}
	return calls, err
}
