package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/writgate/writ/ledger"
)

// A trust says whom a verifier believes: the log, and how many of which
// witnesses.
type trust struct {
	ledger.Trust
	names  map[string]string // of witnesses: their key's own name
	groups map[string]group
	quorum string // a witness or a group; none is no witness at all
}

// A group is met by so many of its members.
type group struct {
	least   int
	members []string
}

// noQuorum asks for no witness.
const noQuorum = "none"

// trust reads what the command line says.
func (c *verifyCmd) trust() (*trust, error) {
	if (c.Trust == "") == (len(c.Key) == 0) || c.Trust != "" && len(c.Witness) > 0 {
		return nil, &usageError{"whom to believe: either --trust FILE, or --key VKEY with --witness VKEY"}
	}
	if c.Trust != "" {
		text, err := os.ReadFile(c.Trust)
		if err != nil {
			return nil, err
		}
		t, err := parseTrust(string(text))
		if err != nil {
			return nil, &usageError{fmt.Sprintf("%s: %v", c.Trust, err)}
		}
		return t, nil
	}
	// Without a file one witness is enough, whoever it is.
	var b strings.Builder
	for _, k := range c.Key {
		fmt.Fprintf(&b, "log %s\n", k)
	}
	members := ""
	for i, k := range c.Witness {
		fmt.Fprintf(&b, "witness w%d %s\n", i, k)
		members += fmt.Sprintf(" w%d", i)
	}
	if members != "" {
		fmt.Fprintf(&b, "group witnesses any%s\nquorum witnesses\n", members)
	}
	return parseTrust(b.String())
}

// parseTrust reads a c2sp.org/tlog-policy: lines of "log VKEY [URL]",
// "witness NAME VKEY [URL]", "group NAME K|any|all MEMBER…" and "quorum
// NAME|none". A file without a quorum is met by any witness it names.
func parseTrust(text string) (*trust, error) {
	t := &trust{names: map[string]string{}, groups: map[string]group{}}
	n := 0
	for line := range strings.Lines(text) {
		n++
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := t.line(strings.Fields(line)); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if len(t.Logs) == 0 {
		return nil, fmt.Errorf("it names no log")
	}
	if t.quorum == "" {
		var all []string
		for name := range t.names {
			all = append(all, name)
		}
		t.quorum = "any witness" // no name has a space
		t.groups[t.quorum] = group{1, all}
	}
	return t, nil
}

func (t *trust) line(f []string) error {
	known := func(name string) bool { return t.names[name] != "" || t.groups[name].members != nil }
	switch {
	case f[0] == "log" && (len(f) == 2 || len(f) == 3):
		origin, _, _ := strings.Cut(f[1], "+")
		if t.Origin != "" && t.Origin != origin {
			return fmt.Errorf("a second log, %q", origin)
		}
		t.Origin, t.Logs = origin, append(t.Logs, f[1])
	case f[0] == "witness" && (len(f) == 3 || len(f) == 4):
		if known(f[1]) || f[1] == noQuorum {
			return fmt.Errorf("%q is named twice", f[1])
		}
		t.names[f[1]], _, _ = strings.Cut(f[2], "+")
		t.Witnesses = append(t.Witnesses, f[2])
	case f[0] == "group" && len(f) >= 4:
		g := group{members: f[3:]}
		for _, m := range g.members {
			if !known(m) {
				return fmt.Errorf("%q is not named before", m)
			}
		}
		if known(f[1]) || f[1] == noQuorum {
			return fmt.Errorf("%q is named twice", f[1])
		}
		switch f[2] {
		case "any":
			g.least = 1
		case "all":
			g.least = len(g.members)
		default:
			k, err := strconv.Atoi(f[2])
			if err != nil || k < 1 || k > len(g.members) {
				return fmt.Errorf("%q of %d", f[2], len(g.members))
			}
			g.least = k
		}
		t.groups[f[1]] = g
	case f[0] == "quorum" && len(f) == 2 && t.quorum == "" && (known(f[1]) || f[1] == noQuorum):
		t.quorum = f[1]
	default:
		return fmt.Errorf("not a line of a trust file: %q", strings.Join(f, " "))
	}
	return nil
}

// met says whether those who saw the log are enough. Nobody is never enough:
// a file can do without witnesses, and what it verifies is unwitnessed.
func (t *trust) met(seen map[string]time.Time) bool {
	return t.quorum != noQuorum && t.has(t.quorum, seen)
}

func (t *trust) has(name string, seen map[string]time.Time) bool {
	g, ok := t.groups[name]
	if !ok {
		_, ok = seen[t.names[name]]
		return ok
	}
	n := 0
	for _, m := range g.members {
		if t.has(m, seen) {
			n++
		}
	}
	return n >= g.least
}
