//go:build unix

package crash_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/upstream"
)

// An event is one line of what was written down outside the ledger: by the
// tools and the vault before they answered, by a gateway after it had given
// something out.
type event struct {
	What     string          `json:"what"`
	Gateway  string          `json:"gateway"`
	Call     writ.CallID     `json:"call,omitempty"`
	Tool     writ.ToolName   `json:"tool,omitempty"`
	Args     writ.JSON       `json:"args,omitempty"`
	Handle   string          `json:"handle,omitempty"`   // of the credential
	Approval writ.ApprovalID `json:"approval,omitempty"` // that is waited for
	Receipt  writ.JSON       `json:"receipt,omitempty"`  // that was given out
}

const (
	effect   = "effect"   // a tool did something
	minted   = "minted"   // a credential exists
	revoked  = "revoked"  // a credential is dead
	released = "released" // a gateway gave out a result
	recalled = "recalled" // a gateway gave out the result of a call that was made before
	parked   = "parked"   // a gateway said that a person has to approve
)

// A diary is a file of events, to which several processes append.
type diary struct {
	mu   sync.Mutex
	file *os.File
}

func openDiary(dir string) (*diary, error) {
	f, err := os.OpenFile(filepath.Join(dir, "diary"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return &diary{file: f}, err
}

func (d *diary) write(e event) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err = d.file.Write(append(line, '\n'))
	return err
}

func readDiary(dir string) ([]event, error) {
	b, err := os.ReadFile(filepath.Join(dir, "diary"))
	if err != nil {
		return nil, err
	}
	var all []event
	for line := range bytes.Lines(b) {
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("reading %q: %w", line, err)
		}
		all = append(all, e)
	}
	return all, nil
}

// serve plays the tools and the vault. Each connection brings one event, which
// is on disk before it is answered.
func serve(l net.Listener, d *diary) {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return // closed
		}
		all.Go(func() {
			defer c.Close()
			var e event
			line, err := bufio.NewReader(c).ReadBytes('\n')
			if err != nil || json.Unmarshal(line, &e) != nil {
				return // whoever asked was killed
			}
			if err = d.write(e); err == nil {
				err = d.file.Sync()
			}
			if err != nil {
				panic(err) // without the diary nothing is proven
			}
			time.Sleep(rand.N(2 * time.Millisecond)) // so that there is a time in which to be killed
			c.Write([]byte("done\n"))
		})
	}
}

// An outside is where a gateway reaches the tools and the vault: the path of a
// socket. It implements gate.Upstream and broker.Driver.
type outside struct {
	socket, gateway string
	panics          bool // now and then (F20)
}

// tell has an event written down.
func (o outside) tell(e event) error {
	e.Gateway = o.gateway
	c, err := net.Dial("unix", o.socket)
	if err != nil {
		return fmt.Errorf("%w: %w", upstream.ErrNotSent, err)
	}
	defer c.Close()
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if _, err := c.Write(append(line, '\n')); err != nil {
		return err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && answer != "done\n" {
		err = errors.New("no answer")
	}
	return err
}

// Call implements gate.Upstream.
func (o outside) Call(_ context.Context, lease *broker.Lease, order upstream.Order) (*upstream.Answer, error) {
	if err := lease.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", upstream.ErrNotSent, err)
	}
	h := http.Header{}
	if err := lease.Apply(h); err != nil {
		return nil, fmt.Errorf("%w: %w", upstream.ErrNotSent, err)
	}
	a := order.Action
	err := o.tell(event{
		What: effect, Call: order.Call, Tool: writ.ToolName(a.Upstream + "." + a.Name), Args: a.Arguments,
		Handle: strings.TrimPrefix(h.Get("Authorization"), secretOf),
	})
	if err != nil {
		return nil, err
	}
	if o.panics && crc32.ChecksumIEEE([]byte(order.Call))%8 == 0 {
		panic("after the tool has acted")
	}
	return &upstream.Answer{Body: []byte(`{"content":[{"type":"text","text":"done"}]}`)}, nil
}

// CloseTask implements gate.Upstream.
func (o outside) CloseTask(writ.TaskID) {}

// secretOf and a handle are a secret.
const secretOf = "secret-of-"

// Mint implements broker.Driver.
func (o outside) Mint(_ context.Context, row broker.Row) (broker.Minted, error) {
	if err := o.tell(event{What: minted, Handle: row.Handle}); err != nil {
		return broker.Minted{}, err
	}
	secret, err := broker.NewSecret("vault", secretOf+row.Handle)
	return broker.Minted{Secret: secret, Until: row.Expires}, err
}

// Revoke implements broker.Driver.
func (o outside) Revoke(_ context.Context, handle string) (broker.Evidence, error) {
	err := o.tell(event{What: revoked, Handle: handle})
	return broker.Evidence{Outcome: broker.Revoked}, err
}

// Lifetime implements broker.Driver.
func (o outside) Lifetime(ttl time.Duration) time.Duration { return ttl }
