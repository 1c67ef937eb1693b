package server

import (
	"net/http"
	"strings"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
	"github.com/writgate/writ/mcp"
)

// instructions is what a model is told about where it is.
const instructions = "Every call is decided on its own. A refusal says why, and what to do about it: follow that, and do not try to get the same effect in another way."

// modern answers a request of revision 2026-07-28, which stands for itself.
func (x *exchange) modern() error {
	switch x.req.Method {
	case "server/discover":
		return x.discover()
	case "subscriptions/listen":
		return x.listen()
	}
	return x.common()
}

// common answers what both wires have.
func (x *exchange) common() error {
	switch x.req.Method {
	case "tools/call", "prompts/get", "resources/read":
		return x.invoke()
	case "tools/list", "prompts/list", "resources/list", "resources/templates/list":
		return x.list()
	}
	e := &mcp.Error{Code: mcp.CodeMethodNotFound, HTTP: http.StatusNotFound, Message: "there is no such method here"}
	if x.session != nil {
		e.HTTP = http.StatusOK // to a legacy client, 404 is the end of its session
	}
	return e
}

func (x *exchange) discover() error {
	var meta, b canon.Builder
	meta.Value("io.modelcontextprotocol/serverInfo", x.m.serverInfo())
	b.Text("resultType", mcp.Complete)
	b.Texts("supportedVersions", x.m.config.Versions)
	b.Value("capabilities", x.m.capabilities(false))
	b.Text("instructions", instructions)
	b.Int("ttlMs", 0)
	b.Text("cacheScope", "private")
	value(&b, "_meta", &meta)
	j, err := b.JSON()
	if err != nil {
		return err
	}
	x.out.result([]byte(j))
	return nil
}

func (m *MCP) serverInfo() writ.JSON {
	var b canon.Builder
	b.Text("name", "writ")
	b.Text("title", "Writ")
	b.Text("version", m.config.Version)
	j, err := b.JSON()
	if err != nil {
		return `{"name":"writ","version":""}`
	}
	return j
}

// capabilities are what is served, whoever asks: whether there is any of it
// for them, a list says.
func (m *MCP) capabilities(logging bool) writ.JSON {
	kinds := []string{`"tools":{"listChanged":true}`}
	if m.config.Lists != nil {
		kinds = append(kinds, `"prompts":{"listChanged":true}`, `"resources":{"listChanged":true}`)
	}
	if logging {
		kinds = append(kinds, `"logging":{}`)
	}
	return writ.JSON("{" + strings.Join(kinds, ",") + "}")
}
