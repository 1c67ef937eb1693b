//go:build unix

package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/writgate/writ"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/broker/postgres"
	"go.yaml.in/yaml/v4"
)

func reference(t testing.TB, text string) broker.Reference {
	t.Helper()
	name := filepath.Join(t.TempDir(), "admin")
	if err := os.WriteFile(name, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return broker.Reference{File: name}
}

var reading = []postgres.Grant{{Schema: "shop", Tables: []string{"orders"}, Privileges: []string{"SELECT"}}}

func driver(t testing.TB, admin, tool string, grants []postgres.Grant) *postgres.Driver {
	t.Helper()
	d, err := postgres.New(postgres.Config{Admin: reference(t, admin), URL: tool, Grants: grants, Connections: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func newRow(life time.Duration) broker.Row {
	now := time.Now()
	id := writ.NewID[writ.LeaseID](now)
	return broker.Row{Lease: id, Handle: string(id), Task: "task_1", Expires: now.Add(life).UnixMilli()}
}

// mint mints and gives the connection string that the tool gets.
func mint(t testing.TB, d *postgres.Driver, row broker.Row) string {
	t.Helper()
	m, err := d.Mint(t.Context(), row)
	if err != nil {
		t.Fatal(err)
	}
	return expose(t, m)
}

func expose(t testing.TB, m broker.Minted) string {
	t.Helper()
	s, err := m.Secret.Expose()
	if err != nil {
		t.Fatal(err)
	}
	part, err := m.Also[0].Expose()
	if u, _ := url.Parse(s); err != nil || u == nil {
		t.Fatal("the secret is no URL")
	} else if pw, _ := u.User.Password(); pw != part {
		t.Fatal("the password is not redacted on its own")
	}
	return s
}

func roles(t testing.TB, root *pgx.Conn) (names []string) {
	t.Helper()
	rows, err := root.Query(context.WithoutCancel(t.Context()), `SELECT rolname FROM pg_roles WHERE rolname LIKE 'writ\_%'`)
	if err != nil {
		t.Fatal(err)
	}
	names, err = pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func refused(err error, code string) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.Code == code
}

const (
	noPrivilege = "42501"
	badPassword = "28P01"
	killed      = "57P01"
)

func TestLeaseDoesWhatIsGranted(t *testing.T) {
	for _, who := range []string{"owner", "superuser"} {
		t.Run(who, func(t *testing.T) {
			root, admin, tool := shop(t)
			if who == "superuser" {
				u, _ := url.Parse(tool)
				admin = pg.root(strings.Trim(u.Path, "/"))
			}
			d := driver(t, admin, tool, []postgres.Grant{
				{Schema: "shop", Tables: []string{"orders"}, Privileges: []string{"SELECT", "UPDATE"}},
				{Schema: "shop", Tables: []string{`o'dd " t; DROP TABLE shop.orders; --`}, Privileges: []string{"SELECT"}},
			})
			row := newRow(time.Minute)
			c := connect(t, mint(t, d, row))
			for _, sql := range []string{
				"SELECT total FROM shop.orders", "UPDATE shop.orders SET total = 1", `SELECT * FROM shop."o'dd "" t; DROP TABLE shop.orders; --"`,
			} {
				exe(t, c, sql)
			}
			for _, sql := range []string{
				"DROP TABLE shop.orders", "DELETE FROM shop.orders", "INSERT INTO shop.orders VALUES (2, 1)", "TRUNCATE shop.orders",
				"SELECT * FROM shop.customers", "CREATE TABLE shop.mine (id int)", "CREATE SCHEMA mine", "CREATE ROLE mine",
				"ALTER ROLE CURRENT_USER VALID UNTIL 'infinity'", "ALTER ROLE CURRENT_USER CREATEDB",
				"COMMIT; DROP TABLE shop.orders; SELECT 1", "SET ROLE root", "SELECT pg_read_file('/etc/passwd')", "COPY shop.orders TO PROGRAM 'cat'",
				"SELECT rolpassword FROM pg_authid",
			} {
				if _, err := c.Exec(t.Context(), sql); !refused(err, noPrivilege) {
					t.Errorf("%s: %v", sql, err)
				}
			}
			exe(t, c, "CREATE TEMP TABLE mine (id int)")
			if _, err := d.Revoke(t.Context(), row.Handle); err != nil || len(roles(t, root)) != 0 {
				t.Errorf("Revoke: %v; left %v", err, roles(t, root))
			}
		})
	}
}

func TestRevokeEndsEverything(t *testing.T) {
	root, owner, tool := shop(t)
	d := driver(t, owner, tool, reading)
	row, other := newRow(time.Minute), newRow(time.Minute)
	dsn := mint(t, d, row)
	bystander := connect(t, mint(t, d, other))

	// One session waits in a transaction, one works.
	idle, busy := connect(t, dsn), connect(t, dsn)
	exe(t, idle, "BEGIN; SELECT * FROM shop.orders; CREATE TEMP TABLE mine (id int)")
	var killedBy error
	var work sync.WaitGroup
	work.Go(func() { _, killedBy = busy.Exec(context.Background(), "SELECT pg_sleep(30)") })
	if _, err := pgx.Connect(t.Context(), dsn); !refused(err, "53300") {
		t.Errorf("a third session of a role with two: %v", err)
	}

	ev, err := d.Revoke(t.Context(), row.Handle)
	role := strings.Replace(row.Handle, "lease_", "writ_", 1)
	want := []string{"role " + role + " cannot log in", "2 sessions terminated", "its privileges and objects dropped", "role " + role + " dropped"}
	if err != nil || ev.Outcome != broker.Revoked || !slices.Equal(ev.Steps, want) {
		t.Errorf("Revoke: %q %v, %v", ev.Outcome, ev.Steps, err)
	}
	if work.Wait(); !refused(killedBy, killed) {
		t.Errorf("a query under way: %v", killedBy)
	}
	if _, err := idle.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("an open transaction lives on")
	}
	if _, err := pgx.Connect(t.Context(), dsn); !refused(err, badPassword) {
		t.Errorf("login after revocation: %v", err)
	}
	exe(t, bystander, "SELECT * FROM shop.orders")
	if got := roles(t, root); len(got) != 1 {
		t.Errorf("roles %v are left, want the other lease's", got)
	}
	again, err := d.Revoke(t.Context(), row.Handle)
	if err != nil || again.Outcome != broker.Revoked || !slices.Equal(again.Steps, []string{"role " + role + " does not exist"}) {
		t.Errorf("revoking again: %v, %v", again.Steps, err)
	}
}

func TestValidUntil(t *testing.T) {
	_, owner, tool := shop(t)
	d := driver(t, owner, tool, reading)
	row := newRow(time.Second)
	dsn := mint(t, d, row)
	c := connect(t, dsn)
	time.Sleep(time.Until(time.UnixMilli(row.Expires)) + 50*time.Millisecond)
	if _, err := pgx.Connect(t.Context(), dsn); !refused(err, badPassword) {
		t.Errorf("login after its time: %v", err)
	}
	// This is why Lifetime says that only Revoke ends a role.
	exe(t, c, "SELECT * FROM shop.orders")
	if d.Lifetime(time.Minute) != 0 {
		t.Error("a role is said to die by itself")
	}
	if _, err := d.Revoke(t.Context(), row.Handle); err != nil {
		t.Error(err)
	}
	if _, err := c.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("the session lives on")
	}
}

// What was made and never heard of is revoked by the lease's id, by a process
// that knows nothing else.
func TestRevokeWhatNobodyReceived(t *testing.T) {
	root, owner, tool := shop(t)
	row := newRow(time.Minute)
	mint(t, driver(t, owner, tool, reading), row)
	if ev, err := driver(t, owner, tool, reading).Revoke(t.Context(), row.Handle); err != nil || ev.Outcome != broker.Revoked || len(roles(t, root)) != 0 {
		t.Errorf("Revoke: %v, %v; left %v", ev, err, roles(t, root))
	}
	never := newRow(time.Minute)
	if ev, err := driver(t, owner, tool, reading).Revoke(t.Context(), never.Handle); err != nil || ev.Outcome != broker.Revoked {
		t.Errorf("what never was: %v, %v", ev, err)
	}
	for _, handle := range []string{"", "root", "lease_", "lease_" + strings.Repeat("z", 26), string(writ.NewID[writ.TaskID](time.Now()))} {
		if _, err := driver(t, owner, tool, reading).Revoke(t.Context(), handle); err == nil {
			t.Errorf("the handle %q names a role", handle)
		}
	}
}

// A caller gives up while the server still makes the role: revoking waits for
// the server, and then drops it.
func TestRevokeWaitsForMint(t *testing.T) {
	root, owner, tool := shop(t)
	d := driver(t, owner, tool, reading)
	row := newRow(time.Minute)

	// The lock is held, so that the mint gets stuck; and then its caller is
	// gone, and the server goes on.
	exe(t, root, "BEGIN; SELECT pg_advisory_xact_lock(x'5752495400000001'::bigint)")
	ctx, giveUp := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer giveUp()
	if _, err := d.Mint(ctx, row); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Mint: %v", err)
	}
	// What the server made of the last thing it received.
	role := pgx.Identifier{strings.Replace(row.Handle, "lease_", "writ_", 1)}.Sanitize()
	exe(t, root, "CREATE ROLE "+role+" LOGIN")
	revoked := make(chan error, 1)
	go func() {
		_, err := d.Revoke(t.Context(), row.Handle)
		revoked <- err
	}()
	select {
	case err := <-revoked:
		t.Fatalf("revoked before the server was done: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	exe(t, root, "GRANT "+role+" TO "+pgx.Identifier{pgxUser(t, owner)}.Sanitize()+"; COMMIT")
	if err := <-revoked; err != nil || len(roles(t, root)) != 0 {
		t.Errorf("Revoke: %v; left %v", err, roles(t, root))
	}
}

func pgxUser(t testing.TB, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return u.User.Username()
}

// A mint that fails leaves nothing behind.
func TestMintFailsWhole(t *testing.T) {
	root, owner, tool := shop(t)
	exe(t, root, "CREATE TABLE shop.roots (id int)")
	for name, g := range map[string]postgres.Grant{
		"no such table":    {Schema: "shop", Tables: []string{"orders", "invoices"}, Privileges: []string{"SELECT"}},
		"no such schema":   {Schema: "Shop", Tables: []string{"orders"}, Privileges: []string{"SELECT"}},
		"not its to grant": {Schema: "shop", Tables: []string{"roots"}, Privileges: []string{"SELECT"}},
	} {
		d := driver(t, owner, tool, []postgres.Grant{{Schema: "shop", Tables: []string{"orders"}, Privileges: []string{"SELECT"}}, g})
		if _, err := d.Mint(t.Context(), newRow(time.Minute)); err == nil || len(roles(t, root)) != 0 {
			t.Errorf("%s: %v; left %v", name, err, roles(t, root))
		}
	}
	// A privilege that may be used and not passed on is granted with nothing
	// but a warning.
	exe(t, root, "GRANT SELECT ON shop.roots TO "+pgx.Identifier{pgxUser(t, owner)}.Sanitize())
	d := driver(t, owner, tool, []postgres.Grant{{Schema: "shop", Tables: []string{"roots"}, Privileges: []string{"SELECT"}}})
	if _, err := d.Mint(t.Context(), newRow(time.Minute)); err == nil || !strings.Contains(err.Error(), "no privileges were granted") || len(roles(t, root)) != 0 {
		t.Errorf("a grant of nothing: %v; left %v", err, roles(t, root))
	}
}

// Many leases at once: PostgreSQL refuses to change one table's privileges
// twice at a time.
func TestManyAtOnce(t *testing.T) {
	root, owner, tool := shop(t)
	d := driver(t, owner, tool, reading)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			row := newRow(time.Minute)
			m, err := d.Mint(t.Context(), row)
			if err != nil {
				t.Error(err)
				return
			}
			if c, err := pgx.Connect(t.Context(), expose(t, m)); err != nil {
				t.Error(err)
			} else if _, err := c.Exec(t.Context(), "SELECT * FROM shop.orders"); err != nil {
				t.Error(err)
			}
			if _, err := d.Revoke(t.Context(), row.Handle); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := roles(t, root); len(got) != 0 {
		t.Errorf("left %v", got)
	}
}

// A server that dropped the idle connections is connected to anew.
func TestConnectionsLost(t *testing.T) {
	root, owner, tool := shop(t)
	d := driver(t, owner, tool, reading)
	row := newRow(time.Minute)
	mint(t, d, row)
	exe(t, root, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'writ'")
	time.Sleep(50 * time.Millisecond)
	if _, err := d.Revoke(t.Context(), row.Handle); err != nil || len(roles(t, root)) != 0 {
		t.Errorf("Revoke: %v", err)
	}
}

// H63: neither the server's log, which has every statement, nor an error holds
// a password.
func TestH63NoPasswordInLogsOrErrors(t *testing.T) {
	_, owner, tool := shop(t)
	d := driver(t, owner, tool, reading)
	row := newRow(time.Minute)
	dsn := mint(t, d, row)
	u, _ := url.Parse(dsn)
	password, _ := u.User.Password()
	connect(t, dsn)
	if _, err := d.Revoke(t.Context(), row.Handle); err != nil {
		t.Fatal(err)
	}
	if log := pg.log(); !strings.Contains(log, u.User.Username()) || strings.Contains(log, password) {
		t.Error("the server's log tells the password, or nothing at all")
	}
	wrong := strings.Replace(owner, "owners-password-1", "not-the-password-2", 1)
	for _, admin := range []string{wrong, strings.Replace(wrong, fmt.Sprint(pg.port), "1", 1)} {
		_, err := driver(t, admin, tool, reading).Mint(t.Context(), newRow(time.Minute))
		if err == nil || strings.Contains(fmt.Sprintf("%+v", err), "password-2") {
			t.Errorf("Mint with a wrong password: %v", err)
		}
	}
	bad := reference(t, "postgres://owner:not-the-password-2@host:port/x")
	if _, err := postgres.New(postgres.Config{Admin: bad, URL: tool, Grants: reading}); err == nil || strings.Contains(err.Error(), "password-2") {
		t.Errorf("New: %v", err)
	}
}

func TestConfig(t *testing.T) {
	t.Setenv("WRIT_TEST_ADMIN", "postgres://writ:admins-password@db/shop")
	const good = `
admin: {env: WRIT_TEST_ADMIN}
url: postgres://db.internal:5432/shop?sslmode=verify-full
grants:
  - {schema: shop, tables: [orders], privileges: [SELECT]}
`
	parse := func(text string) (c postgres.Config, err error) {
		return c, yaml.Load([]byte(text), &c, yaml.WithKnownFields(), yaml.WithUniqueKeys())
	}
	c, err := parse(good)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.New(c); err != nil {
		t.Error(err)
	}
	if _, err := parse(good + "password: hunter2\n"); err == nil {
		t.Error("an unknown key is accepted")
	}
	for name, change := range map[string][2]string{
		"no admin":           {"env: WRIT_TEST_ADMIN", ""},
		"another database":   {"5432/shop", "5432/shopping"},
		"no database":        {"5432/shop", "5432"},
		"another scheme":     {"url: postgres", "url: https"},
		"a user":             {"//db.", "//ana@db."},
		"a password":         {"?", "?password=x&"},
		"no tables":          {"[orders]", "[]"},
		"all and some":       {"[orders]", "[orders, '*']"},
		"an empty name":      {"[orders]", "['']"},
		"no schema":          {"schema: shop", "schema: ''"},
		"no privileges":      {"[SELECT]", "[]"},
		"all privileges":     {"SELECT", "ALL"},
		"privilege and more": {"SELECT", "'SELECT ON shop.customers TO PUBLIC; --'"},
		"lower case":         {"SELECT", "select"},
	} {
		c, err := parse(strings.Replace(good, change[0], change[1], 1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := postgres.New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func BenchmarkMintAndRevoke(b *testing.B) {
	_, owner, tool := shop(b)
	d := driver(b, owner, tool, reading)
	for b.Loop() {
		row := newRow(time.Minute)
		mint(b, d, row)
		if _, err := d.Revoke(b.Context(), row.Handle); err != nil {
			b.Fatal(err)
		}
	}
}
