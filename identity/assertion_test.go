package identity_test

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/writgate/writ"
	"github.com/writgate/writ/identity"
)

// TestAssertion is client assertions (RFC 7523, 3) that are none.
func TestAssertion(t *testing.T) {
	g := newGateway(t)
	key, older, other := newEd25519(t), newECDSA(t, elliptic.P256()), newEd25519(t)
	registered := func(_ context.Context, id writ.AgentID) ([]crypto.PublicKey, error) {
		if id != billing {
			return nil, writ.Refuse(writ.AgentNotActive, "not registered", nil)
		}
		return []crypto.PublicKey{older.Public(), key.Public()}, nil
	}
	jwt := func(key crypto.Signer, header, body claims) string {
		h := claims{"alg": algOf(key)}
		c := claims{"iss": billing, "sub": billing, "aud": issuer, "jti": "1", "exp": start.Unix() + 60}
		maps.Copy(h, header)
		maps.Copy(c, body)
		return sign(t, key, h, c)
	}
	ctx := context.Background()
	for name, s := range map[string]string{
		"least":                    jwt(key, nil, nil),
		"another of its keys":      jwt(older, nil, nil),
		"typ JWT":                  jwt(key, claims{"typ": "JWT"}, nil),
		"typ of RFC 7523bis":       jwt(key, claims{"typ": "client-authentication+jwt"}, nil),
		"the name of RFC 9864":     jwt(key, claims{"alg": "Ed25519"}, nil),
		"any kid":                  jwt(key, claims{"kid": "../../etc/passwd"}, nil),
		"aud an array of one":      jwt(key, nil, claims{"aud": []string{issuer}}),
		"iat and nbf":              jwt(key, nil, claims{"iat": start.Unix() + 60, "nbf": start.Unix()}),
		"ten minutes":              jwt(key, nil, claims{"exp": start.Unix() + 600}),
		"a claim of somebody's":    jwt(key, nil, claims{"scope": "x"}),
		"jti of as many as it may": jwt(key, nil, claims{"jti": strings.Repeat("j", 256)}),
	} {
		a, err := g.Assertion(ctx, s, registered)
		if err != nil || a.Agent != billing || a.Once.Kind != identity.KindJTI || a.Until <= start.UnixMilli() {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	a, _ := g.Assertion(ctx, jwt(key, nil, nil), registered)
	b, _ := g.Assertion(ctx, jwt(older, nil, nil), registered)
	if a.Once.Key != b.Once.Key || a.Key == b.Key {
		t.Error("one jti of one agent makes two rows, or two keys are one")
	}
	for name, c := range map[string]struct {
		jwt  string
		want writ.Code
	}{
		"alg none":               {jwt(key, claims{"alg": "none"}, nil), writ.BadToken},
		"alg HS256":              {jwt(key, claims{"alg": "HS256"}, nil), writ.BadToken},
		"no key of its":          {jwt(other, nil, nil), writ.BadToken},
		"embedded jwk":           {jwt(other, claims{"jwk": jwkOf(t, other)}, nil), writ.BadToken},
		"its own jwk":            {jwt(key, claims{"jwk": jwkOf(t, key)}, nil), writ.BadToken},
		"jku":                    {jwt(key, claims{"jku": "https://attacker.example"}, nil), writ.BadToken},
		"x5u":                    {jwt(key, claims{"x5u": "https://attacker.example"}, nil), writ.BadToken},
		"x5c":                    {jwt(key, claims{"x5c": []string{"MIIB"}}, nil), writ.BadToken},
		"crit":                   {jwt(key, claims{"crit": []string{"exp"}}, nil), writ.BadToken},
		"typ at+jwt":             {jwt(key, claims{"typ": "at+jwt"}, nil), writ.BadToken},
		"typ dpop+jwt":           {jwt(key, claims{"typ": "dpop+jwt"}, nil), writ.BadToken},
		"typ a number":           {jwt(key, claims{"typ": 1}, nil), writ.BadToken},
		"another agent":          {jwt(key, nil, claims{"iss": "spiffe://acme.example/a", "sub": "spiffe://acme.example/a"}), writ.BadToken},
		"about another":          {jwt(key, nil, claims{"sub": "spiffe://acme.example/a"}), writ.BadToken},
		"of another":             {jwt(key, nil, claims{"iss": "spiffe://acme.example/a"}), writ.BadToken},
		"no iss":                 {jwt(key, nil, claims{"iss": nil}), writ.BadToken},
		"no SPIFFE ID":           {jwt(key, nil, claims{"iss": "a", "sub": "a"}), writ.BadToken},
		"of development":         {jwt(key, nil, claims{"iss": "spiffe://writ.localhost/a", "sub": "spiffe://writ.localhost/a"}), writ.BadToken},
		"no aud":                 {jwt(key, nil, claims{"aud": nil}), writ.WrongAudience},
		"aud another":            {jwt(key, nil, claims{"aud": "https://other.example"}), writ.WrongAudience},
		"aud the token endpoint": {jwt(key, nil, claims{"aud": issuer + "/oauth/token"}), writ.WrongAudience},
		"aud with a slash":       {jwt(key, nil, claims{"aud": issuer + "/"}), writ.WrongAudience},
		"aud ours and another's": {jwt(key, nil, claims{"aud": []string{issuer, "https://other.example"}}), writ.WrongAudience},
		"aud of arrays":          {jwt(key, nil, claims{"aud": [][]string{{issuer}}}), writ.WrongAudience},
		"no jti":                 {jwt(key, nil, claims{"jti": nil}), writ.BadToken},
		"jti too long":           {jwt(key, nil, claims{"jti": strings.Repeat("j", 257)}), writ.BadToken},
		"no exp":                 {jwt(key, nil, claims{"exp": nil}), writ.BadToken},
		"expired":                {jwt(key, nil, claims{"exp": start.Unix()}), writ.BadToken},
		"an hour":                {jwt(key, nil, claims{"exp": start.Unix() + 3600}), writ.BadToken},
		"iat to come":            {jwt(key, nil, claims{"iat": start.Unix() + 61}), writ.BadToken},
		"nbf to come":            {jwt(key, nil, claims{"nbf": start.Unix() + 61}), writ.BadToken},
		"nbf a string":           {jwt(key, nil, claims{"nbf": "now"}), writ.BadToken},
		"no JWT":                 {"assertion", writ.BadToken},
		"an access token":        {g.issue(t, key), writ.BadToken},
		"a proof":                {g.request(t, key, "", nil, nil).Proof[0], writ.BadToken},
	} {
		if a, err := g.Assertion(ctx, c.jwt, registered); err == nil || writ.AsDenial(err).Code != c.want || a.Agent != "" {
			t.Errorf("%s: %+v, %v, want %s", name, a, err, c.want)
		}
	}
	known, unknown := jwt(other, nil, nil), jwt(other, nil, claims{"iss": "spiffe://acme.example/a", "sub": "spiffe://acme.example/a"})
	_, err1 := g.Assertion(ctx, known, registered)
	_, err2 := g.Assertion(ctx, unknown, registered)
	if writ.AsDenial(err1).Reason != writ.AsDenial(err2).Reason {
		t.Errorf("a stranger learns which agents there are: %v, %v", err1, err2)
	}
	for name, keys := range map[string]func(context.Context, writ.AgentID) ([]crypto.PublicKey, error){
		"fail":  func(context.Context, writ.AgentID) ([]crypto.PublicKey, error) { return nil, errors.New("500") },
		"panic": func(context.Context, writ.AgentID) ([]crypto.PublicKey, error) { panic("keys") },
	} {
		if _, err := g.Assertion(ctx, jwt(key, nil, nil), keys); writ.AsDenial(err).Code != writ.IdentityUnavailable {
			t.Errorf("H10: keys that %s: %v", name, err)
		}
	}
	many := func(context.Context, writ.AgentID) ([]crypto.PublicKey, error) {
		return append(make([]crypto.PublicKey, 16), key.Public()), nil
	}
	if _, err := g.Assertion(ctx, jwt(key, nil, nil), many); err == nil {
		t.Error("more keys were tried than is bounded")
	}
}
