package upstream_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/capability/issue"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/ledger/ledgertest"
	"github.com/writgate/writ/ledger/sqlite"
	"github.com/writgate/writ/mcp"
	"github.com/writgate/writ/policy"
	"github.com/writgate/writ/upstream"
)

// The test binary is also the stdio servers of the tests.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "serve" {
		serveStdio(os.Args[2], os.Args[3:])
		os.Exit(0)
	}
	flag.Parse()
	flag.Set("test.parallel", "8") // they wait more than they work
	os.Setenv("OUR_SECRET", "of the gateway")
	os.Setenv("OUR_REGION", "eu")
	os.Exit(m.Run())
}

const (
	agent  writ.AgentID = "spiffe://acme.example/agent/billing"
	secret string       = "s3cret-of-the-tool"
)

// A world is a set of upstreams, and a broker that leases over a real ledger.
type world struct {
	*upstream.Set
	t      testing.TB
	broker *broker.Broker
	ledger *ledger.Ledger
}

// mint makes the same secret each time, and forgets it.
type mint struct{}

func (mint) Mint(_ context.Context, row broker.Row) (broker.Minted, error) {
	s, err := broker.NewSecret("tool", secret)
	return broker.Minted{Secret: s, Until: row.Until}, err
}

func (mint) Revoke(context.Context, string) (broker.Evidence, error) {
	return broker.Evidence{Outcome: broker.Revoked}, nil
}
func (mint) Lifetime(time.Duration) time.Duration { return 0 }

