// Package approval keeps what people are asked and what they answered.
//
// An approval is consent to one action, byte for byte, of one task, asked for
// by one key: it is bound to the digest of the action's canonical bytes, which
// hold the tool's definition and the arguments. It is used once, and it
// expires. Nothing that an agent, an upstream or a message says is an
// approval; only a record that an operator's proven key made is.
//
// Who approves decides what the approval is worth. The user on whose behalf
// the agent acts, and the agent's own owner, can confirm; only somebody else
// can review. An agent can do neither.
package approval

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
)

// The kinds of rows this package keeps.
const (
	KindApproval = "approval" // by ApprovalID: a Request
	KindAsked    = "asked"    // by task and keyed digest of the action: the ApprovalID asked for last
)

// The states of a Request.
const (
	Pending  = "pending"
	Approved = "approved"
	Denied   = "denied"
	Used     = "used"
	Expired  = "expired" // or void: its task ended, or who approved may not any more
)

// life is how long a request waits, and how long an answer is good for.
const life = 15 * time.Minute

// maxReason bounds what a person says with an answer, in bytes.
const maxReason = 1 << 10

// A Request is one question to a person, and the answers so far.
type Request struct {
	ID       writ.ApprovalID `json:"id"`
	Call     writ.CallID     `json:"call"` // the call that first asked
	Query    writ.Query      `json:"query"`
	Requires writ.Assurance  `json:"requires"`
	Asked    int64           `json:"asked"`   // Unix milliseconds
	Expires  int64           `json:"expires"` // Unix milliseconds; at or after it the answer is no
	State    string          `json:"state"`
	Answers  []Answer        `json:"answers,omitempty"`
	at       int64           // version of its row
}

// An Answer is what one person said.
type Answer struct {
	By     writ.UserID     `json:"by"`
	Key    writ.Thumbprint `json:"key"` // the operator key that was proven
	At     int64           `json:"at"`  // Unix milliseconds
	Yes    bool            `json:"yes"`
	Reason string          `json:"reason,omitempty"`
	Reads  []ledger.Expect `json:"reads,omitempty"` // what entitled the person
}

// A Book keeps requests. MAC is a secret key: it lets the book recognize an
// action without storing a digest that its arguments could be guessed from.
type Book struct {
	Ledger *ledger.Ledger
	Now    func() time.Time
	MAC    [32]byte
}

// Find gives the request that was last made for this action in this task, or
// nil.
func (b *Book) Find(ctx context.Context, task writ.TaskID, action writ.Digest) (*Request, error) {
	row, ok, err := b.Ledger.Get(ctx, KindAsked, b.mark(task, action))
	if err != nil || !ok {
		return nil, err
	}
	return b.Get(ctx, writ.ApprovalID(row.Value))
}

// Get gives a request by its identifier, as it is now: people answer in other
// processes too. One whose time is over is Expired; an answer whose author may
// not give it any more does not count.
func (b *Book) Get(ctx context.Context, id writ.ApprovalID) (*Request, error) {
	rows, err := b.Ledger.Scan(ctx, KindApproval, string(id), 1) // its Get may remember
	if err != nil {
		return nil, fmt.Errorf("reading an approval: %w", err)
	}
	if len(rows) == 0 || rows[0].Key != string(id) {
		return nil, writ.Refuse(writ.InvalidRequest, "there is no such approval", nil)
	}
	r, err := decode(rows[0])
	if err != nil {
		return nil, err
	}
	if (r.State == Pending || r.State == Approved) && b.Now().UnixMilli() >= r.Expires {
		r.State = Expired
	}
	if r.State != Approved {
		return r, nil
	}
	for _, a := range r.Answers {
		for _, x := range a.Reads {
			row, ok, err := b.Ledger.Get(ctx, x.Kind, x.Key)
			if err != nil {
				return nil, fmt.Errorf("reading who approved: %w", err)
			}
			if ok && row.At != x.At || !ok && x.At != ledger.Absent {
				r.State = Expired
			}
		}
	}
	return r, nil
}

// Refused gives the reason of a person who said no.
func (r *Request) Refused() (reason string, ok bool) {
	for _, a := range r.Answers {
		if !a.Yes {
			return a.Reason, true
		}
	}
	return "", false
}

