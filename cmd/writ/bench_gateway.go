package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/identity"
	"github.com/writgate/writ/identity/devca"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/policy"
	"github.com/writgate/writ/registry"
	"github.com/writgate/writ/server/admin"
	"github.com/writgate/writ/upstream"
)

// A benchAgent is one caller: a key of its own, which is bound to one task
// after the other.
type benchAgent struct {
	Key   ed25519.PrivateKey `json:"key"`
	SVID  []byte             `json:"svid"` // DER
	Token string             `json:"-"`

	task writ.TaskID
}

// benchLogged is what a gateway's log holds.
type benchLogged struct {
	Intents  int `json:"intents"`
	Outcomes int `json:"outcomes"`
}

// The people and the agent of the bench's world.
const (
	benchOperator writ.UserID = "bench"
	benchPolicies int         = 1000
)

func benchRegistered() registry.Agent {
	return registry.Agent{
		ID: "spiffe://" + identity.DevelopmentDomain + "/agent/bench", Owner: benchOperator, Environment: devca.Environment,
		Groups: []string{"team3", "support"}, HighestTier: writ.ReadOnly,
	}
}

// benchRules are so many policies beside the starter set: as many of each
// tool, each of them of another group, with conditions of every kind.
func benchRules(n int) []policy.File {
	var text []byte
	for i := range n {
		text = fmt.Appendf(text, `permit (principal in Group::"team%d", action == Action::"%s.%s", resource)
when { context.args.order like "88%d*" && context.args.question != "" && context.origin.untrusted.isEmpty() &&
  context.label.secrecy < 3 && context.task.attested && !context.task.delegated && resource.harm < 1 };
`, i/benchTools, benchUpstream, benchToolName(i%benchTools), i%10)
	}
	return append(policy.Starter(), policy.File{Name: "bench.cedar", Text: text})
}

// gateway serves as writ up does, in a world that it makes itself.
func (c *benchTargetCmd) gateway(s *session, agents net.Listener) error {
	issuer, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	conf := &config{
		Listen: agents.Addr().String(), Issuer: issuerConfig{Listen: issuer.Addr().String()},
		Registry:  registry.Config{Agents: []registry.Agent{benchRegistered()}},
		Upstreams: []upstream.Config{{Name: benchUpstream, URL: "http://" + c.To + "/mcp"}},
	}
	if err := conf.complete(s.Dir); err != nil {
		return err
	}
	n, err := openNode(s.ctx, s.Dir, conf, slog.New(slog.NewTextHandler(s.errs, nil)))
	if err != nil {
		return err
	}
	defer n.close()
	place := benchPlace{Addr: conf.Listen, URL: conf.resource() + "/" + benchUpstream, CA: n.ca.Bundle()}
	if place.Agents, err = n.benchWorld(s.ctx, c.Agents); err != nil {
		return err
	}
	operators, err := admin.Listen(filepath.Join(s.Dir, "admin.sock"))
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(s.ctx)
	served := make(chan error, 1)
	go func() { served <- n.serve(ctx, &listeners{agents: agents, issuer: issuer, admin: operators}) }()
	err = c.answer(s, place, map[string]func() (any, error){
		"tasks": func() (any, error) { return n.benchTasks(s.ctx, place.Agents) },
		"log":   func() (any, error) { return n.benchLog(s.ctx) },
	})
	stop()
	if failed := <-served; failed != nil {
		return failed
	}
	return err
}

// benchWorld reviews the tools, puts the policies in force, and gives so many
// keys with certificates.
func (n *node) benchWorld(ctx context.Context, agents int) ([]benchAgent, error) {
	if err := n.discover(ctx, benchUpstream); err != nil {
		return nil, err
	}
	reviews := map[writ.ToolName]registry.Review{}
	for _, e := range n.gate.Catalog.Entries(benchUpstream) {
		reviews[e.Tool.Name] = registry.Review{
			Definition: e.Tool.Definition, Tier: writ.ReadOnly, Result: writ.Label{Integrity: writ.Trusted, Class: writ.Internal},
		}
	}
	if err := n.gate.Review(ctx, benchOperator, reviews); err != nil {
		return nil, err
	}
	if _, err := n.gate.Apply(ctx, benchRules(benchPolicies), benchOperator); err != nil {
		return nil, err
	}
	all := make([]benchAgent, agents)
	for i := range all {
		pub, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		svid, err := n.ca.Issue("/agent/bench", pub, time.Now())
		if err != nil {
			return nil, err
		}
		all[i] = benchAgent{Key: key, SVID: svid}
	}
	return all, nil
}

// benchTasks ends the task of every key, opens a new one, and gives its token.
func (n *node) benchTasks(ctx context.Context, agents []benchAgent) ([]string, error) {
	tokens, errs := make([]string, len(agents)), make([]error, len(agents))
	var wg sync.WaitGroup
	for i := range agents {
		wg.Go(func() { tokens[i], errs[i] = n.benchTask(ctx, &agents[i]) })
	}
	wg.Wait()
	return tokens, errors.Join(errs...)
}

