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

type credentialKey struct{}

// credentialOf names the credential of a call that has passed.
func credentialOf(ctx context.Context) string {
	id, _ := ctx.Value(credentialKey{}).(string)
	return id
}

func (d *door) middleware(next mcp.MethodHandler) mcp.MethodHandler {
	return func(ctx context.Context, method string, request mcp.Request) (mcp.Result, error) {
		call, ok := request.(*mcp.CallToolRequest)
		if !ok {
			return next(ctx, method, request)
		}
		id, err := d.pass(ctx, call)
		if err != nil {
			refused := &mcp.CallToolResult{}
			refused.SetError(err)
			return refused, nil
		}
		return next(context.WithValue(ctx, credentialKey{}, id), method, request)
	}
}

func (d *door) pass(ctx context.Context, call *mcp.CallToolRequest) (credential string, err error) {
	token, header := d.options.Token, http.Header(nil)
	if call.Extra != nil && call.Extra.Header != nil {
		header = call.Extra.Header
		token, _ = strings.CutPrefix(header.Get("Authorization"), "Bearer ")
	}
	if token == "" {
		return "", errors.New("refused: this server wants a credential")
	}
	credential, err = d.introspect(ctx, token)
	if err != nil {
		return "", err
	}
	if d.options.Keys == "" {
		return credential, nil
	}
	return credential, d.verify(ctx, header, call)
}

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
		return "", errors.New("refused: the credential is dead")
	}
	return said.ID, nil
}

// verify checks the call's writ, offline. The keys are read each time, so
// that new ones need no restart.
func (d *door) verify(ctx context.Context, header http.Header, call *mcp.CallToolRequest) error {
	text, err := os.ReadFile(d.options.Keys)
	if err != nil {
		return errors.New("refused: writs cannot be checked")
	}
	keys, err := capability.ParseKeys(text)
	if err != nil {
		return errors.New("refused: writs cannot be checked")
	}
	v := &capability.Verifier{
		Keys: keys, Issuer: d.options.Issuer, Audience: Payments, Environment: Environment, Uses: uses{d.db}, Now: time.Now,
	}
	_, err = v.Verify(ctx, capability.Request{
		Header: header, Method: http.MethodPost, URL: d.options.endpoint, Name: call.Params.Name, Arguments: call.Params.Arguments,
	})
	if err != nil {
		no := writ.AsDenial(err)
		return fmt.Errorf("refused: %s: %s", no.Code, no.Reason)
	}
	return nil
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
