package broker_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/capability/issue"
	"github.com/writgate/writ/ledger"
	"pgregory.net/rapid"
)

func TestLeaseServesOneCall(t *testing.T) {
	h := newHouse(t)
	row, lease := h.lease(t, h.order(h.open(t)))
	header := http.Header{"Authorization": {"Bearer of-the-agent"}}
	if err := lease.Apply(header); err != nil {
		t.Fatal(err)
	}
	if got := header.Get("Authorization"); !strings.HasPrefix(got, "Bearer s3cret-") {
		t.Errorf("Authorization: %s", got)
	}
	if _, _, err := lease.Process(); err == nil {
		t.Error("a lease for a header went to a process")
	}
	evidence, err := h.Revoke(t.Context(), row)
	if err != nil || evidence.Outcome != broker.Revoked {
		t.Errorf("Revoke: %v, %v", evidence, err)
	}
	if err := lease.Apply(http.Header{}); err == nil {
		t.Error("a revoked lease applies")
	}
	if h.bank.living() != 0 || h.live(t) != 0 {
		t.Errorf("%d credentials and %d rows are left", h.bank.living(), h.live(t))
	}
	rs := h.records(t, row.Lease)
	if len(rs) != 1 || rs[0].Leaf.Type != ledger.TypeRevocation || rs[0].Leaf.Note["outcome"] != "revoked" ||
		rs[0].Leaf.Capability != string(row.Capability) || rs[0].Leaf.Task != row.Task {
		t.Errorf("records: %+v", rs)
	}
	if part, _ := rs[0].Part("evidence"); string(part) != `{"outcome":"revoked","steps":["struck off"]}` {
		t.Errorf("evidence: %s", part)
	}
}

func TestLeaseNeedsItsIntent(t *testing.T) {
	h := newHouse(t)
	id := h.open(t)
	row, intent := h.intend(t, h.order(id))
	other, foreign := h.intend(t, h.order(id))
	_, elsewhere := h.intend(t, h.order(h.open(t)))
	decision, err := h.journal.Ledger.Commit(t.Context(), &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeDecision, Task: id, Lease: string(row.Lease)}})
	if err != nil {
		t.Fatal(err)
	}
	for name, receipt := range map[string]ledger.Receipt{
		"no receipt": {}, "another type": decision[0], "another lease": foreign, "another task": elsewhere,
	} {
		if _, err := h.Lease(t.Context(), row, receipt); writ.AsDenial(err).Code != writ.CredentialUnavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	moved := other
	moved.Lease = row.Lease
	stored := broker.Row{Lease: row.Lease, Capability: row.Capability, Task: row.Task, Backend: row.Backend, Handle: row.Handle, Expires: row.Expires}
	twin, err := h.Prepare(h.order(id))
	if err != nil {
		t.Fatal(err)
	}
	twin.Lease, twin.Capability = row.Lease, row.Capability
	for name, r := range map[string]broker.Row{"another lease's": moved, "read back": stored, "with another capability": twin, "empty": {}} {
		if _, err := h.Lease(t.Context(), r, intent); err == nil {
			t.Errorf("a row that is %s was leased", name)
		}
	}
	free := h.order(id)
	free.Backend = ""
	bare, _ := h.intend(t, free)
	for _, receipt := range []ledger.Receipt{{}, elsewhere} {
		if _, err := h.Lease(t.Context(), bare, receipt); err == nil {
			t.Error("a lease without a credential needs no intent of its task")
		}
	}
	if h.bank.made != 0 {
		t.Errorf("%d credentials were made", h.bank.made)
	}
	if _, err := h.Lease(t.Context(), row, intent); err != nil {
		t.Error(err)
	}
	if _, err := h.Lease(t.Context(), row, intent); err == nil {
		t.Error("a row was leased twice")
	}
}

func TestZeroLeaseRefuses(t *testing.T) {
	for _, lease := range []*broker.Lease{nil, {}} {
		if lease.Check() == nil || lease.Apply(http.Header{}) == nil {
			t.Errorf("%#v applies", lease)
		}
		if _, _, err := lease.Process(); err == nil {
			t.Errorf("%#v gives a process something", lease)
		}
	}
}

