package upstream_test

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/mcp"
	"github.com/writgate/writ/upstream"
)

// serveStdio is the main function of the servers that the tests start.
func serveStdio(kind string, args []string) {
	switch kind {
	case "sdk":
		reference().Run(context.Background(), &sdk.StdioTransport{})
		return
	case "sleeper":
		time.Sleep(time.Minute)
		return
	case "mute":
		time.Sleep(time.Minute)
	case "late":
		time.Sleep(3200 * time.Millisecond)
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
	case "family":
		child := exec.Command(os.Args[0], "serve", "sleeper")
		if err := child.Start(); err != nil {
			panic(err)
		}
		os.WriteFile(args[0], []byte(strconv.Itoa(child.Process.Pid)), 0o600)
	case "loud":
		for range 100 {
			fmt.Fprint(os.Stderr, strings.Repeat("noise ", 1000))
		}
	}
	in := bufio.NewReader(os.Stdin)
	var asking string    // the call that waits for answers
	var answers []string // to what it has asked
	for {
		line, err := mcp.ReadLine(in, 2<<20)
		if err != nil {
			break
		}
		m, err := mcp.ParseMessage(line, canon.Limits{Bytes: 2 << 20})
		if err != nil || m.ID == "" {
			continue
		}
		say := func(result string) { fmt.Println(response(m.ID, result)) }
		if m.Method == "" {
			answers = append(answers, fmt.Sprintf(`{"id":%s,"error":%v,"result":%s}`, m.ID, m.Err != nil, cmp.Or(string(m.Result.Raw()), "null")))
			if len(answers) == 3 {
				fmt.Println(response(asking, `{"content":[],"answers":[`+strings.Join(answers, ",")+`]}`))
			}
			continue
		}
		if m.Method == "tools/call" && kind == "asker" {
			asking = m.ID
			fmt.Println(`{"jsonrpc":"2.0","id":1,"method":"roots/list"}`)
			for i, text := range []string{"one", "two"} {
				fmt.Printf(`{"jsonrpc":"2.0","id":"q%d","method":"elicitation/create","params":{"message":"%s"}}`+"\n", i, text)
			}
			continue
		}
		switch m.Method {
		case "server/discover":
			if kind == "touchy" {
				os.Exit(1)
			}
			if kind == "late" {
				say(`{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{}}}`)
				continue
			}
			fmt.Println(string((&mcp.Error{Code: mcp.CodeMethodNotFound, Message: "no", ID: m.ID}).Response()))
		case "initialize":
			if kind == "late" {
				e := mcp.UnsupportedVersion("2025-11-25", mcp.Modern)
				e.ID = m.ID
				fmt.Println(string(e.Response()))
				continue
			}
			say(`{"protocolVersion":"2025-11-25","capabilities":{"tools":{}}}`)
		case "tools/list":
			say(`{"tools":[` + plainTool + `]}`)
		case "tools/call":
			callStdio(kind, args, m, say)
		}
	}
	if kind == "stubborn" {
		time.Sleep(time.Minute)
	}
}

func callStdio(kind string, args []string, m *mcp.Message, say func(string)) {
	switch kind {
	case "deaf":
		time.Sleep(time.Minute)
	case "crash":
		os.Exit(3)
	case "chatty":
		fmt.Println("Server ready!\n\n  \n{not json")
		fmt.Println(response("99999", ok("forged")) + "\n" + response(`"`+m.ID+`"`, ok("forged")))
		fmt.Println(`{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{}}`)
	case "endless":
		for {
			fmt.Print(strings.Repeat("x", 1<<16))
		}
	case "flood":
		for {
			fmt.Fprint(os.Stderr, strings.Repeat("noise ", 10_000))
		}
	case "garbled":
		say(`{"a":1,"a":2}`)
		return
	case "strays":
		for {
			fmt.Println(`{"jsonrpc":"2.0","method":"notifications/message","params":{}}`)
		}
	case "hang":
		return
	}
	b, err := json.Marshal(map[string]any{"pid": os.Getpid(), "env": os.Environ(), "args": args, "dir": func() string { d, _ := os.Getwd(); return d }()})
	if err != nil {
		panic(err)
	}
	say(`{"content":[],"structuredContent":` + string(b) + `}`)
}

