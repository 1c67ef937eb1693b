package upstream_test

import (
	"context"
	"encoding/binary"

	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writgate/writ/upstream"
	"go.yaml.in/yaml/v4"
)

// TestH65Addresses is what no upstream's name may lead to, and what it may.
func TestH65Addresses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		addr string
		ok   bool
	}{
		// The machine itself, in every way of writing it.
		{"127.0.0.1", false}, {"127.0.0.53", false}, {"127.255.255.254", false}, {"::1", false},
		{"::ffff:127.0.0.1", false}, {"::127.0.0.1", false}, {"::ffff:0:127.0.0.1", false}, {"64:ff9b::7f00:1", false}, {"2002:7f00:1::", false}, {"2002:7f00:1::1", false},
		// No host.
		{"0.0.0.0", false}, {"0.1.2.3", false}, {"::", false}, {"::ffff:0.0.0.0", false}, {"255.255.255.255", false}, {"240.0.0.1", false},
		{"224.0.0.251", false}, {"239.255.255.250", false}, {"ff02::1", false}, {"ff05::2", false}, {"100::1", false},
		// Where clouds keep credentials.
		{"169.254.169.254", false}, {"169.254.170.2", false}, {"169.254.0.1", false}, {"::ffff:169.254.169.254", false}, {"::ffff:a9fe:a9fe", false},
		{"::a9fe:a9fe", false}, {"64:ff9b::a9fe:a9fe", false}, {"64:ff9b:1::a9fe:a9fe", false}, {"2002:a9fe:a9fe::", false}, {"2001:0:a9fe:a9fe::1", false},
		{"fd00:ec2::254", false}, {"fd20:ce::254", false}, {"168.63.129.16", false}, {"100.100.100.200", false}, {"192.0.0.192", false},
		{"fe80::1", false}, {"fe80::a9fe:a9fe", false}, {"fe80::1%eth0", false}, {"febf::1", false}, {"fec0::1", false},
		// Private networks.
		{"10.0.0.1", false}, {"10.255.255.255", false}, {"172.16.0.1", false}, {"172.31.255.255", false}, {"192.168.1.1", false},
		{"::ffff:10.0.0.1", false}, {"100.64.0.1", false}, {"100.127.255.255", false}, {"fc00::1", false}, {"fd12:3456::1", false}, {"64:ff9b::a00:1", false},
		// For documentation, measurement and tunnels.
		{"198.18.0.1", false}, {"198.19.255.255", false}, {"192.0.2.1", false}, {"198.51.100.7", false}, {"203.0.113.9", false}, {"192.88.99.1", false},
		{"2001:db8::1", false}, {"2001:2::1", false}, {"2001:20::1", false}, {"3fff::1", false}, {"5f00::1", false}, {"4000::1", false},
		// The public.
		{"1.1.1.1", true}, {"8.8.8.8", true}, {"172.15.255.255", true}, {"172.32.0.1", true}, {"100.63.255.255", true}, {"100.128.0.1", true},
		{"198.17.255.255", true}, {"198.20.0.1", true}, {"169.253.255.255", true}, {"2606:4700::1111", true}, {"2a00:1450:4001::1", true}, {"::ffff:1.1.1.1", true},
	} {
		err := upstream.CheckAddress(netip.MustParseAddr(c.addr), false)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v, want ok %v", c.addr, err, c.ok)
		}
	}
	if upstream.CheckAddress(netip.Addr{}, false) == nil {
		t.Error("no address is dialed")
	}
}

func TestAllowedAddresses(t *testing.T) {
	t.Parallel()
	ten := netip.MustParsePrefix("10.1.0.0/16")
	for _, c := range []struct {
		addr  string
		named bool
		allow string
		ok    bool
	}{
		{"10.1.2.3", false, "10.1.0.0/16", true},
		{"::ffff:10.1.2.3", false, "10.1.0.0/16", true},
		{"10.2.2.3", false, "10.1.0.0/16", false},
		{"64:ff9b::a01:203", false, "10.1.0.0/16", false},
		{"1.1.1.1", false, "10.1.0.0/16", true},
		{"1.1.1.1", true, "10.1.0.0/16", false}, // without TLS, only what is named
		{"10.1.2.3", true, "10.1.0.0/16", true},
		{"1.1.1.1", true, "1.1.1.0/24", true},
		{"100.100.100.200", false, "100.64.0.0/10", false},
		{"100.100.100.201", false, "100.64.0.0/10", true},
		{"fd12::1", false, "fd12::/16", true},
		{"fd00:ec2::254", false, "fd00::/8", false},
		{"::1", false, "::1/128", true},
		{"::2", false, "::1/128", false},
	} {
		err := upstream.CheckAddress(netip.MustParseAddr(c.addr), c.named, netip.MustParsePrefix(c.allow))
		if (err == nil) != c.ok {
			t.Errorf("%s with %s allowed, named %v: %v, want ok %v", c.addr, c.allow, c.named, err, c.ok)
		}
	}
	for _, bad := range []string{"0.0.0.0/0", "::/0", "169.254.0.0/16", "169.254.169.254/32", "64:ff9b::/96", "2002:a00::/24", "fe80::/10", "::ffff:10.0.0.0/104"} {
		if _, err := upstream.Client("https://tools.example", netip.MustParsePrefix(bad)); err == nil {
			t.Errorf("%s can be allowed", bad)
		}
	}
	if _, err := upstream.Client("https://tools.example", ten, netip.Prefix{}); err == nil {
		t.Error("no prefix can be allowed")
	}
}

