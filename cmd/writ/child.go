package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/writgate/writ"
)

// credential matches the names of variables that hold what an agent should
// not have: with Writ it needs none.
var credential = regexp.MustCompile(`(?i)(^|_)(token|secret|pass|api_?key|(access|private|signing|encryption|session|master)_?key|credentials?|dsn|auth|cookies?|webhook|askpass|bindpw|pat|jwt|bearer)(_|$)|` +
	`(password|passwd|passphrase|passfile|pwd)(_|$)|` +
	`^(aws|azure|arm|gcp|google|github|gh|gitlab|stripe|slack|openai|anthropic|vault|consul|nomad|npm|pypi|docker|kube|pg|mysql|redis|mongo)[a-z0-9]*_|` +
	`(database|db|redis|mongo|amqp|postgres|mysql|smtp|jdbc)[a-z_]*_?(url|uri)$|^(op|bw)_session|` +
	`^(kubeconfig|ssh_auth_sock|ssh_agent_pid|gpg_agent_info|dbus_session_bus_address|krb5ccname|netrc|sshpass)$`)

// userinfo matches an address with a password in it (RFC 3986, 3.2.1).
var userinfo = regexp.MustCompile(`://[^/\s:@]*:[^/\s@]+@`)

// childEnv is the environment of an agent: its parent's, without what looks
// like a credential and without anything of Writ's own. It names what it left
// out. Keep names variables that the operator wants the agent to have.
func childEnv(env, keep []string) (left, dropped []string) {
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		kept := name == "PWD" || name == "OLDPWD" || slices.Contains(keep, name)
		if !kept && (credential.MatchString(name) || strings.HasPrefix(name, "WRIT_") || userinfo.MatchString(value)) {
			dropped = append(dropped, name)
			continue
		}
		left = append(left, kv)
	}
	slices.Sort(dropped)
	return left, dropped
}

// reachable lists what an agent that runs as this user can still get at
// without Writ: files and sockets that hold authority of their own.
func reachable(home string) []string {
	var found []string
	for _, name := range []string{
		".ssh", ".aws", ".azure", ".config/gcloud", ".kube/config", ".docker/config.json", ".netrc", ".git-credentials",
		".config/gh/hosts.yml", ".npmrc", ".pypirc", ".pgpass", ".gnupg",
	} {
		if _, err := os.Stat(filepath.Join(home, name)); err == nil {
			found = append(found, "~/"+name)
		}
	}
	for _, name := range []string{"/var/run/docker.sock", "/run/containerd/containerd.sock"} {
		if f, err := os.OpenFile(name, os.O_RDWR, 0); err == nil {
			f.Close()
			found = append(found, name)
		} else if errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) {
			continue
		} else { // a socket cannot be opened as a file: it is there, and may be dialed
			found = append(found, name)
		}
	}
	return found
}

// isolate finds the user that the agent is to run as, which is not the one who
// runs Writ.
func isolate(name string) (*user.User, writ.Isolation, error) {
	if name == "" {
		return nil, writ.IsolationNone, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, writ.IsolationNone, err
	}
	if u.Uid == fmt.Sprint(os.Getuid()) || u.Uid == "0" {
		return nil, writ.IsolationNone, fmt.Errorf("%s is who runs Writ, or root: that isolates nothing", name)
	}
	if os.Getuid() != 0 {
		return nil, writ.IsolationNone, errors.New("only root can start an agent as another user")
	}
	return u, writ.IsolationUID, nil
}
