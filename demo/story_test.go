package demo_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/writgate/writ"
	"github.com/writgate/writ/approval"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/demo"
	"github.com/writgate/writ/identity"
	"github.com/writgate/writ/identity/devca"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/policy"
	"github.com/writgate/writ/registry"
	"github.com/writgate/writ/replay"
	"github.com/writgate/writ/server"
	"github.com/writgate/writ/upstream"
	"github.com/writgate/writ/writtest"
)

// TestStory tells the demo's story with everything real: the agent over mutual
// TLS, the gate, its upstreams as processes of their own, and a person who
// approves. Each step must end as the script says, and each look at the world
// must show what it says.
func TestStory(t *testing.T) {
	s := stage(t)
	calls := map[writ.ToolName]writ.CallID{} // the last of each tool
	for _, scene := range demo.Story() {
		switch scene.First {
		case demo.EndTask:
			if _, err := s.Gate.EndTask(t.Context(), s.task, "the work is done", demo.User); err != nil {
				t.Errorf("%s: %v", scene.Title, err)
			}
		case demo.Verify:
			s.verify(calls[scene.Of])
		case demo.Replay:
			s.replay(calls[scene.Of])
		}
		for _, step := range scene.Steps {
			seen, err := s.agent.Do(t.Context(), step)
			if err != nil {
				t.Fatal(err)
			}
			if err := step.Check(seen); err != nil {
				t.Errorf("%s: %v\n%s", scene.Title, err, seen.Text)
			}
			var decision struct{ Call writ.CallID }
			if err := json.Unmarshal([]byte(seen.Decision), &decision); err != nil {
				t.Errorf("%s: decision %q: %v", step.Tool, seen.Decision, err)
			}
			calls[step.Tool] = decision.Call
			if step.Want != demo.Refused && seen.Receipt == "" {
				t.Errorf("%s ran without a receipt", step.Tool)
			}
			if step.Tool == "payments.pay" && step.Want == demo.Refused && !strings.Contains(seen.Text, "up to 100") {
				t.Errorf("the agent is not told how far its task reaches: %s", seen.Text)
			}
		}
		for _, look := range scene.Look {
			rows := see[map[string]any](t, s.endpoints[look.Server], look.Path)
			if err := look.Check(rows); err != nil {
				t.Errorf("%s: %v", scene.Title, err)
			}
			for _, row := range rows {
				if approval, _ := row["approval"].(string); look.Path == "/payments" && !strings.HasPrefix(approval, "appr_") {
					t.Errorf("%s: the payments server was not told of an approval: %v", scene.Title, row)
				}
			}
		}
	}
}

