package writ

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"strings"
	"time"
)

// An AgentID names an agent: its SPIFFE ID, such as
// "spiffe://acme.example/agent/billing".
type AgentID string

// A UserID names a person on whose behalf an agent acts, or who approves.
type UserID string

// The identifiers that Writ makes are a prefix and a UUIDv7 (RFC 9562) in
// lower-case Crockford base32: unguessable, and sorted by time of making.
type (
	TaskID       string // task_…
	CallID       string // call_…
	ApprovalID   string // appr_…
	CapabilityID string // cap_…
	LeaseID      string // lease_…
)

type madeID interface {
	TaskID | CallID | ApprovalID | CapabilityID | LeaseID
}

var crockford = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

func prefixOf[T madeID]() string {
	var zero T
	switch any(zero).(type) {
	case TaskID:
		return "task_"
	case CallID:
		return "call_"
	case ApprovalID:
		return "appr_"
	case CapabilityID:
		return "cap_"
	case LeaseID:
		return "lease_"
	}
	panic("unreachable: madeID is closed")
}

// NewID makes an identifier at the given time, with 74 random bits.
func NewID[T madeID](now time.Time) T {
	var u [16]byte
	rand.Read(u[6:])
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(now.UnixMilli()))
	copy(u[:6], ms[2:])
	u[6] = u[6]&0x0f | 0x70
	u[8] = u[8]&0x3f | 0x80
	return T(prefixOf[T]() + crockford.EncodeToString(u[:]))
}

// FirstID sorts before every identifier that is made at the given time or
// later, and after every one that was made before. It names nothing.
func FirstID[T madeID](at time.Time) T {
	var u [16]byte
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(max(0, at.UnixMilli())))
	copy(u[:6], ms[2:])
	return T(prefixOf[T]() + crockford.EncodeToString(u[:]))
}

// ParseID checks that s is an identifier of this kind. It says nothing about
// whether what it names exists.
func ParseID[T madeID](s string) (T, error) {
	prefix := prefixOf[T]()
	rest, ok := strings.CutPrefix(s, prefix)
	if ok && len(rest) == 26 {
		if u, err := crockford.DecodeString(rest); err == nil && crockford.EncodeToString(u) == rest {
			return T(s), nil
		}
	}
	return "", fmt.Errorf("%q is not an identifier of the form %s…", clip(s, 64), prefix)
}

// clip bounds text of a stranger that goes into an error.
func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}
