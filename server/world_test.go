package server_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/identity"
	"github.com/writgate/writ/identity/devca"
	"github.com/writgate/writ/mcp"
	"github.com/writgate/writ/server"
	"github.com/writgate/writ/writtest"
)

// A door is a World behind a listener: mutual TLS on loopback, with agents
// whose keys the test holds.
type door struct {
	*writtest.World
	mcp   *server.MCP
	noise *server.Noise
	addr  string // host:port
	ca    *devca.CA
	t     testing.TB
}

// tools is what most tests have behind the gate.
var tools = []writtest.Tool{
	{Name: "files.read", Tier: writ.ReadOnly, Args: map[string]string{"path": "string"}, Reply: "the content", Result: writ.Label{Integrity: writ.Trusted, Class: writ.Internal}},
	{Name: "mail.send", Tier: writ.BoundedWrite, Args: map[string]string{"to": "string"}, Reply: "sent", Result: writ.Label{Class: writ.Internal}},
	{Name: "bank.pay", Tier: writ.Privileged, Args: map[string]string{"amount": "integer"}, Reply: "paid"},
}

// open serves a World. change may alter the configuration.
func open(t testing.TB, s writtest.Setup, change func(*server.Config)) *door {
	t.Helper()
	if s.Tools == nil {
		s.Tools = tools
	}
	d := &door{World: writtest.New(t, s), t: t}
	file, err := devca.Generate(d.Clock.Now())
	d.must(err)
	d.ca, err = devca.Parse(file, devca.Environment)
	d.must(err)
	domain := spiffeid.RequireTrustDomainFromString(identity.DevelopmentDomain)
	d.must(d.Gate.Identity.Bundles.Set(domain, []*x509.Certificate{d.ca.Authority()}, d.Clock.Now().Add(24*time.Hour)))

	l, err := net.Listen("tcp", "127.0.0.1:0")
	d.must(err)
	d.addr = l.Addr().String()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	d.must(err)
	der, err := d.ca.IssueServer("/gateway", pub, d.Clock.Now(), []string{"127.0.0.1"})
	d.must(err)
	d.noise = &server.Noise{Record: func(context.Context, server.Refusals) error { return nil }}
	d.Gate.Noise = d.noise.Count
	c := server.Config{
		Gate: d.Gate, State: [32]byte{7}, URL: "https://" + d.addr, Metadata: "https://writ.test/.well-known/oauth-protected-resource",
		Noise: d.noise, Now: d.Clock.Now, Version: "1.2.3",
	}
	if change != nil {
		change(&c)
	}
	d.mcp, err = server.New(c)
	d.must(err)
	front := &server.Front{
		Handler: d.mcp, TLS: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, Noise: d.noise, Stop: d.mcp.Close,
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- front.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return d
}

func (d *door) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// A peer is an agent with a key, and a task if it was given one.
type peer struct {
	d    *door
	key  writ.Thumbprint
	task writ.Task
	tls  *tls.Config
	http *http.Client
}

// agent makes an agent whose task may use these tools.
func (d *door) agent(grant ...writ.ToolName) *peer {
	d.t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	d.must(err)
	der, err := d.ca.Issue("/agent/billing", pub, d.Clock.Now())
	d.must(err)
	p := d.stranger()
	p.tls.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	p.key, err = identity.Thumbprint(pub)
	d.must(err)
	if len(grant) == 0 {
		return p
	}
	t := writ.Task{
		Agent: writtest.AgentID("billing"), Key: p.key, Environment: writtest.Environment, User: "lena",
		Purpose: writ.Purpose{Instructions: "settle the invoices of ACME", Origin: writ.OriginUser},
	}
	for _, tool := range grant {
		t.Grant = append(t.Grant, writ.Permission{Tool: tool})
	}
	held, err := d.Gate.Tasks.Open(d.t.Context(), t)
	d.must(err)
	p.task = held.Task
	return p
}

// stranger is a client without any identity.
func (d *door) stranger() *peer {
	roots := x509.NewCertPool()
	roots.AddCert(d.ca.Authority())
	p := &peer{d: d, tls: &tls.Config{RootCAs: roots}}
	transport := &http.Transport{TLSClientConfig: p.tls}
	d.t.Cleanup(transport.CloseIdleConnections)
	p.http = &http.Client{Transport: transport}
	return p
}

// An answer is what came back of one request.
type answer struct {
	status int
	header http.Header
	body   string
	json   *canon.Value // the body, or the data of its last event
	events []string
}

// do sends one HTTP request.
func (p *peer) do(method, path string, header http.Header, body string) answer {
	p.d.t.Helper()
	a, err := p.try(p.d.t.Context(), method, path, header, body)
	p.d.must(err)
	return a
}

func (p *peer) try(ctx context.Context, method, path string, header http.Header, body string) (answer, error) {
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://"+p.d.addr+path, r)
	if err != nil {
		return answer{}, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	if host := header.Get("Host"); host != "" {
		req.Host = host
	}
	res, err := p.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{status: res.StatusCode, header: res.Header, body: string(b)}
	last := b
	if strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		for _, event := range strings.Split(string(b), "\n\n") {
			if data, ok := strings.CutPrefix(event, "data: "); ok {
				a.events = append(a.events, data)
				last = []byte(data)
			}
		}
	}
	a.json, _ = canon.Parse(bytes.TrimSpace(last), canon.Limits{Bytes: 16 << 20, Nodes: 1 << 20})
	return a, nil
}

// modern is a request of 2026-07-28: params without their braces.
func modern(id, method, params, capabilities string) string {
	if params != "" {
		params += ","
	}
	if capabilities == "" {
		capabilities = "{}"
	}
	return `{"jsonrpc":"2.0","id":` + id + `,"method":"` + method + `","params":{` + params +
		`"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":` + capabilities + `}}}`
}

// headers are those that a modern request needs.
func headers(method, name string) http.Header {
	h := http.Header{
		"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"},
		mcp.HeaderVersion: {mcp.Modern}, mcp.HeaderMethod: {method},
	}
	if name != "" {
		h[mcp.HeaderName] = []string{name}
	}
	return h
}

