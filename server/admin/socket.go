package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Listen makes the socket that Serve listens on, readable and writable by its
// owner alone. Its directory must be the owner's alone too. What a gateway
// left behind there is replaced; a socket that somebody answers on is not.
func Listen(path string) (net.Listener, error) {
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("the admin socket: %w", err)
	}
	if mode := dir.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("the admin socket: %s has mode %#o; want 0700", filepath.Dir(path), mode)
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("the admin socket: another gateway answers on %s", path)
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != os.ModeSocket {
			return nil, fmt.Errorf("the admin socket: %s is there, and is no socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("the admin socket: %w", err)
		}
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("the admin socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, fmt.Errorf("the admin socket: %w", err)
	}
	return ln, nil
}

// Serve answers on ln until ctx is done, and then finishes what is under way.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	srv := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, peerOf(c))
		},
		BaseContext: func(net.Listener) context.Context { return ctx }, // ends whoever waits for news
	}
	var stopping sync.WaitGroup
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		stopping.Go(func() { srv.Shutdown(grace) })
	})
	defer stop()
	err := srv.Serve(ln)
	stopping.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// A peer is the process at the other end of a connection. It belongs to the
// connection, as the kernel tells it; no request can say anything about it.
type peer struct {
	uid uint32
	err error
}

type peerKey struct{}

func peerOf(c net.Conn) peer {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return peer{err: errors.New("not a connection of the admin socket")}
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return peer{err: err}
	}
	var p peer
	if err := raw.Control(func(fd uintptr) { p.uid, p.err = peerUID(int(fd)) }); err != nil {
		return peer{err: err}
	}
	return p
}

// admits says whether the process of a request may talk to us.
func (s *Server) admits(ctx context.Context) (uint32, error) {
	p, ok := ctx.Value(peerKey{}).(peer)
	if !ok {
		return 0, errors.New("not a connection of the admin socket")
	}
	if p.err != nil {
		return 0, p.err
	}
	if p.uid != uint32(os.Geteuid()) && !slices.Contains(s.UIDs, p.uid) {
		return 0, fmt.Errorf("user %d is none of this gateway's", p.uid)
	}
	return p.uid, nil
}
