package policy

import (
	"strings"
	"testing"
)

func TestRunTests(t *testing.T) {
	const send = "    tool: mail.send\n    arguments: {to: a}\n"
	ok := "tests:\n  - name: x\n" + send
	tests := []struct {
		name, text string
		err        string // of the file
		problem    string // of the only test
	}{
		{name: "passes", text: ok + "    want: {effect: permit, reasons: [all]}"},
		{name: "not YAML", text: "tests: [", err: "test.yaml: "},
		{name: "no tests", text: "tools: []", err: "has no tests"},
		{name: "an unknown key", text: ok + "    wants: {effect: permit}", err: "wants"},
		{name: "an unknown key inside", text: ok + "    want: {effect: permit, because: x}", err: "because"},
		{name: "a key twice", text: ok + "    want: {effect: permit}\n    want: {effect: deny}", err: "want"},
		{name: "an unknown effect", text: ok + "    want: {effect: allow}", err: "allow"},
		{name: "an unknown origin", text: ok + "    origins: {/to: heaven}\n    want: {effect: permit}", err: "heaven"},
		{name: "no effect", text: ok + "    want: {code: forbidden}", err: `test.yaml:2: "x": a test wants an effect`},
		{name: "a step-up to nobody", text: ok + "    want: {effect: step-up}", err: "who is required"},
		{name: "no name", text: "tests:\n  - want: {effect: permit}\n" + send, err: "a test needs a name"},
		{name: "no such tool", text: "tests:\n  - name: x\n    tool: mail.sent\n    want: {effect: permit}", err: `there is no tool "mail.sent"`},
		{name: "an origin of nothing", text: ok + "    origins: {/cc: prompt}\n    want: {effect: permit}", err: "not there"},
		{name: "a number that does not survive", text: "tests:\n  - name: x\n    tool: mail.send\n    arguments: {to: a, count: 1_000}\n    want: {effect: permit}", err: "arguments"},
		{name: "arguments that are a text", text: "tests:\n  - name: x\n    tool: mail.send\n    arguments: '{\"to\":\"a\"}'\n    want: {effect: deny, code: not_representable}"},
		{name: "another effect", text: ok + "    want: {effect: deny}", problem: "effect is permit, want deny"},
		{name: "another code", text: ok + "    task: {grant: [{tool: web.*}]}\n    want: {effect: deny, code: forbidden}", problem: "code is outside_task, want forbidden"},
		{name: "another argument", text: ok + "    task: {grant: [{tool: mail.send, bounds: [{argument: /amount, max: 5}]}]}\n    want: {effect: deny, argument: /to}", problem: "argument is /amount, want /to"},
		{name: "other reasons", text: ok + "    want: {effect: permit, reasons: [all, other]}", problem: "reasons is [all], want [all other]"},
		{name: "no reasons", text: ok + "    want: {effect: permit, reasons: []}", problem: "reasons is [all], want []"},
		{name: "other redactions", text: ok + "    want: {effect: permit, redact: [/ssn]}", problem: "redact is [], want [/ssn]"},
		{name: "somebody else", text: ok + "    caller: {proof: asserted}\n    want: {effect: step-up, requires: two-passkeys}", problem: "requires is one-passkey, want two-passkeys"},
		{name: "every part", text: `
tests:
  - name: x
    agent: {id: "spiffe://acme.example/a", owner: olga, environment: prod, groups: [support], highest_tier: bounded-write}
    caller: {proof: mtls, user: maya, chain: ["spiffe://acme.example/b"]}
    task: {instructions: pay, origin: user, environment: prod, isolation: host, delegated: true, user: maya, age: 10m, left: 1h,
      grant: [{tool: mail.send, bounds: [{argument: /amount, min: 0.5, max: 10}]}], budgets: [{name: n, tool: mail.*, sum: /count, limit: 9007199254740993}]}
    tool: mail.send
    arguments: {to: "7", cc: [a, b], count: 9007199254740993, amount: 9.5, urgent: true, note: null}
    origins: {/to: prompt, /cc/0: roster}
    label: {integrity: untrusted, class: internal}
    spent: {n: 0}
    time: 2026-01-14T12:00:00Z
    assurance: one-reviewer
    want: {effect: permit}`},
	}
	b := load(t, permitAll+`forbid (principal, action, resource) when { context.caller.proof == Proof::"asserted" } unless { context.assurance.passkeys >= 1 };`)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			results, err := RunTests(b, File{"test.yaml", []byte(tt.text)})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.HasPrefix(err.Error(), "test.yaml:") {
					t.Errorf("RunTests = %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || len(results) != 1 {
				t.Fatalf("RunTests = %v, %v", results, err)
			}
			if got := strings.Join(results[0].Problems, "; "); got != tt.problem {
				t.Errorf("problems: %s\nwant: %s", got, tt.problem)
			}
		})
	}
}

// What no check of one policy sees, the tests do: a policy that fails only
// once the assurance is high.
func TestMoreAssuranceNeverPermitsLess(t *testing.T) {
	b := load(t, `permit (principal, action, resource) when { context.assurance.level + 9223372036854775805 > 0 };`)
	results, err := RunTests(b, File{"test.yaml", []byte("tests:\n  - name: x\n    tool: mail.read\n    want: {effect: permit}")})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(results[0].Problems, "; "); !strings.Contains(got, "one-passkey permits less than a weaker assurance") {
		t.Errorf("problems: %s", got)
	}
}

func TestStandIns(t *testing.T) {
	b := load(t, permitAll+`@id("pay") forbid (principal, action in Action::"tier:privileged", resource);`)
	const tests = "\ntests:\n  - name: x\n    tool: pay.refund\n    arguments: {amount: 3}\n    want: {effect: deny, reasons: [pay]}\n  - name: y\n    tool: mail.read\n    want: {effect: permit}\n"
	results, err := RunTests(b, File{"t.yaml", []byte("tools: [{name: pay.refund, input: {type: object, properties: {amount: {type: integer}}}}]" + tests)})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if len(r.Problems) > 0 {
			t.Errorf("%s:%d: %v", r.File, r.Line, r.Problems)
		}
	}
	if _, err := RunTests(new(Bundle), File{"t.yaml", []byte("tools: [{name: pay.refund}]" + tests)}); err == nil {
		t.Error("a test of a tool that nobody has was run")
	}
	for name, want := range map[string]string{"mail.send": "exists", "refund": "not a tool of upstream", "a:b.c": "not a tool of upstream"} {
		if _, err := RunTests(b, File{"t.yaml", []byte("tools: [{name: '" + name + "'}]" + tests)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a stand-in named %s: %v, want %q", name, err, want)
		}
	}
}
