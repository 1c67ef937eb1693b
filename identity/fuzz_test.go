package identity_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/writgate/writ"
	"github.com/writgate/writ/identity"
)

// compact is a JWS over any two texts, well signed.
func compact(t testing.TB, key crypto.Signer, header, body string) string {
	signed := b64([]byte(header)) + "." + b64([]byte(body))
	return signed + "." + b64(signature(t, key, []byte(signed)))
}

// agreed verifies by go-jose what we have accepted, and reads it by
// encoding/json: whatever we accept, others must read as we do.
func agreed(t *testing.T, s string, key any, into any) *jose.JSONWebSignature {
	t.Helper()
	j, err := jose.ParseSignedCompact(s, []jose.SignatureAlgorithm{jose.EdDSA, jose.ES256, jose.ES384})
	if err != nil {
		t.Fatalf("go-jose does not parse what we accept: %v\n%s", err, s)
	}
	if key == nil {
		key = j.Signatures[0].Header.JSONWebKey
	}
	body, err := j.Verify(key)
	if err != nil {
		t.Fatalf("go-jose does not verify what we accept: %v\n%s", err, s)
	}
	if err := json.Unmarshal(body, into); err != nil {
		t.Fatalf("encoding/json does not read what we accept: %v\n%s", err, body)
	}
	return j
}

