package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"

	"github.com/writgate/writ"
)

// An operatorInitCmd makes an operator's key.
type operatorInitCmd struct {
	User string `help:"Who you are, in records and to other operators. Your login name if it is left out."`
}

// Help says what the key is for.
func (operatorInitCmd) Help() string {
	return `The key signs what adds authority: approvals, reviews, policies, the end of a halt. It is sealed under a passphrase, so that an agent that runs as you cannot use it. WRIT_PASSPHRASE_FILE can name a file that holds the passphrase, where nobody can be asked for it.

The gateway knows you by the key's thumbprint. Where its data directory has no writ.yaml yet, this makes one that lists you; otherwise put the lines that it prints there.`
}

// Run makes the key, unless there is one.
func (c operatorInitCmd) Run(s *session) error {
	if c.User == "" {
		u, err := user.Current()
		if err != nil {
			return &usageError{"who are you? --user says it"}
		}
		c.User = u.Username
	}
	if _, err := os.Lstat(s.OperatorKey); err == nil {
		return refuse("%s is there already, and is left as it is", s.OperatorKey)
	}
	passphrase, err := s.newPassphrase()
	if err != nil {
		return err
	}
	thumbprint, err := createKey(s.OperatorKey, writ.UserID(c.User), passphrase)
	if err != nil {
		return err
	}
	file := filepath.Join(s.Dir, "writ.yaml")
	made, err := s.register(file, writ.UserID(c.User), thumbprint)
	if err != nil {
		return err
	}
	where := "add to " + file + ", which the gateway reads when it starts:"
	if made {
		where = "written to " + file + ":"
	}
	return s.printOperator(writ.UserID(c.User), thumbprint, where)
}

// register begins a writ.yaml with its first operator. One that is there is
// left as it is: who is in it is for those who are.
func (s *session) register(file string, who writ.UserID, thumbprint writ.Thumbprint) (made bool, err error) {
	if err := privateDir(s.Dir); err != nil {
		return false, err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, err = f.WriteString(operatorLines(who, thumbprint))
	return true, errors.Join(err, f.Sync(), f.Close())
}

// operatorLines are what a writ.yaml says of an operator.
func operatorLines(who writ.UserID, thumbprint writ.Thumbprint) string {
	return fmt.Sprintf("registry:\n  operators:\n    - user: %q\n      key: %s\n", who, thumbprint)
}

const leastPassphrase = 10 // characters

// newPassphrase asks twice on a terminal.
func (s *session) newPassphrase() (string, error) {
	first, err := s.passphrase("New passphrase: ")
	if err != nil {
		return "", err
	}
	if len(first) < leastPassphrase {
		return "", refuse("whoever gets hold of the key's file guesses a passphrase of less than %d characters; nothing was made", leastPassphrase)
	}
	again, err := s.passphrase("Once more: ")
	if err != nil {
		return "", err
	}
	if again != first {
		return "", refuse("that was not the same; nothing was made")
	}
	return first, nil
}

// An operatorShowCmd shows the key's public side.
type operatorShowCmd struct{}

// Run needs no passphrase.
func (operatorShowCmd) Run(s *session) error {
	k, err := s.readKey()
	if err != nil {
		return err
	}
	return s.printOperator(k.user, k.thumbprint, "in the writ.yaml of a gateway that you are an operator of:")
}

func (s *session) printOperator(who writ.UserID, thumbprint writ.Thumbprint, where string) error {
	if s.wantsJSON() {
		return s.json(map[string]string{"user": string(who), "key": string(thumbprint), "file": s.OperatorKey})
	}
	fprintf(s.errs, "your key, sealed: %s\n%s\n\n", s.OperatorKey, where)
	s.print(operatorLines(who, thumbprint))
	return nil
}
