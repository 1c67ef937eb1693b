package main

import (
	"errors"
	"fmt"

	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/broker/postgres"
)

// backends makes the drivers that mint credentials.
func (n *node) backends() (map[string]broker.Backend, error) {
	all := make(map[string]broker.Backend, len(n.config.Backends))
	for name, c := range n.config.Backends {
		d, err := n.driver(&c)
		if err == nil {
			err = c.placement().Check()
		}
		if err != nil {
			return nil, fmt.Errorf("backend %s: %w", name, err)
		}
		all[name] = broker.Backend{Driver: d, Place: c.placement(), Share: c.Share}
	}
	return all, nil
}

func (n *node) driver(c *backend) (broker.Driver, error) {
	switch {
	case c.Postgres != nil:
		return postgres.New(*c.Postgres)
	}
	return nil, errors.New("want exactly one of oauth, postgres and static")
}
