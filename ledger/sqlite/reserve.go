package sqlite

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"time"

	"github.com/writgate/writ/ledger"
)

// A reserve is a file of noise beside the database that takes up disk. When
// the disk is full, a batch that may use the reserve cuts a piece off and has
// that room. As long as the file is short of its size, other batches are
// refused: they would eat what was freed for those.
type reserve struct {
	path  string
	size  int64 // that the file should have; 0 is no reserve
	full  bool  // the last write found no room
	tried time.Time
}

const (
	piece      = 1 << 20     // bytes: what is cut off the reserve at least
	refillWait = time.Second // between attempts to make it whole
)

// Reserve keeps so many bytes of the disk, in a file beside the database, for
// what must be written when the disk is full: what takes authority away, and
// what came of calls that were let through. It is kept across restarts. There
// is no reserve until this is called.
func (s *Store) Reserve(bytes int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserve.size = bytes
	if err := s.reserve.fill(); err != nil && !full(err) {
		return err
	}
	return nil // a reserve that is short is what a full disk looks like
}

// admit makes room for a batch that may have it, and refuses others while the
// reserve is short.
func (r *reserve) admit(b *ledger.Batch) error {
	if r.size == 0 {
		return nil
	}
	have, err := r.have()
	if err != nil {
		return err
	}
	switch {
	case b.Reserve && r.full:
		n := int64(piece)
		for i := range b.Records {
			n += 2 * int64(len(b.Records[i].Sealed))
		}
		return r.cut(have, n)
	case b.Reserve || have >= r.size:
		return nil
	case time.Since(r.tried) < refillWait:
		return ledger.ErrFull
	}
	r.tried = time.Now()
	if err = r.fill(); full(err) {
		return ledger.ErrFull
	}
	return err
}

func (r *reserve) have() (int64, error) {
	info, err := os.Stat(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// cut frees n bytes. The sync is for file systems that give freed blocks out
// again only when it is durable that they are free.
func (r *reserve) cut(have, n int64) error {
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(max(0, have-n)), f.Sync(), f.Close())
}

// fill makes the file whole again. What is written does not compress.
func (r *reserve) fill() (err error) {
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	have, err := r.have()
	noise := rand.NewChaCha8([32]byte{1})
	block := make([]byte, piece)
	for at := have; err == nil && at < r.size; at += piece {
		noise.Read(block)
		_, err = f.Write(block[:min(piece, r.size-at)])
	}
	if err == nil && have > r.size {
		err = f.Truncate(r.size)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		err = errors.Join(err, f.Truncate(min(have, r.size)))
	}
	return errors.Join(err, f.Close())
}