// TestStolenLease: whoever gets hold of a live credential still cannot pay,
// for the payments server wants the writ of that very call.
func TestStolenLease(t *testing.T) {
	s := stage(t)
	b := bank{t, s.endpoints[demo.Authorization]}
	body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"pay","arguments":{"amount":40,"to":"NL-204","reference":"x"},` +
		`"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}`
	r, err := http.NewRequest(http.MethodPost, s.endpoints[demo.Payments], strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "Authorization": "Bearer " + b.lease(),
		"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "pay",
	} {
		r.Header.Set(name, value)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text := make([]byte, 4096)
	n, _ := answer.Body.Read(text)
	if !strings.Contains(string(text[:n]), "refused: unauthenticated") {
		t.Errorf("%d %s", answer.StatusCode, text[:n])
	}
	if made := see[map[string]any](t, s.endpoints[demo.Payments], "/payments"); len(made) != 0 {
		t.Errorf("paid: %v", made)
	}
}

// A theatre is the demo's world around a gate.
type theatre struct {
	*writtest.World
	t         *testing.T
	endpoints map[string]string
	agent     *demo.Agent
	task      writ.TaskID
}

func stage(t *testing.T) *theatre {
	t.Helper()
	s := &theatre{t: t, endpoints: map[string]string{}}
	s.World = writtest.New(t, writtest.Setup{Registry: registry.Config{
		Agents:    []registry.Agent{{ID: writtest.AgentID("support"), Owner: demo.User, Environment: demo.Environment, HighestTier: writ.Privileged}},
		Operators: []registry.Operator{{User: demo.Reviewer, Key: writtest.OperatorKey("omar")}},
	}})
	keys := filepath.Join(t.TempDir(), "keys.json")
	s.must(os.WriteFile(keys, s.Gate.Issuer.Keys().JWKS(), 0o600))
	s.endpoints[demo.Authorization] = serve(t, demo.Authorization)
	lease := bank{t, s.endpoints[demo.Authorization]}
	s.Gate.Broker.Backends = map[string]broker.Backend{demo.Payments: {Driver: lease, Place: broker.Placement{Header: "Authorization", Scheme: "Bearer"}}}
	var configs []upstream.Config
	for _, name := range []string{demo.Helpdesk, demo.Mailer, demo.Payments, demo.Files} {
		s.endpoints[name] = serve(t, name, "AUTHORIZATION="+lease.base, "KEYS="+keys, "ISSUER=https://writ.test")
		configs = append(configs, upstream.Config{Name: name, URL: s.endpoints[name], Capability: name == demo.Payments})
	}
	set, err := upstream.Open(configs)
	s.must(err)
	t.Cleanup(set.Close)
	s.Gate.Upstream = set
	s.review(set, configs)
	_, err = s.Gate.Apply(t.Context(), append(policy.Starter(), demo.Policies()...), demo.Reviewer)
	s.must(err)
	s.listen()
	return s
}

func (s *theatre) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// review accepts what the servers offer, as the demo's operator does.
func (s *theatre) review(set *upstream.Set, configs []upstream.Config) {
	s.t.Helper()
	reviews := demo.Reviews()
	for _, c := range configs {
		offers, err := set.Discover(s.t.Context(), c.Name)
		s.must(err)
		var defs []registry.Definition
		for _, o := range offers {
			defs = append(defs, registry.Definition{Kind: o.Kind, Upstream: c.Name, Name: o.Name, Raw: o.Raw})
		}
		s.must(s.Gate.Catalog.Offer(s.t.Context(), c.Name, defs))
	}
	for _, e := range s.Gate.Catalog.Entries("") {
		r, ok := reviews[e.Tool.Name]
		if !ok {
			s.t.Fatalf("%s has no review", e.Tool.Name)
		}
		r.Definition = e.Tool.Definition
		reviews[e.Tool.Name] = r
	}
	s.must(s.Gate.Review(s.t.Context(), demo.Reviewer, reviews))
	for _, e := range s.Gate.Catalog.Entries("") {
		if e.Quarantine != "" || e.Tool.Tier != reviews[e.Tool.Name].Tier {
			s.t.Errorf("%s is of tier %s, quarantine %q", e.Tool.Name, e.Tool.Tier, e.Quarantine)
		}
	}
}

// listen opens the door, and has the agent come in by it.
func (s *theatre) listen() {
	s.t.Helper()
	file, err := devca.Generate(s.Clock.Now())
	s.must(err)
	ca, err := devca.Parse(file, devca.Environment)
	s.must(err)
	domain := spiffeid.RequireTrustDomainFromString(identity.DevelopmentDomain)
	s.must(s.Gate.Identity.Bundles.Set(domain, []*x509.Certificate{ca.Authority()}, s.Clock.Now().Add(time.Hour)))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	s.must(err)
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	s.must(err)
	der, err := ca.IssueServer("/gateway", pub, s.Clock.Now(), []string{"127.0.0.1"})
	s.must(err)
	url := "https://" + l.Addr().String()
	noise := &server.Noise{Record: func(context.Context, server.Refusals) error { return nil }}
	m, err := server.New(server.Config{Gate: s.Gate, State: [32]byte{7}, URL: url, Status: "http://writ.localhost/", Noise: noise, Now: s.Clock.Now})
	s.must(err)
	front := &server.Front{
		Handler: m, Noise: noise, Stop: m.Close,
		TLS: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- front.Serve(ctx, l) }()
	s.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			s.t.Error(err)
		}
	})
	s.agent = s.enter(ca, url+"/mcp")
	s.t.Cleanup(func() { s.agent.Close() })
}

