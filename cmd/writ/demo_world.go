package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"text/template"

	"github.com/writgate/writ"
	"github.com/writgate/writ/demo"
	"github.com/writgate/writ/server/admin/api"
)

// A world is what the story happens in.
type world struct {
	*stage
	ana, omar *person
	endpoints map[string]string // of the servers, by name
	up        *part             // the gateway
	agent     *part
	tools     []string // that the agent is offered
}

const demoAgent = "spiffe://writ.localhost" + demo.AgentOf

// open sets everything up, in the order in which a company would: the tools
// are there, operators have keys, the gateway starts, the tools are reviewed,
// the policies applied, and an agent is given a task.
func (w *world) open(ctx context.Context, say func(who, text string)) error {
	agents, issuer, err := twoPorts()
	if err != nil {
		return err
	}
	secret := rand.Text()
	if err := w.servers(ctx, secret, "https://"+issuer); err != nil {
		return err
	}
	say("servers", strings.Join(demoServers, ", ")+"; and "+demo.Authorization+", which issues credentials")
	if err := w.people(ctx); err != nil {
		return err
	}
	say("people", "Ana, who runs the desk, and Omar, who reviews: each has a key of their own")
	if err := w.startGateway(ctx, agents, issuer, secret); err != nil {
		return err
	}
	say("gateway", "https://"+agents+"/mcp, in "+w.gateway())
	if err := w.rules(ctx); err != nil {
		return err
	}
	say("omar", fmt.Sprintf("has reviewed %d tools, and put the policies in force", len(demo.Reviews())))
	if err := w.startAgent(ctx); err != nil {
		return err
	}
	say("ana", "starts the agent: "+demo.Assignment().Purpose.Instructions)
	say("agent", fmt.Sprintf("is offered the %d tools of its task, and holds no key and no credential", len(w.tools)))
	return nil
}

// twoPorts are two addresses that nobody listens at.
func twoPorts() (a, b string, err error) {
	var free [2]string
	for i := range free {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", "", err
		}
		defer l.Close() // not before both are found
		free[i] = l.Addr().String()
	}
	return free[0], free[1], nil
}

var demoServers = []string{demo.Helpdesk, demo.Mailer, demo.Payments, demo.Files}