func TestToolWithoutCredential(t *testing.T) {
	h := newHouse(t)
	o := h.order(h.open(t))
	o.Backend = ""
	row, lease := h.lease(t, o)
	header := http.Header{}
	if err := lease.Apply(header); err != nil || len(header) != 0 {
		t.Errorf("Apply: %v, %v", header, err)
	}
	if env, args, err := lease.Process(); err != nil || env != nil || args != nil {
		t.Errorf("Process: %v, %v, %v", env, args, err)
	}
	if ev, err := h.Revoke(t.Context(), row); err != nil || ev.Outcome != broker.Revoked || h.live(t) != 0 {
		t.Errorf("Revoke: %v, %v", ev, err)
	}
}

func TestPrepareRefuses(t *testing.T) {
	h := newHouse(t)
	good := h.order("task_1")
	for name, spoil := range map[string]func(*broker.Order){
		"no capability":    func(o *broker.Order) { o.Token = nil },
		"an empty one":     func(o *broker.Order) { o.Token = new(issue.Token) },
		"no task":          func(o *broker.Order) { o.Task = "" },
		"no agent":         func(o *broker.Order) { o.Agent = "" },
		"no tool":          func(o *broker.Order) { o.Tool = "" },
		"unknown backend":  func(o *broker.Order) { o.Backend = "bnak" },
		"backend as glob":  func(o *broker.Order) { o.Backend = "*" },
		"a life backwards": func(o *broker.Order) { o.TTL = -1 },
	} {
		o := good
		spoil(&o)
		if row, err := h.Prepare(o); err == nil {
			t.Errorf("%s: prepared %+v", name, row)
		}
	}
	h.Gateway = ""
	if _, err := h.Prepare(good); err == nil {
		t.Error("a gateway without a name prepared a lease")
	}
}

// H62: what an agent writes is data. A placeholder, a variable, a glob in an
// argument or in a tool's name reaches no secret.
func TestH62PlaceholderIsText(t *testing.T) {
	h := newHouse(t)
	t.Setenv("WRIT_TEST_CANARY", "s3cret-canary")
	_, lease := h.lease(t, h.order(h.open(t)))
	for _, text := range []string{"{{vault:bank}}", "${WRIT_TEST_CANARY}", "$WRIT_TEST_CANARY", "{{secret}}", "lease_*", "%7B%7Bvault:bank%7D%7D"} {
		if got, echoed := lease.Scrub([]byte(text)); echoed || string(got) != text {
			t.Errorf("Scrub(%q) = %q, %v", text, got, echoed)
		}
		o := h.order(h.open(t))
		o.Tool = writ.ToolName(text)
		row, other := h.lease(t, o)
		header := http.Header{}
		if err := other.Apply(header); err != nil || strings.Contains(header.Get("Authorization"), "canary") || row.Backend != "bank" {
			t.Errorf("tool %q got %v, %v", text, header, err)
		}
		o.Token, o.Backend = capability(), text
		if _, err := h.Prepare(o); err == nil {
			t.Errorf("%q names a backend", text)
		}
	}
}

// H64: a backend that grants more than it was asked for is not believed.
func TestH64LongerThanAsked(t *testing.T) {
	h := newHouse(t)
	id := h.open(t)
	o := h.order(id)
	o.TTL = time.Hour
	row, err := h.Prepare(o)
	if err != nil || row.Expires != row.Issued+(15*time.Minute).Milliseconds() {
		t.Errorf("asked for an hour, got %+v, %v", row, err)
	}
	h.bank.life = time.Nanosecond
	h.bank.set(prolongs, none)
	row, intent := h.intend(t, h.order(id))
	if _, err := h.Lease(t.Context(), row, intent); writ.AsDenial(err).Code != writ.CredentialUnavailable {
		t.Errorf("a credential that lives too long: %v", err)
	}
	if _, err := h.Revoke(t.Context(), row); err != nil || h.bank.made != 1 || h.bank.living() != 0 {
		t.Errorf("it is not revoked: %v", err)
	}

	// What lives on at the backend does not live on in Writ.
	h.bank.set(none, none)
	_, lease := h.lease(t, h.order(id))
	h.pass(time.Minute)
	if lease.Check() == nil {
		t.Error("the lease outlives its time")
	}
}

