package upstream

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

const (
	defaultTimeout = 30 * time.Second
	maxTimeout     = time.Hour
)

// A Config is one upstream as the operator's file has it. Nothing else can
// name a command or an address: no message and no API reaches these fields.
type Config struct {
	Name          string            `yaml:"name"`          // [a-z0-9-], at most 32 of them
	URL           string            `yaml:"url"`           // of a Streamable HTTP endpoint; or
	Command       []string          `yaml:"command"`       // of a stdio server: an absolute path, and its arguments
	Pins          map[string]string `yaml:"pins"`          // SHA-256 in hexadecimal, by absolute path, of files checked before each start
	Env           []string          `yaml:"env"`           // names of variables that a stdio server inherits; it gets no others
	Timeout       time.Duration     `yaml:"timeout"`       // for one call; 0 means 30 seconds
	Continuations bool              `yaml:"continuations"` // it may ask for more input while it works
	Capability    bool              `yaml:"capability"`    // show it the capability of each call
	Allow         []netip.Prefix    `yaml:"allow"`         // addresses that are not public and yet may be dialed
}

var (
	nameShape = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)
	envShape  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
)

// check refuses what could only be a mistake, and fills in what is left out.
func (c *Config) check() error {
	switch {
	case !nameShape.MatchString(c.Name):
		return fmt.Errorf("an upstream's name is [a-z0-9-]{1,32}, not %q", c.Name)
	case (c.URL == "") == (len(c.Command) == 0):
		return errors.New("want a url or a command")
	case c.Timeout < 0 || c.Timeout > maxTimeout:
		return fmt.Errorf("a timeout of %v is not between 0 and %v", c.Timeout, maxTimeout)
	case c.URL != "" && (len(c.Env) > 0 || len(c.Pins) > 0):
		return errors.New("env and pins are for a command")
	case c.URL == "" && (c.Capability || len(c.Allow) > 0):
		return errors.New("capability and allow are for a url")
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.URL != "" {
		_, _, err := aim(c.URL, c.Allow)
		return err
	}
	return c.checkCommand()
}

func (c *Config) checkCommand() error {
	if !cleanPath(c.Command[0]) {
		return fmt.Errorf("a command begins with an absolute path, not %q", c.Command[0])
	}
	for _, a := range c.Command {
		if strings.ContainsRune(a, 0) {
			return errors.New("an argument holds a zero byte")
		}
	}
	for _, name := range c.Env {
		if !envShape.MatchString(name) || loads(name) {
			return fmt.Errorf("the variable %q is not passed on", name)
		}
	}
	for path, pin := range c.Pins {
		if b, err := hex.DecodeString(pin); err != nil || len(b) != 32 || !cleanPath(path) {
			return fmt.Errorf("a pin is the SHA-256 of the file at an absolute path, not of %q", path)
		}
	}
	return nil
}

func cleanPath(p string) bool { return filepath.IsAbs(p) && filepath.Clean(p) == p }

// loads says whether a variable makes the dynamic linker load code.
func loads(name string) bool {
	return strings.HasPrefix(name, "LD_") || strings.HasPrefix(name, "DYLD_")
}
