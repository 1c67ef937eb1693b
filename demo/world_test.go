package demo_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"testing"

	"github.com/writgate/writ/demo"
)

// asServer names the server that a process of this test is, if it is one.
const asServer = "WRIT_DEMO_TEST_SERVER"

// TestMain lets the servers be what they are in the demo: other processes.
func TestMain(m *testing.M) {
	name := os.Getenv(asServer)
	if name == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := demo.Serve(ctx, name, demo.Options{
		Dir: os.Getenv("DIR"), HTTP: os.Getenv("OVER") == "http", In: os.Stdin, Out: os.Stdout,
		Secret: os.Getenv("SECRET"), Authorization: os.Getenv("AUTHORIZATION"), Token: os.Getenv("TOKEN"),
		Keys: os.Getenv("KEYS"), Issuer: os.Getenv("ISSUER"),
	})
	if err != nil {
		io.WriteString(os.Stderr, err.Error()+"\n")
		os.Exit(1)
	}
	os.Exit(0)
}

// command is a server as a process.
func command(t testing.TB, name, over string, env ...string) *exec.Cmd {
	t.Helper()
	c := exec.Command(os.Args[0], "-test.run=^$")
	c.Env = append([]string{asServer + "=" + name, "OVER=" + over, "DIR=" + t.TempDir(), "SECRET=of this test", "GORACE=atexit_sleep_ms=0"}, env...)
	c.Stderr = os.Stderr
	return c
}

// serve starts a server over HTTP, and gives its endpoint.
func serve(t testing.TB, name string, env ...string) (endpoint string) {
	t.Helper()
	c := command(t, name, "http", env...)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		if err := c.Wait(); err != nil {
			t.Errorf("%s ended with %v", name, err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%s said nothing: %v", name, err)
	}
	return strings.TrimSpace(line)
}

// see reads a page of a server.
func see[Row any](t testing.TB, endpoint, path string) []Row {
	t.Helper()
	r, err := http.Get(strings.TrimSuffix(strings.TrimSuffix(endpoint, "mcp"), "/") + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var rows []Row
	if err := json.NewDecoder(r.Body).Decode(&rows); err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d, %v", path, r.StatusCode, err)
	}
	return rows
}
