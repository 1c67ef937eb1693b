package sqlite

import (
	"bytes"
	"cmp"
	"context"
	"database/sql/driver"
	"slices"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
)

type value = driver.Value

// A view reads on one connection, inside a transaction.
type view struct{ c *conn }

const selectBatch = "SELECT first, last, hashes, note FROM batch "

// Batch implements ledger.View.
func (v view) Batch(_ context.Context, index int64) (*ledger.Batch, error) {
	var b *ledger.Batch
	scan := func(r *row) {
		b = &ledger.Batch{First: r.int(0), Last: r.int(1), Hashes: r.blob(2), Note: r.blob(3)}
	}
	var err error
	if index < 0 {
		err = v.c.query(selectBatch+"ORDER BY last DESC LIMIT 1", scan)
	} else {
		err = v.c.query(selectBatch+"WHERE last >= ? ORDER BY last LIMIT 1", scan, index)
	}
	return b, classify(err, before)
}

// Rows implements ledger.View.
func (v view) Rows(_ context.Context, keys ...[2]string) ([]ledger.Row, error) {
	var out []ledger.Row
	for _, k := range keys {
		err := v.c.query("SELECT at, until, sealed FROM state WHERE kind = ? AND key = ?", func(r *row) {
			out = append(out, ledger.Row{Kind: k[0], Key: k[1], At: r.int(0), Until: r.int(1), Value: r.blob(2)})
		}, k[0], k[1])
		if err != nil {
			return nil, classify(err, before)
		}
	}
	return out, nil
}

// Scan implements ledger.View.
func (v view) Scan(_ context.Context, kind, from string, limit int) ([]ledger.Row, error) {
	var out []ledger.Row
	scan := func(r *row) {
		out = append(out, ledger.Row{
			Kind: r.text(0), Key: r.text(1),
			At: r.int(2), Until: r.int(3), Value: r.blob(4),
		})
	}
	if limit <= 0 {
		limit = -1
	}
	const cols = "SELECT kind, key, at, until, sealed FROM state "
	var err error
	if kind == "" {
		err = v.c.query(cols+"ORDER BY kind, key LIMIT ?", scan, int64(limit))
	} else {
		err = v.c.query(cols+"WHERE kind = ? AND key >= ? ORDER BY key LIMIT ?", scan, kind, from, int64(limit))
	}
	return out, classify(err, before)
}

// Records implements ledger.View.
func (v view) Records(_ context.Context, filters ...ledger.Filter) ([]ledger.Record, error) {
	var out []ledger.Record
	for _, f := range filters {
		rs, err := v.records(f)
		if err != nil {
			return nil, classify(err, before)
		}
		out = append(out, rs...)
	}
	return out, nil
}

// records asks for the two dense types of a call apart from its others, as
// the indexes hold them, and a statement must say which of them it wants.
func (v view) records(f ledger.Filter) (out []ledger.Record, err error) {
	ask := func(where string, args ...value) {
		if err != nil {
			return
		}
		sql, args := statement(f, where, args)
		err = v.c.query(sql, func(r *row) {
			out = append(out, ledger.Record{
				Index: r.int(0), LeafBytes: r.blob(5), Wrapped: key(r.blob(6)), Sealed: r.blob(7),
				Leaf: &ledger.Leaf{
					Call: writ.CallID(r.text(1)), Task: writ.TaskID(r.text(2)),
					Type: r.text(3), Time: r.int(4),
				},
			})
		}, args...)
	}
	if f.Call == "" {
		ask("")
		return out, err
	}
	if f.Type == "" || dense(f.Type) {
		ask("call = ? AND type IN ('intent', 'outcome')", string(f.Call))
	}
	if !dense(f.Type) {
		ask("call = ? AND call <> '' AND type NOT IN ('intent', 'outcome')", string(f.Call))
	}
	slices.SortFunc(out, func(a, b ledger.Record) int {
		if f.Reverse {
			a, b = b, a
		}
		return cmp.Compare(a.Index, b.Index)
	})
	if f.Limit > 0 && len(out) > f.Limit {
		out = out[:f.Limit]
	}
	return out, err
}

func dense(typ string) bool { return typ == "intent" || typ == "outcome" }

// statement adds to where what else f asks for.
func statement(f ledger.Filter, where string, args []value) (string, []value) {
	add := func(cond string, arg ...value) {
		if where != "" {
			where += " AND "
		}
		where, args = where+cond, append(args, arg...)
	}
	add("idx >= ?", f.From)
	if f.To != 0 {
		add("idx < ?", f.To)
	}
	if f.Task != "" {
		add("task <> '' AND task = ?", string(f.Task))
	}
	switch {
	case dense(f.Type):
		add("type = '" + f.Type + "'")
	case f.Type != "":
		add("type NOT IN ('intent', 'outcome') AND type = ?", f.Type)
	}
	limit := int64(-1)
	if f.Limit > 0 {
		limit = int64(f.Limit)
	}
	order := "idx"
	if f.Reverse {
		order = "idx DESC"
	}
	return "SELECT idx, call, task, type, time, leaf, wrapped, sealed FROM record WHERE " + where +
		" ORDER BY " + order + " LIMIT ?", append(args, limit)
}

// key is a wrapped key, unless it was overwritten.
func key(b []byte) []byte {
	if len(bytes.Trim(b, "\x00")) == 0 {
		return nil
	}
	return b
}
