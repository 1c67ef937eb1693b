package main

import (
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
	if n.anchored() {
		facts = append(facts, api.Fact{
			About: "log", Name: "anchor", Value: n.config.Ledger.Anchor, Level: "warning",
			Hint: "it is on the same volume as the log: who restores both goes unnoticed; put ledger.anchor on another",
		})
	}
	if len(n.config.Ledger.Witnesses) == 0 {
		facts = append(facts, api.Fact{
			About: "log", Name: "witnesses", Value: "none", Level: "warning",
			Hint: "whoever holds the log's key could rewrite it: let somebody else run writ witness",
		})
	}
	if n.config.Environment == development {
		facts = append(facts, api.Fact{
			About: "identity", Name: "trust domain", Value: "spiffe://writ.localhost", Level: "note",
			Hint: "the development trust domain: everyone who may use the admin socket gets identities from it",
		})
	}
	return facts
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
