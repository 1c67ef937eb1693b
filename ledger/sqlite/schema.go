package sqlite

import (
	"fmt"
	"strings"

	"github.com/writgate/writ/ledger"
)

const schema = `
CREATE TABLE record (
	idx     INTEGER PRIMARY KEY,
	call    TEXT NOT NULL,
	task    TEXT NOT NULL,
	type    TEXT NOT NULL,
	time    INTEGER NOT NULL,
	leaf    BLOB NOT NULL,
	wrapped BLOB,
	sealed  BLOB
) STRICT;
CREATE UNIQUE INDEX record_once ON record (call, type) WHERE type IN ('intent', 'outcome');
CREATE INDEX record_call ON record (call) WHERE type NOT IN ('intent', 'outcome') AND call <> '';
CREATE INDEX record_task ON record (task) WHERE task <> '';
CREATE INDEX record_type ON record (type) WHERE type NOT IN ('intent', 'outcome');
CREATE TABLE batch (
	last   INTEGER PRIMARY KEY,
	first  INTEGER NOT NULL,
	hashes BLOB NOT NULL,
	note   BLOB NOT NULL
) STRICT;
CREATE TABLE state (
	kind   TEXT NOT NULL,
	key    TEXT NOT NULL,
	at     INTEGER NOT NULL,
	until  INTEGER NOT NULL,
	sealed BLOB NOT NULL,
	PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX state_until ON state (until) WHERE until <> 0;
`

// checkSchema refuses a file that has other tables, indexes or triggers than
// ours: a trigger is a program that somebody else wrote.
func (c *conn) checkSchema() error {
	var have []string
	err := c.query("SELECT sql FROM sqlite_schema ORDER BY rowid", func(r *row) { have = append(have, r.text(0)) })
	if err != nil {
		return classify(err, before)
	}
	if got, want := strings.Join(have, ";\n")+";\n", strings.TrimPrefix(schema, "\n"); got != want {
		return fmt.Errorf("%w: its tables are not those of format %d", ledger.ErrDamaged, formatVersion)
	}
	return nil
}