func TestH65Loopback(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	defer srv.Close()
	port := srv.Listener.Addr().(*net.TCPAddr).Port
	for _, c := range []struct {
		target, dialed string
		ok             bool
	}{
		{"http://127.0.0.1/", "127.0.0.1", true},
		{"http://localhost/", "localhost", true},
		{"http://LOCALHOST./", "127.0.0.1", true},
		{"http://tools.LocalHost/", "127.0.0.1", true},
		{"http://[::1]/", "127.0.0.1", true},
		{"https://tools.example/", "127.0.0.1", false},
		{"https://tools.example/", "localhost", false},
		{"https://localhost.tools.example/", "127.0.0.1", false},
		{"https://tools.example/", "[::ffff:127.0.0.1]", false},
	} {
		client, err := upstream.Client(c.target)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Get(fmt.Sprintf("http://%s:%d/", c.dialed, port))
		if (err == nil) != c.ok {
			t.Errorf("%s with a client for %s: %v, want ok %v", c.dialed, c.target, err, c.ok)
		}
		if err == nil {
			resp.Body.Close()
		}
	}
}

// TestPlainNeedsAName: without TLS not even a public address is dialed, unless
// the operator named it.
func TestPlainNeedsAName(t *testing.T) {
	t.Parallel()
	client, err := upstream.Client("http://tools.example")
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Get("http://1.1.1.1:9/")
	if err == nil {
		resp.Body.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "without TLS") {
		t.Errorf("%v", err)
	}
}

// TestH65Rebinding resolves a name that is public when asked first, and
// private ever after. What counts is the address of the connection.
func TestH65Rebinding(t *testing.T) {
	t.Parallel()
	var hits, asked atomic.Int64
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	defer inside.Close()
	dns := nameServer(t, func(q string) netip.Addr {
		if asked.Add(1) == 1 {
			return netip.MustParseAddr("192.0.2.1")
		}
		return netip.MustParseAddr("127.0.0.1")
	})
	client := upstream.ClientWithResolver(dns)
	client.Timeout = 5 * time.Second
	port := inside.Listener.Addr().(*net.TCPAddr).Port
	// The numbers are what some resolvers take for 127.0.0.1.
	for _, name := range []string{"tools.example", "tools.example", "2130706433", "0x7f.1", "017700000001"} {
		resp, err := client.Get(fmt.Sprintf("http://%s:%d/", name, port))
		if err == nil {
			resp.Body.Close()
			t.Fatal("the connection was made")
		}
		if name == "tools.example" && !strings.Contains(err.Error(), "not") {
			t.Errorf("refused with %v", err)
		}
	}
	if asked.Load() < 2 || hits.Load() != 0 {
		t.Errorf("asked %d times, %d requests came through", asked.Load(), hits.Load())
	}
	open := upstream.ClientWithResolver(dns, netip.MustParsePrefix("127.0.0.0/8"))
	resp, err := open.Get(fmt.Sprintf("http://tools.example:%d/", port))
	if err != nil || hits.Load() != 1 {
		t.Fatalf("an allowed address is not dialed: %v", err)
	}
	resp.Body.Close()
}

