//go:build unix

package upstream

import (
	"os/exec"
	"syscall"
)

// A signal is what is sent to a process group.
type signal syscall.Signal

const (
	end  = signal(syscall.SIGTERM) // please
	kill = signal(syscall.SIGKILL)
)

func (s signal) send(cmd *exec.Cmd) { syscall.Kill(-cmd.Process.Pid, syscall.Signal(s)) }

// startGroup starts a process at the head of a group of its own. What it
// starts is in the group, unless it takes pains to leave it.
func startGroup(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	limit(cmd.Process.Pid)
	return nil
}
