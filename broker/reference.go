package broker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxReferred bounds what a Reference reads.
const maxReferred = 64 << 10

// A Reference says where a secret of the operator's is kept: configuration
// holds references, and never a secret. Exactly one of File and Env is set.
type Reference struct {
	File string `yaml:"file"` // a regular file that only its owner, or its group, can read
	Env  string `yaml:"env"`  // an environment variable
}

// Read gives what r refers to, without a line's end at its end. It reads anew
// each time, for what rotates. The error never holds what was read.
func (r Reference) Read() ([]byte, error) {
	var b []byte
	switch {
	case (r.File == "") == (r.Env == ""):
		return nil, errors.New("a reference to a secret names either a file or an environment variable")
	case r.Env != "":
		b = []byte(os.Getenv(r.Env))
	default:
		var err error
		if b, err = readPrivate(r.File); err != nil {
			return nil, err
		}
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if len(b) == 0 {
		return nil, fmt.Errorf("there is no secret in %s%s", r.File, r.Env)
	}
	return b, nil
}

// readPrivate reads a file that others cannot read and nobody but its owner
// can write. A group may read: that is how orchestrators mount secrets.
func readPrivate(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	is, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !is.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	if mode := is.Mode().Perm(); mode&0o037 != 0 {
		return nil, fmt.Errorf("%s has mode %04o: others can read it or change it; chmod 600 it", name, mode)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxReferred+1))
	if err == nil && len(b) > maxReferred {
		err = fmt.Errorf("%s has more than %d bytes", name, maxReferred)
	}
	return b, err
}