func fixedP256(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func FuzzProof(f *testing.F) {
	ed, ec := fixed(1), fixedP256(f)
	for _, key := range []crypto.Signer{ed, ec} {
		f.Add(key == ec, string(marshal(f, claims{"typ": "dpop+jwt", "alg": algOf(key), "jwk": jwkOf(f, key)})),
			string(marshal(f, claims{"jti": "1", "htm": "POST", "htu": audience, "iat": start.Unix()})))
	}
	f.Add(false, `{"typ":"dpop+jwt","alg":"EdDSA","jwk":{"kty":"OKP","crv":"Ed25519","x":"AAAA"}}`, `{"jti":"1","jti":"2"}`)
	f.Add(false, `{"typ":"dpop+jwt","alg":"none","jwk":{}}`, `{"htu":"https://writ.example/%6d%2Fcp?x","iat":1e400}`)
	f.Fuzz(func(t *testing.T, curve bool, header, body string) {
		var key crypto.Signer = ed
		if curve {
			key = ec
		}
		g := newGateway(t)
		proof := compact(t, key, header, body)
		got, row, err := g.Possession(identity.Evidence{Proof: []string{proof}, Method: "POST", URL: audience})
		if err != nil {
			if _, ok := err.(*writ.Denial); !ok || got != "" || row.Key != "" {
				t.Fatalf("refused with %v, %v, %v", got, row, err)
			}
			if writ.AsDenial(err).Code == writ.IdentityUnavailable {
				t.Fatal(err)
			}
			return
		}
		if got != thumbprint(t, key) {
			t.Fatalf("proved %s, which is not the key that signed", got)
		}
		var h struct{ Alg string }
		if err := json.Unmarshal([]byte(header), &h); err != nil || h.Alg == "Ed25519" {
			return // RFC 9864, which go-jose does not know
		}
		var c struct {
			JTI string `json:"jti"`
			HTM string `json:"htm"`
			IAT int64  `json:"iat"`
		}
		j := agreed(t, proof, nil, &c)
		if jwk := j.Signatures[0].Header.JSONWebKey; jwk == nil || !jwk.IsPublic() {
			t.Fatal("a proof without a public key was accepted")
		}
		if away := start.Unix() - c.IAT; c.JTI == "" || c.HTM != "POST" || away > 60 || away < -60 {
			t.Fatalf("accepted %+v", c)
		}
	})
}

func FuzzToken(f *testing.F) {
	g := newGateway(f)
	key := fixed(1)
	kid, jkt := string(thumbprint(f, g.signer)), string(thumbprint(f, key))
	f.Add(`{"alg":"EdDSA","typ":"at+jwt","kid":"`+kid+`"}`, `{"iss":"`+issuer+`","sub":"`+string(billing)+`","client_id":"`+string(billing)+`","aud":"`+audience+
		`","iat":1795510800,"exp":1795510860,"jti":"1","cnf":{"jkt":"`+jkt+`"},"writ":{"task":"task_06ffrzk9wsrkx50s2qn3v4e1hc","user":"maya"}}`)
	f.Add(`{"alg":"none","typ":"at+jwt","kid":"`+kid+`","jwk":{}}`, `{"iss":"","sub":"","cnf":null,"writ":[]}`)
	f.Fuzz(func(t *testing.T, header, body string) {
		token := compact(t, g.signer, header, body)
		p, err := g.Verify(context.Background(), g.request(t, key, token, nil, nil))
		if err != nil {
			if writ.AsDenial(err).Code == writ.IdentityUnavailable || p.Caller.Agent != "" {
				t.Fatal(p.Caller, err)
			}
			return
		}
		var c struct {
			Iss, Sub, Aud string
			Exp           int64
			Cnf           struct{ Jkt string }
			Writ          struct{ Task, User string }
		}
		agreed(t, token, g.signer.Public(), &c)
		if c.Iss != issuer || c.Aud != audience || c.Cnf.Jkt != jkt || c.Exp <= start.Unix() {
			t.Fatalf("accepted %s", body)
		}
		if string(p.Caller.Agent) != c.Sub || string(p.Task) != c.Writ.Task || string(p.Caller.User) != c.Writ.User || p.Until != c.Exp*1000 {
			t.Fatalf("proved %+v of %s", p, body)
		}
	})
}

func FuzzAssertion(f *testing.F) {
	g := newGateway(f)
	key := fixedP256(f)
	keys := func(context.Context, writ.AgentID) ([]crypto.PublicKey, error) {
		return []crypto.PublicKey{key.Public()}, nil
	}
	f.Add(`{"alg":"ES256","typ":"JWT","kid":"1"}`, `{"iss":"`+string(billing)+`","sub":"`+string(billing)+`","aud":["`+issuer+`"],"jti":"1","iat":1795510800,"exp":1795510860}`)
	f.Add(`{"alg":"HS256","jwk":{}}`, `{"aud":[["`+issuer+`"]],"exp":-0}`)
	f.Fuzz(func(t *testing.T, header, body string) {
		jwt := compact(t, key, header, body)
		a, err := g.Assertion(context.Background(), jwt, keys)
		if err != nil {
			if writ.AsDenial(err).Code == writ.IdentityUnavailable || a.Agent != "" {
				t.Fatal(a, err)
			}
			return
		}
		var c struct {
			Iss, Sub, Jti string
			Exp           int64
		}
		agreed(t, jwt, key.Public(), &c)
		if c.Iss != c.Sub || c.Sub != string(a.Agent) || c.Jti == "" || c.Exp*1000 != a.Until || c.Exp <= start.Unix() {
			t.Fatalf("%+v of %s", a, body)
		}
	})
}

// FuzzSAN puts any text, and any bytes, where a certificate has its name.
func FuzzSAN(f *testing.F) {
	g, ca := trusting(f)
	key := newECDSA(f, elliptic.P256())
	for _, v := range spiffeIDs {
		f.Add(v.id, []byte(nil))
	}
	f.Add("", san(f, string(billing), string(billing)).Value)
	f.Add("", []byte{0x30, 0x80, 0x86, 0x01, 'a', 0, 0})
	f.Fuzz(func(t *testing.T, uri string, raw []byte) {
		cert := ca.leaf(t, key.Public(), uri, func(c *x509.Certificate) {
			if raw != nil {
				c.ExtraExtensions = []pkix.Extension{{Id: san(t, "").Id, Value: raw}}
			}
		})
		if cert == nil {
			return
		}
		p, err := g.Verify(context.Background(), identity.Evidence{Chain: []*x509.Certificate{cert}})
		if err != nil {
			if writ.AsDenial(err).Code != writ.BadSVID {
				t.Fatal(err)
			}
			return
		}
		if len(cert.URIs) != 1 || cert.URIs[0].String() != string(p.Caller.Agent) {
			t.Fatalf("%v is %q", cert.URIs, p.Caller.Agent)
		}
		if id, err := identity.ParseAgent(string(p.Caller.Agent)); err != nil || id != p.Caller.Agent {
			t.Fatalf("accepted %q: %v", p.Caller.Agent, err)
		}
	})
}

// TestGoJOSE holds that what go-jose signs we verify: the algorithms, with
// every kind of key, as somebody else wrote them.
func TestGoJOSE(t *testing.T) {
	g := newGateway(t)
	for alg, key := range map[jose.SignatureAlgorithm]crypto.Signer{
		jose.EdDSA: newEd25519(t), jose.ES256: newECDSA(t, elliptic.P256()), jose.ES384: newECDSA(t, elliptic.P384()),
	} {
		options := (&jose.SignerOptions{EmbedJWK: true}).WithType("dpop+jwt")
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, options)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			j, err := signer.Sign(marshal(t, claims{"jti": time.Duration(i).String(), "htm": "POST", "htu": audience, "iat": start.Unix()}))
			if err != nil {
				t.Fatal(err)
			}
			text, err := j.CompactSerialize()
			if err != nil {
				t.Fatal(err)
			}
			got, _, err := g.Possession(identity.Evidence{Proof: []string{text}, Method: "POST", URL: audience})
			if err != nil || got != thumbprint(t, key) {
				t.Fatalf("%s: %v, %v", alg, got, err)
			}
			sum, err := (&jose.JSONWebKey{Key: key.Public()}).Thumbprint(crypto.SHA256)
			if err != nil || b64(sum) != string(got) {
				t.Fatalf("%s: thumbprint %s, go-jose has %s, %v", alg, got, b64(sum), err)
			}
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	ctx := context.Background()
	g, ca := trusting(b)
	b.Run("mtls", func(b *testing.B) {
		key := newECDSA(b, elliptic.P256())
		e := identity.Evidence{Chain: []*x509.Certificate{ca.leaf(b, key.Public(), string(billing), nil)}, Method: "POST", URL: audience}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := g.Verify(ctx, e); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, key := range []crypto.Signer{newEd25519(b), newECDSA(b, elliptic.P256())} {
		b.Run("dpop/"+algOf(key), func(b *testing.B) {
			token := g.issue(b, key)
			all := make([]identity.Evidence, b.N)
			for i := range all {
				all[i] = g.request(b, key, token, nil, nil)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range all {
				if _, err := g.Verify(ctx, all[i]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
