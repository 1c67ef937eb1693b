package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/identity"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/registry"
)

// up opens the gateway in dir, and serves until ctx ends. It tells out what it
// found and made; whatever happens later goes to log.
func up(ctx context.Context, dir string, adopt *ledger.Entry, out io.Writer, log *slog.Logger) error {
	say := func(what, format string, args ...any) {
		fmt.Fprintf(out, "  %-9s %s\n", what, fmt.Sprintf(format, args...))
	}
	file := filepath.Join(dir, "writ.yaml")
	c, err := readConfig(file)
	if err != nil {
		return err
	}
	if c.Environment == development && len(c.Registry.Agents) == 0 {
		c.Registry.Agents = []registry.Agent{localAgent()}
	}
	c.adopt = adopt
	n, err := openNode(ctx, dir, c, log)
	if err != nil {
		return err
	}
	defer n.close()
	if err := n.publish(); err != nil {
		return err
	}
	say("data", "%s", dir)
	say("identity", "%s", n.domains())
	say("log", "%s, key %s", c.Ledger.Origin, n.ledger.VerifierKey())
	if n.anchored() {
		say("!", "the anchor is on the same volume as the log: a restored backup of both goes unnoticed (ledger.anchor)")
	}
	for _, u := range c.Upstreams {
		if err := n.discover(ctx, u.Name); err != nil {
			say("!", "%s: %v; it is asked again", u.Name, err)
		}
	}
	if len(c.Upstreams) == 0 {
		say("!", "there are no tool servers: list them in %s, under upstreams", file)
	}
	n.sayTools(say)
	if err := n.sayPolicy(ctx, say); err != nil {
		return err
	}
	if len(c.Registry.Operators) == 0 {
		say("!", "nobody can approve or review yet: writ operator init")
	}
	l, err := n.listen(ctx)
	if err != nil {
		return err
	}
	say("operators", "%s", l.admin.Addr())
	say("tokens", "%s", c.Issuer.URL)
	say("agents", "%s", c.resource())
	fmt.Fprintln(out, "ready")
	return n.serve(ctx, l)
}

// localAgent is the one agent of a machine whose configuration names none:
// whatever its user starts with writ run.
func localAgent() registry.Agent {
	owner := "local"
	if u, err := user.Current(); err == nil && u.Username != "" {
		owner = u.Username
	}
	return registry.Agent{
		ID: "spiffe://writ.localhost/agent/local", Owner: writ.UserID(owner), Purpose: "whatever this machine's user starts with writ run",
		Environment: development, HighestTier: writ.Privileged,
	}
}

// publish writes what anybody may read: the authority that vouches for the
// development certificates, what a tool server needs to check capabilities,
// and what a verifier of receipts needs.
func (n *node) publish() error {
	if n.ca != nil {
		if err := os.WriteFile(filepath.Join(n.dir, "ca.pem"), n.ca.Bundle(), 0o644); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(n.dir, "capability.jwks"), n.gate.Issuer.Keys().JWKS(), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(n.dir, "log.vkey"), []byte(n.ledger.VerifierKey()+"\n"), 0o644)
}

func (n *node) domains() string {
	if n.ca != nil {
		return "spiffe://writ.localhost, for development"
	}
	return "agents of " + strings.Join(sorted(n.config.Trust), ", ")
}

// anchored says whether the anchor shares a volume with what it watches.
func (n *node) anchored() bool {
	same, err := sameVolume(n.dir, filepath.Dir(n.config.Ledger.Anchor))
	return err == nil && same
}

func (n *node) sayTools(say func(string, string, ...any)) {
	listed, waiting := 0, 0
	for _, e := range n.gate.Catalog.Entries("") {
		if e.Quarantine == "" {
			listed++
		} else {
			waiting++
		}
	}
	say("tools", "%d listed", listed)
	if waiting > 0 {
		say("!", "%d tools wait for a review, and are not listed until then: writ tools review", waiting)
	}
}

func (n *node) sayPolicy(ctx context.Context, say func(string, string, ...any)) error {
	first, err := n.firstPolicies(ctx, "")
	if err != nil {
		return fmt.Errorf("putting the first policies in force: %w", err)
	}
	b, err := n.gate.InForce(ctx)
	if err != nil {
		return err
	}
	switch files, err := n.policies(); {
	case b.Empty():
		say("policy", "%s: no policies, which denies everything", b.Digest())
	case first:
		say("policy", "%s: the starter set, in %s", b.Digest(), filepath.Join(n.dir, "policy"))
	case err != nil:
		return err
	default:
		say("policy", "%s", b.Digest())
		draft, err := n.gate.Draft(files)
		if err != nil || draft.Digest() != b.Digest() {
			say("!", "the policy files, or the tools they are about, are not what is in force: writ policy check, then writ policy apply")
		}
	}
	return nil
}

// An upCmd serves.
type upCmd struct {
	Adopt string `placeholder:"WHY" help:"Go on with a log that is behind its anchor, or has none: after a restored backup. Needs your key; the reason stays on record."`
}

// Help says what is served.
func (upCmd) Help() string {
	return `Makes what is missing in the data directory (keys, a development trust domain, the starter policies, the log), and lets agents and operators in until it is told to stop. It needs no configuration; what there is to configure is in writ.yaml in the data directory.`
}

// Run serves until the context of the session ends.
func (c upCmd) Run(s *session) error {
	var adopt *ledger.Entry
	if c.Adopt != "" {
		var err error
		if adopt, err = s.adoption(c.Adopt); err != nil {
			return err
		}
	}
	log := slog.New(slog.NewTextHandler(s.errs, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			a.Value = slog.StringValue(a.Value.Time().UTC().Format(time.RFC3339))
		}
		return a
	}}))
	err := up(s.ctx, s.Dir, adopt, s.out, log)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// adoption is the record of an operator who says that the log goes on as it
// is. They are one whom writ.yaml lists, and hold the key.
func (s *session) adoption(why string) (*ledger.Entry, error) {
	c, err := readConfig(filepath.Join(s.Dir, "writ.yaml"))
	if err != nil {
		return nil, err
	}
	k, key, err := s.openKey()
	if err != nil {
		return nil, err
	}
	thumbprint, err := identity.Thumbprint(key.Public())
	if err != nil {
		return nil, err
	}
	for _, o := range c.Registry.Operators {
		if o.Key == thumbprint {
			return &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeAdmin, Key: thumbprint, Note: map[string]string{"why": clip(why)}}, User: o.User}, nil
		}
	}
	return nil, refuse("%s is no operator of this gateway: writ.yaml does not list this key", k.user)
}

// clip bounds a reason, so that it fits the record that says it.
func clip(why string) string {
	const most = 200
	return strings.ToValidUTF8(why[:min(len(why), most)], "")
}
