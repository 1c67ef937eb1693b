package main

import (
	"bufio"
	"bytes"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// promised is every step of the demo, and how Writ decides about it.
const promised = `
setting/up
read/helpdesk.list_tickets         permit
read/helpdesk.get_ticket           permit
read/payments.get_invoice          permit
read/authorization/tokens
write/helpdesk.reply_ticket        permit
write/helpdesk/replies
bounds/payments.pay                deny
bounds/payments/payments
bounds/authorization/tokens
approval/approve                   step-up
approval/payments.pay              permit
approval/payments/payments
approval/authorization/tokens
injection/helpdesk.get_ticket      permit
injection/files.read               permit
injection/mailer.send_mail         deny
injection/mailer.send_mail#2       deny
injection/mailer/outbox
afterwards/helpdesk.reply_ticket   permit
afterwards/helpdesk.reply_ticket#2 permit
afterwards/helpdesk/replies
end/end
end/helpdesk.list_tickets          deny
end/authorization/tokens
end/payments/credentials
proof/verify
proof/verify-altered
replay/replay                      deny
closing/exit
`

// A demonstration is "writ demo" as a process.
type demonstration struct {
	t      *testing.T
	tmp    string // where it keeps its things
	cmd    *exec.Cmd
	out    *bufio.Reader
	said   bytes.Buffer // all that was read of its output
	errors bytes.Buffer
}

func demonstrate(t *testing.T, tmp string, args ...string) *demonstration {
	t.Helper()
	d := &demonstration{t: t, tmp: tmp, cmd: exec.Command("writ", args...)}
	d.cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "WRIT_DIR="+filepath.Join(tmp, "another"), "WRIT_SOCKET=/dev/null", "GORACE=atexit_sleep_ms=0")
	d.cmd.Stderr = &d.errors
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	d.out = bufio.NewReader(io.TeeReader(out, &d.said))
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if d.cmd.ProcessState == nil { // the test has failed
			d.cmd.Process.Signal(os.Interrupt)
			io.Copy(io.Discard, out)
			d.cmd.Wait()
		}
	})
	return d
}

// report reads what it says of the next step; io.EOF is the end.
func (d *demonstration) report() (r report, err error) {
	line, err := d.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &r)
	}
	return r, err
}

// exit waits for its end, and says how it ended. Nothing may be left of it.
func (d *demonstration) exit() int {
	d.t.Helper()
	io.Copy(io.Discard, d.out)
	err := d.cmd.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		d.t.Fatal(err)
	}
	if left := d.processes(); len(left) > 0 {
		d.t.Errorf("still running: %q", left)
	}
	if left, err := os.ReadDir(d.tmp); err != nil || len(left) > 0 {
		d.t.Errorf("left behind: %v, %v", left, err)
	}
	return d.cmd.ProcessState.ExitCode()
}

// processes are those whose command line names the demo's directory, where
// the system lists them in Linux's way (proc(5)).
func (d *demonstration) processes() (found []string) {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range all {
		if line, err := os.ReadFile(name); err == nil && bytes.Contains(line, []byte(d.tmp)) {
			found = append(found, string(line))
		}
	}
	return found
}

// dir is the directory that it has made.
func (d *demonstration) dir() string {
	d.t.Helper()
	made, err := filepath.Glob(filepath.Join(d.tmp, "writ-demo-*"))
	if err != nil || len(made) != 1 {
		d.t.Fatalf("made %v, %v", made, err)
	}
	return made[0]
}

func slow(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("the demo takes its time")
	}
	t.Parallel()
}

// TestDemo plays the whole story, with every step as promised. No secret of
// it is in what it says or in what the gateway keeps, and it ends when it is
// told to, with everything that it has started and made.
func TestDemo(t *testing.T) {
	slow(t)
	d := demonstrate(t, t.TempDir(), "-o", "json", "demo", "--keep")
	for line := range strings.Lines(strings.TrimPrefix(promised, "\n")) {
		want := strings.Fields(line)
		r, err := d.report()
		if err != nil {
			t.Fatalf("%v\n%s", err, d.errors.String())
		}
		if got := strings.Fields(r.Step + " " + r.Effect); !r.OK || r.Reason == "" || !slices.Equal(got, want) {
			t.Fatalf("%+v, want %v", r, want)
		}
		if (r.Call == "") != (len(want) == 1 && !strings.HasPrefix(r.Step, "proof/")) {
			t.Errorf("%s is about the call %q", r.Step, r.Call)
		}
	}
	if _, err := os.Stat("/proc/self/cmdline"); err == nil && len(d.processes()) < 6 {
		t.Errorf("processes %q: those that ought to be there are not found", d.processes())
	}
	secrets, kept := d.secrets(), d.kept()
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := d.exit(); code != exitOK || d.errors.Len() > 0 {
		t.Errorf("exit code %d\n%s", code, d.errors.String())
	}
	kept["what it says"] = d.said.String()
	for name, text := range kept {
		for what, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s: %s is in it", name, what)
			}
		}
	}
}

