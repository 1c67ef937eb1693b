package upstream

import (
	"net/netip"
	"time"
)

// A Config is one upstream as the operator's file has it. Nothing else can
// name a command or an address: no message and no API reaches these fields.
type Config struct {
	Name          string            `yaml:"name"`          // ^[a-z0-9-]{1,32}$
	URL           string            `yaml:"url"`           // of a Streamable HTTP endpoint; or
	Command       []string          `yaml:"command"`       // of a stdio server: an absolute path, and its arguments
	Pins          map[string]string `yaml:"pins"`          // SHA-256 in hexadecimal, by absolute path, of files checked before each start
	Env           []string          `yaml:"env"`           // names of variables that a stdio server inherits
	Timeout       time.Duration     `yaml:"timeout"`       // for one call; 0 means 30 seconds
	Continuations bool              `yaml:"continuations"` // it may ask for more input while it works
	Capability    bool              `yaml:"capability"`    // show it the capability of each call
	Allow         []netip.Prefix    `yaml:"allow"`         // addresses that are not public and yet may be dialed
}
