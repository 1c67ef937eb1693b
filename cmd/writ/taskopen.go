package main

import (
	"crypto/x509"
	"encoding/pem"
	"os"

	"github.com/writgate/writ"
	"github.com/writgate/writ/identity"
	"github.com/writgate/writ/server/admin/api"
)

// A tasksOpenCmd opens a task.
type tasksOpenCmd struct {
	Agent   string          `arg:"" help:"The agent, by its SPIFFE ID."`
	Key     string          `xor:"key" required:"" placeholder:"THUMBPRINT" help:"Whose calls are the task's: a key's thumbprint (RFC 7638)."`
	Cert    string          `xor:"key" required:"" type:"existingfile" placeholder:"FILE" help:"Or the PEM file of the agent's certificate."`
	For     string          `required:"" placeholder:"PURPOSE" help:"What the agent is to do, in your words: they are the prompt that its calls are judged by."`
	Data    string          `type:"existingfile" placeholder:"FILE" help:"A file that goes with the purpose and is nobody's instruction, such as a mail."`
	Tools   []writ.ToolName `placeholder:"TOOL" help:"The tools it may use, such as mail.*; every tool that policy permits, if none are named."`
	Grant   string          `placeholder:"FILE" type:"existingfile" help:"In place of --tools, a YAML file with the tools, the bounds of their arguments, and budgets."`
	Minutes int64           `default:"60" help:"How long it may last."`
}

// Help says whose task it is.
func (tasksOpenCmd) Help() string {
	return `You are the task's user. A key has at most one open task, and the calls of that key are the task's; nothing in a request chooses another. In development, writ run does this by itself.`
}

// Run opens it.
func (c tasksOpenCmd) Run(s *session) error {
	if c.Cert != "" {
		thumbprint, err := certThumbprint(c.Cert)
		if err != nil {
			return err
		}
		c.Key = string(thumbprint)
	}
	q := map[string]any{"agent": c.Agent, "key": c.Key, "for": c.For, "minutes": c.Minutes}
	if c.Data != "" {
		text, err := os.ReadFile(c.Data)
		if err != nil {
			return err
		}
		q["data"] = string(text)
	}
	g, err := granted(c.Tools, c.Grant)
	if err != nil {
		return err
	}
	g.fill(q)
	var t api.Task
	if err := s.act("/tasks", q, &t); err != nil {
		return err
	}
	if s.wantsJSON() {
		return s.json(t)
	}
	s.printf("%s  %s until %s\n", t.ID, t.State, clock(t.Expires))
	return nil
}

// certThumbprint is that of the key in the first certificate of a file.
func certThumbprint(name string) (writ.Thumbprint, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return "", &usageError{name + " does not begin with a PEM certificate"}
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", err
	}
	return identity.Thumbprint(cert.PublicKey)
}