// secrets are those of the run: the operators' passphrases, the gateway's
// secret at the authorization server, and the credentials, which the payments
// server has kept.
func (d *demonstration) secrets() map[string]string {
	d.t.Helper()
	all := map[string]string{}
	for _, name := range []string{"ana/passphrase", "omar/passphrase", "client-secret"} {
		text, err := os.ReadFile(filepath.Join(d.dir(), name))
		if err != nil {
			d.t.Fatal(err)
		}
		all[name] = strings.TrimSpace(string(text))
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(d.dir(), "payments", "payments.db")+"?mode=ro")
	if err != nil {
		d.t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query(`SELECT credential, token FROM kept`)
	if err != nil {
		d.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name, token string
		if err := rows.Scan(&name, &token); err != nil {
			d.t.Fatal(err)
		}
		all[name] = token
	}
	for what, secret := range all {
		if len(secret) < 20 {
			d.t.Fatalf("%s is no secret", what)
		}
	}
	if len(all) != 5 {
		d.t.Fatalf("%d secrets, want 3 and 2 credentials", len(all))
	}
	return all
}

// kept is what the gateway keeps, and what every process has complained of.
func (d *demonstration) kept() map[string]string {
	d.t.Helper()
	all := map[string]string{}
	for _, below := range []string{"gateway", "log"} {
		err := filepath.WalkDir(filepath.Join(d.dir(), below), func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path)
			all[path] = string(text)
			return err
		})
		if err != nil {
			d.t.Fatal(err)
		}
	}
	if len(all) < 15 {
		d.t.Errorf("only %d files are kept", len(all))
	}
	return all
}

// TestDemoText: what is printed for people fits into a hundred columns, and
// has no escape sequences where there is no terminal.
func TestDemoText(t *testing.T) {
	slow(t)
	d := demonstrate(t, t.TempDir(), "demo")
	if code := d.exit(); code != exitOK || d.errors.Len() > 0 {
		t.Errorf("exit code %d\n%s%s", code, d.said.String(), d.errors.String())
	}
	lines := strings.Split(strings.TrimSpace(d.said.String()), "\n")
	for _, line := range lines {
		if utf8.RuneCountInString(line) > tellWidth || strings.ContainsRune(line, '\x1b') {
			t.Errorf("%q", line)
		}
	}
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, "All 30 steps were as promised") {
		t.Errorf("it ends with %q", last)
	}
}

// TestDemoInterrupted: who interrupts the demo is left with nothing of it.
func TestDemoInterrupted(t *testing.T) {
	slow(t)
	d := demonstrate(t, t.TempDir(), "-o", "json", "demo")
	if r, err := d.report(); err != nil || !r.OK {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := d.exit(); code != exitNo || !strings.Contains(d.said.String(), `"reason":"interrupted","ok":false`) {
		t.Errorf("exit code %d, %s%s", code, d.said.String(), d.errors.String())
	}
}

// TestDemoKilled: when the demo itself is killed, its parts end by themselves.
func TestDemoKilled(t *testing.T) {
	slow(t)
	d := demonstrate(t, t.TempDir(), "-o", "json", "demo", "--keep")
	if r, err := d.report(); err != nil || !r.OK {
		t.Fatalf("%+v, %v", r, err)
	}
	d.cmd.Process.Kill()
	d.cmd.Wait()
	for end := time.Now().Add(partPatience); len(d.processes()) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still running: %q", d.processes())
		}
	}
}

// TestDemoBroken: a step that is not as promised is named, and ends the demo
// with 1. Here the gateway does not come up, for no socket's name is so long.
func TestDemoBroken(t *testing.T) {
	slow(t)
	tmp := filepath.Join(t.TempDir(), strings.Repeat("x", 90))
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	d := demonstrate(t, tmp, "-o", "json", "demo")
	r, err := d.report()
	if err != nil || r.OK || r.Step != "setting/up" || !strings.HasPrefix(r.Reason, "gateway has ended: ") || !strings.Contains(r.Reason, "listen unix ") {
		t.Errorf("%+v, %v", r, err)
	}
	if code := d.exit(); code != exitNo {
		t.Errorf("exit code %d\n%s", code, d.errors.String())
	}
}