// A self is what the test server says of itself.
type self struct {
	Pid  int
	Env  []string
	Args []string
	Dir  string
}

func selfOf(t testing.TB, a *upstream.Answer, err error) (s self) {
	t.Helper()
	if err != nil || a.Err != nil {
		t.Fatalf("%+v, %v", a, err)
	}
	v, err := canon.Parse(a.Body, canon.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(v.Get("structuredContent").Raw(), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// alive says whether a process runs; one that has ended and waits for its
// parent does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// TestProcessOfATask starts one process for a task, and ends it with it.
func TestProcessOfATask(t *testing.T) {
	t.Parallel()
	w := newWorld(t, overStdio(t, "plain"))
	a := w.tool("up", "tool", `{}`)
	one, two := newTask(), newTask()
	pid := func(task writ.TaskID) int {
		got, err := w.callAs(t.Context(), "", upstream.Order{Task: task, Action: a})
		s := selfOf(t, got, err)
		if len(s.Env) != 0 {
			t.Errorf("it inherits %q", s.Env)
		}
		return s.Pid
	}
	first, again, other := pid(one), pid(one), pid(two)
	if first != again || first == other {
		t.Errorf("processes %d and %d of one task, %d of another", first, again, other)
	}
	w.CloseTask(one)
	if alive(first) || !alive(other) {
		t.Errorf("after the end of the one: %v, of the other: %v", alive(first), alive(other))
	}
	w.Close()
	if alive(other) {
		t.Error("a process survives its gateway")
	}
}

// TestProcessOfALease starts a process for each lease, gives the credential to
// it alone, and ends it with the lease.
func TestProcessOfALease(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"env", "arg"} {
		config := overStdio(t, "plain")
		config.Command = append(config.Command, "--root", "/srv")
		config.Env = []string{"OUR_REGION", "OUR_NOTHING"}
		w := newWorld(t, config)
		a := w.tool("up", "tool", `{"TOOL_TOKEN":"x","a":"--evil"}`)
		task := newTask()
		lease, revoke := w.lease(task, backend)
		call := func(l interface{ Check() error }) self {
			got, err := w.Call(t.Context(), lease, upstream.Order{Task: task, Action: a})
			return selfOf(t, got, err)
		}
		s := call(lease)
		wantEnv, wantArgs := []string{"OUR_REGION=eu", "TOOL_TOKEN=" + secret}, []string{"--root", "/srv"}
		if backend == "arg" {
			wantEnv, wantArgs = wantEnv[:1], append(wantArgs, secret)
		}
		if !slices.Equal(s.Env, wantEnv) || !slices.Equal(s.Args, wantArgs) || s.Dir != "/" {
			t.Errorf("%s: %+v", backend, s)
		}
		if again := call(lease); again.Pid != s.Pid {
			t.Errorf("%s: two processes of one lease", backend)
		}
		other, err := w.callAs(t.Context(), backend, upstream.Order{Task: task, Action: a})
		if selfOf(t, other, err).Pid == s.Pid {
			t.Errorf("%s: one process of two leases", backend)
		}
		free, err := w.callAs(t.Context(), "", upstream.Order{Task: task, Action: a})
		if f := selfOf(t, free, err); slices.ContainsFunc(slices.Concat(f.Env, f.Args), func(s string) bool { return strings.Contains(s, secret) }) {
			t.Errorf("%s: without a lease the process has %+v", backend, f)
		}
		revoke()
		eventually(t, "the process ends with its lease", func() bool { return !alive(s.Pid) })
		if !alive(selfOf(t, free, err).Pid) {
			t.Error("the task's own process ended with a lease")
		}
	}
}

func TestHeaderLeaseIsNotForAProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t, overStdio(t, "plain"))
	if _, err := w.callAs(t.Context(), "header", upstream.Order{Task: newTask(), Action: w.tool("up", "tool", `{}`)}); !errors.Is(err, upstream.ErrNotSent) {
		t.Errorf("%v", err)
	}
}

