package main

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

type osUser = user.User

// hideMemory keeps processes of the same user from reading this one's memory
// and from tracing it (prctl(2), PR_SET_DUMPABLE), and leaves no core behind.
func hideMemory() {
	const prSetDumpable = 4
	syscall.RawSyscall(syscall.SYS_PRCTL, prSetDumpable, 0, 0)
	syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
}

// runAs makes cmd run as another user.
func runAs(cmd *exec.Cmd, u *osUser) error {
	if u == nil {
		return nil
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), NoSetGroups: false}}
	cmd.Env = append(cmd.Env, "HOME="+u.HomeDir, "USER="+u.Username, "LOGNAME="+u.Username)
	return nil
}

// peerCheck admits connections of one user only: the agent's. The kernel says
// whose a connection on loopback is (/proc/net/tcp).
func peerCheck(as *osUser) func(*http.Request) error {
	want := strconv.Itoa(os.Getuid())
	if as != nil {
		want = as.Uid
	}
	return func(r *http.Request) error {
		uid, err := peerUID(r.RemoteAddr)
		if err != nil {
			return fmt.Errorf("whose connection this is cannot be told: %w", err)
		}
		if uid != want {
			return errors.New("this endpoint is another user's")
		}
		return nil
	}
}

// peerUID is the user whose socket has this local address, IPv4 on loopback.
func peerUID(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	ip := net.ParseIP(host).To4()
	n, err := strconv.ParseUint(port, 10, 16)
	if ip == nil || err != nil {
		return "", fmt.Errorf("%q is no IPv4 address", addr)
	}
	local := fmt.Sprintf("%s:%04X", strings.ToUpper(hex.EncodeToString([]byte{ip[3], ip[2], ip[1], ip[0]})), n)
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > 7 && fields[1] == local {
			return fields[7], nil
		}
	}
	return "", errors.New("no such socket")
}