func newWorld(t testing.TB, configs ...upstream.Config) *world {
	t.Helper()
	store, err := sqlite.Open(filepath.Join(t.TempDir(), "writ.db"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, ledger: ledgertest.Open(t, store, ledger.Config{Now: time.Now})}
	w.broker = &broker.Broker{Gateway: "gw-1", Queue: &broker.Journal{Ledger: w.ledger}, Now: time.Now, Backends: map[string]broker.Backend{
		"header": {Driver: mint{}, Place: broker.Placement{Header: "Authorization", Scheme: "Bearer"}},
		"env":    {Driver: mint{}, Place: broker.Placement{Env: "TOOL_TOKEN"}},
		"arg":    {Driver: mint{}, Place: broker.Placement{Argument: true}},
	}}
	if w.Set, err = upstream.Open(configs); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// issued issues a capability for a call that a real bundle permits: without
// one there is no lease. What it is for does not matter to the broker.
var issued = sync.OnceValue(func() func() (*issue.Token, error) {
	tool := writ.Tool{Name: "up.tool", Upstream: "up", Definition: writ.Hash("definition", []byte("{}"))}
	bundle, err := policy.Load(
		[]policy.File{{Name: "all.cedar", Text: []byte(`permit(principal, action, resource);`)}},
		[]policy.ToolSchema{{Tool: tool, Kind: writ.KindTool, Input: []byte(`{"type":"object","additionalProperties":false}`)}},
	)
	if err != nil {
		return func() (*issue.Token, error) { return nil, err }
	}
	now := time.Now()
	permit, _ := bundle.Decide(&writ.Query{
		Version: 1, Call: writ.NewID[writ.CallID](now), Time: now.UnixMilli(), Bundle: bundle.Digest(), Tool: tool, Label: writ.Clean,
		Caller: writ.Caller{Agent: agent, Key: "key", Proof: writ.ProofDPoP},
		Agent:  writ.Agent{ID: agent, Owner: "ola", Environment: "test", State: writ.Active},
		Task: writ.Task{
			ID: newTask(), Agent: agent, Key: "key", Environment: "test", State: writ.Open, Grant: writ.Grant{{Tool: "up.*"}},
			Opened: now.UnixMilli(), Expires: now.Add(time.Hour).UnixMilli(),
		},
		Action: writ.Action{Kind: writ.KindTool, Upstream: "up", Name: "tool", Definition: tool.Definition, Arguments: "{}"},
	})
	issuer, err := issue.New(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), "https://writ.acme.example", nil, time.Now)
	return func() (*issue.Token, error) {
		if err != nil {
			return nil, err
		}
		return issuer.Issue(permit, "up", 0)
	}
})

func newTask() writ.TaskID { return writ.NewID[writ.TaskID](time.Now()) }

// lease leases from a backend, or no credential if that is empty.
func (w *world) lease(task writ.TaskID, backend string) (*broker.Lease, func()) {
	w.t.Helper()
	token, err := issued()()
	if err != nil {
		w.t.Fatal(err)
	}
	row, err := w.broker.Prepare(broker.Order{
		Token: token, Task: task, Agent: agent, Tool: "up.tool", Backend: backend,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	e := &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeIntent, Call: writ.NewID[writ.CallID](time.Now()), Task: task, Capability: string(token.ID()), Lease: string(row.Lease)}}
	if backend != "" {
		e.Changes = []ledger.Change{row.Change()}
	}
	receipts, err := w.ledger.Commit(context.Background(), e)
	if err != nil {
		w.t.Fatal(err)
	}
	lease, err := w.broker.Lease(context.Background(), row, receipts[0])
	if err != nil {
		w.t.Fatal(err)
	}
	return lease, func() { w.broker.Revoke(context.Background(), row) }
}

// tool discovers, and gives the action that calls a tool.
func (w *world) tool(up, name, arguments string) *writ.Action {
	w.t.Helper()
	offers, err := w.Discover(context.Background(), up)
	if err != nil {
		w.t.Fatal(err)
	}
	return action(w.t, offers, up, name, arguments)
}

func action(t testing.TB, offers []upstream.Offer, up, name, arguments string) *writ.Action {
	t.Helper()
	i := slices.IndexFunc(offers, func(o upstream.Offer) bool { return o.Name == name })
	if i < 0 {
		t.Fatalf("%s does not offer %q: %v", up, name, offers)
	}
	return &writ.Action{Kind: offers[i].Kind, Upstream: up, Name: name, Definition: writ.Hash("definition", []byte(offers[i].Raw)), Arguments: writ.JSON(arguments)}
}

// call makes one call without a credential in a task of its own.
func (w *world) call(ctx context.Context, a *writ.Action) (*upstream.Answer, error) {
	w.t.Helper()
	return w.callAs(ctx, "", upstream.Order{Task: newTask(), Action: a})
}

func (w *world) callAs(ctx context.Context, backend string, o upstream.Order) (*upstream.Answer, error) {
	w.t.Helper()
	lease, revoke := w.lease(o.Task, backend)
	defer revoke()
	return w.Call(ctx, lease, o)
}

// A fake is a modern server that does what a test wants when a tool is called.
// It keeps what it was sent.
type fake struct {
	*httptest.Server
	tools   []string // definitions
	watched bool     // it tells when they change
	call    func(w http.ResponseWriter, r *http.Request, m *mcp.Message)

	mu   sync.Mutex
	seen []*seen
}

type seen struct {
	header http.Header
	body   string
	m      *mcp.Message
}

const plainTool = `{"name":"tool","inputSchema":{"type":"object"}}`

func newFake(t testing.TB, call func(w http.ResponseWriter, r *http.Request, m *mcp.Message)) *fake {
	t.Helper()
	f := &fake{tools: []string{plainTool}, call: call}
	f.Server = httptest.NewServer(f)
	t.Cleanup(func() {
		f.CloseClientConnections()
		f.Close()
	})
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	m, err := mcp.ParseMessage(body, canon.Limits{})
	if err != nil {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	f.seen = append(f.seen, &seen{r.Header.Clone(), string(body), m})
	tools := strings.Join(f.tools, ",")
	f.mu.Unlock()
	switch m.Method {
	case "server/discover":
		reply(w, m.ID, fmt.Sprintf(`{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{"listChanged":%v}},"resultType":"complete"}`, f.watched))
	case "tools/list":
		reply(w, m.ID, `{"tools":[`+tools+`]}`)
	default:
		f.call(w, r, m)
	}
}

func reply(w http.ResponseWriter, id, result string) {
	w.Header().Set("Content-Type", "application/json")
	w.Write(mcp.Response(id, []byte(result)))
}

// calls are the calls that reached the tool.
func (f *fake) calls() (all []*seen) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.seen {
		if s.m.Method == "tools/call" {
			all = append(all, s)
		}
	}
	return all
}

func (f *fake) offer(tools ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tools = tools
}

func (f *fake) config() upstream.Config { return upstream.Config{Name: "up", URL: f.URL + "/mcp"} }

// ok is a result with some text.
func ok(text string) string {
	b, _ := json.Marshal(text)
	return fmt.Sprintf(`{"resultType":"complete","content":[{"type":"text","text":%s}]}`, b)
}

// eventually waits for something that another goroutine or process does.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}
