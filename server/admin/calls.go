package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/server/admin/api"
)

// Limits of what one request reads.
const (
	maxItems  = 500
	maxScan   = 20_000 // records that a search looks at before it gives what it has
	scanPage  = 128
	maxWait   = 30 * time.Second
	pollEvery = 200 * time.Millisecond
)

// limited is the number of items that a request wants.
func limited(want int64) int { return int(min(cmp.Or(want, 50), maxItems)) }

type callsQuery struct {
	Agent  writ.AgentID  `query:"agent"`
	Tool   writ.ToolName `query:"tool"`
	Task   writ.TaskID   `query:"task"`
	Effect string        `query:"effect"` // permit, deny, step-up, defer
	Since  string        `query:"since"`  // RFC 3339 with milliseconds
	After  int64         `query:"after"`  // the last page's "next"
	Limit  int64         `query:"limit"`  // 50 if it is not given; 500 at most
}

// listCalls gives calls, newest first. Each is there once, as its newest
// decision left it.
func (s *Server) listCalls(ctx context.Context, _ asker, q callsQuery) (*api.Page[api.Call], error) {
	var since api.Time
	if q.Since != "" {
		if err := since.UnmarshalText([]byte(q.Since)); err != nil {
			return nil, writ.Refuse(writ.InvalidRequest, "since: "+err.Error(), nil)
		}
	}
	page := &api.Page[api.Call]{Items: []api.Call{}}
	limit := limited(q.Limit)
	f := ledger.Filter{Task: q.Task, To: q.After, Limit: scanPage, Reverse: true}
	for range maxScan / scanPage {
		records, err := s.Gate.Ledger.Records(ctx, f)
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			if r.Leaf.Time < int64(since) {
				return page, nil
			}
			if decides(r) && q.wants(r.Leaf) {
				c, err := s.call(ctx, r.Leaf.Call)
				if err != nil {
					return nil, err
				}
				if c.Index == r.Index { // not a decision that a later one replaced
					page.Items = append(page.Items, *c)
				}
			}
			if f.To = r.Index; f.To > 0 && len(page.Items) == limit {
				page.Next = strconv.FormatInt(f.To, 10)
				return page, nil
			}
		}
		if len(records) < scanPage || f.To == 0 {
			return page, nil
		}
	}
	page.Next = strconv.FormatInt(f.To, 10)
	return page, nil
}

func (q *callsQuery) wants(l *ledger.Leaf) bool {
	return (q.Agent == "" || l.Agent == q.Agent) && (q.Tool == "" || l.Tool == q.Tool) && (q.Effect == "" || effectOf(l) == q.Effect)
}

// decides says whether a record is that of a decision about a call: there is
// one for every time that a call is presented.
func decides(r *ledger.Record) bool {
	return r.Leaf.Call != "" && (r.Leaf.Type == ledger.TypeDecision || r.Leaf.Type == ledger.TypeIntent)
}

// effectOf is what a decision did to its call, which need not be what policy
// said: what policy permits may be refused all the same.
func effectOf(l *ledger.Leaf) string {
	effect := writ.Deny
	switch {
	case l.Type == ledger.TypeIntent:
		effect = writ.Permit
	case l.Code == writ.ApprovalRequired:
		effect = writ.StepUp
	case l.Code == writ.Deferred:
		effect = writ.Defer
	}
	return effect.String()
}

// call puts a call together from its records.
func (s *Server) call(ctx context.Context, id writ.CallID) (*api.Call, error) {
	records, err := s.records(ctx, id)
	if err != nil {
		return nil, err
	}
	return summary(records)
}

func (s *Server) records(ctx context.Context, id writ.CallID) ([]*ledger.Record, error) {
	if _, err := writ.ParseID[writ.CallID](string(id)); err != nil {
		return nil, writ.Refuse(writ.InvalidRequest, err.Error(), nil)
	}
	records, err := s.Gate.Ledger.Records(ctx, ledger.Filter{Call: id})
	if err != nil {
		return nil, err
	}
	if len(records) == 0 {
		return nil, missing("there is no call " + string(id))
	}
	return records, nil
}

func summary(records []*ledger.Record) (*api.Call, error) {
	c := &api.Call{Index: -1}
	for _, r := range records {
		l := r.Leaf
		c.Approval = cmp.Or(l.Approval, c.Approval)
		switch {
		case c.Outcome != "" && decides(r): // what was made is not hidden by what was asked later
		case decides(r):
			*c = api.Call{
				ID: l.Call, Time: api.Time(l.Time), Agent: l.Agent, Task: l.Task, Tool: l.Tool, Tier: l.Tier, Environment: l.Environment,
				Effect: effectOf(l), Code: l.Code, Reasons: l.Reasons, Approval: c.Approval, Index: r.Index,
			}
			if l.Type == ledger.TypeIntent {
				c.Outcome = "running"
			}
		case l.Type == ledger.TypeOutcome:
			c.Outcome = cmp.Or(string(l.Code), l.Note["outcome"])
		}
	}
	if c.Index < 0 {
		return nil, errors.New("a call without a decision on record")
	}
	return c, nil
}

type callPath struct {
	Call writ.CallID `path:"call" json:"-"`
}

// getCall gives a call with all its records, and none of their content.
func (s *Server) getCall(ctx context.Context, _ asker, q callPath) (*api.Call, error) {
	return s.wholeCall(ctx, q.Call, false)
}

