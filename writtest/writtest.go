// Package writtest gives a whole gate in a test: a real ledger in a temporary
// file, a real identity from the development trust domain, real policies, and
// in place of the outside world a small, honest one that remembers what it
// was asked.
//
//	w := writtest.New(t, writtest.Setup{Tools: []writtest.Tool{{Name: "mail.send", Tier: writ.BoundedWrite}}})
//	a := w.Agent("billing")
//	a.Open(writ.Task{Grant: writ.Grant{{Tool: "mail.*"}}})
//	res, err := a.Call("mail.send", `{"to":"lena@example.com"}`)
//
// A test that needs the wire as well uses the gate of a World behind a
// listener.
package writtest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/writgate/writ"
	"github.com/writgate/writ/approval"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/capability/issue"
	"github.com/writgate/writ/flow"
	"github.com/writgate/writ/gate"
	"github.com/writgate/writ/identity"
	"github.com/writgate/writ/identity/devca"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/ledger/sqlite"
	"github.com/writgate/writ/policy"
	"github.com/writgate/writ/registry"
	"github.com/writgate/writ/task"
)

// A Tool is one tool of the world behind the gate.
type Tool struct {
	Name       writ.ToolName     `yaml:"tool"`
	Tier       writ.Tier         `yaml:"tier"`
	Fetch      bool              `yaml:"fetch"`
	Result     writ.Label        `yaml:"result"`
	Credential string            `yaml:"credential"` // "vault" is the one backend there is
	Args       map[string]string `yaml:"args"`       // the JSON type of each argument: all required, and no others
	Schema     string            `yaml:"schema"`     // of its arguments, in place of Args
	Reply      string            `yaml:"reply"`      // the text it answers with; "ok" if it is empty
	Fails      bool              `yaml:"fails"`      // it reports an error
}

// Setup says what is special about a World. Its zero value is a gate with one
// active agent, /agent/billing of owner maya, no tools, the starter policies,
// and the operators omar and olga.
type Setup struct {
	Registry  registry.Config
	Tools     []Tool
	Policies  []policy.File // the starter set if nil
	Directory string        // where the ledger is; a fresh one if empty. Two Worlds may share it.
	Gateway   string        // its name in the log

	// Store wraps the ledger's store, to make it fail.
	Store func(ledger.Store) ledger.Store
}

// A World is a gate and what surrounds it.
type World struct {
	Gate   *gate.Gate
	Tools  *Upstream
	Vault  *Vault
	Clock  *Clock
	Ledger *ledger.Ledger
	Trust  ledger.Trust

	t       testing.TB
	ca      *devca.CA
	setup   Setup
	bundles *identity.Bundles
}

// New makes a World. Everything in it ends with the test.
func New(t testing.TB, s Setup) *World {
	t.Helper()
	if s.Directory == "" {
		s.Directory = t.TempDir()
	}
	if s.Gateway == "" {
		s.Gateway = "gateway"
	}
	if s.Registry.Agents == nil {
		s.Registry.Agents = []registry.Agent{{ID: AgentID("billing"), Owner: "maya", Environment: Environment, HighestTier: writ.Privileged}}
	}
	if s.Registry.Operators == nil {
		s.Registry.Operators = []registry.Operator{{User: "omar", Key: OperatorKey("omar")}, {User: "olga", Key: OperatorKey("olga")}}
	}
	if s.Policies == nil {
		s.Policies = policy.Starter()
	}
	w := &World{t: t, setup: s, Clock: &Clock{now: time.Now().Truncate(time.Second)}, bundles: new(identity.Bundles)}
	file, err := devca.Generate(w.Clock.Now())
	if err == nil {
		w.ca, err = devca.Parse(file, devca.Environment)
	}
	if err == nil {
		domain := spiffeid.RequireTrustDomainFromString(identity.DevelopmentDomain)
		err = w.bundles.Set(domain, []*x509.Certificate{w.ca.Authority()}, w.Clock.Now().Add(24*time.Hour))
	}
	if err != nil {
		t.Fatal(err)
	}
	w.build()
	w.Offer(s.Tools...)
	if _, err := w.Gate.Apply(t.Context(), s.Policies, "omar"); err != nil {
		t.Fatal(err)
	}
	return w
}

