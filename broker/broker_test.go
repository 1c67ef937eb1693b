package broker_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/capability/issue"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/ledger/ledgertest"
	"github.com/writgate/writ/ledger/sqlite"
	"github.com/writgate/writ/policy"
	"github.com/writgate/writ/task"
)

// A trouble is what goes wrong at a bank.
type trouble int

const (
	none     trouble = iota
	refuses          // nothing is made, and it says so
	loses            // it is made, and the answer is lost
	deserts          // it is made under another handle, and the answer says that it failed
	panics           // it is made, and then the driver panics with the secret
	prolongs         // it is made to live longer than was asked for
	hangs            // until the context ends, and then it is made, and it says that it failed
	lingers          // until the context ends, and then it is made, and it says so
	mumbles          // it answers without a credential
)

// A bank is a backend that remembers what it made. Its handles are row.Handle,
// and, if renames is set, others that are known only from its answer.
type bank struct {
	renames bool
	life    time.Duration // what it makes dies by itself after ttl and this; 0: never

	mu     sync.Mutex
	mint   trouble
	revoke trouble
	alive  map[string]writ.TaskID // by handle
	made   int
	calls  int // of Revoke
}

func (k *bank) Lifetime(time.Duration) time.Duration { return k.life }

func (k *bank) Mint(ctx context.Context, row broker.Row) (broker.Minted, error) {
	k.mu.Lock()
	how := k.mint
	k.mu.Unlock()
	if how == hangs || how == lingers {
		<-ctx.Done()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if how == refuses {
		return broker.Minted{}, errors.New("no")
	}
	secret, err := broker.NewSecret(string(row.Lease), "s3cret-"+rand.Text())
	if err != nil {
		return broker.Minted{}, err
	}
	m := broker.Minted{Secret: secret, Until: row.Until}
	handle := row.Handle
	if k.renames {
		m.Handle = "bank/" + rand.Text()
		handle = m.Handle
	}
	if k.alive == nil {
		k.alive = make(map[string]writ.TaskID)
	}
	k.alive[handle] = row.Task
	k.made++
	value, _ := secret.Expose()
	switch how {
	case loses:
		return broker.Minted{}, errors.New("connection reset")
	case deserts:
		return m, errors.New("internal error near " + value)
	case panics:
		panic("out of cheese: " + value)
	case prolongs:
		m.Until = row.Until + 1
	case hangs:
		return m, ctx.Err()
	case mumbles:
		m.Secret = broker.Secret{}
	}
	return m, nil
}

func (k *bank) Revoke(ctx context.Context, handle string) (broker.Evidence, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls++
	switch k.revoke {
	case refuses:
		return broker.Evidence{}, errors.New("service unavailable")
	case loses:
		delete(k.alive, handle)
		return broker.Evidence{}, errors.New("connection reset")
	case panics:
		panic("out of cheese")
	case mumbles:
		return broker.Evidence{}, nil
	}
	if err := ctx.Err(); err != nil {
		return broker.Evidence{}, err
	}
	delete(k.alive, handle)
	return broker.Evidence{Outcome: broker.Revoked, Steps: []string{"struck off"}}, nil
}

func (k *bank) set(mint, revoke trouble) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mint, k.revoke = mint, revoke
}

func (k *bank) living() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.alive)
}

// A house is a broker over a real ledger, with tasks in it.
type house struct {
	*broker.Broker
	bank    *bank
	journal *broker.Journal
	tasks   *task.Book
	path    string

	mu  sync.Mutex
	now time.Time
}

const agent writ.AgentID = "spiffe://acme.example/agent/billing"

func newHouse(t testing.TB) *house {
	t.Helper()
	return openHouse(t, filepath.Join(t.TempDir(), "writ.db"))
}

func openHouse(t testing.TB, path string) *house {
	t.Helper()
	h := &house{bank: new(bank), path: path, now: time.UnixMilli(1_800_000_000_000)}
	s, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	l := ledgertest.Open(t, s, ledger.Config{Now: h.clock})
	h.journal = &broker.Journal{Ledger: l}
	h.tasks = &task.Book{Ledger: l, Now: h.clock}
	h.restart()
	return h
}

// restart makes a new run of the same gateway, which remembers nothing.
func (h *house) restart() { h.Broker = h.gateway("gw-1") }

func (h *house) gateway(name string) *broker.Broker {
	place := broker.Placement{Header: "Authorization", Scheme: "Bearer"}
	return &broker.Broker{Gateway: name, Queue: h.journal, Now: h.clock, Backends: map[string]broker.Backend{
		"bank":   {Driver: h.bank, Place: place},
		"shared": {Driver: h.bank, Place: place, Share: true},
	}}
}

