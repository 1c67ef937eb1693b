//go:build unix

package sqlite

import (
	"errors"
	"syscall"
)

// full says whether a disk, or a quota, was full.
func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }
