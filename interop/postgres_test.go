//go:build unix

package interop

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// The tool says "Run a read-only SQL query", and opens a read-only transaction
// for it. The query may end the transaction.
const (
	honest = `SELECT total FROM orders`
	trick  = `COMMIT; DROP TABLE orders; SELECT 1`
)

// TestPostgresHole is the story of a tool that is not what it says, and of
// why that need not matter. The tool holds a credential of the database's
// owner, as its instructions have it: an agent drops a table through a
// "read-only" query. Then the same tool, behind Writ, gets a role of its own
// for each call, which may read one table: the query still runs, and the
// database says no. When the call is over, the role does not exist.
func TestPostgresHole(t *testing.T) {
	tool := program(t, "@modelcontextprotocol/server-postgres/dist/index.js")
	db := newDatabase(t)

	t.Run("without Writ", func(t *testing.T) {
		db.fill(t)
		session, err := mcp.NewClient(&mcp.Implementation{Name: "agent"}, nil).Connect(t.Context(),
			&mcp.CommandTransport{Command: exec.Command(node(t), tool, db.url("owner:owners-password"))}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		query := func(sql string) {
			_, _ = session.CallTool(t.Context(), &mcp.CallToolParams{Name: "query", Arguments: map[string]any{"sql": sql}})
		}
		if query(honest); !db.has(t, "orders") {
			t.Fatal("reading the table dropped it")
		}
		if query(trick); db.has(t, "orders") {
			t.Fatal("the hole is closed: this test shows nothing any more")
		}
	})

	t.Run("through Writ", func(t *testing.T) {
		db.fill(t)
		before := db.roles(t)
		admin := filepath.Join(t.TempDir(), "dsn")
		if err := os.WriteFile(admin, []byte(db.url("owner:owners-password")), 0o600); err != nil {
			t.Fatal(err)
		}
		// The tool takes its credential as an argument and does not start
		// without one. What it can do, which is asked without a credential, it
		// says with any.
		g := up(t, fmt.Sprintf(`
upstreams:
  - {name: shop, command: [/bin/sh, -c, 'exec "$0" "$1" "${2:-postgres://nobody@127.0.0.1/none}"', %q, %q]}
backends:
  orders:
    argument: true
    postgres:
      admin: {file: %q}
      url: %q
      grants: [{schema: public, tables: [orders], privileges: [SELECT]}]
`, node(t), tool, admin, db.url("")))
		g.cli("tools", "review", "shop.query", "--tier", "read-only", "--no-fetch", "--credential", "orders")

		ask := func(sql string) step { return step{"shop.query", map[string]any{"sql": sql}} }
		out := g.play(t, "aisdk.mjs", "How much is in the orders?", ask(honest), ask(trick), ask(honest))
		answers := strings.Split(strings.TrimSpace(out), "\n")
		for i, want := range []string{"4200", "must be owner of table orders", "4200", "done"} {
			if i >= len(answers) || !strings.Contains(answers[i], want) {
				t.Fatalf("answer %d is not %q:\n%s", i+1, want, out)
			}
		}
		if !db.has(t, "orders") {
			t.Error("the table is gone")
		}
		if after := db.roles(t); !slices.Equal(before, after) {
			t.Errorf("there were the roles %q, and now there are %q", before, after)
		}
		if n := strings.Count(db.log(t), `CREATE ROLE "writ_`); n != 3 {
			t.Errorf("%d roles were made, want one for each call", n)
		}
		if got := g.effects(); got["permit shop.query"] != 3 {
			t.Errorf("decided: %v", got)
		}
	})
}

// A database is one of a real PostgreSQL, on a port of loopback.
type database struct {
	dir  string
	port int
	root *pgx.Conn
}

// newDatabase starts a server as whoever may run one.
func newDatabase(t *testing.T) *database {
	t.Helper()
	dir, err := os.MkdirTemp("", "writ-interop-postgres-") // of a short name: a socket is in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	as := new(syscall.SysProcAttr)
	if os.Getuid() == 0 {
		who, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(who.Uid)
		gid, _ := strconv.Atoi(who.Gid)
		as.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if path, err := exec.LookPath("initdb"); err == nil {
		found = append(found, path)
	}
	if len(found) == 0 {
		t.Fatal("WRIT_INTEROP is set, and PostgreSQL is not installed")
	}
	bin := filepath.Dir(found[0])
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", dir+"/data", "-U", "root", "--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync")
	initdb.SysProcAttr, initdb.Dir = as, dir
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	db := &database{dir: dir, port: freePort(t)}
	log, err := os.Create(dir + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	server := exec.Command(filepath.Join(bin, "postgres"), "-D", dir+"/data", "-k", dir, "-p", strconv.Itoa(db.port),
		"-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "log_statement=ddl")
	server.SysProcAttr, server.Dir, server.Stderr = as, dir, log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Process.Signal(syscall.SIGINT); server.Wait() })
	db.connect(t)
	return db
}

// connect makes the database and its owner as soon as the server answers.
func (db *database) connect(t *testing.T) {
	t.Helper()
	ctx, to := context.WithoutCancel(t.Context()), fmt.Sprintf("host=%s port=%d user=root dbname=", db.dir, db.port)
	first, err := pgx.Connect(ctx, to+"postgres")
	for range 200 {
		if err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
		first, err = pgx.Connect(ctx, to+"postgres")
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, db.log(t))
	}
	defer first.Close(ctx)
	for _, sql := range []string{"CREATE ROLE owner LOGIN CREATEROLE PASSWORD 'owners-password'", "CREATE DATABASE shop OWNER owner"} {
		if _, err := first.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	if db.root, err = pgx.Connect(ctx, to+"shop"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.root.Close(ctx) })
}

// fill makes the owner's table anew.
func (db *database) fill(t *testing.T) {
	t.Helper()
	const sql = `DROP TABLE IF EXISTS orders; CREATE TABLE orders (total int); INSERT INTO orders VALUES (4200); ALTER TABLE orders OWNER TO owner`
	if _, err := db.root.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

// url is how a user with a password reaches the database.
func (db *database) url(user string) string {
	u := url.URL{Scheme: "postgres", Host: fmt.Sprintf("127.0.0.1:%d", db.port), Path: "/shop", RawQuery: "sslmode=disable"}
	if name, password, ok := strings.Cut(user, ":"); ok {
		u.User = url.UserPassword(name, password)
	}
	return u.String()
}

func (db *database) has(t *testing.T, table string) (has bool) {
	t.Helper()
	if err := db.root.QueryRow(t.Context(), `SELECT to_regclass($1) IS NOT NULL`, table).Scan(&has); err != nil {
		t.Fatal(err)
	}
	return has
}

func (db *database) roles(t *testing.T) []string {
	t.Helper()
	rows, err := db.root.Query(t.Context(), `SELECT rolname FROM pg_roles ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// log is every change of what there is, as the server saw it.
func (db *database) log(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(db.dir + "/log")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
