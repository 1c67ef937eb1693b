package policy

import (
	"reflect"
	"strings"
	"testing"

	"github.com/writgate/writ"
)

func TestZeroRefuses(t *testing.T) {
	b := load(t, permitAll)
	q := ask(t, b, "mail.read", `{}`)
	var none *Permit
	if none.Query() != nil || new(Permit).Query() != nil {
		t.Error("no permit has a query")
	}
	if none.Decision().Effect != writ.Deny || new(Permit).Decision().Effect != writ.Deny {
		t.Error("no permit permits")
	}
	q.Bundle = ""
	if d := decide(t, new(Bundle), q); d.Effect != writ.Deny || d.Code != writ.Unavailable {
		t.Errorf("the zero bundle: %+v, want unavailable", d)
	}
	if d := decide(t, b, new(writ.Query)); d.Effect != writ.Deny {
		t.Errorf("the zero query: %+v, want deny", d)
	}
}

func TestEmptyBundleDeniesAndSaysSo(t *testing.T) {
	b, err := Load(nil, testTools)
	if err != nil {
		t.Fatal(err)
	}
	d := decide(t, b, ask(t, b, "mail.read", `{}`))
	if d.Effect != writ.Deny || d.Code != writ.Forbidden || len(d.Errors) != 1 || !strings.Contains(d.Errors[0], "no policy") {
		t.Errorf("Decide = %+v, want a denial that says there is no policy", d)
	}
}

// A Permit is about what was asked, whatever is done to the query afterwards.
func TestPermitKeepsItsQuery(t *testing.T) {
	b := load(t, permitAll)
	q := ask(t, b, "mail.send", `{"to":"a"}`)
	p, _ := b.Decide(q)
	q.Action.Arguments = `{"to":"evil"}`
	if got := p.Query().Action.Arguments; got != `{"to":"a"}` {
		t.Errorf("the permit is about %s now", got)
	}
}

