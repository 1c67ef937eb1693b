package capability_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/writgate/writ"
	"github.com/writgate/writ/capability"
)

// TestJOSE holds what we wrote by hand against an implementation of the RFCs
// that others use: our set of keys, our tokens, our thumbprints and our proofs
// are theirs, and theirs are ours.
func TestJOSE(t *testing.T) {
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(verifier(t).Keys.JWKS(), &set); err != nil {
		t.Fatal(err)
	}
	c := paying(t)
	token := mint(t, gateway, c)
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := signed.Verify(set.Key(signed.Signatures[0].Header.KeyID)[0])
	if err != nil {
		t.Fatal(err)
	}
	if claims, err := c.Claims(); err != nil || string(payload) != string(claims) {
		t.Errorf("go-jose reads %s, %v", payload, err)
	}

	keys := map[jose.SignatureAlgorithm]crypto.Signer{jose.EdDSA: holder, jose.ES256: ecdsaKey(t, elliptic.P256()), jose.ES384: ecdsaKey(t, elliptic.P384())}
	for alg, key := range keys {
		public := jose.JSONWebKey{Key: key.Public()}
		sum, err := public.Thumbprint(crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		if got := thumbprint(t, key.Public()); got != writ.Thumbprint(base64.RawURLEncoding.EncodeToString(sum)) {
			t.Errorf("%s: thumbprint %s", alg, got)
		}
		ours, err := jose.ParseSignedCompact(prove(t, key, token), []jose.SignatureAlgorithm{alg})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ours.Verify(ours.Signatures[0].Header.JSONWebKey); err != nil {
			t.Errorf("%s: go-jose on our proof: %v", alg, err)
		}

		held := paying(t)
		held.Key = thumbprint(t, key.Public())
		token := mint(t, gateway, held)
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, &jose.SignerOptions{EmbedJWK: true, ExtraHeaders: map[jose.HeaderKey]any{"typ": capability.ProofType}})
		if err != nil {
			t.Fatal(err)
		}
		hash := sha256.Sum256([]byte(token))
		theirs, err := signer.Sign(fmt.Appendf(nil, `{"jti":"x","htm":"POST","htu":%q,"iat":%d,"cth":%q}`, target, start.Unix(), base64.RawURLEncoding.EncodeToString(hash[:])))
		if err != nil {
			t.Fatal(err)
		}
		r := request(t, token, key)
		proof, err := theirs.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(capability.ProofHeader, proof)
		if _, err := verifier(t).Verify(t.Context(), r); err != nil {
			t.Errorf("%s: we on go-jose's proof: %v", alg, err)
		}
	}
}
