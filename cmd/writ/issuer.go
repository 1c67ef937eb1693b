package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/server/token"
)

// tokenRoutes adds the token endpoint and its documents.
func (n *node) tokenRoutes(mux *http.ServeMux) error {
	e, err := token.New(token.Config{
		Identity: n.gate.Identity, Tokens: n.tokens, Catalog: n.gate.Catalog, Tasks: n.gate.Tasks,
		Ledger: n.ledger, Now: time.Now, Keys: n.agentKeys, Count: n.noise.Count,
	})
	if err != nil {
		return err
	}
	for pattern, h := range e.Handlers() {
		mux.Handle(pattern, h)
	}
	return nil
}

// agentKeys are the public keys that the operator registered for an agent.
func (n *node) agentKeys(_ context.Context, id writ.AgentID) ([]crypto.PublicKey, error) {
	var keys []crypto.PublicKey
	for _, a := range n.config.Registry.Agents {
		if a.ID != id {
			continue
		}
		for _, name := range a.Keys {
			text, err := os.ReadFile(name)
			if err != nil {
				return nil, err
			}
			block, _ := pem.Decode(text)
			if block == nil || block.Type != "PUBLIC KEY" {
				return nil, fmt.Errorf("%s holds no PUBLIC KEY", name)
			}
			key, err := x509.ParsePKIXPublicKey(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			keys = append(keys, key)
		}
	}
	return keys, nil
}