// Beside gives another gateway over the same ledger, as another process would
// be, or the same one after a restart. The agents of w may call it.
func (w *World) Beside(t testing.TB, gateway string) *World {
	t.Helper()
	b := &World{t: t, setup: w.setup, Clock: w.Clock, bundles: w.bundles, ca: w.ca}
	b.setup.Gateway = gateway
	b.build()
	b.offer(w.setup.Tools)
	return b
}

// build wires a gate.
func (w *World) build() {
	w.t.Helper()
	s := &w.setup
	must := func(err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
	}
	var store ledger.Store
	store, err := sqlite.Open(filepath.Join(s.Directory, "writ.db"))
	must(err)
	if s.Store != nil {
		store = s.Store(store)
	}
	keys := ledger.Keys{Log: seed(1), Seal: [32]byte{2}, Pseudonym: [32]byte{3}}
	w.Ledger, err = ledger.Open(w.t.Context(), store, ledger.Config{Origin: "test.example/writ", Gateway: s.Gateway, Keys: keys, Now: w.Clock.Now})
	must(err)
	w.t.Cleanup(func() { w.Ledger.Close() })
	w.Trust = ledger.Trust{Origin: "test.example/writ", Logs: []string{w.Ledger.VerifierKey()}}
	w.Tools = &Upstream{replies: map[writ.ToolName]Tool{}}
	w.Vault = &Vault{live: map[string]bool{}}
	issuer, err := issue.New(seed(4), "https://writ.test", seed(5), w.Clock.Now)
	must(err)
	w.Gate = &gate.Gate{
		Identity:  &identity.Verifier{Bundles: w.bundles, Development: true, Now: w.Clock.Now},
		Catalog:   registry.New(s.Registry, w.Ledger, w.Clock.Now),
		Tasks:     &task.Book{Ledger: w.Ledger, Now: w.Clock.Now},
		Flow:      flow.New(),
		Approvals: &approval.Book{Ledger: w.Ledger, Now: w.Clock.Now, MAC: [32]byte{6}},
		Issuer:    issuer,
		Ledger:    w.Ledger,
		Broker: &broker.Broker{
			Gateway:  s.Gateway,
			Backends: map[string]broker.Backend{"vault": {Driver: w.Vault, Place: broker.Placement{Header: "Authorization", Scheme: "Bearer"}}},
			Queue:    &broker.Journal{Ledger: w.Ledger},
			Now:      w.Clock.Now,
		},
		Upstream: w.Tools,
	}
}

// Offer makes the tools exist, reviewed as they say of themselves.
func (w *World) Offer(tools ...Tool) {
	w.t.Helper()
	reviews := w.offer(tools)
	if len(reviews) == 0 {
		return
	}
	if err := w.Gate.Review(w.t.Context(), "omar", reviews); err != nil {
		w.t.Fatal(err)
	}
}

// offer makes the tools exist, and gives the reviews that would accept them.
func (w *World) offer(tools []Tool) map[writ.ToolName]registry.Review {
	w.t.Helper()
	offered := map[string][]registry.Definition{}
	reviews := map[writ.ToolName]registry.Review{}
	for _, tool := range tools {
		upstream, name, ok := strings.Cut(string(tool.Name), ".")
		if !ok {
			w.t.Fatalf("writtest: %q is no tool's name", tool.Name)
		}
		if tool.Schema == "" {
			tool.Schema = closed(tool.Args)
		}
		raw := fmt.Sprintf(`{"inputSchema":%s,"name":%q}`, tool.Schema, name)
		offered[upstream] = append(offered[upstream], registry.Definition{Kind: writ.KindTool, Upstream: upstream, Name: name, Raw: writ.JSON(raw)})
		reviews[tool.Name] = registry.Review{
			Definition: writ.Hash("definition", []byte(raw)), Tier: tool.Tier, Fetch: tool.Fetch, Result: tool.Result, Credential: tool.Credential,
		}
		w.Tools.replies[tool.Name] = tool
	}
	for upstream, defs := range offered {
		if err := w.Gate.Catalog.Offer(w.t.Context(), upstream, defs); err != nil {
			w.t.Fatal(err)
		}
	}
	return reviews
}

