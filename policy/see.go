package policy

import (
	"math/bits"
	"slices"

	"github.com/cedar-policy/cedar-go"
	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
)

// A world is the entities of one decision: those of the schema, which are the
// same in every decision, and the agent. Users and groups need no entity:
// nothing is known of them but their names.
type world struct {
	static cedar.EntityMap
	agent  cedar.Entity
	action cedar.Entity // of an answer upward: the tool's, and in one more group
}

// Get makes a world a cedar.EntityGetter.
func (w *world) Get(uid cedar.EntityUID) (cedar.Entity, bool) {
	switch uid {
	case w.agent.UID:
		return w.agent, true
	case w.action.UID:
		return w.action, true
	}
	e, ok := w.static[uid]
	return e, ok
}

func agentUID(id writ.AgentID) cedar.EntityUID { return cedar.NewEntityUID("Agent", cedar.String(id)) }
func userUID(id writ.UserID) cedar.EntityUID   { return cedar.NewEntityUID("User", cedar.String(id)) }

// agentEntity is the principal. Principals gives its UID and those of its
// groups, each once, for the index.
func agentEntity(a *writ.Agent) (e cedar.Entity, principals []cedar.EntityUID) {
	principals = append(principals, agentUID(a.ID))
	for _, g := range a.Groups {
		if uid := cedar.NewEntityUID("Group", cedar.String(g)); !slices.Contains(principals, uid) {
			principals = append(principals, uid)
		}
	}
	return cedar.Entity{
		UID:     principals[0],
		Parents: cedar.NewEntityUIDSet(principals[1:]...),
		Attributes: cedar.NewRecord(cedar.RecordMap{
			"environment": cedar.String(a.Environment),
			"owner":       userUID(a.Owner),
		}),
	}, principals
}

// A fact is one value that a policy can read in the context: a member of it,
// or an attribute of a member that is a record. Only facts that a policy reads
// are made.
type fact struct {
	member, attr cedar.String
	of           func(*reading) cedar.Value // nil is a value that is not there
}

// facts are all there are.
var facts = []fact{
	{"assurance", "", nil}, // made by ask, rung by rung
	{"args", "", func(r *reading) cedar.Value { return r.seen }},
	{"budget", "", func(r *reading) cedar.Value { return budgetRecord(r.query, r.args) }},
	{"caller", "chain", func(r *reading) cedar.Value { return chainSet(r.query.Caller.Chain) }},
	{"caller", "depth", func(r *reading) cedar.Value { return cedar.Long(len(r.query.Caller.Chain)) }},
	{"caller", "proof", func(r *reading) cedar.Value { return cedar.NewEntityUID("Proof", cedar.String(r.query.Caller.Proof)) }},
	{"caller", "user", func(r *reading) cedar.Value { return userValue(r.query.Caller.User) }},
	{"label", "", func(r *reading) cedar.Value { return labels[r.query.Label.Integrity][r.query.Label.Class] }},
	{"nulls", "", func(r *reading) cedar.Value { return cedar.NewSet(r.nulls...) }},
	{"origin", "untrusted", func(r *reading) cedar.Value { return cedar.NewSet(r.origins[writ.FromUntrusted]...) }},
	{"origin", "agent", func(r *reading) cedar.Value { return cedar.NewSet(r.origins[writ.FromAgent]...) }},
	{"origin", "trusted", func(r *reading) cedar.Value { return cedar.NewSet(r.origins[writ.FromTrusted]...) }},
	{"origin", "roster", func(r *reading) cedar.Value { return cedar.NewSet(r.origins[writ.FromRoster]...) }},
	{"origin", "bound", func(r *reading) cedar.Value { return cedar.NewSet(r.origins[writ.FromBound]...) }},
	{"origin", "user", func(r *reading) cedar.Value { return cedar.NewSet(r.origins[writ.FromUser]...) }},
	{"origin", "prompt", func(r *reading) cedar.Value { return cedar.NewSet(r.origins[writ.FromPrompt]...) }},
	{"task", "age", func(r *reading) cedar.Value {
		return cedar.NewDurationFromMillis(max(0, r.query.Time-r.query.Task.Opened))
	}},
	{"task", "attested", func(r *reading) cedar.Value { return cedar.Boolean(originName(&r.query.Task) != "agent") }},
	{"task", "delegated", func(r *reading) cedar.Value { return cedar.Boolean(r.query.Task.Parent != "") }},
	{"task", "environment", func(r *reading) cedar.Value { return cedar.String(r.query.Task.Environment) }},
	{"task", "id", func(r *reading) cedar.Value { return cedar.String(r.query.Task.ID) }},
	{"task", "isolation", func(r *reading) cedar.Value { return cedar.NewEntityUID("Isolation", isolationName(&r.query.Task)) }},
	{"task", "left", func(r *reading) cedar.Value { return cedar.NewDurationFromMillis(r.query.Task.Expires - r.query.Time) }},
	{"task", "origin", func(r *reading) cedar.Value { return cedar.NewEntityUID("PurposeOrigin", originName(&r.query.Task)) }},
	{"task", "purpose", func(r *reading) cedar.Value { return purposeText(&r.query.Task) }},
	{"task", "unattended", func(r *reading) cedar.Value { return cedar.Boolean(r.query.Task.Unattended) }},
	{"task", "user", func(r *reading) cedar.Value { return userValue(r.query.Task.User) }},
	{"time", "", func(r *reading) cedar.Value { return cedar.NewDatetimeFromMillis(r.query.Time) }},
}

