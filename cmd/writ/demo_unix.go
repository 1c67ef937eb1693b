//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// startGroup starts a process at the head of a group of its own, which an
// interrupt at the terminal does not reach.
func startGroup(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd.Start()
}

// killGroup ends a process, and those that it started.
func killGroup(cmd *exec.Cmd) { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
