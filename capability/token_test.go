package capability_test

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/capability"
	"pgregory.net/rapid"
)

// TestTokenForged: every way in which a token is not quite a capability.
func TestTokenForged(t *testing.T) {
	c := paying(t)
	good, err := c.Claims()
	if err != nil {
		t.Fatal(err)
	}
	head := header(t, gateway)
	kid := string(thumbprint(t, gateway.Public()))
	edit := func(text, old, new string) string {
		if !strings.Contains(text, old) {
			t.Fatalf("%q is not in the claims", old)
		}
		return strings.Replace(text, old, new, 1)
	}
	claims := func(old, new string) string { return signJWS(gateway, head, edit(string(good), old, new)) }
	hs256 := func() string {
		b64 := base64.RawURLEncoding
		text := b64.EncodeToString([]byte(edit(head, "EdDSA", "HS256"))) + "." + b64.EncodeToString([]byte(good))
		mac := hmac.New(sha256.New, gateway.Public().(ed25519.PublicKey))
		mac.Write([]byte(text))
		return text + "." + b64.EncodeToString(mac.Sum(nil))
	}
	valid := mint(t, gateway, c)
	parts := strings.Split(valid, ".")
	tests := map[string]string{
		"not a token":                  "x",
		"two parts":                    parts[0] + "." + parts[1],
		"four parts":                   valid + ".x",
		"no signature":                 parts[0] + "." + parts[1] + ".",
		"padding":                      valid + "=",
		"a line feed":                  parts[0] + ".\n" + parts[1] + "." + parts[2],
		"a line feed in the signature": valid[:len(valid)-4] + "\n" + valid[len(valid)-4:],
		"too long":                     strings.Repeat("a", 17<<10) + valid,
		"signed by nobody known":       signJWS(thief, head, string(good)),
		"signed by the holder":         signJWS(holder, head, string(good)),
		"alg none":                     signJWS(gateway, edit(head, "EdDSA", "none"), string(good)),
		"alg HS256 by the public key":  hs256(),
		"alg ES256":                    signJWS(gateway, edit(head, "EdDSA", "ES256"), string(good)),
		"typ of an access token":       signJWS(gateway, edit(head, "writ-cap+jwt", "at+jwt"), string(good)),
		"typ of a proof":               signJWS(gateway, edit(head, "writ-cap+jwt", "writ-proof+jwt"), string(good)),
		"typ in capitals":              signJWS(gateway, edit(head, "writ-cap+jwt", "WRIT-CAP+JWT"), string(good)),
		"kid unknown":                  signJWS(gateway, edit(head, kid, kid[1:]+"x"), string(good)),
		"kid absent":                   signJWS(gateway, `{"alg":"EdDSA","typ":"writ-cap+jwt"}`, string(good)),
		"kid that walks":               signJWS(gateway, edit(head, kid, "../../etc/passwd"), string(good)),
		"crit":                         signJWS(gateway, edit(head, "{", `{"crit":["x"],`), string(good)),
		"jku":                          signJWS(gateway, edit(head, "{", `{"jku":"https://evil.example/keys",`), string(good)),
		"embedded key":                 signJWS(thief, edit(head, "{", `{"jwk":{"crv":"Ed25519","kty":"OKP","x":"AAAA"},`), string(good)),
		"alg twice":                    signJWS(gateway, edit(head, "{", `{"alg":"EdDSA",`), string(good)),
		"payload that is no JSON":      signJWS(gateway, head, "x"),
		"payload that is a list":       signJWS(gateway, head, "[]"),
		"an unknown claim":             claims(`"aud"`, `"aux":1,"aud"`),
		"an unknown private claim":     claims(`"v":1`, `"limit":1,"v":1`),
		"another version":              claims(`"v":1`, `"v":2`),
		"a claim twice":                claims(`"aud"`, `"jti":"x","aud"`),
		"a claim in capitals":          claims(`"aud"`, `"AUD"`),
		"two audiences":                claims(`"aud":"`+audience+`"`, `"aud":["`+audience+`","x"]`),
		"no audience":                  claims(`"aud":"`+audience+`",`, ""),
		"an empty audience":            claims(`"aud":"`+audience+`"`, `"aud":""`),
		"no presenter":                 claims(`,"cnf":{"jkt":"`+string(c.Key)+`"},"exp"`, `,"exp"`),
		"a presenter of another kind":  claims(`"cnf":{"jkt":"`+string(c.Key)+`"},"exp"`, `"cnf":{"x5t#S256":"`+string(c.Key)+`"},"exp"`),
		"no agent":                     claims(`"sub":"spiffe://acme.example/agent/clerk"`, `"sub":""`),
		"no digest of the arguments":   claims(`"arguments":"`+string(c.Arguments)+`",`, ""),
		"an empty digest":              claims(`"arguments":"`+string(c.Arguments)+`"`, `"arguments":""`),
		"an id of another kind":        claims(string(c.ID), "call_"+strings.TrimPrefix(string(c.ID), "cap_")),
		"an unknown tier":              claims(`"tier":"privileged"`, `"tier":"harmless"`),
		"times that differ":            claims(`"iat":1764032400`, `"iat":1764032399`),
		"a time with a fraction":       claims(`"exp":1764032460`, `"exp":1764032460.5`),
		"a time as text":               claims(`"exp":1764032460`, `"exp":"1764032460"`),
		"a time before the epoch":      claims(`"exp":1764032460`, `"exp":-1`),
		"a time beyond all":            claims(`"exp":1764032460`, `"exp":9007199254740993`),
		"a life that never begins":     claims(`"exp":1764032460`, `"exp":1764032400`),
		"a life of five minutes and 1": claims(`"exp":1764032460`, `"exp":1764032701`),
	}
	for name, token := range tests {
		if _, err := verifier(t).Verify(t.Context(), request(t, token, holder)); codeOf(t, err) != writ.BadToken {
			t.Errorf("%s: %v, want %s", name, err, writ.BadToken)
		}
	}
	// And every single character of a good one.
	v := verifier(t)
	for i := range len(valid) {
		for _, with := range []byte{'A', 'b', '.', '-'} {
			forged := valid[:i] + string(with) + valid[i+1:]
			if forged == valid {
				continue
			}
			if _, err := v.Verify(t.Context(), request(t, forged, holder)); codeOf(t, err) != writ.BadToken {
				t.Fatalf("character %d replaced: %v", i, err)
			}
		}
	}
	if _, err := v.Verify(t.Context(), request(t, valid, holder)); err != nil {
		t.Errorf("the good one, after all that: %v", err)
	}
}