func TestDecide(t *testing.T) {
	const untrusted = `@id("untrusted") forbid (principal, action in Action::"tier:bounded-write", resource) when { !context.origin.untrusted.isEmpty() } unless { context.assurance.reviewers >= 1 };
`
	tests := []struct {
		name, policies string
		tool           writ.ToolName
		args           string
		change         func(*writ.Query)
		want           writ.Decision // the reasons aside
		ids            string
	}{
		{name: "no policy matches", policies: `permit (principal, action in Action::"tier:read-only", resource);`,
			want: writ.Decision{Code: writ.Forbidden}},
		{name: "a permit", policies: permitAll, want: writ.Decision{Effect: writ.Permit}, ids: "all"},
		{name: "a forbid wins", policies: permitAll + `@id("no") forbid (principal, action, resource == Tool::"mail.send");`,
			want: writ.Decision{Code: writ.Forbidden}, ids: "no"},
		{name: "reasons are in the order of the files", policies: permitAll + `@id("b") permit (principal in Group::"support", action, resource); @id("a") permit (principal, action == Action::"mail.send", resource);`,
			want: writ.Decision{Effect: writ.Permit}, ids: "all b a"},
		{name: "an unnamed policy", policies: permitAll + `forbid (principal, action, resource in Upstream::"mail");`,
			want: writ.Decision{Code: writ.Forbidden}, ids: "policy1"},
		{name: "an error in a permit denies", policies: permitAll + `permit (principal, action == Action::"mail.send", resource) when { context.args has count && context.args.count + 9223372036854775807 > 0 };`,
			want: writ.Decision{Code: writ.Forbidden, Errors: []string{"test.cedar:2: its numbers are too large to compute with"}}, ids: "all"},
		{name: "an error in a forbid denies", policies: permitAll + `forbid (principal, action == Action::"mail.send", resource) when { context.args has count && context.args.count * 9223372036854775807 > 0 };`,
			want: writ.Decision{Code: writ.Forbidden, Errors: []string{"test.cedar:2: its numbers are too large to compute with"}}, ids: "all"},
		{name: "nobody is asked where there is an error", policies: `permit (principal, action, resource) when { context.assurance.level >= 1 };
permit (principal, action == Action::"mail.send", resource) when { context.args has count && context.args.count + 9223372036854775807 > 0 };`,
			want: writ.Decision{Code: writ.Forbidden, Errors: []string{"test.cedar:2: its numbers are too large to compute with"}}},
		{name: "redactions of every permit that matches", policies: `@redact("/ssn /iban") permit (principal, action, resource); @redact("/iban") permit (principal, action in Action::"tier:bounded-write", resource); @redact("/x") permit (principal, action == Action::"mail.read", resource);`,
			want: writ.Decision{Effect: writ.Permit, Obligations: []writ.Obligation{{Redact: "/iban"}, {Redact: "/ssn"}}}, ids: "policy0 policy1"},
		{name: "the weakest assurance that permits", policies: `@id("ask") permit (principal, action, resource) when { context.assurance.reviewers >= 1 };`,
			want: writ.Decision{Effect: writ.StepUp, Code: writ.ApprovalRequired, Requires: writ.OneReviewer}, ids: "ask"},
		{name: "the user's word", policies: `permit (principal, action, resource) when { context.assurance.userConfirmed };`,
			want: writ.Decision{Effect: writ.StepUp, Code: writ.ApprovalRequired, Requires: writ.UserConfirmed}, ids: "policy0"},
		{name: "two passkeys", policies: `permit (principal, action, resource) when { context.assurance.passkeys > 1 };`,
			want: writ.Decision{Effect: writ.StepUp, Code: writ.ApprovalRequired, Requires: writ.TwoPasskeys}, ids: "policy0"},
		{name: "why a person is asked is the forbid", policies: permitAll + untrusted, change: func(q *writ.Query) { from(q, "/to", writ.FromUntrusted) },
			want: writ.Decision{Effect: writ.StepUp, Code: writ.ApprovalRequired, Requires: writ.OneReviewer}, ids: "untrusted"},
		{name: "what has been reached is the floor", policies: permitAll + untrusted, change: func(q *writ.Query) { from(q, "/to", writ.FromUntrusted); q.Assurance = writ.OneReviewer },
			want: writ.Decision{Effect: writ.Permit}, ids: "all"},
		{name: "a user is no reviewer", policies: permitAll + untrusted, change: func(q *writ.Query) { from(q, "/to", writ.FromUntrusted); q.Assurance = writ.UserConfirmed },
			want: writ.Decision{Effect: writ.StepUp, Code: writ.ApprovalRequired, Requires: writ.OneReviewer}, ids: "untrusted"},
		{name: "nobody is asked for what nobody can grant", policies: permitAll + untrusted + `@id("never") forbid (principal, action, resource in Upstream::"mail");`,
			change: func(q *writ.Query) { from(q, "/to", writ.FromUntrusted) },
			want:   writ.Decision{Code: writ.Forbidden}, ids: "untrusted never"},
		{name: "nobody is asked about a task that nobody opened", policies: `permit (principal, action, resource) when { context.assurance.reviewers >= 1 };`, tool: "mail.read", args: `{}`,
			change: func(q *writ.Query) { q.Task.Unattended = true }, want: writ.Decision{Code: writ.Forbidden}},
		{name: "an error on the way up denies", policies: `permit (principal, action, resource) when { context.assurance.level >= 3 };
forbid (principal, action, resource) when { context.assurance.level + 9223372036854775806 < 0 };`,
			want: writ.Decision{Code: writ.Forbidden, Errors: []string{"test.cedar:2: its numbers are too large to compute with"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := load(t, tt.policies)
			if tt.tool == "" {
				tt.tool, tt.args = "mail.send", `{"count":7,"to":"a@acme.example"}`
			}
			q := ask(t, b, tt.tool, tt.args)
			if tt.change != nil {
				tt.change(q)
			}
			d := decide(t, b, q)
			if ids(d) != tt.ids {
				t.Errorf("determined by %q, want %q", ids(d), tt.ids)
			}
			d.Reasons = nil
			if !reflect.DeepEqual(d, tt.want) {
				t.Errorf("Decide = %+v, want %+v", d, tt.want)
			}
		})
	}
}

// Nobody climbs the ladder unless a policy that may apply listens.
func TestLadderOnlyWhereAPolicyListens(t *testing.T) {
	for policies, climbs := range map[string]bool{
		`permit (principal, action in Action::"tier:privileged", resource);`:                                false,
		`permit (principal, action, resource) when { context.assurance.passkeys > 7 };`:                     true,
		`permit (principal, action == Action::"mail.read", resource) when { context.assurance.level > 1 };`: false,
		`permit (principal in Group::"others", action, resource) when { context.assurance.level > 1 };`:     false,
		`forbid (principal, action, resource) when { context.label.secrecy > 1 };`:                          false,
	} {
		b := load(t, policies)
		q := ask(t, b, "mail.send", `{"to":"a"}`)
		bottom := testing.AllocsPerRun(10, func() { b.Decide(q) })
		q.Assurance = writ.TwoPasskeys
		top := testing.AllocsPerRun(10, func() { b.Decide(q) })
		if (bottom > top) != climbs {
			t.Errorf("%s: %v allocations from the bottom, %v from the top, want it climbed: %v", policies, bottom, top, climbs)
		}
	}
}

// A door that enforces elsewhere and shows no arguments gets an answer only
// if nothing reads them.
func TestArgumentsThatWereNotShown(t *testing.T) {
	tests := []struct {
		name, policies string
		change         func(*writ.Query)
		want           writ.Effect
		code           writ.Code
	}{
		{"nothing reads them", permitAll, nil, writ.Permit, ""},
		{"a policy of another tool does", permitAll + `forbid (principal, action == Action::"web.get", resource) when { context.args.url == "x" };`, nil, writ.Permit, ""},
		{"a policy does", permitAll + `forbid (principal, action == Action::"mail.send", resource) when { context.args.to == "x" };`, nil, writ.Deny, writ.NotRepresentable},
		{"a policy asks where they came from", permitAll + `forbid (principal, action, resource) when { !context.origin.untrusted.isEmpty() };`, nil, writ.Deny, writ.NotRepresentable},
		{"a policy asks for nulls", permitAll + `forbid (principal, action == Action::"mail.send", resource) when { context.nulls.contains("/note") };`, nil, writ.Deny, writ.NotRepresentable},
		{"the grant does", permitAll, bounds(writ.Bound{Argument: "/to", In: []string{"a"}}), writ.Deny, writ.OutsideTask},
		{"a budget does", permitAll, budget("/count", 10, 0), writ.Deny, writ.BudgetExceeded},
		{"a budget counts calls", permitAll, budget("", 10, 0), writ.Permit, ""},
		{"nobody consents to what nobody showed", `permit (principal, action, resource) when { context.assurance.reviewers >= 1 };`, nil, writ.Deny, writ.Forbidden},
		{"the agent proved its key", permitAll, func(q *writ.Query) { q.Caller.Proof = writ.ProofTLS }, writ.Deny, writ.NotRepresentable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := load(t, tt.policies)
			q := ask(t, b, "mail.send", `{"to":"a"}`)
			q.Caller.Proof, q.Action.Arguments, q.Provenance = writ.ProofAsserted, "", nil
			if tt.change != nil {
				tt.change(q)
			}
			if d := decide(t, b, q); d.Effect != tt.want || d.Code != tt.code {
				t.Errorf("Decide = %+v, want %v %q", d, tt.want, tt.code)
			}
		})
	}
}

