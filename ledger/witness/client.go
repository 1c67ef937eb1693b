package witness

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/writgate/writ/ledger"
)

// A Client asks one witness.
type Client struct {
	URL  string       // its submission prefix
	Key  string       // its verifier key (c2sp.org/tlog-cosignature, Ed25519)
	HTTP *http.Client // if nil, one that waits ten seconds and follows no redirect

	mu   sync.Mutex
	size int64 // what it has signed last, as far as is known
}

var client = &http.Client{
	Timeout:       10 * time.Second,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// Ask has the newest checkpoint of a log signed by every witness, and keeps
// the signatures in it, for its receipts. Whoever opens a ledger calls it now
// and then: a record is witnessed from the first time after it. It does not
// stop at a witness that fails; the error says which did and why. One that
// wraps ledger.ErrRollback means that the witness has seen another history.
func Ask(ctx context.Context, l *ledger.Ledger, witnesses ...*Client) error {
	checkpoint, err := l.Checkpoint(ctx)
	if err != nil {
		return err
	}
	trust := trustOf(l)
	size, _, err := trust.Checkpoint(checkpoint)
	if err != nil {
		return err
	}
	lines, errs := make([][]byte, len(witnesses)), make([]error, len(witnesses))
	var wg sync.WaitGroup
	for i, c := range witnesses {
		wg.Go(func() {
			if lines[i], errs[i] = c.ask(ctx, l, checkpoint, size); errs[i] != nil {
				errs[i] = fmt.Errorf("witness %s: %w", c.URL, errs[i])
			}
		})
	}
	wg.Wait()
	if all := bytes.Join(lines, nil); len(all) != 0 {
		errs = append(errs, l.Cosigned(ctx, append(checkpoint, all...)))
	}
	return errors.Join(errs...)
}

func trustOf(l *ledger.Ledger) ledger.Trust {
	origin, _, _ := strings.Cut(l.VerifierKey(), "+")
	return ledger.Trust{Origin: origin, Logs: []string{l.VerifierKey()}}
}

// ask gives the witness's signature lines for a checkpoint; none if it has
// signed a later one of the same log.
func (c *Client) ask(ctx context.Context, l *ledger.Ledger, checkpoint []byte, size int64) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := min(c.size, size)
	for range 3 {
		var proof []byte
		var err error
		if old != 0 && old != size {
			if proof, err = l.Consistency(ctx, old, size); err != nil {
				return nil, err
			}
		}
		body := fmt.Appendf(nil, "old %d\n%s\n%s", old, proof, checkpoint)
		status, answer, err := c.post(ctx, body)
		if err != nil {
			return nil, err
		}
		switch status {
		case http.StatusOK:
			if answer, err = c.signatures(l, checkpoint, answer); err == nil {
				c.size = size
			}
			return answer, err
		case http.StatusConflict:
			if old, err = strconv.ParseInt(strings.TrimSuffix(string(answer), "\n"), 10, 64); err != nil || old < 0 {
				return nil, errors.New("it does not say what it has signed")
			}
			if old > size {
				return nil, c.ahead(ctx, l, old)
			}
		case http.StatusUnprocessableEntity:
			return nil, fmt.Errorf("%w: its first %d records are others to the witness", ledger.ErrRollback, old)
		default:
			return nil, fmt.Errorf("it answers %d", status)
		}
	}
	return nil, errors.New("it changes its mind about what it has signed")
}

// ahead is for a witness that has signed more records than there were a moment
// ago: another process asked it, or the log has lost them.
func (c *Client) ahead(ctx context.Context, l *ledger.Ledger, signed int64) error {
	b, err := l.Checkpoint(ctx)
	if err != nil {
		return err
	}
	size, _, err := trustOf(l).Checkpoint(b)
	if err == nil && signed > size {
		err = fmt.Errorf("%w: it has %d records, and the witness has signed %d", ledger.ErrRollback, size, signed)
	}
	return err
}

func (c *Client) post(ctx context.Context, body []byte) (int, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(c.URL, "/")+"/add-checkpoint", bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	h := c.HTTP
	if h == nil {
		h = client
	}
	a, err := h.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer a.Body.Close()
	b, err := io.ReadAll(io.LimitReader(a.Body, maxBody+1))
	if err == nil && len(b) > maxBody {
		err = errors.New("a long answer")
	}
	return a.StatusCode, b, err
}

// signatures gives the lines of an answer that are the witness's own, which
// must be right. Others are ignored, as the protocol demands.
func (c *Client) signatures(l *ledger.Ledger, checkpoint, answer []byte) ([]byte, error) {
	name, rest, _ := strings.Cut(c.Key, "+")
	id, _, _ := strings.Cut(rest, "+")
	var own []byte
	for line := range bytes.Lines(answer) {
		b64, ok := bytes.CutPrefix(line, []byte("— "+name+" "))
		b, err := base64.StdEncoding.DecodeString(string(bytes.TrimSuffix(b64, []byte("\n"))))
		if ok && err == nil && len(b) > 4 && fmt.Sprintf("%08x", binary.BigEndian.Uint32(b)) == id {
			own = append(own, line...)
		}
	}
	trust := trustOf(l)
	trust.Witnesses = []string{c.Key}
	_, by, err := trust.Checkpoint(append(bytes.Clone(checkpoint), own...))
	if err == nil && len(by) != 1 {
		err = errors.New("it has not signed")
	}
	if err != nil {
		return nil, err
	}
	return own, nil
}
