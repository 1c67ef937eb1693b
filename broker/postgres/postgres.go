// Package postgres leases roles of a PostgreSQL database: each lease is a role
// of its own, with a random password, a time until which it can log in, and
// the privileges that were configured.
//
// The password is in no log of the server: Writ sends what the server would
// store (RFC 5803), not the password. The role's name is that of the lease,
// so that a role whose making nobody heard of is found and dropped; and making
// and dropping take the same lock, so that one cannot be dropped while it is
// still being made.
//
// The end of a role is taken in steps, each of which is evidence: it cannot
// log in, its sessions are terminated, its privileges and what it owns are
// dropped, it is dropped. Nothing else ends it for certain: the time until
// which it can log in does not end a session.
//
// What PUBLIC may do, every role may. A database that holds more than Writ's
// tools should revoke from PUBLIC what they must not have.
package postgres

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/writgate/writ"
	"github.com/writgate/writ/broker"
)

// A Driver leases roles of one database.
type Driver struct {
	config Config
	tool   *url.URL
	admins pool
}

// New checks c, and that the administrator's connection string can be read. It
// does not connect.
func New(c Config) (*Driver, error) {
	tool, err := c.check()
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	if c.Connections == 0 {
		c.Connections = 4
	}
	d := &Driver{config: c, tool: tool, admins: newPool(c.Admin)}
	admin, err := d.admins.settings()
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	if db := strings.Trim(tool.Path, "/"); admin.Database != db {
		return nil, fmt.Errorf("postgres: the administrator connects to database %q, the tool to %q", admin.Database, db)
	}
	return d, nil
}

// Close closes the connections.
func (d *Driver) Close() { d.admins.close() }

// Lifetime implements broker.Driver: a session outlives the time until which
// its role can log in, so nothing but Revoke ends a role.
func (d *Driver) Lifetime(time.Duration) time.Duration { return 0 }

// lock is held, to the end of the transaction, by whoever makes or drops a
// role: so a role that is being made is waited for, and the lists of
// privileges of a table, which PostgreSQL lets only one transaction change,
// are changed by one.
const lock = "SELECT pg_advisory_xact_lock(x'5752495400000001'::bigint)" // "WRIT", 1

// Mint implements broker.Driver. The secret is the tool's URL with user and
// password in it.
func (d *Driver) Mint(ctx context.Context, row broker.Row) (broker.Minted, error) {
	role, err := roleOf(row.Handle)
	if err != nil {
		return broker.Minted{}, err
	}
	password := rand.Text()
	u := *d.tool
	u.User = url.UserPassword(role, password)
	secret, err := broker.NewSecret(role, u.String())
	if err != nil {
		return broker.Minted{}, err
	}
	part, err := broker.NewSecret(role+" password", password)
	if err != nil {
		return broker.Minted{}, err
	}
	sql, err := d.creation(role, password, time.UnixMilli(row.Expires))
	if err != nil {
		return broker.Minted{}, err
	}
	err = d.admins.transact(ctx, func(c *conn) error {
		if _, err := c.Exec(ctx, lock); err != nil {
			return err
		}
		if _, err := c.Exec(ctx, sql); err != nil {
			return err
		}
		return c.warned()
	})
	if err != nil {
		err = fmt.Errorf("creating role %s: %w", role, err)
	}
	return broker.Minted{Secret: secret, Also: []broker.Secret{part}}, err
}

// creation is the SQL that makes a role.
func (d *Driver) creation(role, password string, until time.Time) (string, error) {
	verifier, err := scram(password)
	if err != nil {
		return "", err
	}
	quoted := pgx.Identifier{role}.Sanitize()
	sql := []string{
		"CREATE ROLE " + quoted + " LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS" +
			fmt.Sprintf(" CONNECTION LIMIT %d PASSWORD '%s' VALID UNTIL '%s'",
				d.config.Connections, verifier, until.UTC().Format("2006-01-02 15:04:05.000+00")),
		// Whoever is no superuser must be a member to terminate its sessions
		// and to drop what it owns.
		"GRANT " + quoted + " TO CURRENT_USER",
		// PUBLIC need not have the right to connect.
		"DO $$BEGIN IF NOT has_database_privilege('" + role + "', current_database(), 'CONNECT') THEN" +
			" EXECUTE format('GRANT CONNECT ON DATABASE %I TO " + quoted + "', current_database()); END IF; END$$",
	}
	for _, g := range d.config.Grants {
		sql = append(sql, g.statements(quoted)...)
	}
	return strings.Join(sql, ";\n"), nil
}