// What was recorded can be decided again from the files alone.
func TestRestoredBundleDecidesTheSame(t *testing.T) {
	b, err := Load(Starter(), testTools)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Restore(b.Files())
	if err != nil {
		t.Fatal(err)
	}
	if again.Digest() != b.Digest() || b.Digest() == "" {
		t.Fatalf("restored as %s, want %s", again.Digest(), b.Digest())
	}
	for _, tool := range testTools {
		args := map[writ.ToolName]string{"mail.send": `{"to":"a"}`, "web.get": `{"url":"u"}`}[tool.Tool.Name]
		if args == "" {
			args = `{}`
		}
		for _, o := range []writ.Origin{writ.FromUntrusted, writ.FromAgent, writ.FromPrompt} {
			for _, label := range []writ.Label{{}, writ.Clean} {
				q := ask(t, b, tool.Tool.Name, args)
				q.Label = label
				for i := range q.Provenance {
					q.Provenance[i].Origin = o
				}
				if x, y := decide(t, b, q), decide(t, again, q); !reflect.DeepEqual(x, y) {
					t.Errorf("%s: %+v, restored %+v", tool.Tool.Name, x, y)
				}
			}
		}
	}
	files := b.Files()
	files[0].Text[0] ^= 1
	if _, err := Restore(b.Files()); err != nil {
		t.Errorf("a caller reached into the bundle: %v", err)
	}
}

// The digest names the names and contents of the files, in no order.
func TestDigest(t *testing.T) {
	one, two := File{"a.cedar", []byte(permitAll)}, File{"b.cedar", []byte(`forbid (principal, action, resource);`)}
	digest := func(files ...File) writ.Digest {
		t.Helper()
		b, err := Load(files, testTools)
		if err != nil {
			t.Fatal(err)
		}
		return b.Digest()
	}
	same := digest(one, two)
	if digest(two, one) != same {
		t.Error("the order of the files changes the digest")
	}
	for what, got := range map[string]writ.Digest{
		"a file fewer":    digest(one),
		"names exchanged": digest(File{"a.cedar", two.Text}, File{"b.cedar", one.Text}),
		"one more space":  digest(one, File{"b.cedar", append([]byte(" "), two.Text...)}),
	} {
		if got == same {
			t.Errorf("%s: the same digest", what)
		}
	}
	if b, err := Load([]File{one, two}, testTools[1:]); err != nil || b.Digest() == same {
		t.Errorf("a tool fewer: the same digest, %v", err)
	}
}