// A factSet is a set of facts, by their position.
type factSet uint32

const allFacts = ^factSet(0)

var (
	assuranceFacts = factsOf("assurance", "")
	argumentFacts  = factsOf("args", "") | factsOf("nulls", "") | factsOf("origin", "")
)

// factsOf are those of one member of the context; of one attribute of it, if
// attr is not empty.
func factsOf(member, attr cedar.String) factSet {
	var set factSet
	for i, f := range facts {
		if f.member == member && (attr == "" || f.attr == "" || f.attr == attr) {
			set |= 1 << i
		}
	}
	return set
}

// context makes the context of the facts in want, all but the assurance.
func (r *reading) context(want factSet) cedar.RecordMap {
	context := cedar.RecordMap{}
	for i := 0; i < len(facts); {
		member, attrs := facts[i].member, cedar.RecordMap(nil)
		for ; i < len(facts) && facts[i].member == member; i++ {
			f := &facts[i]
			if want&(1<<i) == 0 || f.of == nil {
				continue
			}
			v := f.of(r)
			if f.attr == "" {
				context[member] = v
				continue
			}
			if attrs == nil {
				attrs = cedar.RecordMap{}
			}
			if v != nil {
				attrs[f.attr] = v
			}
		}
		if attrs != nil {
			context[member] = cedar.NewRecord(attrs)
		}
	}
	return context
}

// see reads the arguments of a query, all of them, whoever asks. They are nil
// if they were not shown; then no policy that reads them may be asked.
func see(q *writ.Query, args *canon.Value, s shape) (*reading, error) {
	r := &reading{query: q, args: args, seen: cedar.Record{}, trace: make(map[string]writ.Origin, len(q.Provenance))}
	for _, p := range q.Provenance {
		if p.Origin > writ.FromPrompt {
			p.Origin = writ.FromUntrusted
		}
		if o, twice := r.trace[p.Argument]; !twice || p.Origin < o {
			r.trace[p.Argument] = p.Origin
		}
	}
	if q.Action.Inputs != "" {
		inputs, err := canon.ParseObject([]byte(q.Action.Inputs), canon.Limits{})
		if err != nil {
			return r, &misfit{writ.PointerInputs}
		}
		from := r.originOf(inputs, writ.PointerInputs)
		r.origins[from] = append(r.origins[from], cedar.String(writ.PointerInputs))
	}
	if args == nil {
		return r, nil
	}
	var err error
	r.seen, _, err = r.read(args, s, "")
	return r, err
}

