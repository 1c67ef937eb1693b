// Package task opens and ends tasks. A task is the one thing that scopes
// authority: which key acts, for whom, for what, with what, until when.
//
// A key is bound to at most one open task, and a call belongs to the task its
// key is bound to; nothing in a request chooses it. Opening and ending are
// records, and a task's row is read again by every commit made for it, so
// that after End returns nothing more begins.
package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/ledger"
)

// The kinds of rows this package keeps.
const (
	KindTask = "task" // by TaskID: a writ.Task
	KindKey  = "key"  // by Thumbprint: the TaskID it was last bound to
)

// Limits of what may be opened.
const (
	MaxLife       = 24 * time.Hour
	maxPurpose    = 64 << 10 // bytes of instructions, and of data
	maxGrant      = 256      // permissions
	maxBudgets    = 32
	unattended    = 10 * time.Minute
	unattendedMax = 100 // calls
)

// A Book opens, finds and ends tasks.
type Book struct {
	Ledger *ledger.Ledger
	Now    func() time.Time

	mu   sync.Mutex
	read map[writ.TaskID]Held // rows that were read before: a version never changes
}

// maxRead is how many tasks are kept read.
const maxRead = 1 << 10

// Held is a task as it was read, with what a commit must find unchanged.
type Held struct {
	Task  writ.Task
	Reads []ledger.Expect
}

// Open binds t.Key to a new task. It sets ID, State and Opened, and ends at
// MaxLife if t.Expires is zero or later. It is refused if the key is bound to
// a task that is still open.
func (b *Book) Open(ctx context.Context, t writ.Task) (Held, error) {
	now := b.Now()
	if err := check(&t); err != nil {
		return Held{}, writ.Refuse(writ.InvalidRequest, err.Error(), nil)
	}
	t.ID, t.State, t.Opened = writ.NewID[writ.TaskID](now), writ.Open, now.UnixMilli()
	if last := now.Add(MaxLife).UnixMilli(); t.Expires == 0 || t.Expires > last {
		t.Expires = last
	}
	if t.Expires <= t.Opened {
		return Held{}, writ.Refuse(writ.InvalidRequest, "the task would be over before it begins", nil)
	}

	bound, at, err := b.bound(ctx, t.Key)
	if err != nil {
		return Held{}, err
	}
	expect := []ledger.Expect{{Kind: KindKey, Key: string(t.Key), At: at}}
	if bound != nil {
		if bound.Task.State != writ.Ended && now.UnixMilli() < bound.Task.Expires {
			return Held{}, writ.Refuse(writ.AlreadyUsed, "this key already has an open task", nil)
		}
		expect = append(expect, bound.Reads...)
	}
	row, err := json.Marshal(t)
	if err != nil {
		return Held{}, err
	}
	receipts, err := b.Ledger.Commit(ctx, &ledger.Entry{
		Leaf: ledger.Leaf{Type: ledger.TypeTaskOpen, Task: t.ID, Agent: t.Agent, Key: t.Key, Environment: t.Environment},
		User: t.User, Expect: expect,
		Parts: []ledger.Part{{Name: "task", Bytes: row}},
		Changes: []ledger.Change{
			{Op: ledger.Put, Kind: KindTask, Key: string(t.ID), Value: row},
			{Op: ledger.Put, Kind: KindKey, Key: string(t.Key), Value: []byte(t.ID)},
		},
	})
	if errors.Is(err, ledger.ErrConflict) {
		return Held{}, writ.Refuse(writ.AlreadyUsed, "this key has been given a task meanwhile", err)
	}
	if err != nil {
		return Held{}, fmt.Errorf("opening a task: %w", err)
	}
	return held(t, receipts[0].Index()), nil
}

// OfKey gives the task that key is bound to. A key without one gets a task
// that nobody attends: the agent's own purpose, read-only, short, counted. One
// that was ended stays its key's until it would have been over: who ended it
// did not mean another one.
func (b *Book) OfKey(ctx context.Context, c writ.Caller, environment string) (Held, error) {
	bound, _, err := b.bound(ctx, c.Key)
	if err != nil {
		return Held{}, err
	}
	if bound != nil && (!bound.Task.Unattended || b.Now().UnixMilli() < bound.Task.Expires) {
		return *bound, nil
	}
	h, err := b.Open(ctx, writ.Task{
		Agent: c.Agent, User: c.User, Key: c.Key, Environment: environment, Unattended: true,
		Grant:   writ.Grant{{Tool: "*"}},
		Budgets: []writ.Budget{{Name: "calls", Tool: "*", Limit: unattendedMax}},
		Expires: b.Now().Add(unattended).UnixMilli(),
	})
	if errors.Is(err, ledger.ErrConflict) { // another call of this key was first
		bound, _, err = b.bound(ctx, c.Key)
		if err == nil && bound != nil {
			return *bound, nil
		}
	}
	return h, err
}

