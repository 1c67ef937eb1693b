//go:build unix

package crash_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A process is one life of a worker.
type process struct {
	cmd    *exec.Cmd
	stdin  io.Closer     // closing it tells the worker to end
	ready  chan struct{} // closed when it says that it is
	asked  chan struct{} // closed when jobAsk says that it has
	done   chan struct{} // closed when it has ended
	exit   int           // how, if it was not killed; else -1
	stderr bytes.Buffer
	trace  string // what strace tells; empty without it
}

// start begins a life. An inject is what strace is to do to its system calls,
// in strace's words, such as "fsync:error=EIO:when=3"; empty is nothing.
func (w *world) start(role, inject string, env ...string) (*process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{ready: make(chan struct{}), asked: make(chan struct{}), done: make(chan struct{})}
	args := []string{exe}
	if inject != "" {
		p.trace = filepath.Join(w.dir, fmt.Sprintf("trace-%d", w.lives.Add(1)))
		calls, _, _ := strings.Cut(inject, ":")
		args = []string{"strace", "-f", "-y", "-qq", "-o", p.trace, "-e", "trace=write," + calls, "-e", "signal=none", "-e", "inject=" + inject, exe}
		if !strings.Contains(inject, "signal=") { // such a filter is quick, and lets no signal in
			args = slices.Insert(args, 1, "--seccomp-bpf")
		}
	}
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Env = append(os.Environ(), envRole+"="+role, envDir+"="+w.dir, envMutant+"="+w.mutant)
	p.cmd.Env = append(p.cmd.Env, env...)
	p.cmd.Stderr = &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that strace and what it traces are killed together
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.done)
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			switch lines.Text() {
			case "ready":
				close(p.ready)
			case "asked":
				close(p.asked)
			}
		}
		p.cmd.Wait()
		p.exit = p.cmd.ProcessState.ExitCode()
	}()
	return p, nil
}

// signal reaches the worker, and strace if that is there, unless they have
// ended.
func (p *process) signal(s syscall.Signal) {
	select {
	case <-p.done:
	default:
		syscall.Kill(-p.cmd.Process.Pid, s)
	}
}

// longest is how long a life may take. It is there for what hangs.
const longest = 2 * time.Minute

// wait waits for the end of a life, and ends what hangs.
func (p *process) wait() error {
	select {
	case <-p.done:
		return nil
	case <-time.After(longest):
	}
	p.signal(syscall.SIGCONT)
	p.signal(syscall.SIGABRT) // it tells what its goroutines do
	select {
	case <-p.done:
	case <-time.After(time.Second):
		p.signal(syscall.SIGKILL)
		<-p.done
	}
	return fmt.Errorf("it hangs:\n%s", p.stderr.Bytes())
}

// injected says how often strace has made a system call fail, and whether one
// of them was about a file of the database that still had a future.
func (p *process) injected() (n int, database bool) {
	b, err := os.ReadFile(p.trace)
	if err != nil {
		return 0, false
	}
	over := false
	for line := range bytes.Lines(b) {
		over = over || bytes.Contains(line, []byte(closing))
		if bytes.Contains(line, []byte("(INJECTED)")) {
			n++
			database = database || !over && bytes.Contains(line, []byte("/writ.db"))
		}
	}
	return n, database
}

// stopped waits until the worker has stopped itself.
func (p *process) stopped(t *testing.T) {
	t.Helper()
	var status syscall.WaitStatus
	if pid, err := syscall.Wait4(p.cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || pid != p.cmd.Process.Pid || !status.Stopped() {
		t.Fatalf("waiting for the worker to stop: %v, %v, %v\n%s", pid, status, err, p.stderr.Bytes())
	}
}
