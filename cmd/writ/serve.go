package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/writgate/writ/identity/devca"
	"github.com/writgate/writ/server"
	"github.com/writgate/writ/server/admin"
)

// listeners are the doors of a gateway, open but not answered yet.
type listeners struct {
	agents, issuer, admin net.Listener
}

func (l *listeners) close() {
	for _, one := range []net.Listener{l.agents, l.issuer, l.admin} {
		if one != nil {
			one.Close()
		}
	}
}

// listen opens the doors.
func (n *node) listen(ctx context.Context) (_ *listeners, err error) {
	l := new(listeners)
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	var conf net.ListenConfig
	if l.agents, err = conf.Listen(ctx, "tcp", n.config.Listen); err != nil {
		return nil, err
	}
	if l.issuer, err = conf.Listen(ctx, "tcp", n.config.Issuer.Listen); err != nil {
		return nil, err
	}
	if l.admin, err = admin.Listen(filepath.Join(n.dir, "admin.sock")); err != nil {
		return nil, err
	}
	return l, nil
}

// serve answers at every door until ctx ends or one of them fails, and then
// lets what is under way finish.
func (n *node) serve(ctx context.Context, l *listeners) error {
	defer l.close()
	serving, err := n.certificate()
	if err != nil {
		return err
	}
	mcp, err := server.New(server.Config{
		Gate: n.gate, State: n.keys.state, URL: n.config.URL, Hosts: n.config.hosts(),
		Metadata: n.config.Issuer.URL + "/.well-known/oauth-protected-resource/mcp",
		Status:   n.config.Issuer.URL + "/status/",
		Noise:    n.noise, Now: time.Now, Version: version, Lists: n.upstreams.List,
	})
	if err != nil {
		return err
	}
	issuer, err := n.issuer()
	if err != nil {
		return err
	}
	operators := n.operators()

	debug.FreeOSMemory() // of what reading the policies took
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	start := func(what string, f func(context.Context) error) {
		wg.Go(func() {
			defer stop() // one door that fails closes the others
			if err := f(ctx); err != nil {
				errs <- fmt.Errorf("%s: %w", what, err)
			}
		})
	}
	agents := &server.Front{Handler: mcp, TLS: serving, Noise: n.noise, Stop: mcp.Close}
	start("the agents' door", func(ctx context.Context) error { return agents.Serve(ctx, l.agents) })
	others := &server.Front{Handler: issuer, TLS: serving, Noise: n.noise}
	start("the issuer's door", func(ctx context.Context) error { return others.Serve(ctx, l.issuer) })
	start("the operators' door", func(ctx context.Context) error { return operators.Serve(ctx, l.admin) })
	start("the ledger", n.run)
	start("keeping order", n.tidy)
	start("watching upstreams", func(ctx context.Context) error { return n.watch(ctx, mcp.Changed) })
	start("ending credentials", n.sweep)
	wg.Go(func() { n.askWitnesses(ctx) })
	start("counting refusals", func(ctx context.Context) error { n.noise.Run(ctx); return nil })
	wg.Wait()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// issuer is the handler of everything that is told to whoever asks: tokens,
// to those who prove a key; what the issuer and the resource are; and how an
// approval stands.
func (n *node) issuer() (http.Handler, error) {
	mux := http.NewServeMux()
	if err := n.tokenRoutes(mux); err != nil {
		return nil, err
	}
	mux.Handle("GET /status/", http.StripPrefix("/status", server.Status(n.gate.Approvals.Get)))
	return mux, nil
}

// operators is the admin API.
func (n *node) operators() *admin.Server {
	s := &admin.Server{
		Gate: n.gate, Now: time.Now, Version: version, Policies: n.policies,
		Audience: n.config.resource(), Facts: n.facts,
	}
	if n.config.Environment == development {
		s.Tokens = n.tokens
	} else {
		s.Lifters = 2
	}
	return s
}

// certificate is what the doors show: the operator's, or in development one of
// the built-in authority, made anew every half hour.
func (n *node) certificate() (*tls.Config, error) {
	if n.config.Certificate != "" {
		cert, err := tls.LoadX509KeyPair(n.config.Certificate, n.config.Key)
		return &tls.Config{Certificates: []tls.Certificate{cert}}, err
	}
	u, err := url.Parse(n.config.URL)
	if err != nil {
		return nil, err
	}
	dev := &devCertificate{ca: n.ca, hosts: []string{u.Hostname(), "localhost", "127.0.0.1"}}
	return &tls.Config{GetCertificate: dev.get}, nil
}

type devCertificate struct {
	ca    *devca.CA
	hosts []string

	mu   sync.Mutex
	cert *tls.Certificate
	made time.Time
}

func (d *devCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cert != nil && time.Since(d.made) < devca.Lifetime/2 {
		return d.cert, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	der, err := d.ca.IssueServer("/gateway", key.Public(), now, d.hosts)
	if err != nil {
		return nil, err
	}
	d.cert, d.made = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, now
	return d.cert, nil
}
