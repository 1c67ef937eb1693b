//go:build !unix

package upstream

import (
	"errors"
	"os/exec"
)

type signal int

const (
	end signal = iota
	kill
)

func (signal) send(*exec.Cmd) {}

func startGroup(*exec.Cmd) error {
	return errors.New("this system has no process groups: a stdio upstream could not be ended for certain")
}
