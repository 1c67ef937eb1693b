package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"github.com/writgate/writ/ledger/witness"
	"github.com/writgate/writ/server"
)

// A witnessCmd watches somebody else's log.
type witnessCmd struct {
	Name   string   `required:"" placeholder:"NAME" help:"What this witness signs as: a URL without a scheme, such as witness.example/audit."`
	Log    []string `required:"" placeholder:"VKEY" help:"The verifier key of a log to watch; again for another, or for a log's older key."`
	Listen string   `default:"127.0.0.1:7450" help:"Where logs ask. A proxy in front of it brings TLS: what is asked and answered is signed anyway."`
}

// Help says what a witness is.
func (witnessCmd) Help() string {
	return `A witness cosigns a log's checkpoints (c2sp.org/tlog-witness), and only those that go on from the last one it has signed. It sees how many records there are, and none of them. Run it where whoever holds the log's key has no hands.

Its key, and what it has signed, are in the data directory. It prints the line that goes into the log's writ.yaml, and the key that goes into the trust of whoever verifies receipts.`
}

// Run answers logs until it is told to stop.
func (c *witnessCmd) Run(s *session) error {
	if err := privateDir(s.Dir); err != nil {
		return err
	}
	key, err := signingKey(filepath.Join(s.Dir, "witness.key"))
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(s.errs, nil))
	w, err := witness.Open(witness.Config{
		Name: c.Name, Key: key, Logs: c.Log, Dir: filepath.Join(s.Dir, "witnessed"),
		Alarm: func(origin, file string, err error) {
			log.Error("a log has two histories", "log", origin, "evidence", file, "error", err)
		},
	})
	if err != nil {
		return err
	}
	defer w.Close()
	ln, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return err
	}
	s.printf("ledger:\n  witnesses:\n    - {url: 'http://%s', key: '%s'}\n", ln.Addr(), w.VerifierKey())
	err = (&server.Front{Handler: w}).Serve(s.ctx, ln)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// witnessEvery is how often a log that has grown asks its witnesses.
const witnessEvery = 10 * time.Second

// askWitnesses has the log's checkpoints cosigned until ctx ends. A witness
// that does not answer holds nothing up: receipts say how far it has seen.
func (n *node) askWitnesses(ctx context.Context) {
	if len(n.config.Ledger.Witnesses) == 0 {
		return
	}
	var all []*witness.Client
	for _, w := range n.config.Ledger.Witnesses {
		all = append(all, &witness.Client{URL: w.URL, Key: w.Key})
	}
	tick := time.NewTicker(witnessEvery)
	defer tick.Stop()
	for asked := ""; ; {
		head, err := n.ledger.Checkpoint(ctx)
		if err == nil && string(head) != asked {
			if err := witness.Ask(ctx, n.ledger, all...); err == nil {
				asked = string(head)
			} else if ctx.Err() == nil {
				n.log.Warn("the log is not witnessed", "error", fmt.Sprint(err))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
