package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/writgate/writ/writtest"
)

// nosyAgent is an agent with a shell's worth of curiosity. Its arguments are
// the data directory, the operator's key, and the endpoint of somebody else's
// run. It prints what it got, a line each; with none of it there is only
// "own endpoint".
func nosyAgent() {
	dir, key, other := os.Args[1], os.Args[2], os.Args[3]
	got := func(what string, err error) {
		if err == nil {
			fmt.Println("got", what)
		}
	}
	read := func(name string) error {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.ReadFull(f, make([]byte, 1))
		return err
	}
	sidecar := os.Getppid()
	got("the operator's key", read(key))
	got("the ledger", read(filepath.Join(dir, "writ.db")))
	got("a key of the gateway", read(filepath.Join(dir, "keys", "token")))
	got("the sidecar's environment", read(fmt.Sprintf("/proc/%d/environ", sidecar)))
	_, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", sidecar))
	got("the sidecar's files", err)
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", sidecar))
	if err == nil && len(maps) == 0 {
		err = io.EOF
	}
	got("the sidecar's memory", err)
	got("the sidecar traced", syscall.PtraceAttach(sidecar))
	got("the sidecar ended", syscall.Kill(sidecar, 0))
	c, err := net.Dial("unix", filepath.Join(dir, "admin.sock"))
	if err == nil {
		c.Close()
	}
	got("the admin socket", err)
	for _, name := range []string{"WRIT_PASSPHRASE_FILE", "WRIT_OPERATOR_KEY", "WRIT_DIR", "GITHUB_TOKEN"} {
		if os.Getenv(name) != "" {
			fmt.Println("got", name)
		}
	}
	got("another's endpoint", initialize(other))
	got("the endpoint with another secret", initialize(os.Getenv("WRIT_MCP_URL")+"x"))
	got("own endpoint", initialize(os.Getenv("WRIT_MCP_URL")))
}

// showEndpoint is an agent that says where its endpoint is, and waits.
func showEndpoint() {
	fmt.Println(os.Getenv("WRIT_MCP_URL"))
	io.Copy(io.Discard, os.Stdin)
}

// initialize begins a session at an endpoint.
func initialize(url string) error {
	body := `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct{ Result json.RawMessage }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Result == nil {
		return fmt.Errorf("no session: %s", resp.Status)
	}
	return nil
}

// TestIsolatedAgentGetsNothingElse starts an agent as another user. All it can
// reach of Writ is its own endpoint.
func TestIsolatedAgentGetsNothingElse(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can start an agent as another user")
	}
	const user = "nobody"
	// The programs are where the other user can run them; the data is not.
	programs, err := os.MkdirTemp("", "writ-programs-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(programs) })
	if err := os.Chmod(programs, 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"writ", "nosy-agent", "show-endpoint"} {
		if err := os.WriteFile(filepath.Join(programs, name), self, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(t.TempDir(), "writ")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	passphrase, keys := operatorKeys(t)
	key, pass := filepath.Join(t.TempDir(), "omar.key"), filepath.Join(dir, "passphrase")
	for name, text := range map[string][]byte{
		key: keys["omar"], pass: []byte(passphrase),
		filepath.Join(dir, "writ.yaml"): fmt.Appendf(nil, "listen: 127.0.0.1:%d\nissuer: {listen: 127.0.0.1:%d}\nregistry:\n  operators: [{user: omar, key: %s}]\n", port(t), port(t), writtest.OperatorKey("omar")),
	} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := append(os.Environ(), "WRIT_DIR="+dir, "WRIT_OPERATOR_KEY="+key, passphraseFile+"="+pass, "GITHUB_TOKEN=hush")
	writ := func(args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(programs, "writ"), args...)
		cmd.Env, cmd.Stderr = env, os.Stderr
		return cmd
	}
	up := writ("up")
	begin(t, up)
	for deadline := time.Now().Add(20 * time.Second); writ("status").Run() != nil; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the gateway does not answer")
		}
	}

	// Somebody else's run, whose endpoint the agent has got to know.
	other := writ("run", "--", filepath.Join(programs, "show-endpoint"))
	hold, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	said, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	begin(t, other)
	defer hold.Close()
	endpoint := make([]byte, 256)
	n, err := said.Read(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	nosy := writ("run", "--task", "look around", "--as", user, "--", filepath.Join(programs, "nosy-agent"), dir, key, strings.TrimSpace(string(endpoint[:n])))
	nosy.Stdout = &out
	if err := nosy.Run(); err != nil {
		t.Errorf("the agent: %v", err)
	}
	if got := out.String(); got != "got own endpoint\n" {
		t.Errorf("an isolated agent %s", got)
	}
}

func begin(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
}

func port(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}
