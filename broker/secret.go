package broker

import (
	"errors"
	"fmt"
	"log/slog"
)

// A Secret is a credential in memory. However it is printed, logged,
// marshalled or panicked with, it says only what it is called; the value is
// behind a pointer, so that printing a struct that holds a Secret shows an
// address. The zero Secret is no secret.
type Secret struct {
	name  string
	value *string
}

// Limits of a secret that can be found again in what a tool returns. Shorter
// ones would redact ordinary text.
const (
	minSecret = 8
	maxSecret = 16 << 10
)

// NewSecret makes a Secret of 8 to 16384 visible ASCII characters without
// quotation mark and backslash: what can be put into any header or variable,
// and recognised when it comes back. The name is public.
func NewSecret(name, value string) (Secret, error) {
	if len(value) < minSecret || len(value) > maxSecret {
		return Secret{}, fmt.Errorf("secret %q has %d bytes, want %d to %d", name, len(value), minSecret, maxSecret)
	}
	for i := range len(value) {
		if c := value[i]; c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return Secret{}, fmt.Errorf("secret %q has a character that cannot be redacted reliably", name)
		}
	}
	return Secret{name, &value}, nil
}

// Expose gives the value itself. It is for the driver that authenticates with
// it and for the last inch before the wire; every other use is a defect. It
// fails on the zero Secret.
func (s Secret) Expose() (string, error) {
	if s.value == nil {
		return "", errors.New("no secret")
	}
	return *s.value, nil
}

func (s Secret) String() string {
	if s.value == nil {
		return "[no secret]"
	}
	return "[secret " + s.name + "]"
}

// Format holds for every verb: %d or %x of a plain struct would show fields.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