// Void ends every request of a task that is not over: nobody can answer it,
// and nothing can be done with an answer.
func (b *Book) Void(ctx context.Context, task writ.TaskID) error {
	waiting, err := b.List(ctx)
	if err != nil {
		return err
	}
	for _, r := range waiting {
		if r.Query.Task.ID != task {
			continue
		}
		r.State = Expired
		row, err := json.Marshal(r)
		if err != nil {
			return err
		}
		_, err = b.Ledger.Commit(ctx, &ledger.Entry{
			Leaf:    ledger.Leaf{Type: ledger.TypeApproval, Call: r.Call, Task: task, Tool: r.Query.Tool.Name, Approval: r.ID, Note: map[string]string{"state": r.State, "why": "the task ended"}},
			Expect:  []ledger.Expect{{Kind: KindApproval, Key: string(r.ID), At: r.at}},
			Changes: []ledger.Change{{Op: ledger.Put, Kind: KindApproval, Key: string(r.ID), Value: row}},
		})
		if err != nil && !errors.Is(err, ledger.ErrConflict) {
			return fmt.Errorf("voiding approval %s: %w", r.ID, err)
		}
	}
	return nil
}

// List gives the requests that wait for an answer. None waits for longer than
// its life, so that the older ones, which are never deleted, are not read.
func (b *Book) List(ctx context.Context) ([]*Request, error) {
	var waiting []*Request
	for from := string(writ.FirstID[writ.ApprovalID](b.Now().Add(-life))); ; {
		rows, err := b.Ledger.Scan(ctx, KindApproval, from, 256)
		if err != nil {
			return nil, fmt.Errorf("listing approvals: %w", err)
		}
		for _, row := range rows {
			r, err := decode(row)
			if err != nil {
				return nil, err
			}
			if r.State == Pending && b.Now().UnixMilli() < r.Expires {
				waiting = append(waiting, r)
			}
		}
		if len(rows) < 256 {
			return waiting, nil
		}
		from = rows[len(rows)-1].Key + "\x00"
	}
}

// Ask makes the request that asks a person about q, and the entry that a
// commit must hold for it to exist. A request for the same action that still
// waits is the answer to a second asking; then the entry is nil. If two ask at
// the same moment, the commit of one of them finds the row of kind asked
// changed: then Find gives the request of the other.
func (b *Book) Ask(ctx context.Context, q *writ.Query, requires writ.Assurance) (*Request, *ledger.Entry, error) {
	mark := b.mark(q.Task.ID, q.Action.Digest())
	row, ok, err := b.Ledger.Get(ctx, KindAsked, mark)
	if err != nil {
		return nil, nil, err
	}
	asked := ledger.Expect{Kind: KindAsked, Key: mark, At: ledger.Absent}
	if ok {
		asked.At = row.At
		old, err := b.Get(ctx, writ.ApprovalID(row.Value))
		if err != nil {
			return nil, nil, err
		}
		if old.State == Pending && old.Requires == requires {
			return old, nil, nil
		}
	}
	now := b.Now()
	r := &Request{
		ID: writ.NewID[writ.ApprovalID](now), Call: q.Call, Query: *q, Requires: requires,
		Asked: now.UnixMilli(), Expires: min(now.Add(life).UnixMilli(), q.Task.Expires), State: Pending,
	}
	value, err := json.Marshal(r)
	if err != nil {
		return nil, nil, err
	}
	return r, &ledger.Entry{
		Leaf: ledger.Leaf{
			Type: ledger.TypeWaiting, Call: q.Call, Task: q.Task.ID, Agent: q.Caller.Agent, Key: q.Caller.Key, Tool: q.Tool.Name,
			Approval: r.ID, Note: map[string]string{"requires": requires.String()},
		},
		User:   q.Caller.User,
		Expect: []ledger.Expect{asked},
		Changes: []ledger.Change{
			{Op: ledger.Put, Kind: KindApproval, Key: string(r.ID), Value: value},
			{Op: ledger.Put, Kind: KindAsked, Key: mark, Value: []byte(r.ID)},
		},
	}, nil
}

