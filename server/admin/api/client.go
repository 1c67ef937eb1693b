package api

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Prefix begins every path.
const Prefix = "/api/v1"

// maxAnswer bounds what a client reads, in bytes.
const maxAnswer = 64 << 20

// A Client speaks to the gateway whose admin socket is Socket.
type Client struct {
	Socket string

	once sync.Once
	http *http.Client
}

func (c *Client) dial() *http.Client {
	c.once.Do(func() {
		var d net.Dialer
		c.http = &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", c.Socket) },
		}}
	})
	return c.http
}

// Close ends the connections that are idle.
func (c *Client) Close() { c.dial().CloseIdleConnections() }

// Get reads target, a path below Prefix with its query, into out.
func (c *Client) Get(ctx context.Context, target string, out any) error {
	return c.do(ctx, http.MethodGet, target, nil, "", out)
}

// Post sends in to target, and reads the answer into out.
func (c *Client) Post(ctx context.Context, target string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, target, body, "", out)
}

// Act is Post with a proof of an operator's key.
func (c *Client) Act(ctx context.Context, key ed25519.PrivateKey, target string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	var s Status
	if err := c.Get(ctx, "/status", &s); err != nil {
		return err
	}
	proof, err := NewProof(s.Origin, http.MethodPost, Prefix+target, body, time.Now()).Sign(key)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, target, body, proof, out)
}

// do makes one request. An answer that is no success is a *Problem; any other
// error means that there was no answer.
func (c *Client) do(ctx context.Context, method, target string, body []byte, proof string, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://writ"+Prefix+target, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if method != http.MethodGet {
		req.Header.Set("Content-Type", "application/json")
	}
	if proof != "" {
		req.Header.Set(ProofHeader, proof)
	}
	resp, err := c.dial().Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // which names the socket
		}
		return fmt.Errorf("asking the gateway: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("reading the gateway's answer: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return json.Unmarshal(answer, out)
	}
	p := new(Problem)
	if kind := resp.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/problem+json") || json.Unmarshal(answer, p) != nil {
		return fmt.Errorf("the gateway answered %s", resp.Status)
	}
	return p
}
