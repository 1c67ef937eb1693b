//go:build unix

package crash_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
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

// The tools of the world, and what its budgets allow.
const (
	toolPay   writ.ToolName = "bank.pay"   // privileged: needs an approval, and a credential
	toolClose writ.ToolName = "desk.close" // a bounded write
	toolGet   writ.ToolName = "desk.get"   // reads

	mostRead = 60 // calls of toolGet
	mostPaid = 30 // the sum of the amounts of toolPay
)

const origin = "crash.example/writ"

// agents are the workloads, by name. Each has one task, with one tool in it.
var agents = map[string]struct {
	tool    writ.ToolName
	budgets []writ.Budget
}{
	"payer":  {toolPay, []writ.Budget{{Name: "paid", Tool: toolPay, Sum: "/amount", Limit: mostPaid}}},
	"closer": {toolClose, nil},
	"reader": {toolGet, []writ.Budget{{Name: "read", Tool: toolGet, Limit: mostRead}}},
}

// definitions are what the upstreams offer.
var definitions = map[string][]registry.Definition{
	"bank": {{Kind: writ.KindTool, Upstream: "bank", Name: "pay", Raw: `{"inputSchema":{"additionalProperties":false,` +
		`"properties":{"account":{"type":"integer"},"amount":{"type":"integer"}},"required":["account","amount"],"type":"object"},"name":"pay"}`}},
	"desk": {
		{Kind: writ.KindTool, Upstream: "desk", Name: "close", Raw: `{"inputSchema":{"additionalProperties":false,"type":"object"},"name":"close"}`},
		{Kind: writ.KindTool, Upstream: "desk", Name: "get", Raw: `{"inputSchema":{"additionalProperties":false,"type":"object"},"name":"get"}`},
	},
}

// A node is a gate over the ledger in a directory.
type node struct {
	gate   *gate.Gate
	ledger *ledger.Ledger
	agents map[string]identity.Evidence
	keys   map[string]writ.Thumbprint
}

// A setup says what is special about a node.
type setup struct {
	gateway string
	outside outside
	wrap    func(ledger.Store) ledger.Store // nil: the store as it is
	now     func() time.Time                // nil: time.Now
	reserve int64                           // bytes of the disk; 0: none
}

