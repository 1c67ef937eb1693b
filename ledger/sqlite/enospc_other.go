//go:build !unix

package sqlite

import (
	"errors"
	"syscall"
)

// full says whether a disk was full.
func full(err error) bool { return errors.Is(err, syscall.ENOSPC) }