// Get gives a task by its identifier.
func (b *Book) Get(ctx context.Context, id writ.TaskID) (Held, error) {
	row, ok, err := b.Ledger.Get(ctx, KindTask, string(id))
	if err != nil {
		return Held{}, fmt.Errorf("reading a task: %w", err)
	}
	if !ok {
		return Held{}, writ.Refuse(writ.OutsideTask, "there is no such task", nil)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if h, ok := b.read[id]; ok && h.Reads[0].At == row.At {
		return h, nil
	}
	var t writ.Task
	if err := json.Unmarshal(row.Value, &t); err != nil {
		return Held{}, fmt.Errorf("reading task %s: %w", id, err)
	}
	if b.read == nil || len(b.read) >= maxRead {
		b.read = map[writ.TaskID]Held{}
	}
	b.read[id] = held(t, row.At)
	return b.read[id], nil
}

// List gives up to limit tasks in the order they were opened, after one.
func (b *Book) List(ctx context.Context, after writ.TaskID, limit int) ([]writ.Task, error) {
	rows, err := b.Ledger.Scan(ctx, KindTask, string(after), limit)
	if err != nil {
		return nil, fmt.Errorf("listing tasks: %w", err)
	}
	var all []writ.Task
	for _, r := range rows {
		var t writ.Task
		if err := json.Unmarshal(r.Value, &t); err != nil {
			return nil, fmt.Errorf("reading task %s: %w", r.Key, err)
		}
		all = append(all, t)
	}
	return all, nil
}

// End ends a task. When it returns without error no commit that read the task
// as open can succeed any more, on any process over the same ledger. Ending a
// task that has ended changes nothing. The purpose's text leaves the row: it
// stays in the record that opened the task, where it can be erased.
func (b *Book) End(ctx context.Context, id writ.TaskID, why string, by writ.UserID) (writ.Task, error) {
	for {
		h, err := b.Get(ctx, id)
		if err != nil || h.Task.State == writ.Ended {
			return h.Task, err
		}
		t := h.Task
		t.State = writ.Ended
		t.Purpose.Instructions, t.Purpose.Data = "", ""
		row, err := json.Marshal(t)
		if err != nil {
			return t, err
		}
		_, err = b.Ledger.Commit(ctx, &ledger.Entry{
			Leaf:    ledger.Leaf{Type: ledger.TypeTaskEnd, Task: id, Agent: t.Agent, Note: map[string]string{"why": why}},
			User:    by,
			Expect:  h.Reads,
			Changes: []ledger.Change{{Op: ledger.Put, Kind: KindTask, Key: string(id), Value: row}},
		})
		if errors.Is(err, ledger.ErrConflict) {
			continue // somebody changed it meanwhile: read it again
		}
		if err != nil {
			return t, fmt.Errorf("ending task %s: %w", id, err)
		}
		return t, nil
	}
}

// bound gives the task a key was last bound to, or nil, and the version of
// the key's row.
func (b *Book) bound(ctx context.Context, key writ.Thumbprint) (*Held, int64, error) {
	row, ok, err := b.Ledger.Get(ctx, KindKey, string(key))
	if err != nil {
		return nil, 0, fmt.Errorf("reading a key's task: %w", err)
	}
	if !ok {
		return nil, ledger.Absent, nil
	}
	h, err := b.Get(ctx, writ.TaskID(row.Value))
	if err != nil {
		return nil, 0, err
	}
	return &h, row.At, nil
}

func held(t writ.Task, at int64) Held {
	return Held{Task: t, Reads: []ledger.Expect{{Kind: KindTask, Key: string(t.ID), At: at}}}
}

// toolPattern is what writ.ToolName.In could match. A budget for anything else
// would never be spent.
var toolPattern = regexp.MustCompile(`^(\*|[a-z0-9-]+\.(\*|[^*]+))$`)

// number says whether a bound is one, if it is set.
func number(s string) bool {
	_, ok := canon.Compare(s, s)
	return ok || s == ""
}

func check(t *writ.Task) error {
	switch {
	case t.Agent == "" || t.Key == "":
		return errors.New("a task needs an agent and its key")
	case t.Environment == "":
		return errors.New("a task needs an environment")
	case len(t.Purpose.Instructions) > maxPurpose || len(t.Purpose.Data) > maxPurpose:
		return fmt.Errorf("a purpose holds at most %d bytes of instructions and of data", maxPurpose)
	case len(t.Grant) > maxGrant || len(t.Budgets) > maxBudgets:
		return fmt.Errorf("a task holds at most %d permissions and %d budgets", maxGrant, maxBudgets)
	}
	for _, p := range t.Grant {
		if !toolPattern.MatchString(string(p.Tool)) {
			return fmt.Errorf("a permission is for upstream.tool, upstream.* or *, not for %.80q", p.Tool)
		}
		for _, b := range p.Bounds {
			if !strings.HasPrefix(b.Argument, "/") || !number(b.Min) || !number(b.Max) {
				return fmt.Errorf("a bound on %s needs the JSON Pointer of an argument, and numbers", p.Tool)
			}
		}
	}
	for i, budget := range t.Budgets {
		if !toolPattern.MatchString(string(budget.Tool)) || budget.Sum != "" && budget.Sum[0] != '/' {
			return fmt.Errorf("the budget %.80q would count nothing: it is for upstream.tool, upstream.* or *, and sums what a JSON Pointer names", budget.Name)
		}
		same := func(b writ.Budget) bool { return b.Name == budget.Name }
		if budget.Name == "" || budget.Limit < 0 || slices.ContainsFunc(t.Budgets[:i], same) {
			return errors.New("a budget needs a name of its own and a limit that is not negative")
		}
	}
	return nil
}
