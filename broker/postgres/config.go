package postgres

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/writgate/writ/broker"
)

// A Config says which database, and what a lease may do there.
type Config struct {
	// Admin is where the connection string of Writ's own role is kept: one
	// that may create roles, and that owns what Grants name or holds it with
	// grant option. It need not be a superuser. It is read for every new
	// connection.
	Admin broker.Reference `yaml:"admin"`

	// URL is how the tool reaches the database, without user and password.
	URL string `yaml:"url"`

	// Grants are all that a lease may do, besides what PUBLIC may.
	Grants []Grant `yaml:"grants"`

	// Connections are how many a lease may have open at once; 0 means 4.
	Connections int `yaml:"connections"`
}

// A Grant gives privileges on tables of one schema.
type Grant struct {
	Schema     string   `yaml:"schema"`
	Tables     []string `yaml:"tables"`     // "*" alone is every table that the schema has at the time
	Privileges []string `yaml:"privileges"` // SELECT, INSERT, UPDATE, DELETE
}

var privileges = []string{"SELECT", "INSERT", "UPDATE", "DELETE"}

// check refuses what could not be carried out, or could only be a mistake.
func (c *Config) check() (*url.URL, error) {
	tool, err := url.Parse(c.URL)
	switch {
	case err != nil:
		return nil, errors.New("the tool's URL does not parse") // the error would quote it
	case tool.Scheme != "postgres" && tool.Scheme != "postgresql" || tool.Hostname() == "" || strings.Trim(tool.Path, "/") == "":
		return nil, errors.New("the tool's URL wants the form postgres://host/database")
	case tool.User != nil || tool.Fragment != "" || tool.Query().Has("user") || tool.Query().Has("password"):
		return nil, errors.New("the tool's URL holds a user or a password: each lease has its own")
	case len(c.Grants) == 0:
		return nil, errors.New("a lease without grants could do nothing")
	case c.Connections < 0:
		return nil, fmt.Errorf("%d connections", c.Connections)
	}
	for _, g := range c.Grants {
		names := append([]string{g.Schema}, g.Tables...)
		switch {
		case len(g.Tables) == 0 || len(g.Privileges) == 0:
			return nil, fmt.Errorf("a grant on schema %q needs tables and privileges", g.Schema)
		case slices.Contains(names, "") || strings.ContainsRune(strings.Join(names, ""), 0):
			return nil, fmt.Errorf("a grant on schema %q has a name that is none", g.Schema)
		case len(g.Tables) > 1 && slices.Contains(g.Tables, "*"):
			return nil, fmt.Errorf("a grant on schema %q names every table and some", g.Schema)
		}
		for _, p := range g.Privileges {
			if !slices.Contains(privileges, p) {
				return nil, fmt.Errorf("a grant of %q; want of %s", p, strings.Join(privileges, ", "))
			}
		}
	}
	return tool, nil
}

// statements are the SQL of g for a role, whose name is quoted.
func (g *Grant) statements(role string) []string {
	on := "ALL TABLES IN SCHEMA " + pgx.Identifier{g.Schema}.Sanitize()
	if g.Tables[0] != "*" {
		var tables []string
		for _, t := range g.Tables {
			tables = append(tables, pgx.Identifier{g.Schema, t}.Sanitize())
		}
		on = "TABLE " + strings.Join(tables, ", ")
	}
	return []string{
		"GRANT USAGE ON SCHEMA " + pgx.Identifier{g.Schema}.Sanitize() + " TO " + role,
		"GRANT " + strings.Join(g.Privileges, ", ") + " ON " + on + " TO " + role,
	}
}
