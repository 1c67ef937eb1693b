package crash_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/upstream"
)

// filling tools fill the disk before they answer.
type filling struct {
	outside
	once sync.Once
	fill func()
}

func (f *filling) Call(ctx context.Context, l *broker.Lease, o upstream.Order) (*upstream.Answer, error) {
	answer, err := f.outside.Call(ctx, l, o)
	f.once.Do(f.fill)
	return answer, err
}

// TestF05FullDisk fills a file system while a call is at its tool. What became
// of that call is recorded and given out; every other is refused, soon and
// without reaching a tool; a task can be ended; and all goes on when there is
// room.
func TestF05FullDisk(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("none", disk, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("a file system cannot be mounted here: %v", err)
	}
	defer syscall.Unmount(disk, syscall.MNT_DETACH)
	w := newWorld(t, "")
	defer w.close()
	if err := build(t.Context(), disk); err != nil {
		t.Fatal(err)
	}
	s := setup{gateway: "one", outside: outside{socket: filepath.Join(w.dir, "socket")}, reserve: 4 << 20}
	n, err := open(t.Context(), disk, s)
	if err != nil {
		t.Fatal(err)
	}
	defer n.ledger.Close()
	junk := filepath.Join(disk, "junk")
	n.gate.Upstream = &filling{outside: s.outside, fill: func() {
		if os.WriteFile(junk, make([]byte, 8<<20), 0o600) == nil {
			t.Error("the disk is not full")
		}
	}}

	first := newCall()
	res, err := n.gate.Do(t.Context(), n.request("reader", first, `{}`))
	if err != nil {
		t.Fatalf("a call whose tool was called when the disk filled: %v", err)
	}
	for _, agent := range []string{"reader", "closer", "payer"} {
		args := `{}`
		if agent == "payer" {
			args = payment(1, 1)
		}
		begin := time.Now()
		_, err := n.gate.Do(t.Context(), n.request(agent, newCall(), args))
		if err == nil || writ.AsDenial(err).Code != writ.AuditUnavailable {
			t.Errorf("a call of the %s on a full disk: %v", agent, err)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("it was refused after %v", took)
		}
	}
	if events, err := readDiary(w.dir); err != nil || len(events) != 1 {
		t.Errorf("%d effects, %v; want the one from before", len(events), err)
	}
	if again, err := n.gate.Recall(t.Context(), first, n.keys["reader"], n.request("reader", first, `{}`).Action); err != nil || again == nil || again.Receipt != res.Receipt {
		t.Errorf("recalled %+v, %v", again, err)
	}
	held, err := n.gate.Tasks.OfKey(t.Context(), writ.Caller{Agent: agentID("closer"), Key: n.keys["closer"]}, "development")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.gate.EndTask(t.Context(), held.Task.ID, "enough", "omar"); err != nil {
		t.Errorf("ending a task on a full disk: %v", err)
	}

	if err := os.Remove(junk); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond) // the reserve is made whole once a second
	if _, err := n.gate.Do(t.Context(), n.request("reader", newCall(), `{}`)); err != nil {
		t.Errorf("a call when there is room again: %v", err)
	}
	if _, err := n.ledger.VerifyAll(t.Context()); err != nil {
		t.Error(err)
	}
}