// nameServer answers questions for IPv4 addresses.
func nameServer(t *testing.T, answer func(name string) netip.Addr) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			q := buf[:n]
			end := 12
			for q[end] != 0 {
				end += int(q[end]) + 1
			}
			question := q[12 : end+5]
			reply := append([]byte{q[0], q[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question...)
			if binary.BigEndian.Uint16(q[end+1:]) == 1 {
				reply[7] = 1
				a := answer(string(question)).As4()
				reply = append(append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4), a[:]...)
			}
			conn.WriteTo(reply, from)
		}
	}()
	var d net.Dialer
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return d.DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func TestH61ClientFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	var hits atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	defer other.Close()
	srv := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusFound))
	defer srv.Close()
	client, err := upstream.Client(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusFound || hits.Load() != 0 {
		t.Errorf("status %d, %d requests elsewhere", resp.StatusCode, hits.Load())
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	pin := strings.Repeat("0f", 32)
	lan := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, c := range []struct {
		name   string
		config upstream.Config
		ok     bool
	}{
		{"url", upstream.Config{Name: "a-1", URL: "https://tools.example/mcp?x=1"}, true},
		{"allow", upstream.Config{Name: "a", URL: "http://tools.lan:8080/", Allow: lan, Capability: true}, true},
		{"command", upstream.Config{Name: "a", Command: []string{"/usr/bin/node", "/opt/s.js", "--flag"}, Env: []string{"PATH"}, Pins: map[string]string{"/opt/s.js": pin}}, true},
		{"no name", upstream.Config{URL: "https://tools.example"}, false},
		{"name in capitals", upstream.Config{Name: "A", URL: "https://tools.example"}, false},
		{"name with a dot", upstream.Config{Name: "a.b", URL: "https://tools.example"}, false},
		{"long name", upstream.Config{Name: strings.Repeat("a", 33), URL: "https://tools.example"}, false},
		{"neither", upstream.Config{Name: "a"}, false},
		{"both", upstream.Config{Name: "a", URL: "https://tools.example", Command: []string{"/bin/cat"}}, false},
		{"file", upstream.Config{Name: "a", URL: "file:///etc/passwd"}, false},
		{"no host", upstream.Config{Name: "a", URL: "https:///x"}, false},
		{"opaque", upstream.Config{Name: "a", URL: "https:tools.example"}, false},
		{"credential", upstream.Config{Name: "a", URL: "https://u:p@tools.example"}, false},
		{"fragment", upstream.Config{Name: "a", URL: "https://tools.example/#x"}, false},
		{"everywhere", upstream.Config{Name: "a", URL: "https://tools.example", Allow: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}, false},
		{"env of a url", upstream.Config{Name: "a", URL: "https://tools.example", Env: []string{"PATH"}}, false},
		{"allow of a command", upstream.Config{Name: "a", Command: []string{"/bin/cat"}, Allow: lan}, false},
		{"H67/relative", upstream.Config{Name: "a", Command: []string{"node", "s.js"}}, false},
		{"H67/unclean", upstream.Config{Name: "a", Command: []string{"/bin/../bin/cat"}}, false},
		{"H67/zero byte", upstream.Config{Name: "a", Command: []string{"/bin/cat", "a\x00b"}}, false},
		{"H67/preload", upstream.Config{Name: "a", Command: []string{"/bin/cat"}, Env: []string{"LD_PRELOAD"}}, false},
		{"H67/value for a name", upstream.Config{Name: "a", Command: []string{"/bin/cat"}, Env: []string{"A=b"}}, false},
		{"H67/short pin", upstream.Config{Name: "a", Command: []string{"/bin/cat"}, Pins: map[string]string{"/bin/cat": "00"}}, false},
		{"H67/pin of a name", upstream.Config{Name: "a", Command: []string{"/bin/cat"}, Pins: map[string]string{"cat": pin}}, false},
		{"timeout", upstream.Config{Name: "a", URL: "https://tools.example", Timeout: -1}, false},
		{"long timeout", upstream.Config{Name: "a", URL: "https://tools.example", Timeout: 2 * time.Hour}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := upstream.Open([]upstream.Config{c.config})
			if (err == nil) != c.ok {
				t.Errorf("Open = %v, want ok %v", err, c.ok)
			}
			if err == nil {
				s.Close()
			}
		})
	}
	if _, err := upstream.Open([]upstream.Config{{Name: "a", URL: "https://a.example"}, {Name: "a", URL: "https://b.example"}}); err == nil {
		t.Error("two upstreams have one name")
	}
}

func TestConfigIsStrict(t *testing.T) {
	t.Parallel()
	text := "name: files\ncommand: [/usr/bin/files, --root, /srv]\nenv: [PATH]\ntimeout: 45s\ncontinuations: true\n"
	var c upstream.Config
	if err := yaml.Load([]byte(text), &c, yaml.WithKnownFields()); err != nil {
		t.Fatal(err)
	}
	if c.Timeout != 45*time.Second || len(c.Command) != 3 || !c.Continuations {
		t.Errorf("read %+v", c)
	}
	if err := yaml.Load([]byte("name: web\nurl: https://tools.lan\nallow: [10.0.0.0/8, 'fd12::/16']\n"), &c, yaml.WithKnownFields()); err != nil || len(c.Allow) != 2 {
		t.Errorf("read %+v, %v", c, err)
	}
	if err := yaml.Load([]byte(text+"shell: true\n"), &c, yaml.WithKnownFields()); err == nil {
		t.Error("an unknown key is taken")
	}
}
