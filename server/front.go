package server

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// A Front is how a handler meets the network: HTTP/1.1 alone, over TLS if
// there is a configuration, with a limit to everything that a stranger could
// hold open. HTTP/2 is not offered: it costs more than it gives here, and one
// framing is easier to be sure of than two.
type Front struct {
	Handler http.Handler
	TLS     *tls.Config // nil: plain HTTP, for loopback and sockets
	Noise   *Noise      // counts the requests that never reach the handler
	Stop    func()      // called once when Serve begins to stop; ends streams
	Conns   int         // most connections at once; 4096 if 0
}

const (
	headTimeout = 10 * time.Second
	idleTimeout = 2 * time.Minute
	stopTimeout = 15 * time.Second // a call that may change something has 10 s of grace
)

// Serve answers on l until ctx ends, then lets what is under way finish, for
// a while. It closes l, and returns nil if it was ctx that ended it.
func (f *Front) Serve(ctx context.Context, l net.Listener) error {
	quiet := slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo) // strangers do not write to our log
	s := &http.Server{
		Handler: f.Handler, ErrorLog: quiet,
		ReadHeaderTimeout: headTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHead,
	}
	if f.Stop != nil {
		s.RegisterOnShutdown(f.Stop)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(f.listener(l)) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	err := s.Shutdown(stopping)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.Close()
	}
	<-done
	return err
}

// listener wraps the connections of l.
func (f *Front) listener(l net.Listener) net.Listener {
	conns := f.Conns
	if conns == 0 {
		conns = 4096
	}
	strict := &strictListener{Listener: l, noise: f.Noise, room: make(chan struct{}, conns)}
	if f.TLS != nil {
		c := f.TLS.Clone()
		c.MinVersion = tls.VersionTLS13
		c.NextProtos = []string{"http/1.1"}
		if c.ClientAuth == tls.NoClientCert {
			c.ClientAuth = tls.RequestClientCert // who it proves is for package identity to say
		}
		strict.tls = c
	}
	return strict
}

// A strictListener accepts a bounded number of strictConns. The next one
// waits in the kernel's queue.
type strictListener struct {
	net.Listener
	tls   *tls.Config
	noise *Noise
	room  chan struct{}
}

// Accept waits for room, and for a connection.
func (l *strictListener) Accept() (net.Conn, error) {
	l.room <- struct{}{}
	raw, err := l.Listener.Accept()
	if err != nil {
		<-l.room
		return nil, err
	}
	c := &strictConn{Conn: raw, refused: l.noise.Count, closed: sync.OnceFunc(func() { <-l.room })}
	if l.tls == nil {
		return c, nil
	}
	over := tls.Server(raw, l.tls)
	c.Conn = over
	return &strictTLSConn{c, over}, nil
}
