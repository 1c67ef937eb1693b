//go:build unix

package crash_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/writgate/writ"
	"github.com/writgate/writ/approval"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/replay"
)

// A kind is a promise that was broken.
type kind string

const (
	noIntent      kind = "a tool acted without an intent"
	twoIntents    kind = "a call has two intents"
	otherAction   kind = "a tool did something else than the intent says"
	callTwice     kind = "a tool acted twice for one call"
	notApproved   kind = "a tool acted without the approval it needs"
	approvalTwice kind = "a tool acted twice on one approval"
	overBudget    kind = "tools did more than the budget allows"
	noOutcome     kind = "a result was given out without its outcome"
	otherOutcome  kind = "a result was given out that is not the one on record"
	leftOpen      kind = "an intent has not exactly one outcome"
	leftAlive     kind = "a credential was not revoked"
	askedTwice    kind = "people were asked twice about one action at the same time"
	lostApproval  kind = "what waited for an approval is gone"
	damaged       kind = "the ledger does not verify"
	wentOn        kind = "a gateway went on after a sync had failed"
	cameNotBack   kind = "a gateway did not come back"
)

type violation struct {
	kind kind
	what string
}

func (v violation) String() string { return string(v.kind) + ": " + v.what }

// A tally says what happened.
type tally struct {
	kills, failed int // processes; system calls that were made to fail
	effects       int
	results       int // that were given out
	before, after int // calls cut off between intent and dispatch (F02), and between dispatch and outcome (F03)
	kept          int // results that are on record and that nobody was given (F04)
}

func (a *tally) add(b tally) {
	a.kills += b.kills
	a.failed += b.failed
	a.effects += b.effects
	a.results += b.results
	a.before += b.before
	a.after += b.after
	a.kept += b.kept
}

func (a tally) String() string {
	return fmt.Sprintf("%d kills, %d failed system calls, %d effects, %d results given out, calls cut off: %d after the intent, %d after the dispatch, %d after the outcome",
		a.kills, a.failed, a.effects, a.results, a.before, a.after, a.kept)
}

// A check holds what was written down outside against the ledger.
type check struct {
	*node
	tally
	events   []event
	acted    map[writ.CallID]int // how often a tool acted for a call
	given    map[writ.CallID]int // how often a result of it was given out
	intents  map[writ.CallID]*ledger.Record
	outcomes map[writ.CallID][]*ledger.Record
	yes      map[writ.ApprovalID]int64 // index of the record that approved
	found    []violation
}

func (c *check) say(k kind, format string, args ...any) {
	c.found = append(c.found, violation{k, fmt.Sprintf(format, args...)})
}

// audit opens the ledger that is left in dir when every gateway has recovered
// and ended, and says what is wrong.
func audit(ctx context.Context, dir string) (tally, []violation) {
	c := &check{
		acted: map[writ.CallID]int{}, given: map[writ.CallID]int{},
		intents: map[writ.CallID]*ledger.Record{}, outcomes: map[writ.CallID][]*ledger.Record{}, yes: map[writ.ApprovalID]int64{},
	}
	if err := c.read(ctx, dir); err != nil {
		c.say(damaged, "%v", err)
		return c.tally, c.found
	}
	defer c.ledger.Close()
	if _, err := c.ledger.VerifyAll(ctx); err != nil { // with SQLite's integrity_check
		c.say(damaged, "%v", err)
	}
	c.checkEffects()
	c.checkResults(ctx)
	c.checkOutcomes()
	c.checkCredentials(ctx)
	c.checkApprovals(ctx)
	return c.tally, c.found
}

func (c *check) read(ctx context.Context, dir string) (err error) {
	if c.events, err = readDiary(dir); err != nil {
		return err
	}
	if c.node, err = open(ctx, dir, setup{gateway: "auditor"}); err != nil {
		return err
	}
	for _, e := range c.events {
		switch e.What {
		case effect:
			c.effects++
			c.acted[e.Call]++
		case released:
			c.results++
			c.given[e.Call]++
		}
	}
	records, err := c.ledger.Records(ctx, ledger.Filter{})
	if err != nil {
		return err
	}
	for _, r := range records {
		l := r.Leaf
		switch {
		case l.Type == ledger.TypeIntent:
			if c.intents[l.Call] != nil {
				c.say(twoIntents, "%s", l.Call)
			}
			c.intents[l.Call] = r
		case l.Type == ledger.TypeOutcome:
			c.outcomes[l.Call] = append(c.outcomes[l.Call], r)
		case l.Type == ledger.TypeApproval && l.Note["state"] == approval.Approved:
			c.yes[l.Approval] = r.Index
		}
	}
	return nil
}