// labels are all there are, as policies see them.
var labels = func() (all [writ.Trusted + 1][writ.Public + 1]cedar.Record) {
	for i := range all {
		for c := range all[i] {
			all[i][c] = labelRecord(writ.Label{Integrity: writ.Integrity(i), Class: writ.Class(c)})
		}
	}
	return all
}()

func labelRecord(l writ.Label) cedar.Record {
	return cedar.NewRecord(cedar.RecordMap{
		"class":   cedar.NewEntityUID("Class", cedar.String(l.Class.String())),
		"secrecy": cedar.Long(writ.Public) - cedar.Long(l.Class),
		"trusted": cedar.Boolean(l.Integrity == writ.Trusted),
	})
}

func chainSet(chain []writ.Hop) cedar.Set {
	agents := make([]cedar.Value, len(chain))
	for i, h := range chain {
		agents[i] = agentUID(h.Agent)
	}
	return cedar.NewSet(agents...)
}

func userValue(id writ.UserID) cedar.Value {
	if id == "" {
		return nil
	}
	return userUID(id)
}

// originName says the weakest of an origin without a name.
func originName(t *writ.Task) cedar.String {
	switch o := t.Purpose.Origin; o {
	case writ.OriginHarness, writ.OriginOperator, writ.OriginUser:
		return cedar.String(o)
	}
	return "agent"
}

// isolationName says the weakest of an isolation without a name.
func isolationName(t *writ.Task) cedar.String {
	switch i := t.Isolation; i {
	case writ.IsolationSandbox, writ.IsolationUID, writ.IsolationHost:
		return cedar.String(i)
	}
	return "none"
}

func purposeText(t *writ.Task) cedar.String {
	if originName(t) == "agent" {
		return ""
	}
	return cedar.String(t.Purpose.Prompt())
}

// budgetRecord is of the tightest of the budgets that count the call, all of
// which have room for it. A part of a percent counts as one.
func budgetRecord(q *writ.Query, args *canon.Value) cedar.Record {
	governed, most := false, uint64(0)
	for _, b := range q.Task.Budgets {
		if !q.Tool.Name.In(b.Tool) {
			continue
		}
		cost, _ := costOf(b, args)
		used, limit := uint64(q.Spent[b.Name]+cost), uint64(b.Limit)
		percent := uint64(100)
		if used < limit {
			hi, lo := bits.Mul64(used, 100)
			quotient, rest := bits.Div64(hi, lo, limit)
			percent = quotient + min(1, rest)
		}
		governed, most = true, max(most, percent)
	}
	return cedar.NewRecord(cedar.RecordMap{"governed": cedar.Boolean(governed), "percent": cedar.Long(most)})
}

// assurances are the rungs of the ladder, as policies see them.
var assurances = [...]cedar.Record{
	writ.NoAssurance:   assuranceRecord(writ.NoAssurance, 0, 0),
	writ.UserConfirmed: assuranceRecord(writ.UserConfirmed, 0, 0),
	writ.OneReviewer:   assuranceRecord(writ.OneReviewer, 1, 0),
	writ.OnePasskey:    assuranceRecord(writ.OnePasskey, 1, 1),
	writ.TwoPasskeys:   assuranceRecord(writ.TwoPasskeys, 2, 2),
}

// assuranceRecord holds at least what every lower rung holds, in every member.
func assuranceRecord(a writ.Assurance, reviewers, passkeys cedar.Long) cedar.Record {
	return cedar.NewRecord(cedar.RecordMap{
		"level":         cedar.Long(a),
		"passkeys":      passkeys,
		"reviewers":     reviewers,
		"userConfirmed": cedar.Boolean(a >= writ.UserConfirmed),
	})
}
