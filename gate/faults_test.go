package gate_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/gate"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/upstream"
	"github.com/writgate/writ/writtest"
)

var errBoom = errors.New("boom")

// A flaky store fails the transaction that holds a record of one type: before
// anything is written, or after all of it is.
type flaky struct {
	ledger.Store
	typ    string // of the record whose transaction fails; none if empty
	before error  // returned before anything is written
	after  error  // returned after all of it is
}

func (f *flaky) Update(ctx context.Context, fn func(ledger.View) (*ledger.Batch, error)) error {
	hit := false
	err := f.Store.Update(ctx, func(v ledger.View) (*ledger.Batch, error) {
		b, err := fn(v)
		if err == nil && b != nil && f.typ != "" {
			hit = slices.ContainsFunc(b.Records, func(r ledger.Record) bool { return r.Leaf.Type == f.typ })
		}
		if hit && f.before != nil {
			return nil, f.before
		}
		return b, err
	})
	if err == nil && hit {
		return f.after
	}
	return err
}

// TestFaults breaks every step that touches the outside world: before it takes
// effect, after it did, and with a panic. Whatever breaks:
//
//   - no tool is called without its intent on record
//   - an error comes without a result, and a result comes with its outcome on record
//   - what was minted is revoked
//   - no credential appears in anything that is kept or told
func TestFaults(t *testing.T) {
	panics := func() error { panic("boom with s3cr3t-of-everything") }
	fails := func() error { return errBoom }
	for name, f := range map[string]struct {
		store      flaky
		vault      func(*writtest.Vault)
		do         func(*writtest.World)
		want       writ.Code // "" if the call succeeds all the same
		called     bool      // whether the tool is called
		unrecorded bool      // whether the gateway cannot put on record what became of it
	}{
		"nothing":                             {called: true},
		"the intent cannot be written":        {store: flaky{typ: ledger.TypeIntent, before: ledger.ErrUnavailable}, want: writ.AuditUnavailable},
		"F08 whether the intent was written":  {store: flaky{typ: ledger.TypeIntent, after: ledger.ErrUnknown}, called: true}, // it was: the ledger looks
		"F05 the disk is full at the intent":  {store: flaky{typ: ledger.TypeIntent, before: ledger.ErrFull}, want: writ.AuditUnavailable},
		"F13 minting fails before":            {vault: func(v *writtest.Vault) { v.Refuse = true }, want: writ.CredentialUnavailable},
		"F13 minting fails after":             {vault: func(v *writtest.Vault) { v.FailMint = fails }, want: writ.CredentialUnavailable},
		"minting panics":                      {vault: func(v *writtest.Vault) { v.FailMint = panics }, want: writ.CredentialUnavailable},
		"F13 revoking fails":                  {vault: func(v *writtest.Vault) { v.FailRevoke = fails }, called: true},
		"revoking panics":                     {vault: func(v *writtest.Vault) { v.FailRevoke = panics }, called: true},
		"the tool is not reached":             {do: answer(nil, upstream.ErrNotSent), want: writ.UpstreamUnavailable, called: true},
		"the tool's answer is lost":           {do: answer(nil, errBoom), want: writ.OutcomeUnknown, called: true},
		"F21 the tool's answer is too large":  {do: answer(nil, upstream.ErrTooLarge), want: writ.ResultTooLarge, called: true},
		"the tool answers with no answer":     {do: answer(nil, nil), want: writ.OutcomeUnknown, called: true},
		"the tool answers with no JSON":       {do: answer([]byte("{"), nil), want: writ.OutcomeUnknown, called: true},
		"F20 the upstream panics":             {do: func(w *writtest.World) { w.Tools.Do = panicking }, want: writ.OutcomeUnknown, called: true},
		"the tool's error holds the secret":   {do: func(w *writtest.World) { w.Tools.Do = leaking }, want: writ.OutcomeUnknown, called: true},
		"the outcome cannot be written":       {store: flaky{typ: ledger.TypeOutcome, before: ledger.ErrUnavailable}, want: writ.OutcomeUnrecorded, called: true, unrecorded: true},
		"F04 whether the outcome was written": {store: flaky{typ: ledger.TypeOutcome, after: ledger.ErrUnknown}, called: true},
		"the revocation cannot be written":    {store: flaky{typ: ledger.TypeRevocation, before: ledger.ErrUnavailable}, called: true},
	} {
		t.Run(name, func(t *testing.T) {
			var store *flaky
			w := writtest.New(t, writtest.Setup{
				Tools: []writtest.Tool{{Name: "bank.balance", Tier: writ.ReadOnly, Credential: "vault"}},
				Store: func(s ledger.Store) ledger.Store { store = &flaky{Store: s}; return store },
			})
			a := w.Agent("billing")
			a.Open(writ.Task{Grant: writ.Grant{{Tool: "*"}}})
			store.typ, store.before, store.after = f.store.typ, f.store.before, f.store.after
			if f.vault != nil {
				f.vault(w.Vault)
			}
			if f.do != nil {
				f.do(w)
			}
			r := a.Request("bank.balance", `{}`)
			res, err := w.Gate.Do(t.Context(), r)

			if d := writ.AsDenial(err); f.want == "" && err != nil || f.want != "" && (err == nil || d.Code != f.want) {
				t.Errorf("Do = %v, want %q", err, f.want)
			}
			if (err == nil) != (res != nil) {
				t.Errorf("Do = %v, %v: a result and an error, or neither", res, err)
			}
			if got := len(w.Tools.Seen()) > 0; got != f.called {
				t.Errorf("the tool was called: %v, want %v", got, f.called)
			}
			store.typ = "" // whatever it was has passed
			w.Vault.FailMint, w.Vault.FailRevoke = nil, nil
			w.Clock.Advance(time.Hour)
			if _, err := w.Gate.Broker.Sweep(t.Context()); err != nil {
				t.Errorf("sweeping: %v", err)
			}
			if n := w.Vault.Live(); n != 0 {
				t.Errorf("%d credentials are alive", n)
			}
			types := onRecord(t, w, r.Call)
			if f.called && !slices.Contains(types, ledger.TypeIntent) {
				t.Errorf("P1: the tool was called, and on record is %v", types)
			}
			if res != nil && !slices.Contains(types, ledger.TypeOutcome) {
				t.Errorf("P2: a result was released, and on record is %v", types)
			}
			if !f.unrecorded && len(types) == 0 {
				t.Error("nothing is on record")
			}
			nowhere(t, w, res, err)
		})
	}
}

