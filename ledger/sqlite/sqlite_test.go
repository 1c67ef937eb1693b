package sqlite_test

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/ledger/ledgertest"
	"github.com/writgate/writ/ledger/sqlite"
)

func TestSuite(t *testing.T) {
	ledgertest.Suite(t, func(t *testing.T) ledgertest.Database {
		path := filepath.Join(t.TempDir(), "ledger.db")
		return ledgertest.Database{
			Open:   func() (ledger.Store, error) { return sqlite.Open(path) },
			Bytes:  func() ([]byte, error) { return everything(filepath.Dir(path)) },
			Tamper: func() map[string]func() error { return tamper(t, path) },
		}
	})
}

// everything is the content of all files of a directory.
func everything(dir string) (all []byte, err error) {
	files, err := os.ReadDir(dir)
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return nil, err
		}
		all = append(all, b...)
	}
	return all, err
}

// another is another byte than that at a place of a column.
func another(column, at string) string {
	return "CASE substr(" + column + ", " + at + ", 1) WHEN x'a5' THEN x'5a' ELSE x'a5' END"
}

// tamper lists what can be done to each table: each of its columns changed in
// one row, a row deleted, two rows swapped, a value of another row put in.
func tamper(t *testing.T, path string) map[string]func() error {
	t.Helper()
	acts := map[string]func() error{}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	do := func(name, statement string) {
		acts[name] = func() error {
			db, err := sql.Open("sqlite", path)
			if err != nil {
				return err
			}
			defer db.Close()
			r, err := db.Exec(statement)
			if err != nil {
				return err
			}
			if n, err := r.RowsAffected(); err != nil || n == 0 {
				return fmt.Errorf("%s changes nothing: %v", statement, err)
			}
			return nil
		}
	}
	rows, err := db.Query(`SELECT m.name, c.name, c.type FROM sqlite_schema m, pragma_table_info(m.name) c WHERE m.type = 'table'`)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var table, column, typ string
		if err := rows.Scan(&table, &column, &typ); err != nil {
			t.Fatal(err)
		}
		row := map[string]string{"record": "idx = 3", "batch": "last = 4", "state": "kind = 'budget' AND key = 'b1'"}[table]
		other := map[string]string{"record": "idx = 4", "batch": "last = 6", "state": "kind = 'cap'"}[table]
		change := map[string]string{
			"INTEGER": column + " + 1000000", "TEXT": "'changed'", "BLOB": "CAST(substr(" + column + ", 1, length(" + column + ") - 1) || " + another(column, "-1") + " AS BLOB)",
		}[typ]
		name := table + "." + column
		do("change "+name, fmt.Sprintf("UPDATE %s SET %s = %s WHERE %s", table, column, change, row))
		if typ == "BLOB" {
			do("first byte of "+name, fmt.Sprintf("UPDATE %[1]s SET %[2]s = CAST(%[4]s || substr(%[2]s, 2) AS BLOB) WHERE %[3]s", table, column, row, another(column, "1")))
			do("shorten "+name, fmt.Sprintf("UPDATE %[1]s SET %[2]s = substr(%[2]s, 1, length(%[2]s) - 1) WHERE %[3]s", table, column, row))
			do("lengthen "+name, fmt.Sprintf("UPDATE %[1]s SET %[2]s = CAST(%[2]s || x'00' AS BLOB) WHERE %[3]s", table, column, row))
			do("empty "+name, fmt.Sprintf("UPDATE %s SET %s = x'' WHERE %s", table, column, row))
			do("copy another "+name, fmt.Sprintf("UPDATE %[1]s SET %[2]s = (SELECT %[2]s FROM %[1]s WHERE %[4]s LIMIT 1) WHERE %[3]s", table, column, row, other))
		}
		if name == "record.wrapped" || name == "record.sealed" {
			do("null "+name, fmt.Sprintf("UPDATE %s SET %s = NULL WHERE %s", table, column, row))
			do("zero "+name, fmt.Sprintf("UPDATE %[1]s SET %[2]s = zeroblob(length(%[2]s)) WHERE %[3]s", table, column, row))
		}
	}
	for table, order := range map[string]string{"record": "idx", "batch": "last", "state": "kind"} {
		for end, desc := range map[string]string{"first": "", "last": " DESC"} {
			do("delete "+end+" "+table, fmt.Sprintf("DELETE FROM %[1]s WHERE %[2]s = (SELECT %[2]s FROM %[1]s ORDER BY %[2]s%[3]s LIMIT 1)", table, order, desc))
		}
		do("delete every "+table, "DELETE FROM "+table)
	}
	do("delete a record in the middle", "DELETE FROM record WHERE idx = 7")
	do("delete a used id", "DELETE FROM state WHERE kind = 'cap' AND key = (SELECT key FROM state WHERE kind = 'cap' LIMIT 1)")
	do("close an open call", "DELETE FROM state WHERE kind = 'open'")
	do("swap records", "UPDATE record SET idx = CASE idx WHEN 7 THEN -8 ELSE -7 END WHERE idx IN (7, 8); UPDATE record SET idx = -idx WHERE idx < 0")
	do("swap leaves", "UPDATE record SET leaf = (SELECT o.leaf FROM record o WHERE o.idx = 15 - record.idx) WHERE idx IN (7, 8)")
	do("put the payload of one call into another", "UPDATE record SET (wrapped, sealed) = (SELECT wrapped, sealed FROM record WHERE idx = 5) WHERE idx = 1")
	do("cut off the end", "DELETE FROM record WHERE idx > (SELECT max(last) FROM batch WHERE last < 12); DELETE FROM batch WHERE last >= 12")
	do("add a record", "INSERT INTO record SELECT idx + 1, call, task, 'admin', time, leaf, NULL, NULL FROM record ORDER BY idx DESC LIMIT 1")
	return acts
}
