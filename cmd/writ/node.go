package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
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
	"github.com/writgate/writ/server"
	"github.com/writgate/writ/task"
	"github.com/writgate/writ/upstream"
)

// A node is one gateway: everything that is wired together, in the order in
// which it depends on what came before.
type node struct {
	dir       string
	config    *config
	keys      *keys
	ca        *devca.CA // nil outside development
	bundles   *identity.Bundles
	tokens    *identity.Tokens
	ledger    *ledger.Ledger
	gate      *gate.Gate
	broker    *broker.Broker
	upstreams *upstream.Set
	noise     *server.Noise
	log       *slog.Logger
}

// reserved is how much of the disk is kept for what must still be written when
// the rest is full: some ten thousand outcomes, revocations and halts.
const reserved = 32 << 20

// openNode opens what is in a data directory, and makes what is missing. It
// serves nobody yet.
func openNode(ctx context.Context, dir string, c *config, log *slog.Logger) (_ *node, err error) {
	n := &node{dir: dir, config: c, log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	if err := privateDir(dir); err != nil {
		return nil, err
	}
	if n.keys, err = openKeys(filepath.Join(dir, "keys")); err != nil {
		return nil, err
	}

	// The ledger: what was so when the gateway last ran still is.
	store, err := sqlite.Open(filepath.Join(dir, "writ.db"))
	if err != nil {
		return nil, err
	}
	if err := store.Reserve(reserved); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	n.ledger, err = ledger.Open(ctx, store, ledger.Config{
		Origin: c.Ledger.Origin, Gateway: c.Ledger.Gateway, Anchor: c.Ledger.Anchor,
		Keys:  ledger.Keys{Log: n.keys.log, Seal: n.keys.seal, Pseudonym: n.keys.pseudonym},
		Adopt: c.adopt,
	})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}

	// Who may call.
	if err := n.trust(); err != nil {
		return nil, err
	}
	if n.tokens, err = identity.NewTokens(c.Issuer.URL, n.keys.token); err != nil {
		return nil, err
	}

	// What is reached out to.
	if n.upstreams, err = upstream.Open(c.Upstreams); err != nil {
		return nil, err
	}
	n.broker = &broker.Broker{Gateway: c.Ledger.Gateway, Queue: &broker.Journal{Ledger: n.ledger}, Now: time.Now}
	if n.broker.Backends, err = n.backends(); err != nil {
		return nil, err
	}
	n.noise = &server.Noise{Record: n.recordNoise}
	if n.gate, err = n.wire(); err != nil {
		return nil, err
	}
	closed, err := n.gate.Recover(ctx, c.Ledger.Gateway)
	if closed > 0 {
		log.Warn("calls were under way when the gateway last stopped; what became of them is not known", "calls", closed)
	}
	return n, err
}

// wire makes the gate.
func (n *node) wire() (*gate.Gate, error) {
	c := n.config
	issuer, err := issue.New(n.keys.capability, c.Issuer.URL, n.keys.gateway, time.Now)
	if err != nil {
		return nil, err
	}
	return &gate.Gate{
		Identity: &identity.Verifier{
			Bundles: n.bundles, Tokens: n.tokens.Key, Issuer: c.Issuer.URL, Audience: c.resource(),
			Development: c.Environment == development,
		},
		Catalog:   registry.New(c.Registry, n.ledger, time.Now),
		Tasks:     &task.Book{Ledger: n.ledger, Now: time.Now},
		Flow:      flow.New(),
		Approvals: &approval.Book{Ledger: n.ledger, Now: time.Now, MAC: n.keys.mac},
		Issuer:    issuer,
		Ledger:    n.ledger,
		Broker:    n.broker,
		Upstream:  n.upstreams,
		Noise:     n.noise.Count,
		HaltFile:  filepath.Join(n.dir, "halt"),
	}, nil
}

// trust reads the trust bundles.
func (n *node) trust() error {
	n.bundles = new(identity.Bundles)
	if n.config.Environment == development {
		var err error
		if n.ca, err = openCA(filepath.Join(n.dir, "keys"), n.config.Environment); err != nil {
			return err
		}
		domain := spiffeid.RequireTrustDomainFromString(devca.TrustDomain)
		if err := n.bundles.Set(domain, []*x509.Certificate{n.ca.Authority()}, n.ca.Authority().NotAfter); err != nil {
			return err
		}
	}
	return n.readBundles()
}

// bundleLife is how long a bundle that was read from a file is trusted: the
// file is read again long before.
const bundleLife = time.Hour