func (h *house) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *house) pass(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

func (h *house) open(t testing.TB) writ.TaskID {
	t.Helper()
	held, err := h.tasks.Open(t.Context(), writ.Task{Agent: agent, Key: writ.Thumbprint(rand.Text()), Environment: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return held.Task.ID
}

// putTask sets a task's row, whatever it was.
func (h *house) putTask(t testing.TB, id writ.TaskID, as writ.Task) error {
	value, err := json.Marshal(as)
	if err != nil {
		return err
	}
	_, err = h.journal.Ledger.Commit(t.Context(), &ledger.Entry{
		Leaf:    ledger.Leaf{Type: ledger.TypeAdmin, Task: id},
		Changes: []ledger.Change{{Op: ledger.Put, Kind: task.KindTask, Key: string(id), Value: value}},
	})
	return err
}

func (h *house) order(of writ.TaskID) broker.Order {
	return broker.Order{Token: capability(), Task: of, Agent: agent, Tool: "shop.refund", Backend: "bank"}
}

// capability issues one for a call that a real bundle permits. What it is for
// is the gate's to say, and does not matter to the broker.
func capability() *issue.Token {
	t, err := permitted()()
	if err != nil {
		panic(err)
	}
	return t
}

var permitted = sync.OnceValue(func() func() (*issue.Token, error) {
	tool := writ.Tool{Name: "shop.refund", Upstream: "shop", Definition: writ.Hash("definition", []byte("{}"))}
	bundle, err := policy.Load(
		[]policy.File{{Name: "all.cedar", Text: []byte(`permit(principal, action, resource);`)}},
		[]policy.ToolSchema{{Tool: tool, Kind: writ.KindTool, Input: []byte(`{"type":"object","additionalProperties":false}`)}},
	)
	if err != nil {
		return func() (*issue.Token, error) { return nil, err }
	}
	now := time.UnixMilli(1_800_000_000_000)
	id := writ.NewID[writ.TaskID](now)
	permit, decision := bundle.Decide(&writ.Query{
		Version: 1, Call: writ.NewID[writ.CallID](now), Time: now.UnixMilli(), Bundle: bundle.Digest(), Tool: tool, Label: writ.Clean,
		Caller: writ.Caller{Agent: agent, Key: "key", Proof: writ.ProofDPoP},
		Agent:  writ.Agent{ID: agent, Owner: "ola", Environment: "test", State: writ.Active},
		Task: writ.Task{
			ID: id, Agent: agent, Key: "key", Environment: "test", State: writ.Open, Grant: writ.Grant{{Tool: "shop.*"}},
			Opened: now.UnixMilli(), Expires: now.Add(time.Hour).UnixMilli(),
		},
		Action: writ.Action{Kind: writ.KindTool, Upstream: "shop", Name: "refund", Definition: tool.Definition, Arguments: "{}"},
	})
	issuer, err := issue.New(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), "https://writ.acme.example", nil, func() time.Time { return now })
	return func() (*issue.Token, error) {
		if err != nil || permit == nil {
			return nil, fmt.Errorf("no capability: %w, %+v", err, decision)
		}
		return issuer.Issue(permit, "shop", 0)
	}
})

// intend prepares a lease and commits the intent, as the gate does.
func (h *house) intend(t testing.TB, o broker.Order) (broker.Row, ledger.Receipt) {
	t.Helper()
	row, err := h.Prepare(o)
	if err != nil {
		t.Fatal(err)
	}
	e := &ledger.Entry{Leaf: ledger.Leaf{
		Type: ledger.TypeIntent, Call: writ.NewID[writ.CallID](h.clock()), Task: row.Task,
		Capability: string(o.Token.ID()), Lease: string(row.Lease),
	}}
	if row.Backend != "" && !row.Reused() {
		e.Changes = []ledger.Change{row.Change()}
	}
	receipts, err := h.journal.Ledger.Commit(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	return row, receipts[0]
}

// lease is intend, and the lease.
func (h *house) lease(t testing.TB, o broker.Order) (broker.Row, *broker.Lease) {
	t.Helper()
	row, intent := h.intend(t, o)
	lease, err := h.Lease(t.Context(), row, intent)
	if err != nil {
		t.Fatal(err)
	}
	return row, lease
}

// live is how many leases the journal lists.
func (h *house) live(t testing.TB) int {
	t.Helper()
	all, err := h.journal.Live(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// records are the leaves about a lease after its intent.
func (h *house) records(t testing.TB, id writ.LeaseID) (all []*ledger.Record) {
	t.Helper()
	for _, typ := range []string{ledger.TypeLease, ledger.TypeRevocation} {
		rs, err := h.journal.Ledger.Records(t.Context(), ledger.Filter{To: 1 << 40, Type: typ})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rs {
			if r.Leaf.Lease == string(id) {
				all = append(all, r)
			}
		}
	}
	return all
}
