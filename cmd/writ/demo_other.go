//go:build !unix

package main

import "os/exec"

func startGroup(cmd *exec.Cmd) error { return cmd.Start() }
func killGroup(cmd *exec.Cmd)        { cmd.Process.Kill() }