// readBundles reads the trust bundles of other domains. A file that is no
// bundle any more leaves the last good one in force, until its own end.
func (n *node) readBundles() error {
	var errs []error
	for name, file := range n.config.Trust {
		domain, err := spiffeid.TrustDomainFromString(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		text, err := os.ReadFile(file)
		if err == nil {
			err = n.bundles.Read(domain, text, time.Now().Add(bundleLife))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("trust bundle of %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// close ends what openNode began.
func (n *node) close() error {
	if n.upstreams != nil {
		n.upstreams.Close()
	}
	if n.ledger == nil {
		return nil
	}
	return n.ledger.Close()
}

// discover asks an upstream what it offers, and tells the registry.
func (n *node) discover(ctx context.Context, name string) error {
	offers, err := n.upstreams.Discover(ctx, name)
	if err != nil && !errors.Is(err, upstream.ErrPartial) {
		return fmt.Errorf("asking %s for its tools: %w", name, err)
	}
	defs := make([]registry.Definition, 0, len(offers))
	for _, o := range offers {
		defs = append(defs, registry.Definition{Kind: o.Kind, Upstream: name, Name: o.Name, Raw: o.Raw})
	}
	return errors.Join(err, n.gate.Catalog.Offer(ctx, name, defs))
}

// policies are the policy files on disk.
func (n *node) policies() ([]policy.File, error) {
	names, err := filepath.Glob(filepath.Join(n.dir, "policy", "*.cedar"))
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var files []policy.File
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		files = append(files, policy.File{Name: filepath.Base(name), Text: text})
	}
	return files, nil
}

// firstPolicies writes the starter set on the first run, and puts it in force.
// After that only an operator's act changes what is in force.
func (n *node) firstPolicies(ctx context.Context, by writ.UserID) (bool, error) {
	b, err := n.gate.InForce(ctx)
	if err != nil || b != nil {
		return false, err
	}
	dir := filepath.Join(n.dir, "policy")
	if err := os.Mkdir(dir, 0o700); err == nil {
		for _, f := range append(policy.Starter(), policy.StarterTests()...) {
			if err := os.WriteFile(filepath.Join(dir, f.Name), f.Text, 0o600); err != nil {
				return false, err
			}
		}
	} else if !errors.Is(err, os.ErrExist) {
		return false, err
	}
	files, err := n.policies()
	if err != nil {
		return false, err
	}
	if _, err := n.gate.Apply(ctx, files, by); err != nil {
		return false, err
	}
	return true, nil
}

// sweep ends the credentials that are over, every second until ctx ends. A
// backend that hangs holds up nothing but itself.
func (n *node) sweep(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if left, err := n.broker.Sweep(ctx); err != nil && ctx.Err() == nil {
				n.log.Warn("credentials wait to be revoked", "waiting", left.Waiting, "overdue", left.Overdue, "error", err)
			}
		}
	}
}

// run waits until ctx ends. It returns early, with an error, if the ledger has
// failed, whatever else hangs.
func (n *node) run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-n.ledger.Failed():
		return errors.New("the ledger has failed: nothing is dispatched any more; start the gateway again")
	}
}

// tidy ends the tasks whose time is over and reads the trust bundles anew, until
// ctx ends. A backend that hangs holds up nothing but that.
func (n *node) tidy(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := errors.Join(n.readBundles(), n.gate.Expire(ctx)); err != nil {
				n.log.Warn("keeping order", "error", err)
			}
		}
	}
}

// watch asks upstreams again whose tools may have changed, or are not known,
// until ctx ends. One that hangs holds up nothing but the others' turn.
func (n *node) watch(ctx context.Context, changed func()) error {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case name := <-n.upstreams.Changed():
			n.rediscover(ctx, name)
			changed()
		case <-tick.C:
			for _, u := range n.config.Upstreams {
				if len(n.gate.Catalog.Entries(u.Name)) == 0 {
					n.rediscover(ctx, u.Name)
					changed()
				}
			}
		}
	}
}

func (n *node) rediscover(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := n.discover(ctx, name); err != nil && ctx.Err() == nil {
		n.log.Warn("an upstream's tools are not known", "upstream", name, "error", err)
	}
}

// recordNoise makes one record of the refusals of strangers.
func (n *node) recordNoise(ctx context.Context, r server.Refusals) error {
	note := map[string]string{"listener": "mcp"}
	for code, count := range r.Counts {
		note[string(code)] = fmt.Sprint(count)
	}
	_, err := n.ledger.Commit(ctx, &ledger.Entry{
		Leaf:  ledger.Leaf{Type: ledger.TypeNoise, Note: note},
		Parts: []ledger.Part{{Name: "sample", Bytes: []byte(r.Sample)}},
	})
	return err
}
