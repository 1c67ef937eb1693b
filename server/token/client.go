package token

import (
	"fmt"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/identity"
)

// What a request may say, by the registries of OAuth.
const (
	jwtBearer         = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	clientCredentials = "client_credentials"
	tokenExchange     = "urn:ietf:params:oauth:grant-type:token-exchange"
	typeJWT           = "urn:ietf:params:oauth:token-type:jwt"
	typeAccessToken   = "urn:ietf:params:oauth:token-type:access_token"
)

// authenticate says which agent asks. A certificate and an assertion must
// name one agent, if both are there.
func (x *exchange) authenticate() error {
	if x.r.Header.Values("Authorization") != nil || x.form["client_secret"] != "" {
		return refused(invalidClient, "there are no client secrets here: authenticate by private_key_jwt, or by an X.509-SVID", nil)
	}
	var agent writ.AgentID
	if x.r.TLS != nil && len(x.r.TLS.PeerCertificates) > 0 {
		p, err := x.e.Identity.Verify(x.r.Context(), identity.Evidence{Chain: x.r.TLS.PeerCertificates})
		if err != nil {
			return denied(invalidClient, err)
		}
		agent, x.until = p.Caller.Agent, sooner(x.until, time.UnixMilli(p.Until))
	}
	if jwt := x.form["client_assertion"]; jwt != "" || x.form["client_assertion_type"] != "" {
		a, err := x.assertion(jwt)
		if err != nil {
			return err
		}
		if agent != "" && agent != a.Agent {
			return refused(invalidClient, "the certificate and the assertion are of two agents", nil)
		}
		agent = a.Agent
		x.spent = append(x.spent, spent{a.Once, invalidClient, "this client_assertion was used before: make a new one for each request"})
	}
	switch id := x.form["client_id"]; {
	case agent == "":
		return refused(invalidClient, "no agent was authenticated: send a client_assertion, or connect with an X.509-SVID", nil)
	case id != "" && id != string(agent):
		return refused(invalidClient, "client_id is another agent than the one that was authenticated", nil)
	}
	x.agent = agent
	return nil
}

func (x *exchange) assertion(jwt string) (identity.Assertion, error) {
	if t := x.form["client_assertion_type"]; t != jwtBearer {
		return identity.Assertion{}, refused(invalidClient, "client_assertion_type must be "+jwtBearer, nil)
	}
	if x.e.Keys == nil {
		return identity.Assertion{}, refused(invalidClient, "agents authenticate by their X.509-SVID here", nil)
	}
	a, err := x.e.Identity.Assertion(x.r.Context(), jwt, x.e.Keys)
	if err != nil {
		return a, denied(invalidClient, err)
	}
	return a, nil
}

// possess says which key the token is bound to.
func (x *exchange) possess() error {
	key, row, err := x.e.Identity.Possession(identity.Evidence{
		Proof: x.r.Header.Values("DPoP"), Method: x.r.Method, URL: x.e.Identity.Issuer + Path, Body: x.body,
	})
	if err != nil {
		return denied(invalidProof, err)
	}
	x.key = key
	x.spent = append(x.spent, spent{row, invalidProof, "this DPoP proof was used before: make a new one for each request"})
	return nil
}

// grant checks what is asked for. There is one resource, and there are no
// scopes: what is not served is refused rather than left out.
func (x *exchange) grant() error {
	f := x.form
	for _, name := range []string{"resource", "audience"} { // RFC 8707; RFC 8693, 2.1
		if f[name] != "" && f[name] != x.e.Identity.Audience {
			return refused(invalidTarget, name+" must be "+x.e.Identity.Audience, nil)
		}
	}
	switch {
	case f["scope"] != "":
		return refused(invalidScope, "there are no scopes here: each call is decided when it is made", nil)
	case f["authorization_details"] != "":
		return refused(invalidDetails, "authorization_details are not served here", nil)
	case f["grant_type"] == clientCredentials:
		return nil
	case f["actor_token"] != "" || f["actor_token_type"] != "":
		return refused(invalidRequest, "actor tokens are not served here: the client is the actor", nil)
	case f["requested_token_type"] != "" && f["requested_token_type"] != typeAccessToken:
		return refused(invalidRequest, "requested_token_type must be "+typeAccessToken, nil)
	case f["subject_token"] == "" || f["subject_token_type"] != typeJWT:
		return refused(invalidRequest, "a subject_token of subject_token_type "+typeJWT+" is needed", nil)
	case x.e.Keys == nil:
		return refused(invalidRequest, "no agent has registered keys here to sign a subject token with", nil)
	}
	s, err := x.e.Identity.Assertion(x.r.Context(), f["subject_token"], x.e.Keys)
	if err != nil {
		return denied(invalidRequest, err) // RFC 8693, 2.2.2
	}
	if s.Agent != x.agent {
		return refused(invalidRequest, "the subject token is another agent's: an agent speaks for itself here", fmt.Errorf("subject %s, client %s", s.Agent, x.agent))
	}
	x.until = sooner(x.until, time.UnixMilli(s.Until))
	x.spent = append(x.spent, spent{s.Once, invalidRequest, "this subject_token was used before: make a new one for each request"})
	return nil
}