// Answer records what a person said about the action they were shown. An
// action other than the one asked about is refused with ApprovalMismatch, and
// changes nothing.
//
// Reads is what entitles the person, as it was read: it must still hold when
// the answer is recorded, and again when the call is made.
func (b *Book) Answer(ctx context.Context, id writ.ApprovalID, shown writ.Digest, a Answer, reads ...ledger.Expect) (*Request, error) {
	r, err := b.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	a.At, a.Reads = b.Now().UnixMilli(), reads
	switch q := &r.Query; {
	case r.State != Pending:
		return r, writ.Refuse(writ.AlreadyDecided, "this request is "+r.State, nil)
	case q.Action.Digest() != shown:
		return r, writ.Refuse(writ.ApprovalMismatch, "what was shown is not what was asked about", nil)
	case a.By == "" || a.Yes && a.Key == "": // a no takes authority away, and needs no key
		return r, writ.Refuse(writ.NotEntitled, "a yes needs a person and a proven key", nil)
	case a.By == writ.UserID(q.Caller.Agent) || a.Key == q.Caller.Key || slices.ContainsFunc(q.Caller.Chain, func(h writ.Hop) bool { return h.Key == a.Key }):
		return r, writ.Refuse(writ.SelfApproval, "an agent cannot approve what it asks for", nil)
	case slices.ContainsFunc(r.Answers, func(b Answer) bool { return b.By == a.By || b.Key == a.Key }):
		return r, writ.Refuse(writ.AlreadyDecided, "this person has answered", nil)
	case len(a.Reason) > maxReason:
		return r, writ.Refuse(writ.TooLarge, "the reason is too long", nil)
	case a.Yes && r.Requires > writ.UserConfirmed && !reviews(q, a.By):
		return r, writ.Refuse(writ.SelfApproval, "the user and the agent's owner can confirm, not review", nil)
	}
	r.Answers = append(r.Answers, a)
	switch {
	case !a.Yes:
		r.State = Denied
	case r.Assurance() >= r.Requires:
		r.State = Approved
	}
	row, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	leaf := ledger.Leaf{Type: ledger.TypeApproval, Call: r.Call, Task: r.Query.Task.ID, Tool: r.Query.Tool.Name, Approval: id, Key: a.Key, Note: map[string]string{"state": r.State}}
	receipts, err := b.Ledger.Commit(ctx, &ledger.Entry{
		Leaf: leaf, User: a.By, Parts: []ledger.Part{{Name: "answer", Bytes: row}},
		Expect:  append([]ledger.Expect{{Kind: KindApproval, Key: string(id), At: r.at}}, reads...),
		Changes: []ledger.Change{{Op: ledger.Put, Kind: KindApproval, Key: string(id), Value: row}},
	})
	if errors.Is(err, ledger.ErrConflict) {
		return nil, writ.Refuse(writ.AlreadyDecided, "somebody else answered first, or the answer's author is not an operator any more", nil)
	}
	if err != nil {
		return nil, fmt.Errorf("recording an answer: %w", err)
	}
	r.at = receipts[0].Index()
	return r, nil
}

// Assurance is what the answers are worth together. A passkey is worth more,
// once there are any.
func (r *Request) Assurance() writ.Assurance {
	best := writ.NoAssurance
	for _, a := range r.Answers {
		switch {
		case !a.Yes:
			return writ.NoAssurance
		case reviews(&r.Query, a.By):
			best = max(best, writ.OneReviewer)
		default:
			best = max(best, writ.UserConfirmed)
		}
	}
	return best
}

// Approvers are those who said yes.
func (r *Request) Approvers() []writ.UserID {
	var all []writ.UserID
	for _, a := range r.Answers {
		if a.Yes {
			all = append(all, a.By)
		}
	}
	return all
}

// Use is what the commit of the approved call expects and changes, so that
// the approval is used once, and only while those who gave it may still give
// it.
func (r *Request) Use() ([]ledger.Expect, ledger.Change, error) {
	used := *r
	used.State = Used
	row, err := json.Marshal(used)
	expect := []ledger.Expect{{Kind: KindApproval, Key: string(r.ID), At: r.at}}
	for _, a := range r.Answers {
		expect = append(expect, a.Reads...)
	}
	return expect, ledger.Change{Op: ledger.Put, Kind: KindApproval, Key: string(r.ID), Value: row}, err
}

// reviews says whether by stands apart from the action: not the user it is
// for, nor the owner of the agent that asks. Files and tokens may spell a
// person in other letters.
func reviews(q *writ.Query, by writ.UserID) bool {
	return !slices.ContainsFunc([]writ.UserID{q.Caller.User, q.Task.User, q.Agent.Owner}, func(u writ.UserID) bool {
		return strings.EqualFold(string(u), string(by))
	})
}

func (b *Book) mark(task writ.TaskID, action writ.Digest) string {
	h := hmac.New(sha256.New, b.MAC[:])
	h.Write([]byte(task))
	h.Write([]byte{0})
	h.Write([]byte(action))
	return hex.EncodeToString(h.Sum(nil))
}

func decode(row ledger.Row) (*Request, error) {
	r := &Request{at: row.At}
	if err := json.Unmarshal(row.Value, r); err != nil {
		return nil, fmt.Errorf("reading approval %s: %w", row.Key, err)
	}
	return r, nil
}