func TestSharedLeaseIsOfOneTask(t *testing.T) {
	h := newHouse(t)
	order := func(id writ.TaskID, tier writ.Tier) broker.Order {
		o := h.order(id)
		o.Backend, o.Tier = "shared", tier
		return o
	}
	one, two := h.open(t), h.open(t)
	row1, first := h.lease(t, order(one, writ.ReadOnly))
	row2, again := h.lease(t, order(one, writ.ReadOnly))
	if first != again || !row2.Reused() {
		t.Error("read-only calls of one task do not share")
	}
	if _, l := h.lease(t, order(two, writ.ReadOnly)); l == first {
		t.Error("two tasks share")
	}
	rowW, writing := h.lease(t, order(one, writ.BoundedWrite))
	if writing == first {
		t.Error("a write shares")
	}
	for _, row := range []broker.Row{row1, row2} {
		if ev, err := h.Revoke(t.Context(), row); err != nil || ev.Outcome != broker.Held || ev.Until != row.Expires {
			t.Errorf("revoking one use: %v, %v", ev, err)
		}
	}
	if first.Check() != nil {
		t.Error("the shared lease ended with its first use")
	}
	if _, err := h.Revoke(t.Context(), rowW); err != nil {
		t.Error(err)
	}
	if err := h.RevokeTask(t.Context(), one); err != nil || first.Check() == nil {
		t.Errorf("the task's end left the shared lease alive: %v", err)
	}
	if h.bank.living() != 1 {
		t.Errorf("%d credentials live, want that of the other task", h.bank.living())
	}
	h.pass(time.Minute)
	if left, err := h.Sweep(t.Context()); err != nil || left.Ended != 1 || h.bank.living() != 0 || h.live(t) != 0 {
		t.Errorf("Sweep: %+v, %v", left, err)
	}
}