func (n *node) benchTask(ctx context.Context, a *benchAgent) (string, error) {
	if a.task != "" {
		if _, err := n.gate.EndTask(ctx, a.task, "the agent exited", benchOperator); err != nil {
			return "", err
		}
	}
	key, err := identity.Thumbprint(a.Key.Public())
	if err != nil {
		return "", err
	}
	who := benchRegistered()
	held, err := n.gate.Tasks.Open(ctx, writ.Task{
		Agent: who.ID, User: benchOperator, Key: key, Environment: who.Environment,
		Purpose: writ.Purpose{Origin: writ.OriginOperator, Instructions: "Look up order 8812 for the customer, as often as need be."},
		Grant:   writ.Grant{{Tool: benchUpstream + ".*"}},
	})
	if err != nil {
		return "", err
	}
	t := &held.Task
	a.task = t.ID
	token, _, err := n.tokens.IssueDevelopment(writ.Agent{ID: t.Agent, Environment: t.Environment}, identity.Binding{
		Agent: t.Agent, Key: t.Key, Audience: n.config.resource(), Task: t.ID, User: t.User, Until: time.UnixMilli(t.Expires),
	}, time.Now())
	return token, err
}

// benchLog counts what is on record.
func (n *node) benchLog(ctx context.Context) (*benchLogged, error) {
	const page = 256
	logged := new(benchLogged)
	for _, kind := range []struct {
		name  string
		count *int
	}{{ledger.TypeIntent, &logged.Intents}, {ledger.TypeOutcome, &logged.Outcomes}} {
		for f := (ledger.Filter{Type: kind.name, Limit: page}); ; {
			records, err := n.ledger.Records(ctx, f)
			if err != nil {
				return nil, err
			}
			*kind.count += len(records)
			if len(records) < page {
				break
			}
			f.From = records[page-1].Index + 1
		}
	}
	return logged, nil
}

// benchDecide measures one decision among few policies and one among many, in
// turn, and gives the median of each.
func benchDecide(rounds int, sizes ...int) ([]time.Duration, error) {
	tool := writ.Tool{
		Name: benchUpstream + "." + benchCalled, Upstream: benchUpstream, Definition: "sha256:desk", Tier: writ.ReadOnly,
		Result: writ.Label{Integrity: writ.Trusted, Class: writ.Internal},
	}
	var tools []policy.ToolSchema
	for i := range benchTools {
		t := tool
		t.Name = writ.ToolName(benchUpstream + "." + benchToolName(i))
		tools = append(tools, policy.ToolSchema{Tool: t, Kind: writ.KindTool, Input: []byte(benchSchema)})
	}
	a := benchRegistered()
	q := writ.Query{
		Version: 1, Time: 1_800_000_000_000, Caller: writ.Caller{Agent: a.ID, Key: "key", Proof: writ.ProofDPoP, User: benchOperator},
		Agent: writ.Agent{ID: a.ID, Owner: a.Owner, Environment: a.Environment, Groups: a.Groups, State: writ.Active},
		Task: writ.Task{
			ID: "task_bench", Agent: a.ID, Key: "key", User: benchOperator, Environment: a.Environment, State: writ.Open,
			Purpose: writ.Purpose{Instructions: "Look up order 8812.", Origin: writ.OriginOperator},
			Opened:  1_799_999_000_000, Expires: 1_800_001_000_000, Grant: writ.Grant{{Tool: benchUpstream + ".*"}},
		},
		Tool:   tool,
		Action: writ.Action{Kind: writ.KindTool, Upstream: benchUpstream, Name: benchCalled, Definition: tool.Definition, Arguments: `{"order":"8812","question":"Where is it?"}`},
		Label:  writ.Label{Integrity: writ.Trusted, Class: writ.Internal},
		Provenance: []writ.Provenance{
			{Argument: "/order", Origin: writ.FromPrompt}, {Argument: "/question", Origin: writ.FromAgent},
		},
	}
	const turns, calls = 20, 50 // short turns, so that what else runs disturbs all sizes alike
	took := make([][]time.Duration, len(sizes))
	bundles := make([]*policy.Bundle, len(sizes))
	for i, n := range sizes {
		var err error
		if bundles[i], err = policy.Load(benchRules(n), tools); err != nil {
			return nil, err
		}
	}
	for range rounds * turns {
		for i, b := range bundles {
			q.Bundle = b.Digest()
			began := time.Now()
			for range calls {
				if p, d := b.Decide(&q); p == nil {
					return nil, fmt.Errorf("a decision to be measured was %s", d.Effect)
				}
			}
			took[i] = append(took[i], time.Since(began)/calls)
		}
	}
	medians := make([]time.Duration, len(sizes))
	for i, all := range took {
		slices.Sort(all)
		medians[i] = all[len(all)/2]
	}
	return medians, nil
}
