package capability_test

import (
	"bytes"
	"crypto"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/writgate/writ"
	"github.com/writgate/writ/capability"
)

// payments is a tool server that runs nothing without a writ. This is all
// that it takes.
func payments(v *capability.Verifier, base string, pay func(*capability.Capability, []byte)) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /pay", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			http.Error(w, "too_large", http.StatusRequestEntityTooLarge)
			return
		}
		request := capability.Request{Header: r.Header, Method: r.Method, URL: base + r.URL.Path, Name: "pay", Arguments: body}
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			request.Peer = r.TLS.PeerCertificates[0]
		}
		c, err := v.Verify(r.Context(), request)
		if err != nil {
			// The reason is for the caller; err itself is for the server's log.
			http.Error(w, string(writ.AsDenial(err).Code), http.StatusForbidden)
			return
		}
		pay(c, body)
		fmt.Fprint(w, "paid")
	})
	return mux
}

// A tool server that checks every call itself, offline, with nothing but the
// gateway's public keys.
func ExampleVerifier() {
	t := new(testing.T)
	paid := 0
	var handler http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	defer server.Close()
	handler = payments(verifier(t), server.URL, func(*capability.Capability, []byte) { paid++ })

	writ := mint(t, gateway, paying(t)) // for one payment of 12.50, presented by holder
	send := func(who, token string, key crypto.Signer, body string) {
		r, _ := http.NewRequest(http.MethodPost, server.URL+"/pay", bytes.NewReader([]byte(body)))
		if token != "" {
			proof, _ := capability.Prove(key, token, r.Method, r.URL.String(), start)
			r.Header.Set(capability.Header, token)
			r.Header.Set(capability.ProofHeader, proof)
		}
		answer, err := server.Client().Do(r)
		if err != nil {
			panic(err)
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		fmt.Printf("%s: %d %s\n", who, answer.StatusCode, bytes.TrimSpace(text))
	}
	send("no writ", "", holder, arguments)
	send("another amount", writ, holder, `{"amount":"9999.00","reference":"INV-7","to":"acct-204"}`)
	send("a thief", writ, thief, arguments)
	send("its holder", writ, holder, arguments)
	send("once more", writ, holder, arguments)
	fmt.Println("payments:", paid)
	// Output:
	// no writ: 403 unauthenticated
	// another amount: 403 capability_scope
	// a thief: 403 no_proof_of_possession
	// its holder: 200 paid
	// once more: 403 already_used
	// payments: 1
}