func answer(body []byte, err error) func(*writtest.World) {
	return func(w *writtest.World) {
		w.Tools.Do = func(context.Context, *broker.Lease, upstream.Order) (*upstream.Answer, error) {
			if err != nil {
				return nil, err
			}
			return &upstream.Answer{Body: body}, nil
		}
	}
}

func panicking(context.Context, *broker.Lease, upstream.Order) (*upstream.Answer, error) {
	panic("boom with s3cr3t-of-everything")
}

func leaking(_ context.Context, l *broker.Lease, _ upstream.Order) (*upstream.Answer, error) {
	h := map[string][]string{}
	if err := l.Apply(h); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("sending %v", h)
}

// onRecord are the types of the records of a call.
func onRecord(t *testing.T, w *writtest.World, call writ.CallID) []string {
	t.Helper()
	records, err := w.Ledger.Records(t.Context(), ledger.Filter{Call: call})
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, r := range records {
		types = append(types, r.Leaf.Type)
	}
	return types
}

// nowhere fails if a credential of the vault is in what was told or kept.
func nowhere(t *testing.T, w *writtest.World, res *gate.Result, err error) {
	t.Helper()
	const canary = "s3cr3t-of-"
	said := fmt.Sprintf("%+v %v", res, err)
	if res != nil && res.Body != nil {
		said += string(res.Body.Value().Raw())
	}
	records, rerr := w.Ledger.Records(t.Context(), ledger.Filter{})
	if rerr != nil {
		t.Fatal(rerr)
	}
	for _, r := range records {
		said += string(r.LeafBytes)
		for _, p := range r.Parts {
			said += string(p.Bytes)
		}
	}
	if i := strings.Index(said, canary); i >= 0 {
		t.Errorf("P8: a credential is in %.200q", said[max(0, i-80):])
	}
}

func TestZeroPermitPermitsNothing(t *testing.T) {
	w := writtest.New(t, writtest.Setup{Tools: []writtest.Tool{{Name: "desk.get", Tier: writ.ReadOnly}}})
	for name, p := range map[string]*gate.Permit{"nil": nil, "zero": {}} {
		if res, err := w.Gate.Carry(t.Context(), p); err == nil || res != nil {
			t.Errorf("the %s permit was carried: %v, %v", name, res, err)
		}
	}
	a := w.Agent("billing")
	a.Open(writ.Task{Grant: writ.Grant{{Tool: "*"}}})
	r := a.Request("desk.get", `{}`)
	p, err := w.Gate.Decide(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Gate.Carry(t.Context(), p); err != nil {
		t.Error(err)
	}
	if res, err := w.Gate.Carry(t.Context(), p); err == nil || res != nil {
		t.Errorf("a permit was carried twice: %v, %v", res, err)
	}
	if types := onRecord(t, w, r.Call); len(types) != 2 {
		t.Errorf("a spent permit came as far as the record: %v", types)
	}
	if n := len(w.Tools.Seen()); n != 1 {
		t.Errorf("the tool was called %d times", n)
	}
}