// checkEffects checks what the tools did (P1, P3, P5).
func (c *check) checkEffects() {
	byApproval, mints := map[writ.ApprovalID]int{}, map[string]bool{}
	var read, paid int64
	for _, e := range c.events {
		if e.What == minted {
			mints[e.Handle] = true
		}
		if e.What != effect {
			continue
		}
		if c.acted[e.Call] > 1 {
			c.say(callTwice, "%s of %s", e.Tool, e.Call)
		}
		switch e.Tool {
		case toolGet:
			read++
		case toolPay:
			paid += amount(e.Args)
		}
		intent := c.intents[e.Call]
		if intent == nil {
			c.say(noIntent, "%s by gateway %s for %s", e.Tool, e.Gateway, e.Call)
			continue
		}
		q, err := replay.Query(intent)
		if err != nil {
			c.say(damaged, "the query of %s: %v", e.Call, err)
			continue
		}
		if a := q.Action; q.Tool.Name != e.Tool || a.Arguments != e.Args || intent.Leaf.Gateway != e.Gateway {
			c.say(otherAction, "%s%s by gateway %s; on record is %s%s by %s", e.Tool, e.Args, e.Gateway, q.Tool.Name, a.Arguments, intent.Leaf.Gateway)
		}
		if e.Tool != toolPay {
			continue
		}
		if !mints[e.Handle] || e.Handle != intent.Leaf.Lease {
			c.say(otherAction, "%s with the credential %q; on record is %s", e.Call, e.Handle, intent.Leaf.Lease)
		}
		if at, ok := c.yes[intent.Leaf.Approval]; !ok || at > intent.Index {
			c.say(notApproved, "%s at %d, approval %q at %d", e.Call, intent.Index, intent.Leaf.Approval, at)
		}
		if byApproval[intent.Leaf.Approval]++; byApproval[intent.Leaf.Approval] > 1 {
			c.say(approvalTwice, "%s", intent.Leaf.Approval)
		}
	}
	if read > mostRead || paid > mostPaid {
		c.say(overBudget, "%d calls of %d, %d paid of %d", read, mostRead, paid, mostPaid)
	}
}

func amount(args writ.JSON) int64 {
	var a struct{ Amount int64 }
	if err := json.Unmarshal([]byte(args), &a); err != nil {
		panic(err) // the gate has checked it
	}
	return a.Amount
}

// checkResults checks what the gateways gave out (P2, F04).
func (c *check) checkResults(ctx context.Context) {
	for _, e := range c.events {
		if e.What != released && e.What != recalled {
			continue
		}
		outcomes := c.outcomes[e.Call]
		if len(outcomes) == 0 || outcomes[0].Leaf.Code != "" {
			c.say(noOutcome, "%s by gateway %s", e.Call, e.Gateway)
			continue
		}
		if c.intents[e.Call] == nil {
			c.say(noIntent, "%s by gateway %s", e.Call, e.Gateway)
			continue
		}
		q, err := replay.Query(c.intents[e.Call])
		if err != nil {
			c.say(damaged, "the query of %s: %v", e.Call, err)
			continue
		}
		key := outcomes[0].Leaf.Key
		res, err := c.gate.Recall(ctx, e.Call, key, q.Action)
		if err != nil || res == nil || res.Receipt != e.Receipt || c.acted[e.Call] == 0 {
			c.say(otherOutcome, "%s with %s; recalled %+v, %v", e.Call, e.Receipt, res, err)
		}
		if res, err := c.gate.Recall(ctx, e.Call, key+"x", q.Action); res != nil || err != nil {
			c.say(otherOutcome, "%s is recalled by another key: %v, %v", e.Call, res, err)
		}
		proof, err := c.ledger.Prove(ctx, outcomes[0].Index)
		if err == nil {
			_, err = ledger.Verify(proof, ledger.Trust{Origin: origin, Logs: []string{c.ledger.VerifierKey()}})
		}
		if err != nil {
			c.say(damaged, "the receipt of %s: %v", e.Call, err)
		}
	}
}

// checkOutcomes checks that every call is over (F02, F03).
func (c *check) checkOutcomes() {
	for call, intent := range c.intents {
		outcomes := c.outcomes[call]
		if len(outcomes) != 1 || outcomes[0].Index < intent.Index {
			c.say(leftOpen, "%s of gateway %s has %d", call, intent.Leaf.Gateway, len(outcomes))
			continue
		}
		switch l := outcomes[0].Leaf; {
		case l.Note["outcome"] == "indeterminate" && c.acted[call] == 0:
			c.before++
		case l.Note["outcome"] == "indeterminate":
			c.after++
		case l.Code == "" && c.given[call] == 0:
			c.kept++
		}
	}
	for call := range c.outcomes {
		if c.intents[call] == nil {
			c.say(leftOpen, "%s has an outcome and no intent", call)
		}
	}
}

// checkCredentials checks that nothing minted is alive (F18).
func (c *check) checkCredentials(ctx context.Context) {
	alive := map[string]bool{}
	for _, e := range c.events {
		switch e.What {
		case minted:
			alive[e.Handle] = true
		case revoked:
			delete(alive, e.Handle)
		}
	}
	journal := &broker.Journal{Ledger: c.ledger}
	rows, err := journal.Live(ctx)
	if err != nil || len(alive) != 0 || len(rows) != 0 {
		c.say(leftAlive, "%s; on record %d, %v", strings.Join(slices.Collect(maps.Keys(alive)), " "), len(rows), err)
	}
}

// checkApprovals checks that what waited still waits, or was answered (F17),
// and that one action has one question at a time.
func (c *check) checkApprovals(ctx context.Context) {
	listed := map[writ.ApprovalID]bool{}
	waiting, err := c.gate.Approvals.List(ctx)
	if err != nil {
		c.say(damaged, "%v", err)
	}
	actions := map[writ.Digest]bool{}
	for _, r := range waiting {
		listed[r.ID] = true
		action := r.Query.Action.Digest() // there is one task with approvals
		if actions[action] {
			c.say(askedTwice, "%s", r.Query.Action.Arguments)
		}
		actions[action] = true
	}
	for _, e := range c.events {
		if e.What != parked {
			continue
		}
		r, err := c.gate.Approvals.Get(ctx, e.Approval)
		if err != nil || r.State == approval.Pending && !listed[e.Approval] {
			c.say(lostApproval, "%s: %v", e.Approval, err)
		}
	}
}
