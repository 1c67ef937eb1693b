package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/writgate/writ"
	"github.com/writgate/writ/gate"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/server/admin/api"
)

// A stop is the row that halts everything: who said so, and who has said
// since that it may end.
type stop struct {
	By    writ.UserID   `json:"by"`
	Lifts []writ.UserID `json:"lifts,omitempty"`
}

type haltRequest struct {
	Reason string `json:"reason,omitempty"`
}

// halt lets no call begin, on any gateway over this ledger, until it is lifted.
// What is under way goes on to its end; revoke stops that. A halt begins anew
// for whoever was about to lift the last one.
func (s *Server) halt(ctx context.Context, a asker, q haltRequest) (*api.Status, error) {
	row, err := json.Marshal(stop{By: a.by()})
	if err != nil {
		return nil, err
	}
	_, err = s.Gate.Ledger.Commit(context.WithoutCancel(ctx), &ledger.Entry{
		Leaf: ledger.Leaf{Type: ledger.TypeHalt, Note: map[string]string{"state": "halted", "why": why(q.Reason)}}, User: a.by(),
		Changes: []ledger.Change{{Op: ledger.Put, Kind: gate.KindHalt, Key: gate.HaltKey, Value: row}},
	})
	if err != nil {
		return nil, fmt.Errorf("halting: %w", err)
	}
	return s.status(ctx, a, struct{}{})
}

// lift lets calls go on, once enough operators have said so, each for
// themselves and about the same halt.
func (s *Server) lift(ctx context.Context, a asker, q haltRequest) (*api.Status, error) {
	halted, at, err := s.halted(ctx)
	if err != nil {
		return nil, err
	}
	if halted == nil {
		return s.status(ctx, a, struct{}{})
	}
	if slices.Contains(halted.Lifts, a.by()) {
		return nil, writ.Refuse(writ.AlreadyDecided, "you have said so; another operator must, too", nil)
	}
	halted.Lifts = append(halted.Lifts, a.by())
	leaf := ledger.Leaf{Type: ledger.TypeHalt, Key: a.operator.Key, Note: map[string]string{"state": "lifted", "why": why(q.Reason)}}
	change := ledger.Change{Op: ledger.Delete, Kind: gate.KindHalt, Key: gate.HaltKey}
	if s.liftNeeds(halted) > 0 {
		leaf.Note["state"] = "halted"
		change.Op = ledger.Put
		if change.Value, err = json.Marshal(halted); err != nil {
			return nil, err
		}
	}
	_, err = s.Gate.Ledger.Commit(ctx, &ledger.Entry{
		Leaf: leaf, User: a.by(), Changes: []ledger.Change{change},
		Expect: append(slices.Clone(a.reads), ledger.Expect{Kind: gate.KindHalt, Key: gate.HaltKey, At: at}),
	})
	if err != nil {
		return nil, fmt.Errorf("lifting a halt: %w", err)
	}
	return s.status(ctx, a, struct{}{})
}

func (s *Server) liftNeeds(h *stop) int { return max(0, max(1, s.Lifters)-len(h.Lifts)) }

// halted gives the halt, or nil, and the version of its row.
func (s *Server) halted(ctx context.Context) (*stop, int64, error) {
	row, ok, err := s.Gate.Ledger.Get(ctx, gate.KindHalt, gate.HaltKey)
	if err != nil || !ok {
		return nil, ledger.Absent, err
	}
	h := new(stop)
	if len(row.Value) != 0 {
		if err := json.Unmarshal(row.Value, h); err != nil {
			return nil, 0, fmt.Errorf("reading the halt: %w", err)
		}
	}
	return h, row.At, nil
}

// status says how the gateway and its log are.
func (s *Server) status(ctx context.Context, _ asker, _ struct{}) (*api.Status, error) {
	l := s.Gate.Ledger
	checkpoint, err := l.Checkpoint(ctx)
	if err != nil {
		return nil, err
	}
	size, err := s.size(ctx)
	if err != nil {
		return nil, err
	}
	out := &api.Status{
		Version: s.Version, Origin: s.origin(), Key: l.VerifierKey(), Size: size, Checkpoint: string(checkpoint), Behind: l.Behind().Milliseconds(),
	}
	select {
	case <-l.Failed():
		out.Failed = true
	default:
	}
	h, _, err := s.halted(ctx)
	if err != nil {
		return nil, err
	}
	if h != nil {
		out.Halted, out.LiftNeeds = true, s.liftNeeds(h)
	}
	out.Halted = out.Halted || s.Gate.HaltedByFile()
	return out, nil
}
