package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/writgate/writ"
)

// The types of a leaf. The list is closed for version 1.
const (
	TypeKey        = "key"        // a key of the log; the first record is one
	TypeBundle     = "bundle"     // a policy bundle came into force
	TypeAgent      = "agent"      // an agent was registered, suspended, certified …
	TypeTool       = "tool"       // a tool was reviewed or quarantined
	TypeTaskOpen   = "task.open"  // a task may act
	TypeTaskEnd    = "task.end"   // a task may not act any more
	TypeDecision   = "decision"   // a call was denied or deferred
	TypeWaiting    = "waiting"    // an approval was asked for
	TypeApproval   = "approval"   // a human answered
	TypeIntent     = "intent"     // a call will be made: at most one for each call
	TypeLease      = "lease"      // a credential was minted
	TypeOutcome    = "outcome"    // what came of an intent: exactly one for each intent
	TypeRevocation = "revocation" // a lease, a task, an agent, a capability is dead
	TypeHalt       = "halt"       // everything stops, or may go on
	TypeNoise      = "noise"      // refusals before identity, counted
	TypeErasure    = "erasure"    // payloads that can no longer be read
	TypeAdmin      = "admin"      // any other act of an operator
)

var types = []string{
	TypeKey, TypeBundle, TypeAgent, TypeTool, TypeTaskOpen, TypeTaskEnd, TypeDecision, TypeWaiting, TypeApproval,
	TypeIntent, TypeLease, TypeOutcome, TypeRevocation, TypeHalt, TypeNoise, TypeErasure, TypeAdmin,
}

// reserved are the types that are still written when the disk is full: what
// takes authority away, and what accounts for calls that were let through.
var reserved = []string{TypeOutcome, TypeRevocation, TypeHalt, TypeDecision, TypeTaskEnd}

// maxLeaf is the largest leaf, in bytes. Most have less than a quarter of it;
// a call that names an agent, a tool and its reasons at length must fit.
const maxLeaf = 4096

// A Leaf is what is committed forever: an RFC 6962 leaf whose bytes are JSON
// with the members below in this order, the empty ones left out, the members
// of Parts and Note sorted, the escapes of package canon, and no whitespace.
// One Leaf has one encoding, of at most 4 KiB.
//
// It is never erased, and may be published. No content belongs in it, nor a
// digest over content that can be guessed: those are Parts.
type Leaf struct {
	V           int                    `json:"v"` // 1; set by the ledger
	Type        string                 `json:"type"`
	Time        int64                  `json:"time"`              // Unix milliseconds, never less than the leaf before; set by the ledger
	Gateway     string                 `json:"gateway,omitempty"` // who wrote it; set by the ledger
	Call        writ.CallID            `json:"call,omitempty"`
	Task        writ.TaskID            `json:"task,omitempty"`
	Agent       writ.AgentID           `json:"agent,omitempty"`
	Key         writ.Thumbprint        `json:"key,omitempty"`
	User        string                 `json:"user,omitempty"` // a pseudonym; set by the ledger from Entry.User
	Tool        writ.ToolName          `json:"tool,omitempty"`
	Definition  writ.Digest            `json:"definition,omitempty"`
	Tier        string                 `json:"tier,omitempty"`
	Environment string                 `json:"environment,omitempty"`
	Bundle      writ.Digest            `json:"bundle,omitempty"`
	Effect      string                 `json:"effect,omitempty"`
	Code        writ.Code              `json:"code,omitempty"`
	Reasons     []string               `json:"reasons,omitempty"`
	Approval    writ.ApprovalID        `json:"approval,omitempty"`
	Capability  string                 `json:"capability,omitempty"`
	Lease       string                 `json:"lease,omitempty"`
	Parts       map[string]writ.Digest `json:"parts,omitempty"` // salted commitments to the payload; set by the ledger
	Note        map[string]string      `json:"note,omitempty"`  // small facts of this type, never content
}

