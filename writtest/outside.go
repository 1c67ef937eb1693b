package writtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/upstream"
)

// An Upstream plays the tools. It remembers every action that reached it.
type Upstream struct {
	// Do, if it is set, answers in place of the tools' own replies.
	Do func(ctx context.Context, lease *broker.Lease, o upstream.Order) (*upstream.Answer, error)

	mu      sync.Mutex
	seen    []writ.Action
	replies map[writ.ToolName]Tool
}

// Call implements the gate's interface.
func (u *Upstream) Call(ctx context.Context, lease *broker.Lease, o upstream.Order) (*upstream.Answer, error) {
	if err := lease.Check(); err != nil {
		return nil, err
	}
	u.mu.Lock()
	u.seen = append(u.seen, *o.Action)
	tool := u.replies[writ.ToolName(o.Action.Upstream+"."+o.Action.Name)]
	do := u.Do
	u.mu.Unlock()
	if do != nil {
		return do(ctx, lease, o)
	}
	reply := tool.Reply
	if strings.Contains(reply, echo) {
		h := http.Header{}
		if err := lease.Apply(h); err != nil {
			return nil, err
		}
		reply = strings.ReplaceAll(reply, echo, h.Get("Authorization"))
	}
	return &upstream.Answer{Body: Text(reply, tool.Fails)}, nil
}

// echo, in a Tool's reply, becomes the credential that the tool was given.
const echo = "$CREDENTIAL"

// CloseTask implements the gate's interface. Nothing runs for a task here.
func (u *Upstream) CloseTask(writ.TaskID) {}

// Seen are the actions that reached the tools, in order.
func (u *Upstream) Seen() []writ.Action {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.seen)
}

// Text is a tool's result of one text.
func Text(text string, fails bool) []byte {
	if text == "" {
		text = "ok"
	}
	quoted, err := json.Marshal(text)
	if err != nil {
		panic(err) // a string marshals
	}
	if fails {
		return fmt.Appendf(nil, `{"content":[{"type":"text","text":%s}],"isError":true}`, quoted)
	}
	return fmt.Appendf(nil, `{"content":[{"type":"text","text":%s}]}`, quoted)
}

// A Vault plays a backend of credentials. What it minted lives until it is
// revoked.
type Vault struct {
	// FailMint and FailRevoke, if they are set, are what the methods return
	// after they have done their work; a function that panics panics.
	FailMint, FailRevoke func() error

	Refuse bool // minting fails before it has done anything

	mu   sync.Mutex
	live map[string]bool
	log  []string
}

// Mint implements broker.Driver.
func (v *Vault) Mint(_ context.Context, row broker.Row) (broker.Minted, error) {
	if v.Refuse {
		return broker.Minted{}, errors.New("the vault is closed")
	}
	secret, err := broker.NewSecret("vault", "s3cr3t-of-"+row.Handle)
	if err != nil {
		return broker.Minted{}, err
	}
	v.mu.Lock()
	v.live[row.Handle] = true
	v.log = append(v.log, "mint")
	v.mu.Unlock()
	m := broker.Minted{Secret: secret, Until: row.Expires}
	if v.FailMint != nil {
		err = v.FailMint()
	}
	return m, err
}

// Revoke implements broker.Driver.
func (v *Vault) Revoke(_ context.Context, handle string) (broker.Evidence, error) {
	if v.FailRevoke != nil {
		if err := v.FailRevoke(); err != nil {
			return broker.Evidence{}, err
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.live, handle)
	v.log = append(v.log, "revoke")
	return broker.Evidence{Outcome: broker.Revoked, Steps: []string{"forgotten"}}, nil
}

// Lifetime implements broker.Driver.
func (v *Vault) Lifetime(ttl time.Duration) time.Duration { return ttl }

// Live is how many credentials would be accepted now.
func (v *Vault) Live() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.live)
}

// Log is what the vault was asked to do, in order.
func (v *Vault) Log() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.log)
}