// TestH68Family: what a process has started dies with it, however it ends.
func TestH68Family(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"task", "crash"} {
		file := filepath.Join(t.TempDir(), "pid")
		config := overStdio(t, "family")
		config.Command = append(config.Command, file)
		w := newWorld(t, config)
		task := newTask()
		got, err := w.callAs(t.Context(), "", upstream.Order{Task: task, Action: w.tool("up", "tool", `{}`)})
		parent := selfOf(t, got, err).Pid
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		child, err := strconv.Atoi(string(b))
		if err != nil || !alive(child) {
			t.Fatalf("the child %s does not run: %v", b, err)
		}
		if end == "task" {
			w.CloseTask(task)
		} else {
			syscall.Kill(parent, syscall.SIGKILL)
		}
		eventually(t, "parent and child end", func() bool { return !alive(parent) && !alive(child) })
	}
}

func TestH68Stubborn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, overStdio(t, "stubborn"))
	task := newTask()
	got, err := w.callAs(t.Context(), "", upstream.Order{Task: task, Action: w.tool("up", "tool", `{}`)})
	pid := selfOf(t, got, err).Pid
	began := time.Now()
	w.CloseTask(task)
	if alive(pid) || time.Since(began) > 4*time.Second {
		t.Errorf("after %v: alive %v", time.Since(began), alive(pid))
	}
}

