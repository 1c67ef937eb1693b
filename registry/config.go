package registry

import (
	"fmt"
	"time"

	"github.com/writgate/writ"
	"go.yaml.in/yaml/v4"
)

// A Config is what the operator's files allow.
type Config struct {
	Agents        []Agent    `yaml:"agents"`
	Tools         []Rule     `yaml:"tools"`
	Operators     []Operator `yaml:"operators"`
	Continuations []string   `yaml:"continuations"` // upstreams that may be answered when they ask for more input
}

// An Agent is one line of the operator's file. An agent without a state is
// active: the file is where the operator says that it exists.
type Agent struct {
	ID          writ.AgentID `yaml:"id"`
	Owner       writ.UserID  `yaml:"owner"`
	Purpose     string       `yaml:"purpose"`
	Environment string       `yaml:"environment"`
	Groups      []string     `yaml:"groups"`
	HighestTier writ.Tier    `yaml:"highest_tier"`
	Expires     time.Time    `yaml:"expires,omitempty"`      // never if it is zero
	RecertifyBy time.Time    `yaml:"recertify_by,omitempty"` // never if it is zero
	Keys        []string     `yaml:"keys"`                   // PEM files of public keys that it may authenticate with (private_key_jwt)
}

// An Operator is a person who may approve and administer, known by a public
// key.
type Operator struct {
	User writ.UserID     `yaml:"user" json:"user"`
	Key  writ.Thumbprint `yaml:"key" json:"key"` // RFC 7638, of the key that signs the operator's proofs
}

// A Rule is the most that a review may say of a tool.
type Rule struct {
	Tool   writ.ToolName `yaml:"tool"`
	Tier   writ.Tier     `yaml:"tier"`
	Fetch  bool          `yaml:"fetch"`
	Result writ.Label    `yaml:"result"`
}

// ParseConfig reads YAML. A key that it does not know is an error, as is one
// that stands twice.
func ParseConfig(text []byte) (Config, error) {
	var c Config
	if err := yaml.Load(text, &c, yaml.WithKnownFields(), yaml.WithUniqueKeys()); err != nil {
		return Config{}, fmt.Errorf("reading the registry's configuration: %w", err)
	}
	if err := c.Check(); err != nil {
		return Config{}, fmt.Errorf("reading the registry's configuration: %w", err)
	}
	return c, nil
}

// Check refuses what could only be a mistake.
func (c *Config) Check() error {
	agents := map[writ.AgentID]bool{}
	for _, a := range c.Agents {
		switch {
		case a.ID == "" || agents[a.ID]:
			return fmt.Errorf("agent %q is listed twice, or without its id", a.ID)
		case a.Owner == "" || a.Environment == "":
			return fmt.Errorf("agent %q needs an owner and an environment", a.ID)
		}
		agents[a.ID] = true
	}
	users, keys := map[writ.UserID]bool{}, map[writ.Thumbprint]bool{}
	for _, o := range c.Operators {
		if o.User == "" || o.Key == "" || users[o.User] || keys[o.Key] {
			return fmt.Errorf("operator %q needs one user and one key, each its own", o.User)
		}
		users[o.User], keys[o.Key] = true, true
	}
	return nil
}

// agent is the noun that a line of the file stands for.
func (a *Agent) agent() writ.Agent {
	millis := func(t time.Time) int64 {
		if t.IsZero() {
			return 0
		}
		return t.UnixMilli()
	}
	return writ.Agent{
		ID: a.ID, Owner: a.Owner, Purpose: a.Purpose, Environment: a.Environment, Groups: a.Groups,
		HighestTier: a.HighestTier, Expires: millis(a.Expires), RecertifyBy: millis(a.RecertifyBy), State: writ.Active,
	}
}