// TestH51Chain: a chain is read in order, and no longer than four delegations.
func TestH51Chain(t *testing.T) {
	c := paying(t)
	c.Actors = nil
	for _, name := range []string{"e", "d", "c", "b", "a"} {
		c.Actors = append(c.Actors, capability.Actor{Agent: writ.AgentID("spiffe://acme.example/" + name), Key: writ.Thumbprint("key-" + name)})
	}
	got, err := verifier(t).Verify(t.Context(), request(t, mint(t, gateway, c), holder))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Actors, c.Actors) {
		t.Errorf("chain %v, want %v", got.Actors, c.Actors)
	}
	c.Actors = append(c.Actors, capability.Actor{Agent: "spiffe://acme.example/z", Key: "key-z"})
	if _, err := c.Claims(); err == nil {
		t.Error("a chain of five delegations was issued")
	}
	c.Actors = nil
	if _, err := c.Claims(); err == nil {
		t.Error("a capability of nobody was issued")
	}
}

// TestClaimsNeedEverything: nothing that every capability says may be missing.
func TestClaimsNeedEverything(t *testing.T) {
	optional := []string{"User", "Inputs", "State", "Preconditions", "Approval", "Tier"} // a zero tier is privileged
	full := *paying(t)
	fields := reflect.VisibleFields(reflect.TypeOf(full))
	for _, f := range fields {
		if f.Anonymous {
			continue
		}
		c := full
		reflect.ValueOf(&c).Elem().FieldByIndex(f.Index).SetZero()
		_, err := c.Claims()
		if missing := !strings.Contains(strings.Join(optional, " "), f.Name); (err != nil) != missing {
			t.Errorf("without %s: %v", f.Name, err)
		}
	}
}

// TestClaimsRoundTrip: what is issued is what is read.
func TestClaimsRoundTrip(t *testing.T) {
	text := rapid.StringMatching(`[ -~é漢]{1,40}`)
	rapid.Check(t, func(rt *rapid.T) {
		c := paying(t)
		c.Audience, c.User = text.Draw(rt, "audience"), writ.UserID(rapid.OneOf(rapid.Just(""), text).Draw(rt, "user"))
		c.Name, c.Tool = text.Draw(rt, "name"), writ.ToolName(text.Draw(rt, "tool"))
		c.Tier = writ.Tier(rapid.IntRange(0, 2).Draw(rt, "tier"))
		c.Actors = rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) capability.Actor {
			return capability.Actor{Agent: writ.AgentID(text.Draw(rt, "agent")), Key: writ.Thumbprint(text.Draw(rt, "key"))}
		}), 1, 5).Draw(rt, "actors")
		c.Expires = c.Issued.Add(time.Duration(rapid.IntRange(1, 299).Draw(rt, "life")) * time.Second).Truncate(time.Second)
		v := verifier(t)
		v.Audience, v.Now = c.Audience, func() time.Time { return c.Issued }
		r := request(t, mint(t, gateway, c), holder)
		r.Name = c.Name
		got, err := v.Verify(t.Context(), r)
		if err != nil {
			rt.Fatal(err)
		}
		if !reflect.DeepEqual(got, c) {
			rt.Fatalf("read\n%+v, want\n%+v", got, c)
		}
	})
}

// TestKeys: what is no set of our keys is not read as one.
func TestKeys(t *testing.T) {
	ours := `{"alg":"EdDSA","crv":"Ed25519","kid":"a","kty":"OKP","use":"sig","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	for set, ok := range map[string]bool{
		`{"keys":[` + ours + `]}`:                                  true,
		`{"keys":[{"kty":"RSA","n":"x","e":"AQAB"},` + ours + `]}`: true,
		`{"keys":[]}`: false,
		`{}`:          false,
		`[]`:          false,
		`{"keys":[{"kty":"RSA","n":"x","e":"AQAB"}]}`:                      false,
		`{"keys":[` + strings.Replace(ours, "11qY", "qY", 1) + `]}`:        false,
		`{"keys":[` + strings.Replace(ours, "11qY", "1+qY", 1) + `]}`:      false,
		`{"keys":[` + strings.Replace(ours, `{`, `{"d":"AAAA",`, 1) + `]}`: false,
	} {
		if _, err := capability.ParseKeys([]byte(set)); (err == nil) != ok {
			t.Errorf("%s: %v", set, err)
		}
	}
	// RFC 8037, appendix A.3.
	keys, err := capability.ParseKeys([]byte(`{"keys":[` + ours + `]}`))
	if _, named := keys["kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"]; err != nil || !named {
		t.Errorf("keys %v, %v", keys, err)
	}
}