// ask sends one modern request.
func (p *peer) ask(method, name, params string) answer {
	p.d.t.Helper()
	return p.do("POST", "/mcp", headers(method, name), modern("1", method, params, ""))
}

// call makes one modern tool call.
func (p *peer) call(tool, args string) answer {
	p.d.t.Helper()
	return p.ask("tools/call", tool, `"name":"`+tool+`","arguments":`+args)
}

// text is the first text of a tool's result.
func (a answer) text() string {
	s, _ := a.json.Pointer("/result/content/0/text").Str()
	return s
}

// code is the code of our decision in an answer, wherever it stands.
func (a answer) code() string {
	for _, at := range []string{"/result/_meta/io.github.writgate~1decision/code", "/error/data/code", "/code"} {
		if s, ok := a.json.Pointer(at).Str(); ok {
			return s
		}
	}
	return ""
}

func (a answer) str(pointer string) string {
	s, _ := a.json.Pointer(pointer).Str()
	return s
}

// raw sends bytes over TLS, with the agent's certificate, and gives what comes
// back until the peer closes or falls silent. It keeps its own side open: a
// client that closes is gone, and its call is cancelled.
func (p *peer) raw(request string) string {
	p.d.t.Helper()
	c, err := tls.Dial("tcp", p.d.addr, p.tls)
	p.d.must(err)
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		p.d.t.Fatal(err)
	}
	b, _ := io.ReadAll(c) // a reset is an answer, too
	return string(b)
}

// pieces is raw, a byte at a time.
func (p *peer) pieces(request string) string {
	p.d.t.Helper()
	c, err := tls.Dial("tcp", p.d.addr, p.tls)
	p.d.must(err)
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	for i := range len(request) {
		if _, err := io.WriteString(c, request[i:i+1]); err != nil {
			p.d.t.Fatal(err)
		}
	}
	b, _ := io.ReadAll(c)
	return string(b)
}

// state is that of a TLS connection of the agent, for requests that are made
// without one.
func (p *peer) state() *tls.ConnectionState {
	p.d.t.Helper()
	leaf, err := x509.ParseCertificate(p.tls.Certificates[0].Certificate[0])
	p.d.must(err)
	return &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: []*x509.Certificate{leaf}}
}
