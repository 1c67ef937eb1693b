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
	size  int64 // that it should have; 0 is no reserve
	short bool  // it was too short when last looked at, or the disk was full
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
	if err := s.reserve.fill(); err != nil {
		if full(err) {
			s.reserve.short = true // it is what the reserve is for
			return nil
		}
		return err
	}
	return nil
}

// admit makes room for a batch that may have it, and refuses others while the
// reserve is short.
func (r *reserve) admit(b *ledger.Batch) error {
	if r.size == 0 || len(b.Records) == 0 {
		return nil
	}
	have, err := r.have()
	if err != nil {
		return err
	}
	r.short = r.short || have < r.size
	if !r.short {
		return nil
	}
	if b.Reserve {
		return r.cut(have, b)
	}
	if have == r.size { // the disk was full, and perhaps is no more
		return nil
	}
	if time.Since(r.tried) < refillWait {
		return ledger.ErrFull
	}
	r.tried = time.Now()
	if err := r.fill(); err != nil {
		if full(err) {
			return ledger.ErrFull
		}
		return err
	}
	return nil
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

// cut frees a piece. The sync is for file systems that give freed blocks out
// again only when it is durable that they are free.
func (r *reserve) cut(have int64, b *ledger.Batch) error {
	n := int64(piece)
	for i := range b.Records {
		n += 2 * int64(len(b.Records[i].Sealed))
	}
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
	r.short = err != nil
	return errors.Join(err, f.Close())
}
