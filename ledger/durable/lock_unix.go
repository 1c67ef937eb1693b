//go:build unix && !solaris && !aix

package durable

import (
	"errors"
	"os"
	"syscall"
)

// Lock takes the lock file at path, which it makes, and gives the function
// that lets it go. If it does not wait, a lock that somebody else holds is an
// error. The lock ends with the process.
func Lock(path string, wait bool) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	how := syscall.LOCK_EX
	if !wait {
		how |= syscall.LOCK_NB
	}
	for {
		if err = syscall.Flock(int(f.Fd()), how); err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(&os.PathError{Op: "lock", Path: path, Err: err}, f.Close())
	}
	return f.Close, nil
}