// TestLeaseLife lets tasks, callers, the clock, crashes and a backend with
// every trouble run into each other. What was minted is revoked or listed at
// every moment, no credential reaches two tasks, none outlives its task in
// Writ, and in the end there is nothing, and one record for each.
func TestLeaseLife(t *testing.T) {
	h := newHouse(t)
	seen := int64(0) // records of earlier runs
	rapid.Check(t, func(r *rapid.T) {
		h.bank = &bank{life: time.Hour}
		h.restart()
		var open []writ.TaskID
		for range 3 {
			open = append(open, h.open(t))
		}
		ended := map[writ.TaskID]bool{}
		type use struct {
			row    broker.Row
			intent ledger.Receipt
			lease  *broker.Lease
			leased bool
		}
		var uses []*use
		all := map[writ.LeaseID]bool{}
		owner := map[string]writ.TaskID{}
		pick := func(name string) *use {
			if len(uses) == 0 {
				r.Skip("no uses")
			}
			return rapid.SampledFrom(uses).Draw(r, name)
		}
		r.Repeat(map[string]func(*rapid.T){
			"intend": func(r *rapid.T) {
				o := h.order(rapid.SampledFrom(open).Draw(r, "task"))
				o.Backend = rapid.SampledFrom([]string{"bank", "shared"}).Draw(r, "backend")
				o.Tier = rapid.SampledFrom([]writ.Tier{writ.ReadOnly, writ.BoundedWrite}).Draw(r, "tier")
				if ended[o.Task] {
					r.Skip("the commit is refused")
				}
				row, intent := h.intend(t, o)
				uses = append(uses, &use{row: row, intent: intent})
				all[row.Lease] = true
			},
			"lease": func(r *rapid.T) {
				u := pick("use")
				if u.leased {
					r.Skip("leased")
				}
				u.leased = true
				h.bank.set(rapid.SampledFrom([]trouble{none, none, none, refuses, loses, deserts, panics, prolongs, mumbles}).Draw(r, "mint"), h.bank.revoke)
				lease, err := h.Lease(t.Context(), u.row, u.intent)
				if (err == nil) != (lease.Check() == nil) {
					r.Fatalf("Lease: %v, %v", lease, err)
				}
				if err != nil && strings.Contains(err.Error(), "s3cret-") {
					r.Fatalf("the error tells the secret: %v", err)
				}
				u.lease = lease
			},
			"revoke": func(r *rapid.T) {
				u := pick("use")
				ev, err := h.Revoke(t.Context(), u.row)
				if err == nil && ev.Outcome != broker.Held && u.lease.Check() == nil {
					r.Fatalf("usable after %v", ev)
				}
				for i := range uses {
					if uses[i] == u {
						uses = append(uses[:i], uses[i+1:]...)
						break
					}
				}
			},
			"end task": func(r *rapid.T) {
				id := rapid.SampledFrom(open).Draw(r, "task")
				if _, err := h.tasks.End(t.Context(), id, "test", "ana"); err != nil {
					r.Fatal(err)
				}
				ended[id] = true
				if rapid.Bool().Draw(r, "told") {
					_ = h.RevokeTask(t.Context(), id)
				} else {
					_, _ = h.Sweep(t.Context())
				}
				for _, u := range uses {
					if u.row.Task == id && u.lease.Check() == nil {
						r.Fatalf("%v is usable after its task", u.lease)
					}
				}
			},
			"backend": func(r *rapid.T) {
				h.bank.set(none, rapid.SampledFrom([]trouble{none, none, refuses, loses, panics, mumbles}).Draw(r, "revoke"))
			},
			"time":  func(r *rapid.T) { h.pass(time.Duration(rapid.IntRange(1, 45).Draw(r, "seconds")) * time.Second) },
			"sweep": func(r *rapid.T) { _, _ = h.Sweep(t.Context()) },
			"crash": func(r *rapid.T) { uses = nil; h.restart() },
			"": func(r *rapid.T) {
				listed := map[string]bool{}
				rows, err := h.journal.Live(t.Context())
				if err != nil {
					r.Fatal(err)
				}
				for _, e := range rows {
					listed[e.Row.Handle] = true
				}
				for handle := range h.bank.alive {
					if !listed[handle] {
						r.Fatalf("%s lives and is not listed", handle)
					}
				}
				for _, u := range uses {
					if u.lease.Check() != nil {
						continue
					}
					header := http.Header{}
					if err := u.lease.Apply(header); err != nil {
						r.Fatal(err)
					}
					secret := header.Get("Authorization")
					if was, ok := owner[secret]; ok && was != u.row.Task {
						r.Fatalf("a credential of %s reached %s", was, u.row.Task)
					}
					owner[secret] = u.row.Task
					if ended[u.row.Task] {
						r.Fatalf("%v is used after its task", u.lease)
					}
				}
			},
		})

		h.bank.set(none, none)
		for range 2 { // what failed waits at most five minutes
			h.pass(15 * time.Minute)
			if _, err := h.Sweep(t.Context()); err != nil {
				r.Fatal(err)
			}
		}
		if h.bank.living() != 0 || h.live(t) != 0 {
			r.Fatalf("in the end %d credentials and %d rows are left", h.bank.living(), h.live(t))
		}
		ends := map[writ.LeaseID]int{}
		rs, err := h.journal.Ledger.Records(t.Context(), ledger.Filter{From: seen, To: 1 << 40, Type: ledger.TypeRevocation})
		if err != nil {
			r.Fatal(err)
		}
		for _, rec := range rs {
			seen = rec.Index + 1
			ends[writ.LeaseID(rec.Leaf.Lease)]++
		}
		for id := range all {
			if ends[id] != 1 {
				r.Fatalf("%s has %d records of its end", id, ends[id])
			}
		}
	})
}

// BenchmarkLease is what a credential adds to a call, the backend aside: a row
// in the intent, and the record of its end.
func BenchmarkLease(b *testing.B) {
	h := newHouse(b)
	id := h.open(b)
	for b.Loop() {
		row, _ := h.lease(b, h.order(id))
		if _, err := h.Revoke(b.Context(), row); err != nil {
			b.Fatal(err)
		}
	}
}
