package demo

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/writgate/writ"
	"github.com/writgate/writ/capability"
)

// A door is what a call passes before it reaches the account: a credential
// that is alive at this moment, and, if the server was told whose, a writ for
// exactly this call. Lists are open: they move nothing.
type door struct {
	options *Options
	db      *sql.DB
	client  *http.Client
}

func newDoor(o *Options, db *sql.DB) *door {
	return &door{options: o, db: db, client: &http.Client{Timeout: 5 * time.Second}}
}

// An admission is what let a call pass.
type admission struct {
	credential string          // its name
	approval   writ.ApprovalID // in its writ; empty if writs are not checked
}

type admissionKey struct{}

// admissionOf is that of a call that has passed.
func admissionOf(ctx context.Context) admission {
	a, _ := ctx.Value(admissionKey{}).(admission)
	return a
}

func (d *door) middleware(next mcp.MethodHandler) mcp.MethodHandler {
	return func(ctx context.Context, method string, request mcp.Request) (mcp.Result, error) {
		call, ok := request.(*mcp.CallToolRequest)
		if !ok {
			return next(ctx, method, request)
		}
		passed, err := d.pass(ctx, call)
		if err != nil {
			refused := &mcp.CallToolResult{}
			refused.SetError(err)
			return refused, nil
		}
		return next(context.WithValue(ctx, admissionKey{}, passed), method, request)
	}
}

func (d *door) pass(ctx context.Context, call *mcp.CallToolRequest) (passed admission, err error) {
	token, header := d.options.Token, http.Header(nil)
	if call.Extra != nil && call.Extra.Header != nil {
		header = call.Extra.Header
		token, _ = strings.CutPrefix(header.Get("Authorization"), "Bearer ")
	}
	if token == "" {
		return passed, errors.New("refused: this server wants a credential")
	}
	if passed.credential, err = d.introspect(ctx, token); err != nil {
		return passed, err
	}
	if _, err := d.db.ExecContext(ctx, `INSERT INTO kept VALUES (?, ?) ON CONFLICT DO NOTHING`, passed.credential, token); err != nil {
		return passed, errors.New("refused: credentials cannot be kept")
	}
	if d.options.Keys == "" {
		return passed, nil
	}
	passed.approval, err = d.verify(ctx, header, call)
	return passed, err
}

var errDead = errors.New("refused: the credential is dead")

// introspect asks the authorization server what a credential is worth now
// (RFC 7662). The answer is never remembered: a credential that was revoked a
// moment ago is dead.
func (d *door) introspect(ctx context.Context, token string) (id string, err error) {
	form := strings.NewReader(url.Values{"token": {token}}.Encode())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, d.options.Authorization+"introspect", form)
	if err != nil {
		return "", errors.New("refused: credentials cannot be checked")
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(Payments, ClientSecret(d.options.Secret, Payments))
	answer, err := d.client.Do(r)
	if err != nil {
		return "", errors.New("refused: credentials cannot be checked")
	}
	defer answer.Body.Close()
	var said introspection
	if err := json.NewDecoder(io.LimitReader(answer.Body, 64<<10)).Decode(&said); err != nil || answer.StatusCode != http.StatusOK {
		return "", errors.New("refused: credentials cannot be checked")
	}
	if !said.Active || said.Scope != Payments {
		return "", errDead
	}
	return said.ID, nil
}

// kept is the page of every credential that this server was ever given, and
// of what each is worth now. It has kept them all, as a careless server may.
func (d *door) kept(ctx context.Context) (any, error) {
	type credential struct {
		Credential string `json:"credential"`
		Active     bool   `json:"active"`
		token      string
	}
	all, err := list(ctx, d.db, `SELECT credential, token FROM kept ORDER BY credential`, func(scan func(...any) error) (one credential, err error) {
		err = scan(&one.Credential, &one.token)
		return one, err
	})
	for i := range all {
		id, err := d.introspect(ctx, all[i].token)
		if err != nil && !errors.Is(err, errDead) {
			return nil, err
		}
		all[i].Active = id != ""
	}
	return all, err
}

// verify checks the call's writ, offline, and this server's own rule: nothing
// is paid that no person approved. The keys are read each time, so that new
// ones need no restart.
func (d *door) verify(ctx context.Context, header http.Header, call *mcp.CallToolRequest) (writ.ApprovalID, error) {
	text, err := os.ReadFile(d.options.Keys)
	if err != nil {
		return "", errors.New("refused: writs cannot be checked")
	}
	keys, err := capability.ParseKeys(text)
	if err != nil {
		return "", errors.New("refused: writs cannot be checked")
	}
	v := &capability.Verifier{
		Keys: keys, Issuer: d.options.Issuer, Audience: Payments, Environment: Environment, Uses: uses{d.db}, Now: time.Now,
	}
	c, err := v.Verify(ctx, capability.Request{
		Header: header, Method: http.MethodPost, URL: d.options.endpoint, Name: call.Params.Name, Arguments: call.Params.Arguments,
	})
	if err != nil {
		no := writ.AsDenial(err)
		return "", fmt.Errorf("refused: %s: %s", no.Code, no.Reason)
	}
	if c.Approval == "" && c.Name == "pay" {
		return "", errors.New("refused: nobody approved this payment")
	}
	return c.Approval, nil
}

// uses remembers in the server's own database which writs were used, so that
// neither a restart nor a second process forgets.
type uses struct{ db *sql.DB }

// Use implements capability.Uses.
func (u uses) Use(ctx context.Context, c *capability.Capability) error {
	r, err := u.db.ExecContext(ctx, `INSERT INTO used VALUES (?, ?) ON CONFLICT DO NOTHING`, c.ID, c.Expires.Unix())
	if err != nil {
		return err
	}
	if n, err := r.RowsAffected(); err != nil || n != 1 {
		return writ.Refuse(writ.AlreadyUsed, "the capability was used", err)
	}
	return nil
}
