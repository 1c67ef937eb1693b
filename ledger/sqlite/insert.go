package sqlite

import "github.com/writgate/writ/ledger"

const (
	pageSize  = 8192 // bytes
	sweepRows = 512  // that one transaction sweeps at most, so that nobody waits for it
)

// insert writes a batch. Records come first: a call that is recorded twice
// fails here, whatever the ledger thought.
func (s *Store) insert(b *ledger.Batch) error {
	c := s.write
	for i := range b.Records {
		r := &b.Records[i]
		err := c.exec("INSERT INTO record (idx, call, task, type, time, leaf, wrapped, sealed) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
			r.Index, string(r.Leaf.Call), string(r.Leaf.Task), r.Leaf.Type, r.Leaf.Time, r.LeafBytes, null(r.Wrapped), null(r.Sealed))
		if err != nil {
			return err
		}
		s.wal += 1 + len(r.Sealed)/pageSize
	}
	s.wal += 2 + (len(b.New)+len(b.Put)+len(b.Delete))/4
	if b.Reset {
		if err := c.exec("DELETE FROM state"); err != nil {
			return err
		}
	}
	for i := range b.New {
		r := &b.New[i]
		err := c.exec("INSERT INTO state (kind, key, at, until, sealed) VALUES (?, ?, ?, ?, ?)", r.Kind, r.Key, r.At, r.Until, r.Value)
		if err != nil {
			return err
		}
	}
	for i := range b.Put {
		r := &b.Put[i]
		err := c.exec("INSERT INTO state (kind, key, at, until, sealed) VALUES (?, ?, ?, ?, ?)"+
			" ON CONFLICT DO UPDATE SET at = excluded.at, until = excluded.until, sealed = excluded.sealed",
			r.Kind, r.Key, r.At, r.Until, r.Value)
		if err != nil {
			return err
		}
	}
	for _, k := range b.Delete {
		if err := c.exec("DELETE FROM state WHERE kind = ? AND key = ?", k[0], k[1]); err != nil {
			return err
		}
	}
	for _, i := range b.Erase {
		// Of the same size, so that it is overwritten in its place: SQLite moves
		// no row whose size stays, and leaves no copy of it behind.
		if err := c.exec("UPDATE record SET wrapped = zeroblob(length(wrapped)) WHERE idx = ?", i); err != nil {
			return err
		}
	}
	if b.Sweep != 0 {
		const sql = "DELETE FROM state WHERE (kind, key) IN" +
			" (SELECT kind, key FROM state WHERE until <> 0 AND until < ? ORDER BY until LIMIT ?)"
		if err := c.exec(sql, b.Sweep, int64(sweepRows)); err != nil {
			return err
		}
	}
	if len(b.Records) == 0 {
		return nil
	}
	return c.exec("INSERT INTO batch (last, first, hashes, note) VALUES (?, ?, ?, ?)", b.Last, b.First, b.Hashes, b.Note)
}

// null keeps what does not exist apart from what is empty.
func null(b []byte) value {
	if b == nil {
		return nil
	}
	return b
}
