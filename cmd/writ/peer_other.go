//go:build !linux

package main

import (
	"errors"
	"net/http"
	"os/exec"
	"os/user"
)

type osUser = user.User

// hideMemory does nothing here: a process of the same user can trace this one.
func hideMemory() {}

func runAs(_ *exec.Cmd, u *osUser) error {
	if u != nil {
		return errors.New("starting an agent as another user works on Linux only")
	}
	return nil
}

// peerCheck admits whoever knows the secret: the kernel is not asked here.
func peerCheck(*osUser) func(*http.Request) error {
	return func(*http.Request) error { return nil }
}
