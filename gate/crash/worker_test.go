//go:build unix

package crash_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/approval"
	"github.com/writgate/writ/gate"
)

// What a process of this test is told in its environment, if it is a worker.
const (
	envRole   = "WRIT_CRASH_ROLE" // operator, or a gateway's name
	envDir    = "WRIT_CRASH_DIR"
	envMutant = "WRIT_CRASH_MUTANT" // how it is wrong on purpose
	envJob    = "WRIT_CRASH_JOB"    // what a gateway does in place of its usual work: a job, or a call that it makes
)

const (
	jobAsk    = "ask"    // ask for many approvals, and wait
	jobFinish = "finish" // the usual work, until all of it is done
)

// How a worker ends.
const (
	exitDone   = 0
	exitFailed = 3 // the ledger has failed for good
	exitError  = 4
)

func TestMain(m *testing.M) {
	role := os.Getenv(envRole)
	if role == "" {
		os.Exit(m.Run())
	}
	if err := work(role, os.Getenv(envDir)); err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		os.Exit(exitError)
	}
	os.Exit(exitDone)
}

// work is the whole life of a worker.
func work(role, dir string) error {
	ctx := context.Background()
	over := make(chan struct{}) // whoever started this worker is gone, or has had enough
	go func() {
		io.Copy(io.Discard, os.Stdin)
		if close(over); role != operator {
			os.Exit(exitError)
		}
	}()
	d, err := openDiary(dir)
	if err != nil {
		return err
	}
	m, job := mutants[os.Getenv(envMutant)], os.Getenv(envJob)
	call, err := writ.ParseID[writ.CallID](job)
	one := err == nil
	s := setup{gateway: role, outside: outside{filepath.Join(dir, "socket"), role, !one}, wrap: m.wrap}
	if one {
		s.wrap, s.now = stopping, func() time.Time { return later(dir) }
	}
	n, err := open(ctx, dir, s)
	if err != nil {
		return err
	}
	go func() {
		<-n.ledger.Failed()
		os.Exit(exitFailed)
	}()
	w := &worker{node: n, diary: d, gateway: role, patience: 200 * time.Millisecond}
	if role != operator && !m.leavesOrphans {
		if _, err := n.gate.Recover(ctx, role); err != nil {
			return err
		}
	}
	if role != operator && !m.leavesLeases {
		if _, err := n.gate.Broker.Sweep(ctx); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	switch {
	case role == operator:
		err = w.operate(ctx, over)
	case job == jobAsk:
		w.ask(ctx)
	case one:
		w.call(ctx, "closer", call, `{}`)
	default:
		if job == jobFinish {
			w.patience = 30 * time.Second
		}
		err = w.serve(ctx, dir)
	}
	select {
	case <-n.ledger.Failed():
		os.Exit(exitFailed)
	default:
	}
	fmt.Println(closing)
	return errors.Join(err, n.ledger.Close())
}

// closing is what a worker says when nothing depends any more on what it
// syncs: everything is durable already.
const closing = "closing"

// A worker is a gateway with its agents, or an operator.
type worker struct {
	*node
	diary    *diary
	gateway  string
	patience time.Duration // of an agent that waits for an approval
}

const (
	payments   = 8    // accounts that are paid, with amounts of 1, 2, 3 …
	closings   = 10   // calls that both gateways make, by the same ids
	unanswered = 1000 // from this account on nobody answers
	questions  = 100  // about such accounts, of jobAsk
)

// serve has every agent do what it wants to do, all at once, beside the same
// agents of the other gateway.
func (w *worker) serve(ctx context.Context, dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "calls"))
	if err != nil {
		return err
	}
	calls := strings.Fields(string(b))
	var all sync.WaitGroup
	for i := range payments {
		all.Go(func() { w.pay(ctx, i, i+1) })
	}
	all.Go(func() { w.call(ctx, "payer", newCall(), payment(unanswered, 0)) })
	all.Go(func() { w.call(ctx, "payer", newCall(), payment(unanswered+1, 0)) })
	all.Go(func() {
		for _, c := range calls {
			w.call(ctx, "closer", writ.CallID(c), `{}`)
		}
	})
	for range 2 {
		all.Go(func() {
			for range mostRead {
				if w.call(ctx, "reader", newCall(), `{}`) == writ.BudgetExceeded {
					return
				}
			}
		})
	}
	all.Wait()
	return nil
}

// pay makes one payment, and waits until somebody has approved it.
func (w *worker) pay(ctx context.Context, account, amount int) {
	call := newCall()
	for begin := time.Now(); time.Since(begin) < w.patience; {
		switch w.call(ctx, "payer", call, payment(account, amount)) {
		case writ.ApprovalRequired, writ.StateChanged:
			time.Sleep(3 * time.Millisecond)
		default:
			return
		}
	}
}

// ask asks for what nobody answers, and waits for its end.
func (w *worker) ask(ctx context.Context) {
	for i := range questions {
		w.call(ctx, "payer", newCall(), payment(unanswered+i, 0))
	}
	fmt.Println("asked")
	select {}
}

func payment(account, amount int) string {
	return fmt.Sprintf(`{"account":%d,"amount":%d}`, account, amount)
}

func newCall() writ.CallID { return writ.NewID[writ.CallID](time.Now()) }

// call makes a call, and writes down what its agent was given.
func (w *worker) call(ctx context.Context, agent string, call writ.CallID, args string) writ.Code {
	note := func(e event) {
		e.Gateway, e.Call = w.gateway, call
		if err := w.diary.write(e); err != nil {
			panic(err)
		}
	}
	gave := func(what string, res *gate.Result) { note(event{What: what, Receipt: res.Receipt}) }
	ask := w.request(agent, call, args)
	res, err := w.gate.Do(ctx, ask)
	if err == nil {
		gave(released, res)
		return ""
	}
	switch d := writ.AsDenial(err); d.Code {
	case writ.ApprovalRequired:
		note(event{What: parked, Approval: d.Approval})
	case writ.AlreadyUsed:
		if res, err := w.gate.Recall(ctx, call, w.keys[agent], ask.Action); err == nil && res != nil {
			gave(recalled, res)
		}
	case writ.InternalError:
		fmt.Fprintln(os.Stderr, w.gateway+":", err)
		os.Exit(exitError)
	}
	return writ.AsDenial(err).Code
}

const operator = "operator"

// operate answers whatever waits: yes to the first question about an account,
// no to any other.
func (w *worker) operate(ctx context.Context, over <-chan struct{}) error {
	for {
		select {
		case <-over:
			return nil
		case <-time.After(2 * time.Millisecond):
		}
		rows, err := w.ledger.Scan(ctx, approval.KindApproval, "", 0)
		if err != nil {
			return err
		}
		answered := map[writ.Digest]bool{}
		var waiting []*approval.Request
		for _, row := range rows {
			r := new(approval.Request)
			if err := json.Unmarshal(row.Value, r); err != nil {
				return err
			}
			if r.State == approval.Pending {
				waiting = append(waiting, r)
			} else {
				answered[r.Query.Action.Digest()] = true
			}
		}
		for _, r := range waiting {
			var to struct{ Account int }
			if err := json.Unmarshal([]byte(r.Query.Action.Arguments), &to); err != nil {
				return err
			}
			if to.Account >= unanswered {
				continue
			}
			action := r.Query.Action.Digest()
			if err := w.answer(ctx, r, !answered[action]); err != nil {
				return err
			}
			answered[action] = true
		}
	}
}

func (w *worker) answer(ctx context.Context, r *approval.Request, yes bool) error {
	_, reads, err := w.gate.Catalog.Operator(ctx, operatorKey())
	if err != nil {
		return err
	}
	_, err = w.gate.Approvals.Answer(ctx, r.ID, r.Query.Action.Digest(), approval.Answer{By: "omar", Key: operatorKey(), Yes: yes}, reads...)
	if err != nil && writ.AsDenial(err).Code == writ.AlreadyDecided {
		return nil
	}
	return err
}