// enter opens the task for a new key of the agent, and dials with that key.
func (s *theatre) enter(ca *devca.CA, endpoint string) *demo.Agent {
	s.t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	s.must(err)
	der, err := ca.Issue(demo.AgentOf, pub, s.Clock.Now())
	s.must(err)
	work := demo.Assignment()
	work.Agent = writtest.AgentID("support")
	work.Key, err = identity.Thumbprint(pub)
	s.must(err)
	held, err := s.Gate.Tasks.Open(s.t.Context(), work)
	s.must(err)
	s.task = held.Task.ID
	roots := x509.NewCertPool()
	roots.AddCert(ca.Authority())
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: roots, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}}}
	agent, err := demo.Dial(s.t.Context(), endpoint, client, s.approve)
	s.must(err)
	return agent
}

// approve is the reviewer, who is shown what waits and says yes.
func (s *theatre) approve(ctx context.Context, page string) error {
	r, err := s.Gate.Approvals.Get(ctx, writ.ApprovalID(strings.TrimPrefix(page, "http://writ.localhost/")))
	if err != nil {
		return err
	}
	if r.Query.Action.Arguments != `{"amount":40,"reference":"INV-2041","to":"NL-204"}` {
		return fmt.Errorf("asked about %s", r.Query.Action.Arguments)
	}
	if made := see[map[string]any](s.t, s.endpoints[demo.Payments], "/payments"); len(made) != 0 {
		return errors.New("paid before it was approved")
	}
	operator, reads, err := s.Gate.Catalog.Operator(ctx, writtest.OperatorKey("omar"))
	if err != nil {
		return err
	}
	_, err = s.Gate.Approvals.Answer(ctx, r.ID, r.Query.Action.Digest(), approval.Answer{By: operator.User, Key: operator.Key, Yes: true}, reads...)
	return err
}

// verify checks the receipts of a call as an auditor would: with the log's
// public key and nothing else.
func (s *theatre) verify(call writ.CallID) {
	s.t.Helper()
	records, err := s.Ledger.Records(s.t.Context(), ledger.Filter{Call: call})
	s.must(err)
	var types []string
	for _, r := range records {
		receipt, err := s.Ledger.Prove(s.t.Context(), r.Index)
		s.must(err)
		proven, err := ledger.Verify(receipt, s.Trust)
		s.must(err)
		types = append(types, proven.Leaf.Type)
	}
	if got := strings.Join(types, " "); !strings.Contains(got, ledger.TypeIntent) || !strings.Contains(got, ledger.TypeOutcome) || !strings.Contains(got, ledger.TypeApproval) {
		s.t.Errorf("the payment's receipts are of types %s", got)
	}
}

// replay makes a recorded decision again.
func (s *theatre) replay(call writ.CallID) {
	s.t.Helper()
	again, err := replay.Call(s.t.Context(), s.Ledger, call)
	s.must(err)
	if len(again) == 0 || !again[0].Equal || again[0].Again.Code != writ.Forbidden || again[0].Again.Reasons[0].Policy != "customers-stay" {
		s.t.Errorf("replayed %+v", again)
	}
}

// Mint, Revoke and Lifetime make the bank a driver of the broker.
func (b bank) Mint(_ context.Context, row broker.Row) (broker.Minted, error) {
	token := b.lease()
	secret, err := broker.NewSecret("payments", token)
	return broker.Minted{Secret: secret, Handle: token, Until: row.Expires}, err
}

func (b bank) Revoke(_ context.Context, handle string) (broker.Evidence, error) {
	if status, _ := b.post(demo.LeaseClient, "revoke", url.Values{"token": {handle}}); status != http.StatusOK {
		return broker.Evidence{}, errors.New("the bank did not revoke")
	}
	return broker.Evidence{Outcome: broker.Revoked}, nil
}

func (b bank) Lifetime(ttl time.Duration) time.Duration { return ttl }
