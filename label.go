package writ

import "fmt"

// A Tier says how much harm a tool can do. The zero Tier is privileged: what
// nobody classified needs a human.
type Tier uint8

const (
	Privileged   Tier = iota // a human approves
	BoundedWrite             // within declared bounds and budgets
	ReadOnly                 // changes nothing
)

// A Class is the confidentiality of data. The zero Class is restricted.
type Class uint8

const (
	Restricted Class = iota
	Confidential
	Internal
	Public
)

// Integrity says whether data may steer what an agent does. The zero
// Integrity is untrusted.
type Integrity uint8

const (
	Untrusted Integrity = iota
	Trusted
)

// A Label is what is known of data: who may see it, and whether it may steer.
// The zero Label is untrusted and restricted.
type Label struct {
	Integrity Integrity `json:"integrity"`
	Class     Class     `json:"class"`
}

// Clean is the label of a task that has read nothing yet.
var Clean = Label{Trusted, Public}

// Join is the label of data made from both: as secret as the more secret, as
// trusted as the less trusted. It is a semilattice; Clean is its identity.
func (l Label) Join(m Label) Label {
	return Label{min(l.Integrity, m.Integrity), min(l.Class, m.Class)}
}

// An Origin says where an argument's value came from. The zero Origin is
// untrusted.
type Origin uint8

const (
	FromUntrusted Origin = iota // whole value, or part of it, in an untrusted result only
	FromAgent                   // found nowhere: the agent made it
	FromTrusted                 // a whole leaf of a trusted result
	FromRoster                  // a whole leaf of a directory the registry names
	FromBound                   // a leaf of a record bound to the prompt
	FromUser                    // the user's own identity
	FromPrompt                  // in attested instructions
)

// PointerInputs begins the pointers into the input responses of an action, as
// the empty text begins those into its arguments.
const PointerInputs = "inputs"

// Provenance is the origin of one argument leaf, with the evidence for it.
type Provenance struct {
	Argument string `json:"argument"` // JSON Pointer (RFC 6901) into the arguments or, behind "inputs", the input responses
	Origin   Origin `json:"origin"`
	Source   CallID `json:"source,omitempty"` // the call whose result holds it
	Field    string `json:"field,omitempty"`  // JSON Pointer into that result
	Start    int    `json:"start,omitempty"`  // bytes within the field's text
	End      int    `json:"end,omitempty"`
}

var (
	tierNames      = []string{"privileged", "bounded-write", "read-only"}
	classNames     = []string{"restricted", "confidential", "internal", "public"}
	integrityNames = []string{"untrusted", "trusted"}
	originNames    = []string{"untrusted", "agent", "trusted", "roster", "bound", "user", "prompt"}
)

func nameOf(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return fmt.Sprintf("unknown(%d)", i)
}

func marshalName(names []string, i int) ([]byte, error) {
	if i >= len(names) {
		return nil, fmt.Errorf("no name for value %d", i)
	}
	return []byte(names[i]), nil
}

func unmarshalName[T ~uint8](v *T, names []string, what string, b []byte) error {
	for i, n := range names {
		if n == string(b) {
			*v = T(i)
			return nil
		}
	}
	return fmt.Errorf("unknown %s %q", what, clip(string(b), 40))
}

func (t Tier) String() string                { return nameOf(tierNames, int(t)) }
func (t Tier) MarshalText() ([]byte, error)  { return marshalName(tierNames, int(t)) }
func (t *Tier) UnmarshalText(b []byte) error { return unmarshalName(t, tierNames, "tier", b) }

func (c Class) String() string                { return nameOf(classNames, int(c)) }
func (c Class) MarshalText() ([]byte, error)  { return marshalName(classNames, int(c)) }
func (c *Class) UnmarshalText(b []byte) error { return unmarshalName(c, classNames, "data class", b) }

func (i Integrity) String() string               { return nameOf(integrityNames, int(i)) }
func (i Integrity) MarshalText() ([]byte, error) { return marshalName(integrityNames, int(i)) }
func (i *Integrity) UnmarshalText(b []byte) error {
	return unmarshalName(i, integrityNames, "integrity", b)
}

func (o Origin) String() string                { return nameOf(originNames, int(o)) }
func (o Origin) MarshalText() ([]byte, error)  { return marshalName(originNames, int(o)) }
func (o *Origin) UnmarshalText(b []byte) error { return unmarshalName(o, originNames, "origin", b) }
