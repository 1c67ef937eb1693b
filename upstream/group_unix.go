//go:build unix

package upstream

import (
	"os/exec"
	"syscall"
)

// startGroup starts a process at the head of a group of its own, and gives
// what kills the group.
func startGroup(cmd *exec.Cmd) (kill func(), err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	limit(cmd.Process.Pid)
	group := -cmd.Process.Pid
	return func() { syscall.Kill(group, syscall.SIGKILL) }, nil
}

// endGroup asks every process of the group to end.
func endGroup(cmd *exec.Cmd) { syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
