package identity

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// target is a URI as RFC 9449, 4.3 compares the htu of a proof: without query
// and fragment, normalised by syntax and by scheme (RFC 3986, 6.2.2 and
// 6.2.3).
func target(uri string) (string, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return "", errors.New("not a URI") // the error of package url holds all of it
	}
	scheme := strings.ToLower(u.Scheme)
	switch {
	case scheme != "https" && scheme != "http":
		return "", fmt.Errorf("scheme %.20q is not http or https", u.Scheme)
	case u.Host == "" || u.Opaque != "":
		return "", errors.New("no host")
	case u.User != nil:
		return "", errors.New("user information in a URI")
	}
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port != "" && port != map[string]string{"https": "443", "http": "80"}[scheme] {
		host = net.JoinHostPort(strings.Trim(host, "[]"), port)
	}
	return scheme + "://" + host + normalPath(u.EscapedPath()), nil
}

// normalPath spells an escaped path in its one way: escapes in upper case and
// only where they are needed, no dot segments.
func normalPath(escaped string) string {
	var b strings.Builder
	for i := 0; i < len(escaped); i++ {
		c := escaped[i]
		if c != '%' || i+2 >= len(escaped) {
			b.WriteByte(c)
			continue
		}
		d := unhex(escaped[i+1])<<4 | unhex(escaped[i+2])
		if unreserved(d) {
			b.WriteByte(d)
		} else {
			b.WriteString(strings.ToUpper(escaped[i : i+3]))
		}
		i += 2
	}
	return removeDots(b.String())
}

// removeDots is RFC 3986, 5.2.4. It is not path.Clean, which also joins
// repeated slashes and drops the last one: those are other resources.
func removeDots(p string) string {
	var kept []string
	segments := strings.Split(p, "/")
	for i, s := range segments {
		last := i == len(segments)-1
		switch s {
		case ".", "..":
			if s == ".." && len(kept) > 1 {
				kept = kept[:len(kept)-1]
			}
			if last {
				kept = append(kept, "")
			}
		default:
			kept = append(kept, s)
		}
	}
	out := strings.Join(kept, "/")
	if !strings.HasPrefix(out, "/") {
		out = "/" + out
	}
	return out
}

// unreserved is RFC 3986, 2.3.
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

// unhex is the value of a digit that package url has checked.
func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	}
	return c - 'a' + 10
}
