package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/replay"
	"github.com/writgate/writ/server/admin/api"
)

// explain says why the newest decision about a call is what it is, and what
// would have permitted the call. It asks the recorded policies with the
// recorded query, and nothing else. It shows arguments, so that it was asked
// for is on record first.
func (s *Server) explain(ctx context.Context, a asker, q callPath) (*api.Explanation, error) {
	records, err := s.records(ctx, q.Call)
	if err != nil {
		return nil, err
	}
	if err := s.recordReading(ctx, a, string(q.Call), ledger.Leaf{Call: q.Call}); err != nil {
		return nil, err
	}
	c, err := summary(records)
	if err != nil {
		return nil, err
	}
	var decided *ledger.Record
	for _, r := range records {
		if r.Index == c.Index {
			decided = r
		}
	}
	query, err := replay.Query(decided)
	if err != nil {
		return nil, &api.Problem{Status: http.StatusGone, Code: api.NotFound, Detail: "the record no longer says what was decided from", Cause: err.Error()}
	}
	out := &api.Explanation{
		Call: *c, Caller: query.Caller, Owner: query.Agent.Owner, User: cmp.Or(query.Caller.User, query.Task.User), Purpose: query.Task.Purpose, Claim: query.Claim,
		Bundle: query.Bundle, Provenance: query.Provenance, Label: query.Label,
	}
	if out.Provenance == nil {
		out.Provenance = []writ.Provenance{}
	}
	if out.Action, err = json.Marshal(&query.Action); err != nil {
		return nil, err
	}
	if out.Size, err = s.size(ctx); err != nil {
		return nil, err
	}
	return out, s.ask(ctx, out, decided, query)
}

// ask fills in what the policies say. A call that was refused before any was
// asked has nothing to ask them.
func (s *Server) ask(ctx context.Context, out *api.Explanation, decided *ledger.Record, query *writ.Query) error {
	text, ok := decided.Part(replay.PartDecision)
	if !ok {
		out.Decision = writ.Decision{Code: decided.Leaf.Code}
		out.Why = "refused before any policy was asked"
		return nil
	}
	if err := json.Unmarshal(text, &out.Decision); err != nil {
		return err
	}
	active, ok, err := s.Gate.Ledger.Get(ctx, replay.KindBundle, replay.Active)
	if err != nil {
		return err
	}
	out.InForce = ok && writ.Digest(active.Value) == query.Bundle
	if query.Bundle == "" {
		out.Why = "no policies were in force"
		return nil
	}
	bundle, err := replay.Bundle(ctx, s.Gate.Ledger, query.Bundle)
	if err != nil {
		return err
	}
	e := bundle.Explain(query)
	out.Why = e.Why
	for _, c := range e.Changes {
		out.Permits = append(out.Permits, api.Change{
			What: string(c.What), Argument: c.Argument, Name: c.Name, To: c.To, Requires: c.Requires, Text: c.String(),
		})
	}
	return nil
}

type replayAnswer struct {
	Items []replay.Replayed `json:"items"`
	Equal bool              `json:"equal"` // every one came out as it was recorded
}

// replay makes every recorded decision about a call again. Nothing is called.
func (s *Server) replay(ctx context.Context, _ asker, q callPath) (*replayAnswer, error) {
	records, err := s.records(ctx, q.Call)
	if err != nil {
		return nil, err
	}
	out := &replayAnswer{Items: []replay.Replayed{}, Equal: true}
	for _, r := range records {
		if _, decided := r.Leaf.Parts[replay.PartDecision]; !decided {
			continue
		}
		one, err := replay.Record(ctx, s.Gate.Ledger, r)
		if err != nil {
			return nil, &api.Problem{Status: http.StatusGone, Code: api.NotFound, Detail: "this decision cannot be made again", Cause: err.Error()}
		}
		out.Items = append(out.Items, *one)
		out.Equal = out.Equal && one.Equal
	}
	if len(out.Items) == 0 {
		return nil, missing("no policy decided about " + string(q.Call) + ": it was refused before")
	}
	return out, nil
}

// size is how many records there are.
func (s *Server) size(ctx context.Context) (int64, error) {
	newest, err := s.Gate.Ledger.Records(ctx, ledger.Filter{Reverse: true, Limit: 1})
	if err != nil {
		return 0, err
	}
	if len(newest) == 0 {
		return 0, errors.New("the log is empty")
	}
	return newest[0].Index + 1, nil
}
