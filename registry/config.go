package registry

import (
	"fmt"

	"github.com/writgate/writ"
	"go.yaml.in/yaml/v4"
)

// A Config is what the operator's files allow.
type Config struct {
	Agents []writ.Agent `yaml:"agents"`
	Tools  []Rule       `yaml:"tools"`
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
	return c, nil
}