// TestH68Chaos is processes that break what can be broken. None blocks a call
// beyond its time, and none of its noise is read for an answer.
func TestH68Chaos(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind     string
		args     string
		ok       bool
		tooLarge bool
	}{
		{"loud", `{}`, true, false},
		{"chatty", `{}`, true, false},
		{"touchy", `{}`, true, false},
		{"crash", `{}`, false, false},
		{"flood", `{}`, false, false},
		{"garbled", `{}`, false, false},
		{"hang", `{}`, false, false},
		{"endless", `{}`, false, true},
		{"strays", `{}`, false, true},
	} {
		t.Run(c.kind, func(t *testing.T) {
			config := overStdio(t, c.kind)
			if c.kind == "hang" {
				config.Timeout = 1500 * time.Millisecond
			}
			w := newWorld(t, config)
			a := w.tool("up", "tool", c.args)
			began := time.Now()
			got, err := w.call(t.Context(), a)
			if c.ok {
				selfOf(t, got, err)
				return
			}
			if err == nil || errors.Is(err, upstream.ErrNotSent) || c.tooLarge != errors.Is(err, upstream.ErrTooLarge) {
				t.Errorf("%+v, %v, want an unknown outcome", got, err)
			}
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// TestH68Deaf: a process that stops reading blocks nobody beyond his time, and
// is ended when it has half a message.
func TestH68Deaf(t *testing.T) {
	t.Parallel()
	config := overStdio(t, "deaf")
	config.Timeout = 500 * time.Millisecond
	w := newWorld(t, config)
	a := w.tool("up", "tool", `{}`)
	big := *a
	big.Arguments = writ.JSON(`{"a":"` + strings.Repeat("x", 900<<10) + `"}`)
	task := newTask()
	for i, c := range []struct {
		action *writ.Action
		why    string
	}{{a, "time"}, {&big, "does not read"}, {a, "time"}} { // the last is another process
		began := time.Now()
		_, err := w.callAs(t.Context(), "", upstream.Order{Task: task, Action: c.action})
		if err == nil || errors.Is(err, upstream.ErrNotSent) || !strings.Contains(err.Error(), c.why) || time.Since(began) > 5*time.Second {
			t.Errorf("call %d: %v after %v", i, err, time.Since(began))
		}
	}
}

// TestH68DoesNotStart: nothing was sent to what does not start.
func TestH68DoesNotStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, overStdio(t, "plain"))
	a := w.tool("up", "tool", `{}`)
	for name, change := range map[string]func(c *upstream.Config){
		"mute":       func(c *upstream.Config) { c.Command[2] = "mute" },
		"no file":    func(c *upstream.Config) { c.Command = []string{"/no/such/file"} },
		"not a tool": func(c *upstream.Config) { c.Command = []string{"/bin/true"} },
		"silent":     func(c *upstream.Config) { c.Command = []string{"/bin/sleep", "60"} },
		"not pinned": func(c *upstream.Config) { c.Pins = map[string]string{c.Command[0]: strings.Repeat("00", 32)} },
		"no pinned":  func(c *upstream.Config) { c.Pins = map[string]string{"/no/such/file": strings.Repeat("00", 32)} },
	} {
		config := overStdio(t, "plain")
		config.Timeout = 700 * time.Millisecond
		change(&config)
		w := newWorld(t, config)
		if _, err := w.call(t.Context(), a); !errors.Is(err, upstream.ErrNotSent) {
			t.Errorf("%s: %v", name, err)
		}
		w.Close()
	}
}

func TestH67Pins(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "server.js")
	write := func(s string) string {
		if err := os.WriteFile(script, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256([]byte(s))
		return hex.EncodeToString(sum[:])
	}
	config := overStdio(t, "plain")
	config.Pins = map[string]string{script: strings.ToUpper(write("reviewed"))}
	w := newWorld(t, config)
	a := w.tool("up", "tool", `{}`)
	if _, err := w.call(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	write("republished")
	if _, err := w.call(t.Context(), a); !errors.Is(err, upstream.ErrNotSent) || !strings.Contains(err.Error(), "pinned") {
		t.Errorf("%v", err)
	}
}

// TestBridgeStdio asks on the one stream there is: for roots, which is no
// part of the call, and two questions that are. An answer may come late or not
// at all.
func TestBridgeStdio(t *testing.T) {
	t.Parallel()
	w := newWorld(t, overStdio(t, "asker"))
	o := upstream.Order{Task: newTask(), Action: w.tool("up", "tool", `{}`), Meta: mcp.Meta{Capabilities: `{"elicitation":{},"roots":{}}`}}
	asked := map[string]bool{}
	for range 3 {
		got, err := w.callAs(t.Context(), "", o)
		if err != nil || got.Err != nil {
			t.Fatalf("%+v, %v", got, err)
		}
		v, err := canon.Parse(got.Body, canon.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if v.Get("answers") != nil {
			if !asked["one"] || !asked["two"] || len(asked) != 2 {
				t.Errorf("asked %v", asked)
			}
			for _, want := range []string{`{"id":1,"error":true,"result":null}`, `{"id":"q0","error":false,"result":{"action":"accept"}}`, `{"id":"q1","error":true,"result":null}`} {
				if !strings.Contains(string(got.Body), want) {
					t.Errorf("%s, want %s", got.Body, want)
				}
			}
			return
		}
		next := *o.Action
		next.State, _ = v.Get("requestState").Str()
		inputs := []string{}
		for key, ask := range v.Get("inputRequests").Members() {
			message, _ := ask.Pointer("/params/message").Str()
			asked[message] = true
			if message == "one" {
				inputs = append(inputs, fmt.Sprintf(`%q:{"action":"accept"}`, key))
			}
		}
		next.Inputs = writ.JSON("{" + strings.Join(inputs, ",") + "}")
		o.Action = &next
	}
	t.Error("it asks forever")
}

// TestWithCredentialNothingIsHeld: the process of a lease ends with it, and
// cannot wait for an answer.
func TestWithCredentialNothingIsHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t, overStdio(t, "asker"))
	got, err := w.callAs(t.Context(), "env", upstream.Order{Task: newTask(), Action: w.tool("up", "tool", `{}`), Meta: mcp.Meta{Capabilities: `{"elicitation":{},"roots":{}}`}})
	if err != nil || strings.Count(string(got.Body), `"error":true`) != 3 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestSlowToStart: a modern server that takes longer to start than a probe
// waits is not taken for a legacy one.
func TestSlowToStart(t *testing.T) {
	t.Parallel()
	if _, err := newWorld(t, overStdio(t, "late")).Discover(t.Context(), "up"); err != nil {
		t.Error(err)
	}
}

// TestDiscoverySays what a server that does not start wrote to its standard
// error: it had no secret to write.
func TestDiscoverySays(t *testing.T) {
	t.Parallel()
	config := overStdio(t, "plain")
	config.Command = []string{"/bin/sh", "-c", "echo the reason >&2; exit 3"}
	_, err := newWorld(t, config).Discover(t.Context(), "up")
	if err == nil || !strings.Contains(err.Error(), "the reason") {
		t.Errorf("%v", err)
	}
}

func TestProcessLimits(t *testing.T) {
	t.Parallel()
	config := overStdio(t, "plain")
	w := newWorld(t, config)
	got, err := w.call(t.Context(), w.tool("up", "tool", `{}`))
	pid := selfOf(t, got, err).Pid
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); strings.HasPrefix(line, "Max core file size") && f[4] != "0" {
			t.Errorf("%s", line)
		}
	}
}