// TestAnswersToAnUpstreamAreContinuations asks for an action with input
// responses: what forbids continuations forbids it, what forbids the tool
// forbids it, and no permit for continuations lends it the tool.
func TestAnswersToAnUpstreamAreContinuations(t *testing.T) {
	const reads = `@id("reads") permit (principal, action in Action::"tier:read-only", resource);
`
	for name, c := range map[string]struct {
		policies string
		origin   writ.Origin
		want     writ.Effect
	}{
		"a permit for the tool":              {reads, writ.FromAgent, writ.Permit},
		"a forbid of continuations":          {reads + `forbid (principal, action in Action::"kind:continuation", resource);`, writ.FromAgent, writ.Deny},
		"a forbid among others":              {reads + `forbid (principal, action in [Action::"kind:continuation", Action::"tier:privileged"], resource);`, writ.FromAgent, writ.Deny},
		"a condition":                        {reads + `forbid (principal, action, resource) when { action in Action::"kind:continuation" };`, writ.FromAgent, writ.Deny},
		"by what goes up":                    {reads + `forbid (principal, action in Action::"kind:continuation", resource) when { !context.origin.untrusted.isEmpty() };`, writ.FromUntrusted, writ.Deny},
		"by what else goes up":               {reads + `forbid (principal, action in Action::"kind:continuation", resource) when { !context.origin.untrusted.isEmpty() };`, writ.FromAgent, writ.Permit},
		"by its name":                        {reads + `forbid (principal, action == Action::"mail.read", resource) when { context.origin.untrusted.contains("inputs") };`, writ.FromUntrusted, writ.Deny},
		"by the rule for arguments":          {reads + `forbid (principal, action in Action::"tier:read-only", resource) when { !context.origin.untrusted.isEmpty() };`, writ.FromUntrusted, writ.Deny},
		"a permit for continuations alone":   {`permit (principal, action in Action::"kind:continuation", resource);`, writ.FromAgent, writ.Deny},
		"a forbid of the tool":               {permitAll + `forbid (principal, action == Action::"mail.read", resource);`, writ.FromAgent, writ.Deny},
		"a forbid of continuations, by tool": {permitAll + `forbid (principal, action in Action::"kind:continuation", resource == Tool::"mail.read");`, writ.FromAgent, writ.Deny},
	} {
		t.Run(name, func(t *testing.T) {
			b := load(t, c.policies)
			q := ask(t, b, "mail.read", `{}`)
			q.Action.Inputs, q.Action.State = `{"q":{"action":"accept","content":{"code":"4711"}}}`, "held"
			for _, p := range []string{"inputs/q/action", "inputs/q/content/code"} {
				q.Provenance = append(q.Provenance, writ.Provenance{Argument: p, Origin: writ.FromPrompt})
			}
			from(q, "inputs/q/content/code", c.origin)
			if d := decide(t, b, q); d.Effect != c.want {
				t.Errorf("Decide = %+v, want %v", d, c.want)
			}
			q.Task.Unattended = true
			if d := decide(t, b, q); d.Code != writ.OutsideTask {
				t.Errorf("a task that nobody opened: %+v", d)
			}
			q.Task.Unattended, q.Action.Inputs = false, `{"q":`
			if d := decide(t, b, q); d.Effect != writ.Deny {
				t.Errorf("answers that are no JSON: %+v", d)
			}
		})
	}
}

// TestUntracedAnswersAreUntrusted leaves the provenance of an answer out.
func TestUntracedAnswersAreUntrusted(t *testing.T) {
	b := load(t, permitAll+`forbid (principal, action in Action::"kind:continuation", resource) when { !context.origin.untrusted.isEmpty() };`)
	q := ask(t, b, "mail.read", `{}`)
	q.Action.Inputs = `{"q":{"content":{"code":"4711"}}}`
	if d := decide(t, b, q); d.Effect != writ.Deny {
		t.Errorf("Decide = %+v, want a denial", d)
	}
}

// TestNamesOfAnOpenObjectCount gives the origin of a name in an object that
// policy sees as one text.
func TestNamesOfAnOpenObjectCount(t *testing.T) {
	b := load(t, permitAll+`forbid (principal, action == Action::"mail.send", resource) when { context.origin.untrusted.contains("/extra") };`)
	q := ask(t, b, "mail.send", `{"to":"a","extra":{"evil@example.org":true}}`)
	if d := decide(t, b, q); d.Effect != writ.Permit {
		t.Fatalf("Decide = %+v", d)
	}
	q.Provenance = append(q.Provenance, writ.Provenance{Argument: "/extra", Origin: writ.FromUntrusted})
	if d := decide(t, b, q); d.Effect != writ.Deny {
		t.Errorf("Decide = %+v, want a denial", d)
	}
}