// showCall gives a call with everything in its records. That it was read is
// on record before anything is shown.
func (s *Server) showCall(ctx context.Context, a asker, q callPath) (*api.Call, error) {
	if _, err := s.records(ctx, q.Call); err != nil {
		return nil, err
	}
	if err := s.recordReading(ctx, a, string(q.Call), ledger.Leaf{Call: q.Call}); err != nil {
		return nil, err
	}
	return s.wholeCall(ctx, q.Call, true)
}

func (s *Server) wholeCall(ctx context.Context, id writ.CallID, content bool) (*api.Call, error) {
	records, err := s.records(ctx, id)
	if err != nil {
		return nil, err
	}
	c, err := summary(records)
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		c.Records = append(c.Records, recordOf(r, content))
	}
	return c, nil
}

// kindRead holds a row for whoever has read the content of something.
const kindRead = "read"

// recordReading records that somebody reads the content about something, once
// for each of both.
func (s *Server) recordReading(ctx context.Context, a asker, of string, about ledger.Leaf) error {
	about.Type = ledger.TypeAdmin
	about.Note = map[string]string{"act": "payload_read", "uid": strconv.FormatUint(uint64(a.uid), 10)}
	key := of + "/" + string(a.by())
	if _, known, err := s.Gate.Ledger.Get(ctx, kindRead, key); err != nil || known {
		return err
	}
	_, err := s.Gate.Ledger.Commit(ctx, &ledger.Entry{
		Leaf: about, User: a.by(), Changes: []ledger.Change{{Op: ledger.Once, Kind: kindRead, Key: key}},
	})
	if errors.Is(err, ledger.ErrUsed) {
		return nil // on record since a moment ago
	}
	return err
}

// recordOf writes a record for people.
func recordOf(r *ledger.Record, content bool) api.Record {
	out := api.Record{Index: r.Index, Time: api.Time(r.Leaf.Time), Leaf: json.RawMessage(r.LeafBytes), Erased: r.Erased}
	if !content || len(r.Parts) == 0 {
		return out
	}
	out.Content = map[string]json.RawMessage{}
	for _, p := range r.Parts {
		if p.Name == "changes" {
			continue // rows as they became: the ledger's own
		}
		out.Content[p.Name] = partOf(p.Bytes)
	}
	return out
}

// partOf is a part as JSON: an object or a list as it is, anything else as a
// text. Bytes that are no text are in base64.
func partOf(b []byte) json.RawMessage {
	if len(b) != 0 && (b[0] == '{' || b[0] == '[') && json.Valid(b) {
		return b
	}
	var v any = b
	if utf8.Valid(b) {
		v = string(b)
	}
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // cannot be: texts and bytes marshal
	}
	return text
}

type recordsQuery struct {
	After int64       `query:"after"` // the index of the last record that is known, and one
	Wait  int64       `query:"wait"`  // seconds to wait for the first; 30 at most
	Task  writ.TaskID `query:"task"`
	Type  string      `query:"type"`
	Limit int64       `query:"limit"`
}

// tail gives the records from an index on, without content, and waits for the
// first one if there is none. "next" goes on from there.
func (s *Server) tail(ctx context.Context, _ asker, q recordsQuery) (*api.Page[api.Record], error) {
	ctx, cancel := context.WithTimeout(ctx, min(time.Duration(q.Wait)*time.Second, maxWait))
	defer cancel()
	page := &api.Page[api.Record]{Items: []api.Record{}, Next: strconv.FormatInt(q.After, 10)}
	for {
		// What there is, is given even when nobody waits any more.
		records, err := s.Gate.Ledger.Records(context.WithoutCancel(ctx), ledger.Filter{From: q.After, Task: q.Task, Type: q.Type, Limit: limited(q.Limit)})
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			page.Items = append(page.Items, recordOf(r, false))
			page.Next = strconv.FormatInt(r.Index+1, 10)
		}
		if len(records) != 0 {
			return page, nil
		}
		select {
		case <-ctx.Done():
			return page, nil
		case <-time.After(pollEvery):
		}
	}
}

type receiptPath struct {
	Of string `path:"of" json:"-"` // the index of a record, or a call: then of its outcome, or else of its newest decision
}

// getReceipt gives what proves, offline, that a record is in the log.
func (s *Server) getReceipt(ctx context.Context, _ asker, q receiptPath) (*api.Record, error) {
	index, err := strconv.ParseInt(q.Of, 10, 64)
	if err != nil {
		records, err := s.records(ctx, writ.CallID(q.Of))
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			if decides(r) || r.Leaf.Type == ledger.TypeOutcome {
				index = r.Index
			}
		}
	}
	r, err := s.record(ctx, index)
	if err != nil {
		return nil, err
	}
	text, err := s.Gate.Ledger.Prove(ctx, index)
	if err != nil {
		return nil, err
	}
	out := recordOf(r, false)
	out.Receipt = string(text)
	return &out, nil
}

func (s *Server) record(ctx context.Context, index int64) (*ledger.Record, error) {
	if index >= 0 {
		records, err := s.Gate.Ledger.Records(ctx, ledger.Filter{From: index, To: index + 1})
		if err != nil {
			return nil, err
		}
		if len(records) == 1 {
			return records[0], nil
		}
	}
	return nil, &api.Problem{Status: http.StatusNotFound, Code: api.NotFound, Detail: "there is no such record"}
}