// Revoke implements broker.Driver. A role that is not there is revoked.
func (d *Driver) Revoke(ctx context.Context, handle string) (ev broker.Evidence, err error) {
	role, err := roleOf(handle)
	if err != nil {
		return ev, err
	}
	quoted := pgx.Identifier{role}.Sanitize()
	step := func(format string, args ...any) { ev.Steps = append(ev.Steps, fmt.Sprintf(format, args...)) }

	// 1. Nobody logs in from here on. If it is still being made, this waits.
	found := false
	err = d.admins.transact(ctx, func(c *conn) error {
		if _, err := c.Exec(ctx, lock); err != nil {
			return err
		}
		err := c.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role).Scan(&found)
		if err != nil || !found {
			return err
		}
		_, err = c.Exec(ctx, "ALTER ROLE "+quoted+" NOLOGIN PASSWORD NULL")
		return err
	})
	if err != nil {
		return ev, fmt.Errorf("locking out role %s: %w", role, err)
	}
	if !found {
		step("role %s does not exist", role)
		return broker.Evidence{Outcome: broker.Revoked, Steps: ev.Steps}, nil
	}
	step("role %s cannot log in", role)

	// 2. Whoever is logged in is not any more.
	n := 0
	err = d.admins.use(ctx, func(c *conn) (err error) {
		n, err = terminate(ctx, c, role)
		return err
	})
	if err != nil {
		return ev, fmt.Errorf("terminating the sessions of role %s: %w", role, err)
	}
	step("%d sessions terminated", n)

	// 3. It has nothing, and 4. is nothing: unless somebody logged in while
	// step 1 was under way, and was not seen in step 2.
	err = d.admins.transact(ctx, func(c *conn) error {
		if _, err := c.Exec(ctx, lock+"; DROP OWNED BY "+quoted); err != nil {
			return err
		}
		late := 0
		if err := c.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE usename = $1", role).Scan(&late); err != nil {
			return err
		}
		if late > 0 {
			return errors.New("it has a session again")
		}
		_, err := c.Exec(ctx, "DROP ROLE "+quoted)
		return err
	})
	if err != nil {
		return ev, fmt.Errorf("dropping role %s: %w", role, err)
	}
	step("its privileges and objects dropped")
	step("role %s dropped", role)
	ev.Outcome = broker.Revoked
	return ev, nil
}

// terminate ends the sessions of a role, and waits until they are gone. It
// says how many there were.
func terminate(ctx context.Context, c *conn, role string) (n int, err error) {
	for {
		left := 0
		err := c.QueryRow(ctx, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1", role).Scan(&left)
		if err != nil || left == 0 {
			return n, err
		}
		n = max(n, left)
		select {
		case <-ctx.Done():
			return n, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// roleOf is the role of a handle, which is the lease's id.
func roleOf(handle string) (string, error) {
	id, err := writ.ParseID[writ.LeaseID](handle)
	if err != nil {
		return "", fmt.Errorf("naming a role: %w", err)
	}
	return "writ_" + strings.TrimPrefix(string(id), "lease_"), nil
}

// scram is what the server stores of a password, as RFC 5803 writes it.
func scram(password string) (string, error) {
	const iterations = 4096 // the server's own choice; the password has 128 random bits
	salt := make([]byte, 16)
	rand.Read(salt)
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return "", err
	}
	mac := func(text string) []byte {
		h := hmac.New(sha256.New, salted)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	stored := sha256.Sum256(mac("Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, b64(salt), b64(stored[:]), b64(mac("Server Key"))), nil
}
