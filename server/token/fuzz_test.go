package token_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/writgate/writ/server/token"
)

// FuzzRequest sends any body. A stranger gets an error of the client's, and
// leaves no record.
func FuzzRequest(f *testing.F) {
	w := newWorld(f)
	f.Add("grant_type=client_credentials&client_assertion_type="+jwtBearer+"&client_assertion=a.b.c", "application/x-www-form-urlencoded", "x")
	f.Add("grant_type="+exchange+"&subject_token=a.b.c&subject_token_type="+typeJWT+"&client_secret=x", "application/x-www-form-urlencoded; charset=utf-8", "")
	f.Add("grant_type=a;b&%zz&&=&grant_type=", "multipart/form-data; boundary=\x00", "a.b.c")
	f.Fuzz(func(t *testing.T, body, media, proof string) {
		a := w.send(t, "POST", token.Path, body, http.Header{"Content-Type": {media}, "Dpop": {proof}})
		if a.Status/100 != 4 || a.Error == "" || a.AccessToken != "" {
			t.Fatalf("%+v", a)
		}
		if strings.ContainsFunc(a.Description, func(r rune) bool { return r < 0x20 || r > 0x7e || r == '"' || r == '\\' }) {
			t.Fatalf("description %q", a.Description)
		}
		if n := len(w.records(t)); n != 0 {
			t.Fatalf("%d records of a stranger", n)
		}
	})
}

func BenchmarkToken(b *testing.B) {
	w := newWorld(b)
	bodies, proofs := make([]string, b.N), make([]string, b.N)
	for i := range b.N {
		bodies[i], proofs[i] = w.request(b, nil).Encode(), w.proof(b, w.bound, nil)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if a := w.send(b, "POST", token.Path, bodies[i], http.Header{"Dpop": {proofs[i]}}); a.Status != 200 {
			b.Fatalf("%+v", a)
		}
	}
}
