package broker

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/writgate/writ"
)

// A Placement says where a secret goes on its way to the tool. Exactly one of
// Header, Env and Argument is set.
type Placement struct {
	Header   string `yaml:"header"`   // an HTTP header
	Scheme   string `yaml:"scheme"`   // what stands before the secret in the header, such as "Bearer"
	Env      string `yaml:"env"`      // an environment variable of a stdio upstream
	Argument bool   `yaml:"argument"` // the last argument of a stdio upstream: every user of the machine can read it
}

// Check says what is wrong with p.
func (p Placement) Check() error {
	n := 0
	for _, set := range []bool{p.Header != "", p.Env != "", p.Argument} {
		if set {
			n++
		}
	}
	switch {
	case n != 1:
		return errors.New("want exactly one of header, env and argument")
	case strings.Trim(p.Header, headerChars) != "" || strings.Trim(p.Scheme, headerChars) != "":
		return fmt.Errorf("header %q with scheme %q is not one that HTTP can carry", p.Header, p.Scheme)
	case p.Scheme != "" && p.Header == "":
		return errors.New("a scheme needs a header")
	case strings.ContainsAny(p.Env, "=\x00"):
		return fmt.Errorf("%q is no name of an environment variable", p.Env)
	}
	return nil
}

const headerChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// A Lease is a credential on its way to one upstream. Only Broker.Lease makes
// one; the zero Lease, an expired one and a revoked one apply nothing and say
// so with an error.
type Lease struct {
	id       writ.LeaseID
	place    Placement
	secret   Secret    // zero if the tool needs none
	scrub    *scrubber // behind a pointer, as the secret is: it holds every form of it
	deadline time.Time
	now      func() time.Time
	ended    *atomic.Bool
}

// ID names the lease in records. It is empty for the zero Lease.
func (l *Lease) ID() writ.LeaseID {
	if l == nil {
		return ""
	}
	return l.id
}

func (l *Lease) String() string {
	if l.ID() == "" {
		return "[no lease]"
	}
	return "[" + string(l.id) + "]"
}

// Format holds for every verb.
func (l *Lease) Format(f fmt.State, _ rune) { fmt.Fprint(f, l.String()) }

// Check says whether the lease may be used now.
func (l *Lease) Check() error {
	switch {
	case l == nil || l.id == "":
		return errors.New("no lease")
	case l.ended.Load():
		return fmt.Errorf("lease %s has been revoked", l.id)
	case !l.now().Before(l.deadline):
		return fmt.Errorf("lease %s has expired", l.id)
	}
	return nil
}

// Apply puts the secret into the header of a request. A lease for a header
// replaces what stood there; one without a secret leaves h alone; one meant
// for a process is an error.
func (l *Lease) Apply(h http.Header) error {
	value, err := l.expose(l != nil && l.place.Header != "")
	if err != nil || value == "" {
		return err
	}
	if l.place.Scheme != "" {
		value = l.place.Scheme + " " + value
	}
	h.Set(l.place.Header, value)
	return nil
}

// Process gives what a stdio upstream's process needs: variables "NAME=value"
// for its environment and arguments after its own. A lease for a header is an
// error.
func (l *Lease) Process() (env, args []string, err error) {
	value, err := l.expose(l != nil && l.place.Header == "")
	if err != nil || value == "" {
		return nil, nil, err
	}
	if l.place.Argument {
		return nil, []string{value}, nil
	}
	return []string{l.place.Env + "=" + value}, nil, nil
}

// expose gives the secret, or "" if the lease has none.
func (l *Lease) expose(fits bool) (string, error) {
	if err := l.Check(); err != nil {
		return "", err
	}
	if l.place == (Placement{}) {
		return "", nil
	}
	if !fits {
		return "", fmt.Errorf("lease %s is not for this kind of upstream", l.id)
	}
	return l.secret.Expose()
}

// Scrub redacts the secret from what an upstream returned, and says whether
// it was there. All other bytes are kept; b is not changed. It works on a
// lease that has ended. What was JSON still is, unless the secret can stand in
// JSON outside a string, such as one of digits. See [scrubber] for the
// encodings it knows.
func (l *Lease) Scrub(b []byte) (clean []byte, echoed bool) {
	if l == nil || l.scrub == nil {
		return b, false
	}
	return l.scrub.clean(b)
}

// ScrubError redacts the secret from an error. An error that held it loses
// its chain: what it wraps could print it again.
func (l *Lease) ScrubError(err error) error {
	if err == nil {
		return nil
	}
	if clean, echoed := l.Scrub([]byte(err.Error())); echoed {
		return errors.New(string(clean))
	}
	return err
}
