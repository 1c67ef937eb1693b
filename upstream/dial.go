package upstream

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"
)

// never are addresses that no configuration opens: this host's own link, where
// clouds keep the credentials of machines, and what is no host at all.
var never = prefixes(
	"0.0.0.0/8", "169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32", "192.0.0.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"::/128", "fe80::/10", "fd00:ec2::/32", "fd20:ce::/32", "ff00::/8",
	// IPv4 in IPv6 clothes: what they lead to is somebody else's choice.
	"::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32",
)

// private are addresses that are not public, by the registries of RFC 6890.
// The operator may open them.
var private = prefixes(
	"10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
	"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
	"2001::/23", "2001:db8::/32", "3fff::/20",
)

var (
	loopback = prefixes("127.0.0.0/8", "::1/128")
	global6  = netip.MustParsePrefix("2000::/3") // the only part of IPv6 that is public
)

func prefixes(list ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, s := range list {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

// A guard says which addresses may be connected to. Names are not looked at:
// whatever resolved them, however often, what counts is the address that the
// connection is about to be made to (so a name that changes its address
// between two questions gains nothing).
type guard struct {
	allow    []netip.Prefix // not public, and yet dialed
	named    bool           // only these
	resolver *net.Resolver
}

// check says why an address is not dialed.
func (g *guard) check(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	in := func(list []netip.Prefix) bool {
		return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	switch {
	case !a.IsValid():
		return fmt.Errorf("no address")
	case a == netip.IPv6Loopback() && in(g.allow):
		return nil // inside ::/96
	case in(never):
		return fmt.Errorf("%s is an address that is never dialed", a)
	case in(g.allow):
		return nil
	case g.named:
		return fmt.Errorf("%s is not an address that the configuration allows without TLS", a)
	case in(private) || a.Is6() && !global6.Contains(a):
		return fmt.Errorf("%s is not a public address, and the configuration does not allow it", a)
	}
	return nil
}

// control runs between resolving and connecting, once for each address tried.
func (g *guard) control(_ context.Context, network, address string, _ syscall.RawConn) error {
	if network != "tcp4" && network != "tcp6" {
		return fmt.Errorf("%s is not dialed", network)
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	return g.check(ap.Addr())
}

func (g *guard) dialer() *net.Dialer {
	return &net.Dialer{Timeout: 10 * time.Second, ControlContext: g.control, Resolver: g.resolver}
}

// transport is one pool of connections behind the guard. It asks no proxy,
// decompresses nothing, and follows nothing.
func (g *guard) transport() *http.Transport {
	return &http.Transport{
		DialContext:            g.dialer().DialContext,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		TLSHandshakeTimeout:    10 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		MaxIdleConns:           64,
		MaxIdleConnsPerHost:    64,
		MaxConnsPerHost:        256,
		IdleConnTimeout:        30 * time.Second,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
	}
}

// guarded sends requests with TLS to public addresses and those that the
// operator named, and requests without TLS to those alone.
type guarded struct{ secure, plain *http.Transport }

func newGuarded(g guard) *guarded {
	plain := g.plain()
	return &guarded{g.transport(), plain.transport()}
}

// plain is the guard of what is sent without TLS.
func (g guard) plain() guard {
	g.named = true
	return g
}

// RoundTrip implements http.RoundTripper.
func (t *guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "https" {
		return t.secure.RoundTrip(r)
	}
	return t.plain.RoundTrip(r)
}

// CloseIdleConnections lets go of every connection that is not in use.
func (t *guarded) CloseIdleConnections() {
	t.secure.CloseIdleConnections()
	t.plain.CloseIdleConnections()
}

// Client gives a client for whoever must reach an address that the operator
// configured: it dials through the guard, follows no redirect, and takes at
// most 30 seconds. Loopback is open to it only if target names loopback, and
// other addresses that are not public only if they are in allow.
func Client(target string, allow ...netip.Prefix) (*http.Client, error) {
	_, g, err := aim(target, allow)
	if err != nil {
		return nil, err
	}
	return &http.Client{
		Transport:     newGuarded(g),
		Timeout:       30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// aim reads a URL from the configuration, and what may be dialed for it.
func aim(target string, allow []netip.Prefix) (*url.URL, guard, error) {
	u, err := url.Parse(target)
	switch {
	case err != nil:
		return nil, guard{}, fmt.Errorf("the URL cannot be read") // it may hold a secret
	case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.Opaque != "":
		return nil, guard{}, fmt.Errorf("want a URL with http or https and a host")
	case u.User != nil || u.Fragment != "":
		return nil, guard{}, fmt.Errorf("a URL holds no credential and no fragment")
	}
	for _, p := range allow {
		closed := func(n netip.Prefix) bool { return n.Bits() <= p.Bits() && n.Contains(p.Addr()) }
		if !p.IsValid() || p.Bits() == 0 || p != loopback[1] && slices.ContainsFunc(never, closed) || p.Addr().Is4In6() {
			return nil, guard{}, fmt.Errorf("%s cannot be allowed", p)
		}
	}
	g := guard{allow: slices.Clone(allow)}
	if isLoopback(u.Hostname()) {
		g.allow = append(g.allow, loopback...)
	}
	return u, g, nil
}

// isLoopback says whether a name can mean nothing but this machine (RFC 6761,
// 6.3).
func isLoopback(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.IsLoopback()
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}