// servers starts the authorization server, and then the tool servers.
func (w *world) servers(ctx context.Context, secret, issuer string) error {
	w.endpoints = map[string]string{}
	needs := serverNeeds{Secret: secret, Issuer: issuer, Keys: filepath.Join(w.gateway(), "capability.jwks")}
	if err := w.server(ctx, demo.Authorization, needs); err != nil {
		return err
	}
	needs.Authorization = w.endpoints[demo.Authorization]
	for _, name := range demoServers {
		its := needs
		if name != demo.Payments {
			its = serverNeeds{}
		}
		if err := w.server(ctx, name, its); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) server(ctx context.Context, name string, needs serverNeeds) error {
	p, err := w.start(name, nil, "--dir", w.file(name), "demo-server", name)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(p.to).Encode(needs); err != nil {
		return err
	}
	w.endpoints[name], err = w.line(ctx, p)
	return err
}

// people makes the operators' keys.
func (w *world) people(ctx context.Context) error {
	w.ana, w.omar = &person{user: demo.User}, &person{user: demo.Reviewer}
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for i, who := range []*person{w.ana, w.omar} {
		wg.Go(func() { errs[i] = w.person(ctx, who) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (w *world) person(ctx context.Context, who *person) error {
	name, _, _ := strings.Cut(string(who.user), "@")
	home := w.file(name)
	who.key, who.passphrase = filepath.Join(home, "operator.key"), filepath.Join(home, "passphrase")
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(who.passphrase, []byte(rand.Text()+"\n"), 0o600); err != nil {
		return err
	}
	made, err := answer[struct{ Key writ.Thumbprint }](ctx, w.stage, who, "--dir", home, "operator", "init", "--user", string(who.user))
	if err == nil {
		who.thumbprint = made.Key
	}
	return err
}

// demoConfig is the gateway's writ.yaml.
var demoConfig = template.Must(template.New("writ.yaml").Parse(`# The gateway of Acme's support desk.
environment: {{.Environment}}
listen: {{.Agents}}
url: https://{{.Agents}}
issuer:
  listen: {{.Issuer}}
  url: https://{{.Issuer}}
registry:
  agents:
    - id: {{.Agent}}
      owner: {{.Ana.User}}
      purpose: answers tickets
      environment: {{.Environment}}
      highest_tier: privileged
  operators:
    - user: {{.Ana.User}}
      key: {{.Ana.Key}}
    - user: {{.Omar.User}}
      key: {{.Omar.Key}}
upstreams:
{{- range .Upstreams}}
  - name: {{.Name}}
    url: {{.URL}}
{{- if .Capability}}
    capability: true
{{- end}}
{{- end}}
backends:
  {{.Backend}}:
    header: Authorization
    scheme: Bearer
    oauth:
      issuer: {{.Authorization}}
      token_endpoint: {{.Authorization}}token
      revocation_endpoint: {{.Authorization}}revoke
      client_id: {{.Client}}
      client_secret: {file: {{.Secret}}}
      scopes: [{{.Backend}}]
`))

// startGateway writes the configuration, and starts the gateway with it.
func (w *world) startGateway(ctx context.Context, agents, issuer, secret string) error {
	type operator struct {
		User writ.UserID
		Key  writ.Thumbprint
	}
	type tools struct {
		Name, URL  string
		Capability bool
	}
	file := w.file("client-secret")
	var upstreams []tools
	for _, name := range demoServers {
		upstreams = append(upstreams, tools{name, w.endpoints[name], name == demo.Payments})
	}
	var text strings.Builder
	err := demoConfig.Execute(&text, map[string]any{
		"Environment": demo.Environment, "Agents": agents, "Issuer": issuer, "Agent": demoAgent, "Upstreams": upstreams,
		"Ana": operator{w.ana.user, w.ana.thumbprint}, "Omar": operator{w.omar.user, w.omar.thumbprint},
		"Backend": demo.Payments, "Authorization": w.endpoints[demo.Authorization], "Client": demo.LeaseClient, "Secret": file,
	})
	err = errors.Join(err,
		os.WriteFile(file, []byte(demo.ClientSecret(secret, demo.LeaseClient)), 0o600),
		os.Mkdir(w.gateway(), 0o700),
		os.WriteFile(filepath.Join(w.gateway(), "writ.yaml"), []byte(text.String()), 0o600))
	if err != nil {
		return err
	}
	if w.up, err = w.start("gateway", nil, "--dir", w.gateway(), "demo-gateway"); err != nil {
		return err
	}
	for line := ""; line != "ready"; {
		if line, err = w.line(ctx, w.up); err != nil {
			return err
		}
	}
	return nil
}

// rules is Omar, who says what each tool is, and puts the policies in force.
func (w *world) rules(ctx context.Context) error {
	if _, err := answer[api.Page[api.Tool]](ctx, w.stage, w.omar, "demo-review"); err != nil {
		return err
	}
	for _, f := range demo.Policies() {
		if err := os.WriteFile(filepath.Join(w.gateway(), "policy", f.Name), f.Text, 0o600); err != nil {
			return err
		}
	}
	p, err := answer[api.Policy](ctx, w.stage, nil, "policy", "show")
	if err != nil {
		return err
	}
	_, err = answer[api.Policy](ctx, w.stage, w.omar, "policy", "apply", "--bundle", string(p.Offered))
	return err
}

// demoGrant is what Ana grants: a file for writ run.
var demoGrant = template.Must(template.New("grant.yaml").Parse(`grant:
{{- range .Grant}}
  - tool: {{printf "%q" .Tool}}
{{- range .Bounds}}
    bounds: [{argument: {{.Argument}}, max: {{.Max}}}]
{{- end}}
{{- end}}
budgets:
{{- range .Budgets}}
  - {name: {{.Name}}, tool: {{printf "%q" .Tool}}, {{if .Sum}}sum: {{.Sum}}, {{end}}limit: {{.Limit}}}
{{- end}}
`))

// startAgent is Ana, who starts the agent with a task.
func (w *world) startAgent(ctx context.Context) error {
	task := demo.Assignment()
	var text strings.Builder
	file := w.file("grant.yaml")
	if err := demoGrant.Execute(&text, task); err != nil {
		return err
	}
	err := os.WriteFile(file, []byte(text.String()), 0o600)
	if err != nil {
		return err
	}
	w.agent, err = w.start("agent", w.ana, "--dir", w.gateway(), "run", "--agent", demoAgent,
		"--task", task.Purpose.Instructions, "--grant", file, "--", w.self(), "demo-agent")
	if err != nil {
		return err
	}
	said, err := w.hear(ctx)
	if err == nil {
		w.tools = said.Tools
	}
	return err
}

// hear is what the agent says next.
func (w *world) hear(ctx context.Context) (*demo.Line, error) {
	text, err := w.line(ctx, w.agent)
	if err != nil {
		return nil, err
	}
	said := new(demo.Line)
	if err := json.Unmarshal([]byte(text), said); err != nil {
		return nil, fmt.Errorf("what the agent says: %w", err)
	}
	if said.Error != "" {
		return nil, errors.New(said.Error)
	}
	return said, nil
}
