package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/writgate/writ"
)

// A grantFile is what a task may do, and how much of it, as YAML:
//
//	grant:
//	  - tool: helpdesk.*
//	  - tool: payments.pay
//	    bounds:
//	      - argument: /amount
//	        max: 100
//	budgets:
//	  - name: euros
//	    tool: payments.pay
//	    sum: /amount
//	    limit: 100
type grantFile struct {
	Grant   writ.Grant    `yaml:"grant"`
	Budgets []writ.Budget `yaml:"budgets"`
}

// readGrant reads a file strictly. One that grants nothing is a mistake: the
// task would get everything.
func readGrant(name string) (*grantFile, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	g := new(grantFile)
	if err := loadYAML(text, g); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(g.Grant) == 0 {
		return nil, fmt.Errorf("%s: %w", name, errors.New("it grants no tool"))
	}
	return g, nil
}

// granted is what a command line says that a task may do: tools, or a file.
func granted(tools []writ.ToolName, file string) (*grantFile, error) {
	switch {
	case file != "" && len(tools) > 0:
		return nil, &usageError{"either --tools, or --grant with a file that names them"}
	case file != "":
		return readGrant(file)
	}
	g := new(grantFile)
	for _, tool := range tools {
		g.Grant = append(g.Grant, writ.Permission{Tool: tool})
	}
	return g, nil
}

// fill puts a grant into a request for a task. What is not said is left out.
func (g *grantFile) fill(q map[string]any) {
	if g.Grant != nil {
		q["grant"] = g.Grant
	}
	if g.Budgets != nil {
		q["budgets"] = g.Budgets
	}
}
