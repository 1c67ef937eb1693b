package demo

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/writgate/writ/identity/devca"
	_ "modernc.org/sqlite" // the database of the demo's servers
)

// The servers of the demo's world, by name.
const (
	Helpdesk      = "helpdesk"
	Mailer        = "mailer"
	Payments      = "payments"
	Files         = "files"
	Authorization = "authorization" // issues and revokes what payments wants; HTTP only
)

// LeaseClient is the client of the authorization server that leases.
const LeaseClient = "writ"

// Environment is the one that the demo's agent and its servers belong to.
const Environment = devca.Environment

// Options say how a server runs.
type Options struct {
	Dir  string         // where it keeps its things; made if it is missing
	HTTP bool           // on a loopback port; otherwise over In and Out
	In   io.ReadCloser  // of stdio
	Out  io.WriteCloser // of stdio; over HTTP, the endpoint's URL is written to it, and nothing else

	Secret        string // what the demo's processes share, from which every client secret is made
	Authorization string // payments: the address of the authorization server
	Token         string // payments over stdio: the credential of this process

	// Payments over HTTP checks every call's writ by itself if it is told
	// whose: the file with the gateway's JWK Set, and the gateway's name.
	Keys, Issuer string

	endpoint string // over HTTP, once it listens
}

// A server is one server of the world.
type server struct {
	tools *mcp.Server                                   // nil if it has none
	pages map[string]func(context.Context) (any, error) // by path: what it did, for whoever wants to see
	more  http.Handler                                  // everything else it serves; nil if nothing
	close func() error
}

// Serve runs one server until ctx is done, or over stdio until its input ends.
func Serve(ctx context.Context, name string, o Options) error {
	open := map[string]func(*Options) (*server, error){
		Helpdesk: openHelpdesk, Mailer: openMailer, Payments: openPayments, Files: openFiles, Authorization: openAuthorization,
	}[name]
	if open == nil {
		return fmt.Errorf("the demo has no server %q", name)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return err
	}
	var l net.Listener
	var err error
	if o.HTTP {
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return err
		}
		defer l.Close()
		o.endpoint = "http://" + l.Addr().String() + "/mcp"
	}
	s, err := open(&o)
	if err != nil {
		return fmt.Errorf("opening %s: %w", name, err)
	}
	defer s.close()
	if !o.HTTP {
		if s.tools == nil {
			return fmt.Errorf("%s has nothing to say over stdio", name)
		}
		if err := s.tools.Run(ctx, &mcp.IOTransport{Reader: o.In, Writer: o.Out}); err != nil && ctx.Err() == nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("running %s: %w", name, err)
		}
		return nil
	}
	return s.listen(ctx, l, o.Out)
}

// listen serves HTTP on l until ctx is done.
func (s *server) listen(ctx context.Context, l net.Listener, out io.Writer) error {
	base := "http://" + l.Addr().String()
	mux := http.NewServeMux()
	if s.tools != nil {
		mux.Handle("/mcp", mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return s.tools }, &mcp.StreamableHTTPOptions{
			Stateless: true, PropagateRequestCancellation: true,
		}))
	}
	for path, page := range s.pages {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			shown, err := page(r.Context())
			if err != nil {
				http.Error(w, "cannot say", http.StatusInternalServerError)
				return
			}
			answer(w, http.StatusOK, shown)
		})
	}
	if s.more != nil {
		mux.Handle("/", s.more)
	}
	h := &http.Server{Handler: ownHost(l.Addr().String(), http.NewCrossOriginProtection().Handler(mux)), ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(l) }()
	where := base + "/"
	if s.tools != nil {
		where = base + "/mcp"
	}
	if _, err := fmt.Fprintln(out, where); err != nil {
		h.Close()
		<-ended
		return err
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		h.Close()
		<-ended
		return nil
	}
}

// ownHost refuses a request that was sent to another name: a web page whose
// name was made to point here says so in Host.
func ownHost(addr string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != addr {
			http.Error(w, "wrong host", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// answer writes JSON.
func answer(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		http.Error(w, "cannot say", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(text)
}

// ClientSecret is the secret of one client of the authorization server: of
// LeaseClient, and of Payments, which asks what a lease is worth.
func ClientSecret(shared, client string) string {
	h := hmac.New(sha256.New, []byte(shared))
	h.Write([]byte("client " + client))
	return hex.EncodeToString(h.Sum(nil))
}

// database opens the database of a server, with these tables.
func database(o *Options, name, tables string) (*sql.DB, error) {
	path := filepath.Join(o.Dir, name+".db")
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	if _, err := db.Exec(tables); err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

// tool registers a tool: its schema is written out, closed, and described to
// the model.
func tool[In, Out any](s *mcp.Server, t mcp.Tool, schema string, do func(context.Context, In) (Out, error)) {
	t.InputSchema = json.RawMessage(schema)
	mcp.AddTool(s, &t, func(ctx context.Context, _ *mcp.CallToolRequest, in In) (*mcp.CallToolResult, Out, error) {
		out, err := do(ctx, in)
		return nil, out, err
	})
}

func newTools(name, instructions string) *mcp.Server {
	return mcp.NewServer(&mcp.Implementation{Name: "acme-" + name, Version: "1.0.0"}, &mcp.ServerOptions{Instructions: instructions})
}

// What a tool says of itself. Writ believes none of it but the worst.
var (
	reads      = &mcp.ToolAnnotations{ReadOnlyHint: true, OpenWorldHint: new(false)}
	adds       = &mcp.ToolAnnotations{DestructiveHint: new(false), OpenWorldHint: new(false)}
	reachesOut = &mcp.ToolAnnotations{DestructiveHint: new(false), OpenWorldHint: new(true)}
	destroys   = &mcp.ToolAnnotations{DestructiveHint: new(true), OpenWorldHint: new(true)}
	overwrites = &mcp.ToolAnnotations{DestructiveHint: new(true), IdempotentHint: true, OpenWorldHint: new(false)}
)

const noArguments = `{"type":"object","properties":{},"additionalProperties":false}`
