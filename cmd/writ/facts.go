package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/writgate/writ/server/admin/api"
	"go.yaml.in/yaml/v4"
)

// facts are the configuration as it was understood, and what about it is
// worth a warning.
func (n *node) facts() []api.Fact {
	facts := []api.Fact{}
	text, err := yaml.Dump(n.config)
	if err != nil {
		facts = append(facts, api.Fact{About: "configuration", Name: "writ.yaml", Value: err.Error(), Level: "bad"})
	}
	for line := range strings.Lines(string(text)) {
		facts = append(facts, api.Fact{About: "configuration", Name: "writ.yaml", Value: strings.TrimRight(line, "\n"), Level: "ok"})
	}
	facts = append(facts, n.aboutOperators()...)
	if _, err := n.ledger.Anchored(); err != nil {
		facts = append(facts, api.Fact{
			About: "log", Name: "anchor", Value: err.Error(), Level: "bad",
			Hint: "the anchor is not written any more: a database that is set back goes unnoticed",
		})
	}
	if n.anchored() {
		facts = append(facts, api.Fact{
			About: "log", Name: "anchor", Value: n.config.Ledger.Anchor, Level: "warning",
			Hint: "it is on the same volume as the log: who restores both goes unnoticed; put ledger.anchor on another",
		})
	}
	facts = append(facts, n.aboutWitnesses())
	if n.config.Environment == development {
		facts = append(facts, api.Fact{
			About: "identity", Name: "trust domain", Value: "spiffe://writ.localhost", Level: "note",
			Hint: "the development trust domain: everyone who may use the admin socket gets identities from it",
		})
	}
	return facts
}

// aboutOperators warns where nobody, or nobody else, could say yes.
func (n *node) aboutOperators() []api.Fact {
	f := api.Fact{About: "operators", Name: "listed", Value: fmt.Sprint(len(n.config.Registry.Operators)), Level: "note"}
	switch operators := n.config.Registry.Operators; len(operators) {
	case 0:
		f.Level, f.Hint = "warning", "nobody can review, approve or apply a policy: writ operator init"
	case 1:
		if n.config.Environment == development { // where the starter policies take their own word
			f.Level = "ok"
			break
		}
		f.Hint = "a task's user and its agent's owner review nothing for it: what " + string(operators[0].User) + " starts needs a second operator to approve"
	default:
		f.Level = "ok"
	}
	return []api.Fact{f}
}

// aboutWitnesses says how much of the log others have seen.
func (n *node) aboutWitnesses() api.Fact {
	f := api.Fact{About: "log", Name: "witnesses", Value: "none", Level: "warning"}
	if len(n.config.Ledger.Witnesses) == 0 {
		f.Hint = "whoever holds the log's key could rewrite it: let somebody else run writ witness"
		return f
	}
	seen, err := n.ledger.Witnessed(context.Background())
	lines := strings.SplitN(string(seen), "\n", 3) // origin, size, the rest
	switch {
	case err != nil:
		f.Value = err.Error()
	case len(lines) < 3:
		f.Value, f.Hint = "none has answered yet", "is the witness up, and does it watch this log's key?"
	default:
		f.Value, f.Level = "the first "+lines[1]+" records have been seen", "ok"
	}
	return f
}

// sameVolume says whether two directories are on one file system.
func sameVolume(a, b string) (bool, error) {
	device := func(name string) (string, error) {
		is, err := os.Stat(name)
		if err != nil {
			return "", err
		}
		s, ok := is.Sys().(*syscall.Stat_t)
		if !ok {
			return "", fmt.Errorf("which volume %s is on cannot be told", name)
		}
		return fmt.Sprint(s.Dev), nil
	}
	x, err := device(a)
	if err != nil {
		return false, err
	}
	y, err := device(b)
	return x == y, err
}
