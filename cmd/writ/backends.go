package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/broker/oauth"
	"github.com/writgate/writ/broker/postgres"
	"github.com/writgate/writ/broker/static"
	"github.com/writgate/writ/upstream"
)

// backends makes the drivers that mint credentials.
func (n *node) backends() (map[string]broker.Backend, error) {
	all := make(map[string]broker.Backend, len(n.config.Backends))
	for name, c := range n.config.Backends {
		d, err := n.driver(name, &c)
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

func (n *node) driver(name string, c *backend) (broker.Driver, error) {
	sealer, err := broker.NewSealer(n.keys.static[:])
	if err != nil {
		return nil, err
	}
	switch {
	case c.OAuth != nil && c.Postgres == nil && c.Static == nil:
		client, err := upstream.Client(c.OAuth.TokenEndpoint, c.Allow...)
		if err != nil {
			return nil, err
		}
		return oauth.New(*c.OAuth, client, sealer, time.Now)
	case c.Postgres != nil && c.OAuth == nil && c.Static == nil:
		return postgres.New(*c.Postgres)
	case c.Static != nil && c.OAuth == nil && c.Postgres == nil:
		return static.New(name, *c.Static, sealer)
	}
	return nil, errors.New("want exactly one of oauth, postgres and static")
}