// closed is the schema of an object with exactly these members.
func closed(args map[string]string) string {
	properties := map[string]any{}
	for name, typ := range args {
		properties[name] = map[string]string{"type": typ}
	}
	b, err := json.Marshal(map[string]any{
		"type": "object", "properties": properties, "required": slices.Sorted(maps.Keys(args)), "additionalProperties": false,
	})
	if err != nil {
		panic(err) // maps of texts marshal
	}
	return strings.Replace(string(b), `"required":null`, `"required":[]`, 1)
}

// Environment is where the agents of a World work: not in development, where
// less is asked of people.
const Environment = "production"

// AgentID is the identity of a workload of the development trust domain.
func AgentID(name string) writ.AgentID {
	return writ.AgentID("spiffe://" + identity.DevelopmentDomain + "/agent/" + name)
}

// OperatorKey is the thumbprint of an operator's key.
func OperatorKey(user string) writ.Thumbprint {
	key, err := identity.Thumbprint(seed(user[1]).Public().(ed25519.PublicKey))
	if err != nil {
		panic(err) // an Ed25519 key has a thumbprint
	}
	return key
}

func seed(b byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
}

// A Clock goes only when it is told to.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// Now is what the clock says.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock by d, which may be negative.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// An Agent is a workload that has proven its key.
type Agent struct {
	Key   writ.Thumbprint
	Task  writ.Task // opened by Open
	w     *World
	chain []*x509.Certificate
}

// Agent gives a new workload of that name, with a key of its own.
func (w *World) Agent(name string) *Agent {
	w.t.Helper()
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	der, err := w.ca.Issue("/agent/"+name, pub, w.Clock.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		w.t.Fatal(err)
	}
	key, err := identity.Thumbprint(pub)
	if err != nil {
		w.t.Fatal(err)
	}
	return &Agent{Key: key, w: w, chain: []*x509.Certificate{leaf}}
}

// Evidence is what the agent shows with a request.
func (a *Agent) Evidence() identity.Evidence { return identity.Evidence{Chain: a.chain} }

// Open binds the agent's key to a task. What t does not say is filled in: the
// agent, its key, its environment, the user lena as the origin of
// the purpose.
func (a *Agent) Open(t writ.Task) {
	a.w.t.Helper()
	id, err := identity.ParseAgent(a.chain[0].URIs[0].String())
	if err != nil {
		a.w.t.Fatal(err)
	}
	t.Agent, t.Key, t.Environment = id, a.Key, a.w.environment(id)
	if t.Purpose.Origin == writ.OriginAgent {
		t.Purpose.Origin, t.User = writ.OriginUser, "lena"
	}
	held, err := a.w.Gate.Tasks.Open(a.w.t.Context(), t)
	if err != nil {
		a.w.t.Fatal(err)
	}
	a.Task = held.Task
}

// environment is the one that an agent is registered for.
func (w *World) environment(id writ.AgentID) string {
	for _, a := range w.setup.Registry.Agents {
		if a.ID == id {
			return a.Environment
		}
	}
	return Environment
}

// Request is a call that has not been made.
func (a *Agent) Request(tool writ.ToolName, args string) *gate.Request {
	upstream, name, _ := strings.Cut(string(tool), ".")
	return &gate.Request{
		Call: writ.NewID[writ.CallID](a.w.Clock.Now()), Evidence: a.Evidence(),
		Action: writ.Action{Kind: writ.KindTool, Upstream: upstream, Name: name, Arguments: writ.JSON(args)},
	}
}

// Call makes a call. The error is a *writ.Denial.
func (a *Agent) Call(tool writ.ToolName, args string) (*gate.Result, error) {
	return a.w.Gate.Do(a.w.t.Context(), a.Request(tool, args))
}

// Change gives a tool another schema, which nobody has reviewed.
func (w *World) Change(name writ.ToolName, schema string) {
	w.t.Helper()
	upstream, short, _ := strings.Cut(string(name), ".")
	raw := fmt.Sprintf(`{"inputSchema":%s,"name":%q}`, schema, short)
	err := w.Gate.Catalog.Offer(w.t.Context(), upstream, []registry.Definition{{Kind: writ.KindTool, Upstream: upstream, Name: short, Raw: writ.JSON(raw)}})
	if err != nil {
		w.t.Fatal(err)
	}
}