// parseLeaf decodes a leaf of version 1 and refuses every text that is not
// the one encoding of what it says: another order, whitespace, another escape,
// a member twice, or one that version 1 does not know.
func parseLeaf(b []byte) (*Leaf, error) {
	if len(b) > maxLeaf {
		return nil, fmt.Errorf("a leaf of %d bytes; the most is %d", len(b), maxLeaf)
	}
	l := new(Leaf)
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(l); err != nil {
		return nil, errors.New("a leaf that version 1 does not know")
	}
	if err := l.check(); err != nil {
		return nil, err
	}
	if !bytes.Equal(l.append(nil), b) {
		return nil, errors.New("a leaf that is not in its one encoding")
	}
	return l, nil
}

// check holds for every leaf that is written or read.
func (l *Leaf) check() error {
	if l.V != 1 {
		return fmt.Errorf("a leaf of version %d; this is version 1", l.V)
	}
	if !slices.Contains(types, l.Type) {
		return fmt.Errorf("a leaf of the unknown type %.40q", l.Type)
	}
	if dense := l.Type == TypeIntent || l.Type == TypeOutcome; dense && l.Call == "" {
		return fmt.Errorf("an %s without a call", l.Type)
	}
	ok := true
	for _, s := range [...]string{
		l.Gateway, string(l.Call), string(l.Task), string(l.Agent), string(l.Key), l.User, string(l.Tool),
		string(l.Definition), l.Tier, l.Environment, string(l.Bundle), l.Effect, string(l.Code),
		string(l.Approval), l.Capability, l.Lease,
	} {
		ok = ok && utf8.ValidString(s)
	}
	for _, s := range l.Reasons {
		ok = ok && utf8.ValidString(s)
	}
	for k, v := range l.Note {
		ok = ok && utf8.ValidString(k) && utf8.ValidString(v)
	}
	for k, v := range l.Parts {
		ok = ok && utf8.ValidString(k) && utf8.ValidString(string(v))
	}
	if !ok {
		return errors.New("a leaf with text that is not UTF-8")
	}
	return nil
}

// append appends the encoding of l to b.
func (l *Leaf) append(b []byte) []byte {
	b = strconv.AppendInt(append(b, `{"v":`...), int64(l.V), 10)
	b = appendString(append(b, `,"type":`...), l.Type)
	b = strconv.AppendInt(append(b, `,"time":`...), l.Time, 10)
	b = appendMember(b, "gateway", l.Gateway)
	b = appendMember(b, "call", string(l.Call))
	b = appendMember(b, "task", string(l.Task))
	b = appendMember(b, "agent", string(l.Agent))
	b = appendMember(b, "key", string(l.Key))
	b = appendMember(b, "user", l.User)
	b = appendMember(b, "tool", string(l.Tool))
	b = appendMember(b, "definition", string(l.Definition))
	b = appendMember(b, "tier", l.Tier)
	b = appendMember(b, "environment", l.Environment)
	b = appendMember(b, "bundle", string(l.Bundle))
	b = appendMember(b, "effect", l.Effect)
	b = appendMember(b, "code", string(l.Code))
	if len(l.Reasons) != 0 {
		b = append(b, `,"reasons":`...)
		for i, r := range l.Reasons {
			b = appendString(append(b, "[,"[min(i, 1)]), r)
		}
		b = append(b, ']')
	}
	b = appendMember(b, "approval", string(l.Approval))
	b = appendMember(b, "capability", l.Capability)
	b = appendMember(b, "lease", l.Lease)
	b = appendMap(b, "parts", l.Parts)
	b = appendMap(b, "note", l.Note)
	return append(b, '}')
}

func appendMember(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(append(append(b, `,"`...), name...), `":`...)
	return appendString(b, value)
}

func appendMap[V ~string](b []byte, name string, m map[string]V) []byte {
	if len(m) == 0 {
		return b
	}
	b = append(append(append(b, `,"`...), name...), `":`...)
	keys := make([]string, 0, 8)
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for i, k := range keys {
		b = append(appendString(append(b, "{,"[min(i, 1)]), k), ':')
		b = appendString(b, string(m[k]))
	}
	return append(b, '}')
}

// appendString quotes s, which is UTF-8, with the escapes that RFC 8259
// demands and no others.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[start:i]...)
		start = i + 1
		if j := strings.IndexByte("\"\\\b\f\n\r\t", c); j >= 0 {
			b = append(b, '\\', `"\bfnrt`[j])
		} else {
			const hex = "0123456789abcdef"
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(append(b, s[start:]...), '"')
}
