package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"
)

// The tools of the bench's world: all of one upstream, all alike, and one of
// them is called.
const (
	benchUpstream = "desk"
	benchTools    = 100
	benchCalled   = "lookup07"
	benchSchema   = `{"type":"object","properties":{"order":{"type":"string"},"limit":{"type":"integer"},"notes":{"type":"boolean"},"question":{"type":"string"}},"required":["order","question"],"additionalProperties":false}`
)

func benchToolName(i int) string { return fmt.Sprintf("lookup%02d", i) }

// benchTool is a tool server that answers as fast as net/http lets it.
func benchTool(w http.ResponseWriter, r *http.Request) {
	body := make([]byte, max(0, r.ContentLength))
	if _, err := io.ReadFull(r.Body, body); err != nil {
		http.Error(w, "the body did not arrive", http.StatusBadRequest)
		return
	}
	result := `{"resultType":"complete","content":[{"type":"text","text":"Order 8812 was shipped on Monday."}]}`
	switch string(benchMember(body, "method")) {
	case `"tools/call"`:
	case `"server/discover"`:
		result = `{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"ttlMs":0,"cacheScope":"private"}`
	case `"tools/list"`:
		var tools []string
		for i := range benchTools {
			tools = append(tools, `{"name":"`+benchToolName(i)+`","description":"Looks an order up.","inputSchema":`+benchSchema+`}`)
		}
		result = `{"resultType":"complete","tools":[` + strings.Join(tools, ",") + `],"ttlMs":0,"cacheScope":"private"}`
	}
	w.Header()["Content-Type"] = []string{"application/json"}
	fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":%s}`, benchMember(body, "id"), result)
}

// benchMember finds the first member of that name, wherever in the message it
// stands. Nobody here sends another one.
func benchMember(body []byte, name string) []byte {
	_, rest, _ := bytes.Cut(body, []byte(`"`+name+`":`))
	return rest[:max(0, bytes.IndexAny(rest, ",}"))]
}

// benchProxy is what everything is compared with, at its best: it keeps its
// connections, and its buffers.
func benchProxy(to string) http.Handler {
	target := &url.URL{Scheme: "http", Host: to}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{
			MaxIdleConns: 1024, MaxIdleConnsPerHost: 1024, IdleConnTimeout: time.Minute, DisableCompression: true,
		},
		BufferPool: new(benchBuffers),
	}
}

type benchBuffers struct{ pool sync.Pool }

// Get implements httputil.BufferPool.
func (b *benchBuffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

// Put implements httputil.BufferPool.
func (b *benchBuffers) Put(p []byte) { b.pool.Put(&p) }
