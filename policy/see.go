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
}

// Get makes a world a cedar.EntityGetter.
func (w *world) Get(uid cedar.EntityUID) (cedar.Entity, bool) {
	if uid == w.agent.UID {
		return w.agent, true
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

// see makes the context of a query, all but the assurance. Args is nil if the
// arguments were not shown; then no policy that reads them may be asked.
func see(q *writ.Query, args *canon.Value, s shape) (cedar.RecordMap, error) {
	r := reading{trace: make(map[string]writ.Origin, len(q.Provenance))}
	for _, p := range q.Provenance {
		if p.Origin > writ.FromPrompt {
			p.Origin = writ.FromUntrusted
		}
		if o, twice := r.trace[p.Argument]; !twice || p.Origin < o {
			r.trace[p.Argument] = p.Origin
		}
	}
	var seen cedar.Value = cedar.Record{}
	if args != nil {
		var err error
		if seen, _, err = r.read(args, s, ""); err != nil {
			return nil, err
		}
	}
	return cedar.RecordMap{
		"args":   seen,
		"budget": budgetRecord(q, args),
		"caller": callerRecord(&q.Caller),
		"label":  labelRecord(q.Label),
		"nulls":  cedar.NewSet(r.nulls...),
		"origin": originRecord(&r),
		"task":   taskRecord(&q.Task, q.Time),
		"time":   cedar.NewDatetimeFromMillis(q.Time),
	}, nil
}

func labelRecord(l writ.Label) cedar.Record {
	return cedar.NewRecord(cedar.RecordMap{
		"class":   cedar.NewEntityUID("Class", cedar.String(l.Class.String())),
		"secrecy": cedar.Long(writ.Public) - cedar.Long(l.Class),
		"trusted": cedar.Boolean(l.Integrity == writ.Trusted),
	})
}

func callerRecord(c *writ.Caller) cedar.Record {
	chain := make([]cedar.Value, len(c.Chain))
	for i, h := range c.Chain {
		chain[i] = agentUID(h.Agent)
	}
	m := cedar.RecordMap{
		"chain": cedar.NewSet(chain...),
		"depth": cedar.Long(len(c.Chain)),
		"proof": cedar.NewEntityUID("Proof", cedar.String(c.Proof)),
	}
	if c.User != "" {
		m["user"] = userUID(c.User)
	}
	return cedar.NewRecord(m)
}

// taskRecord says the weakest of an origin or an isolation that has no name.
func taskRecord(t *writ.Task, now int64) cedar.Record {
	origin, isolation := t.Purpose.Origin, t.Isolation
	switch origin {
	case writ.OriginHarness, writ.OriginOperator, writ.OriginUser:
	default:
		origin = "agent"
	}
	switch isolation {
	case writ.IsolationSandbox, writ.IsolationUID, writ.IsolationHost:
	default:
		isolation = "none"
	}
	m := cedar.RecordMap{
		"age":         cedar.NewDurationFromMillis(max(0, now-t.Opened)),
		"attested":    cedar.Boolean(origin != "agent"),
		"delegated":   cedar.Boolean(t.Parent != ""),
		"environment": cedar.String(t.Environment),
		"id":          cedar.String(t.ID),
		"isolation":   cedar.NewEntityUID("Isolation", cedar.String(isolation)),
		"left":        cedar.NewDurationFromMillis(t.Expires - now),
		"origin":      cedar.NewEntityUID("PurposeOrigin", cedar.String(origin)),
		"purpose":     cedar.String(""),
		"unattended":  cedar.Boolean(t.Unattended),
	}
	if origin != "agent" {
		m["purpose"] = cedar.String(t.Purpose.Prompt())
	}
	if t.User != "" {
		m["user"] = userUID(t.User)
	}
	return cedar.NewRecord(m)
}

func originRecord(r *reading) cedar.Record {
	m := make(cedar.RecordMap, len(r.origins))
	for o := range r.origins {
		m[cedar.String(writ.Origin(o).String())] = cedar.NewSet(r.origins[o]...)
	}
	return cedar.NewRecord(m)
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
