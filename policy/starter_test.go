package policy

import (
	"strings"
	"testing"
)

func TestStarterKeepsItsPromises(t *testing.T) {
	b, err := Load(Starter(), nil)
	if err != nil {
		t.Fatal(err)
	}
	decisive := map[string]bool{}
	for _, f := range StarterTests() {
		results, err := RunTests(b, f)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			for _, p := range r.Problems {
				t.Errorf("%s:%d: %s: %s", r.File, r.Line, r.Name, p)
			}
			for _, reason := range r.Decision.Reasons {
				decisive[reason.Policy] = true
			}
		}
	}
	for _, r := range b.policies {
		if !decisive[r.reason.Policy] {
			t.Errorf("no test of the starter policies is decided by %s", r.reason.Policy)
		}
	}
}

// A policy that permits everything, added to the starter policies, opens
// nothing that they closed.
func TestStarterHoldsWhateverIsAdded(t *testing.T) {
	open := File{"open.cedar", []byte(`permit (principal, action, resource);`)}
	b, err := Load(append(Starter(), open), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range StarterTests() {
		results, err := RunTests(b, f)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			for _, p := range r.Problems {
				if strings.HasPrefix(p, "effect") {
					t.Errorf("%s: %s", r.Name, p)
				}
			}
		}
	}
}
