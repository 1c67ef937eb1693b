package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/writgate/writ"
)

// A stage is the processes of the demo, and the directory where they keep
// their things.
type stage struct {
	dir  string
	env  []string
	cast []*part // as they were started
}

// newStage makes the directory, and in it a name for this program: what every
// part of the demo is.
func newStage() (*stage, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "writ-demo-")
	if err != nil {
		return nil, err
	}
	st := &stage{dir: dir, env: slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "WRIT_") })}
	if err := errors.Join(os.Symlink(self, st.self()), os.Mkdir(st.file("log"), 0o700)); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return st, nil
}

func (st *stage) file(name ...string) string {
	return filepath.Join(append([]string{st.dir}, name...)...)
}
func (st *stage) self() string    { return st.file("writ") }
func (st *stage) gateway() string { return st.file("gateway") }

// A part is a process that stays for a while. It ends when its standard input
// does, and with that when this process ends.
type part struct {
	name string
	cmd  *exec.Cmd
	to   io.WriteCloser
	from *bufio.Reader

	over sync.Once
	late *time.Timer
}

// start starts a part. What it says on its standard error is in log/name.
func (st *stage) start(name string, who *person, args ...string) (*part, error) {
	cmd := exec.Command(st.self(), args...)
	cmd.Dir, cmd.Env = st.dir, who.env(st.env)
	log, err := os.OpenFile(st.file("log", name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own
	cmd.Stderr = log
	to, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	from, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := startGroup(cmd); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	p := &part{name: name, cmd: cmd, to: to, from: bufio.NewReader(from)}
	st.cast = append(st.cast, p)
	return p, nil
}

// line reads what a part says next.
func (st *stage) line(ctx context.Context, p *part) (string, error) {
	defer context.AfterFunc(ctx, p.quit)() // or it might be waited for in vain
	line, err := p.from.ReadString('\n')
	if err == nil {
		return strings.TrimSuffix(line, "\n"), nil
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	said, _ := os.ReadFile(st.file("log", p.name))
	return "", fmt.Errorf("%s has ended: %s", p.name, last(said))
}

// last is the last thing that a command of writ has complained of.
func last(log []byte) string {
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	for _, line := range slices.Backward(lines) {
		if text, ok := strings.CutPrefix(line, "writ: "); ok {
			return text
		}
	}
	return lines[len(lines)-1]
}

// partPatience is how long a part may take to end.
const partPatience = 10 * time.Second

// quit tells a part that it is over. One that does not hear is killed.
func (p *part) quit() {
	p.over.Do(func() {
		p.to.Close()
		p.late = time.AfterFunc(partPatience, func() { killGroup(p.cmd) })
	})
}

// end waits for a part, and for whatever that has started, to end.
func (p *part) end() error {
	p.quit()
	io.Copy(io.Discard, p.from)
	err := p.cmd.Wait()
	if !p.late.Stop() {
		return fmt.Errorf("%s did not end, and was killed", p.name)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	return nil
}

// leave ends one part before the others.
func (st *stage) leave(p *part) error {
	st.cast = slices.DeleteFunc(st.cast, func(one *part) bool { return one == p })
	return p.end()
}

// close ends every part, the last one first, and leaves nothing behind.
func (st *stage) close() error {
	var errs []error
	for _, p := range slices.Backward(st.cast) {
		errs = append(errs, p.end())
	}
	st.cast = nil
	return errors.Join(append(errs, os.RemoveAll(st.dir))...)
}

// A person is an operator of the demo: a key of their own, under a passphrase
// of their own. Nil is somebody who has neither.
type person struct {
	user            writ.UserID
	key, passphrase string // files
	thumbprint      writ.Thumbprint
}

func (who *person) env(env []string) []string {
	if who == nil {
		return env
	}
	return append(slices.Clip(env), "WRIT_OPERATOR_KEY="+who.key, passphraseFile+"="+who.passphrase)
}

// writ runs one command to its end, as a process of its own.
func (st *stage) writ(ctx context.Context, who *person, args ...string) (out []byte, code int, err error) {
	var said, complained bytes.Buffer
	cmd := exec.CommandContext(ctx, st.self(), append([]string{"-o", "json"}, args...)...)
	cmd.Dir, cmd.Env = st.dir, append(who.env(st.env), "WRIT_DIR="+st.gateway())
	cmd.Stdout, cmd.Stderr = &said, &complained
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return said.Bytes(), exit.ExitCode(), fmt.Errorf("writ %s: exit code %d: %s", args[0], exit.ExitCode(), last(complained.Bytes()))
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return said.Bytes(), 0, err
}

// answer is writ for a command that is to succeed, and answers with one
// object.
func answer[T any](ctx context.Context, st *stage, who *person, args ...string) (*T, error) {
	out, _, err := st.writ(ctx, who, args...)
	if err != nil {
		return nil, err
	}
	v := new(T)
	if err := json.Unmarshal(out, v); err != nil {
		return nil, fmt.Errorf("what writ %s says: %w", args[0], err)
	}
	return v, nil
}
