package main

import (
	"fmt"
	"os"
	"os/user"

	"github.com/writgate/writ"
)

// An operatorInitCmd makes an operator's key.
type operatorInitCmd struct {
	User string `help:"Who you are, in records and to other operators. Your login name if it is left out."`
}

// Help says what the key is for.
func (operatorInitCmd) Help() string {
	return `The key signs what adds authority: approvals, reviews, policies, the end of a halt. It is sealed under a passphrase, so that an agent that runs as you cannot use it. WRIT_PASSPHRASE_FILE can name a file that holds the passphrase, where nobody can be asked for it.

The gateway knows you by the key's thumbprint. Put the lines that this prints into its writ.yaml.`
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
	return s.printOperator(writ.UserID(c.User), thumbprint)
}

const leastPassphrase = 10 // characters

// newPassphrase asks twice on a terminal.
func (s *session) newPassphrase() (string, error) {
	first, err := s.passphrase("New passphrase: ")
	if err != nil {
		return "", err
	}
	if len(first) < leastPassphrase {
		return "", &usageError{fmt.Sprintf("a passphrase of less than %d characters is guessed offline", leastPassphrase)}
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
	return s.printOperator(k.user, k.thumbprint)
}

func (s *session) printOperator(who writ.UserID, thumbprint writ.Thumbprint) error {
	if s.wantsJSON() {
		return s.json(map[string]string{"user": string(who), "key": string(thumbprint), "file": s.OperatorKey})
	}
	fprintf(s.errs, "%s\n\nfor the gateway's writ.yaml:\n\n", s.OperatorKey)
	s.printf("registry:\n  operators:\n    - user: %s\n      key: %s\n", who, thumbprint)
	return nil
}
