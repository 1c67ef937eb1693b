//go:build unix

package postgres_test

import (
	"context"
	"fmt"
	"net"
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
)

// A server is a real PostgreSQL, on a loopback port and in a directory of its
// own, that writes every statement to a log.
type server struct {
	absent string // why there is none
	dir    string
	port   int
	cmd    *exec.Cmd
}

var pg server

func TestMain(m *testing.M) {
	if err := pg.start(); err != nil {
		pg.absent = err.Error()
	}
	code := m.Run()
	pg.stop()
	os.Exit(code)
}

// bin is where the server's programs are.
func bin() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return "", fmt.Errorf("no initdb in PATH or /usr/lib/postgresql/*/bin: install postgresql")
	}
	slices.Sort(found)
	return filepath.Dir(found[len(found)-1]), nil
}

func (s *server) start() error {
	dir, err := bin()
	if err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp("", "writ-postgres"); err != nil {
		return err
	}
	as := new(syscall.SysProcAttr)
	if os.Getuid() == 0 { // the server refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			return err
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		as.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(s.dir, uid, gid); err != nil {
			return err
		}
	}
	initdb := exec.Command(filepath.Join(dir, "initdb"), "-D", s.dir+"/data", "-U", "root", "--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync", "-E", "UTF8", "--locale=C")
	initdb.SysProcAttr, initdb.Dir = as, s.dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	log, err := os.Create(s.dir + "/log")
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command(filepath.Join(dir, "postgres"), "-D", s.dir+"/data", "-k", s.dir, "-p", strconv.Itoa(s.port),
		"-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "log_statement=all", "-c", "log_min_error_statement=debug5", "-c", "log_connections=on")
	s.cmd.SysProcAttr, s.cmd.Dir, s.cmd.Stderr = as, s.dir, log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	for range 100 {
		if c, err := pgx.Connect(context.Background(), s.root("postgres")); err == nil {
			return c.Close(context.Background())
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("the server does not answer: %s", s.log())
}

func (s *server) stop() {
	if s.cmd != nil && s.cmd.Process != nil {
		_ = s.cmd.Process.Signal(syscall.SIGINT)
		_ = s.cmd.Wait()
	}
	os.RemoveAll(s.dir)
}

// root is the superuser's connection string, over the socket.
func (s *server) root(db string) string {
	return fmt.Sprintf("host=%s port=%d user=root dbname=%s", s.dir, s.port, db)
}

func (s *server) log() string {
	b, _ := os.ReadFile(s.dir + "/log")
	return string(b)
}

// connect connects, or fails the test.
func connect(t testing.TB, to string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func exe(t testing.TB, c *pgx.Conn, sql string) {
	t.Helper()
	if _, err := c.Exec(context.WithoutCancel(t.Context()), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// shop makes a database with tables, owned by a role that may make roles and
// is no superuser. It returns the superuser's connection, the owner's
// connection string and the tool's URL.
func shop(t testing.TB) (root *pgx.Conn, owner, tool string) {
	t.Helper()
	if pg.absent != "" {
		t.Skip("no PostgreSQL: " + pg.absent)
	}
	name := strings.ToLower(strings.Map(func(r rune) rune {
		if r == '/' || r == ' ' {
			return '_'
		}
		return r
	}, t.Name()))[:min(50, len(t.Name()))]
	c := connect(t, pg.root("postgres"))
	exe(t, c, fmt.Sprintf(`CREATE ROLE %s_owner LOGIN CREATEROLE PASSWORD 'owners-password-1'`, name))
	exe(t, c, fmt.Sprintf(`CREATE DATABASE %s OWNER %s_owner`, name, name))
	exe(t, c, fmt.Sprintf(`REVOKE CONNECT ON DATABASE %s FROM PUBLIC`, name))
	root = connect(t, pg.root(name))
	t.Cleanup(func() { // roles belong to all databases
		for _, role := range roles(t, root) {
			exe(t, root, fmt.Sprintf("DROP OWNED BY %s; DROP ROLE %s", role, role))
		}
	})
	owner = fmt.Sprintf("postgres://%s_owner:owners-password-1@127.0.0.1:%d/%s?sslmode=disable", name, pg.port, name)
	tool = fmt.Sprintf("postgres://127.0.0.1:%d/%s?sslmode=disable", pg.port, name)
	o := connect(t, owner)
	exe(t, o, `CREATE SCHEMA shop;
		CREATE TABLE shop.orders (id int PRIMARY KEY, total int); INSERT INTO shop.orders VALUES (1, 4200);
		CREATE TABLE shop.customers (id int PRIMARY KEY); INSERT INTO shop.customers VALUES (1);
		CREATE TABLE shop."o'dd "" t; DROP TABLE shop.orders; --" (id int); INSERT INTO shop."o'dd "" t; DROP TABLE shop.orders; --" VALUES (7)`)
	return root, owner, tool
}