// open wires a gate as a gateway wires it.
func open(ctx context.Context, dir string, s setup) (_ *node, err error) {
	if s.now == nil {
		s.now = time.Now
	}
	file, err := sqlite.Open(filepath.Join(dir, "writ.db"))
	if err != nil {
		return nil, err
	}
	if s.reserve != 0 {
		if err := file.Reserve(s.reserve); err != nil {
			return nil, errors.Join(err, file.Close())
		}
	}
	var store ledger.Store = file
	if s.wrap != nil {
		store = s.wrap(store)
	}
	n := &node{agents: map[string]identity.Evidence{}, keys: map[string]writ.Thumbprint{}}
	n.ledger, err = ledger.Open(ctx, store, ledger.Config{
		Origin: origin, Gateway: s.gateway, Now: s.now, Anchor: filepath.Join(dir, "anchor"),
		Keys: ledger.Keys{Log: seed(1), Seal: [32]byte{2}, Pseudonym: [32]byte{3}},
	})
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.ledger.Close())
		}
	}()
	bundles, err := n.identities(dir)
	if err != nil {
		return nil, err
	}
	issuer, err := issue.New(seed(4), "https://"+origin, seed(5), s.now)
	if err != nil {
		return nil, err
	}
	config := registry.Config{Operators: []registry.Operator{{User: "omar", Key: operatorKey()}}}
	for name := range agents {
		config.Agents = append(config.Agents, registry.Agent{ID: agentID(name), Owner: "maya", Environment: devca.Environment, HighestTier: writ.Privileged})
	}
	n.gate = &gate.Gate{
		Identity:  &identity.Verifier{Bundles: bundles, Development: true, Now: s.now},
		Catalog:   registry.New(config, n.ledger, s.now),
		Tasks:     &task.Book{Ledger: n.ledger, Now: s.now},
		Flow:      flow.New(),
		Approvals: &approval.Book{Ledger: n.ledger, Now: s.now, MAC: [32]byte{6}},
		Issuer:    issuer,
		Ledger:    n.ledger,
		Broker: &broker.Broker{
			Gateway: s.gateway, Queue: &broker.Journal{Ledger: n.ledger}, Now: s.now,
			Backends: map[string]broker.Backend{"vault": {Driver: s.outside, Place: broker.Placement{Header: "Authorization"}}},
		},
		Upstream: s.outside,
	}
	for upstream, defs := range definitions {
		if err := n.gate.Catalog.Offer(ctx, upstream, defs); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// identities reads the certificates that build made.
func (n *node) identities(dir string) (*identity.Bundles, error) {
	read := func(name string) (*x509.Certificate, error) {
		der, err := os.ReadFile(filepath.Join(dir, name+".der"))
		if err != nil {
			return nil, err
		}
		return x509.ParseCertificate(der)
	}
	authority, err := read("authority")
	if err != nil {
		return nil, err
	}
	for name := range agents {
		leaf, err := read(name)
		if err != nil {
			return nil, err
		}
		n.agents[name] = identity.Evidence{Chain: []*x509.Certificate{leaf}}
		if n.keys[name], err = identity.Thumbprint(leaf.PublicKey); err != nil {
			return nil, err
		}
	}
	bundles := new(identity.Bundles)
	domain := spiffeid.RequireTrustDomainFromString(identity.DevelopmentDomain)
	return bundles, bundles.Set(domain, []*x509.Certificate{authority}, authority.NotAfter)
}

// build makes in a directory what gateways need there: identities, and a ledger
// with reviewed tools, policies, and a task for each agent.
func build(ctx context.Context, dir string) error {
	file, err := devca.Generate(time.Now())
	if err != nil {
		return err
	}
	ca, err := devca.Parse(file, devca.Environment)
	if err != nil {
		return err
	}
	certificates := map[string][]byte{"authority": ca.Authority().Raw}
	for name := range agents {
		pub, _, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		if certificates[name], err = ca.Issue("/agent/"+name, pub, time.Now()); err != nil {
			return err
		}
	}
	for name, der := range certificates {
		if err := os.WriteFile(filepath.Join(dir, name+".der"), der, 0o600); err != nil {
			return err
		}
	}
	n, err := open(ctx, dir, setup{gateway: "builder"})
	if err != nil {
		return err
	}
	return errors.Join(n.begin(ctx), n.ledger.Close())
}

// begin reviews the tools, puts the starter policies in force, and opens the
// tasks.
func (n *node) begin(ctx context.Context) error {
	reviews := map[writ.ToolName]registry.Review{
		toolPay: {Tier: writ.Privileged, Credential: "vault"}, toolClose: {Tier: writ.BoundedWrite}, toolGet: {Tier: writ.ReadOnly},
	}
	for _, defs := range definitions {
		for _, d := range defs {
			name := writ.ToolName(d.Upstream + "." + d.Name)
			r := reviews[name]
			r.Definition = writ.Hash("definition", []byte(d.Raw))
			reviews[name] = r
		}
	}
	if err := n.gate.Review(ctx, "omar", reviews); err != nil {
		return err
	}
	if _, err := n.gate.Apply(ctx, policy.Starter(), "omar"); err != nil {
		return err
	}
	for name, a := range agents {
		_, err := n.gate.Tasks.Open(ctx, writ.Task{
			Agent: agentID(name), Key: n.keys[name], User: "lena", Environment: devca.Environment,
			Purpose: writ.Purpose{Origin: writ.OriginUser}, Grant: writ.Grant{{Tool: a.tool}}, Budgets: a.budgets,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// request is a call of the one tool that an agent has.
func (n *node) request(agent string, call writ.CallID, args string) *gate.Request {
	upstream, name, _ := strings.Cut(string(agents[agent].tool), ".")
	return &gate.Request{
		Call: call, Evidence: n.agents[agent],
		Action: writ.Action{Kind: writ.KindTool, Upstream: upstream, Name: name, Arguments: writ.JSON(args)},
	}
}

func agentID(name string) writ.AgentID {
	return writ.AgentID("spiffe://" + identity.DevelopmentDomain + "/agent/" + name)
}

func operatorKey() writ.Thumbprint {
	key, err := identity.Thumbprint(seed('o').Public().(ed25519.PublicKey))
	if err != nil {
		panic(err) // an Ed25519 key has a thumbprint
	}
	return key
}

func seed(b byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
}
