//go:build !unix

package upstream

import (
	"errors"
	"os/exec"
)

func startGroup(*exec.Cmd) (func(), error) {
	return nil, errors.New("this system has no process groups: a stdio upstream could not be ended for certain")
}

func endGroup(*exec.Cmd) {}
