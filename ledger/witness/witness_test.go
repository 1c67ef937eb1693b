package witness

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/ledger/ledgertest"
	"github.com/writgate/writ/ledger/sqlite"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

var start = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// eye is a witness that watches the logs of ledgertest, and its URL.
func eye(t *testing.T, dir, name string, more func(*Config)) (*Server, string) {
	t.Helper()
	vkey, err := note.NewEd25519VerifierKey(ledgertest.Origin, ledgertest.Keys().Log.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Name: name, Key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(len(name)), 5}, 16)), Logs: []string{vkey}, Dir: dir, Now: func() time.Time { return start }}
	if more != nil {
		more(&c)
	}
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	t.Cleanup(func() { s.Close() })
	return s, h.URL
}

func log(t *testing.T, path string) *ledger.Ledger {
	t.Helper()
	s, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return ledgertest.Open(t, s, ledger.Config{})
}

func grow(t *testing.T, l *ledger.Ledger, n int) {
	t.Helper()
	for range n {
		if _, err := l.Commit(t.Context(), &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeAdmin, Note: map[string]string{"r": fmt.Sprint(time.Now().UnixNano())}}}); err != nil {
			t.Fatal(err)
		}
	}
}

// verified is what the receipt of a record says to somebody who trusts the
// witnesses.
func verified(t *testing.T, l *ledger.Ledger, index int64, witnesses ...string) *ledger.Verified {
	t.Helper()
	b, err := l.Prove(t.Context(), index)
	if err != nil {
		t.Fatal(err)
	}
	trust := ledgertest.Trust(l)
	trust.Witnesses = witnesses
	v, err := ledger.Verify(b, trust)
	if err != nil || v.Index != index {
		t.Fatalf("%+v, %v\n%s", v, err, b)
	}
	return v
}

func TestReceiptsSayWhoWitnessed(t *testing.T) {
	a, urlA := eye(t, t.TempDir(), "witness.example/a", nil)
	b, urlB := eye(t, t.TempDir(), "witness.example/bb", nil)
	path := filepath.Join(t.TempDir(), "ledger.db")
	l := log(t, path)
	grow(t, l, 5)
	if v := verified(t, l, 3, a.VerifierKey()); len(v.Witnesses) != 0 || !strings.HasPrefix(v.Standing(), "unwitnessed") {
		t.Errorf("before any witness: %+v, %s", v, v.Standing())
	}
	clients := []*Client{{URL: urlA, Key: a.VerifierKey()}, {URL: urlB + "/", Key: b.VerifierKey()}}
	for range 3 {
		grow(t, l, 4)
		if err := Ask(t.Context(), l, clients...); err != nil {
			t.Fatal(err)
		}
	}
	if err := Ask(t.Context(), l, clients...); err != nil { // it has not grown
		t.Fatal(err)
	}
	grow(t, l, 2)
	for i := range int64(18) {
		v := verified(t, l, i, a.VerifierKey(), b.VerifierKey())
		if len(v.Witnesses) != 2 || v.Standing() != "witnessed by 2" || !v.Witnesses["witness.example/a"].Equal(start) {
			t.Errorf("record %d: %v", i, v.Witnesses)
		}
	}
	if v := verified(t, l, 3, a.VerifierKey()); len(v.Witnesses) != 1 || v.Standing() != "witnessed by 1" {
		t.Errorf("with one of them trusted: %v", v.Witnesses)
	}
	if v := verified(t, l, 19, a.VerifierKey()); len(v.Witnesses) != 0 {
		t.Errorf("a record after the last round is witnessed by %v", v.Witnesses)
	}
	if _, err := l.VerifyAll(t.Context()); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = log(t, path)
	if v := verified(t, l, 3, a.VerifierKey(), b.VerifierKey()); len(v.Witnesses) != 2 {
		t.Errorf("after a restart: %v", v.Witnesses)
	}
	kept, err := l.Witnessed(t.Context())
	if err != nil || strings.Count(string(kept), "\n— ") != 3 {
		t.Errorf("kept:\n%s%v", kept, err)
	}
}

// TestF23WitnessFails has one witness down, one slow and one lying: the log
// goes on, and the good one's signature is kept.
func TestF23WitnessFails(t *testing.T) {
	good, url := eye(t, t.TempDir(), "witness.example/good", nil)
	other, _ := eye(t, t.TempDir(), "witness.example/other", nil)
	down := httptest.NewServer(nil)
	down.Close()
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // it notices who hangs up only when it has read all
		<-r.Context().Done()
	}))
	defer slow.Close()
	answer := func(code int, body string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.WriteHeader(code)
			io.WriteString(w, body)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	l := log(t, filepath.Join(t.TempDir(), "ledger.db"))
	grow(t, l, 3)
	bad := []*Client{
		{URL: down.URL, Key: other.VerifierKey()},
		{URL: slow.URL, Key: other.VerifierKey(), HTTP: &http.Client{Timeout: 50 * time.Millisecond}},
		{URL: answer(200, ""), Key: other.VerifierKey()},
		{URL: answer(200, "— witness.example/other AAAA\n"), Key: other.VerifierKey()},
		{URL: answer(200, strings.Repeat("x", 1<<20)), Key: other.VerifierKey()},
		{URL: answer(302, ""), Key: other.VerifierKey()},
		{URL: answer(409, "x"), Key: other.VerifierKey()},
		{URL: answer(409, "1\n"), Key: other.VerifierKey()},
		{URL: url, Key: other.VerifierKey()}, // the good one's, under another key
	}
	for _, c := range bad {
		if err := Ask(t.Context(), l, c, &Client{URL: url, Key: good.VerifierKey()}); err == nil || !strings.Contains(err.Error(), c.URL) {
			t.Errorf("%s: %v", c.URL, err)
		}
		if v := verified(t, l, 1, good.VerifierKey(), other.VerifierKey()); len(v.Witnesses) != 1 {
			t.Errorf("%s: witnessed by %v", c.URL, v.Witnesses)
		}
		grow(t, l, 1)
	}
	for _, c := range []struct {
		code int
		body string
	}{{409, "1000\n"}, {422, ""}} {
		err := Ask(t.Context(), l, &Client{URL: answer(c.code, c.body), Key: other.VerifierKey()})
		if !errors.Is(err, ledger.ErrRollback) {
			t.Errorf("a witness that has seen another history: %v", err)
		}
	}
}

// TestH94SplitView lets the holder of the log's key show two histories. The
// witness signs one, and keeps proof of the other.
func TestH94SplitView(t *testing.T) {
	dir := t.TempDir()
	var alarms []string
	s, url := eye(t, dir, "witness.example/a", func(c *Config) {
		c.Alarm = func(origin, file string, err error) { alarms = append(alarms, fmt.Sprint(origin, " ", file, " ", err)) }
	})
	one, two := filepath.Join(t.TempDir(), "ledger.db"), filepath.Join(t.TempDir(), "ledger.db")
	l := log(t, one)
	grow(t, l, 5)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(one)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(two, b, 0o600); err != nil {
		t.Fatal(err)
	}
	a, f := log(t, one), log(t, two)
	grow(t, a, 5)
	if err := Ask(t.Context(), a, &Client{URL: url, Key: s.VerifierKey()}); err != nil {
		t.Fatal(err)
	}
	ask := func(what string) {
		t.Helper()
		if err := Ask(t.Context(), f, &Client{URL: url, Key: s.VerifierKey()}); !errors.Is(err, ledger.ErrRollback) {
			t.Errorf("%s: %v", what, err)
		}
		if v := verified(t, f, 7, s.VerifierKey()); len(v.Witnesses) != 0 {
			t.Errorf("%s is witnessed", what)
		}
	}
	grow(t, f, 3)
	ask("a shorter fork")
	if len(alarms) != 0 {
		t.Errorf("alarms %v of what may be an old checkpoint", alarms)
	}
	grow(t, f, 2)
	ask("a fork of the same size")
	ask("a fork of the same size")
	if len(alarms) != 1 || !strings.HasSuffix(alarms[0], "<nil>") {
		t.Fatalf("alarms %v, want one", alarms)
	}
	evidence, err := os.ReadFile(strings.Fields(alarms[0])[1])
	if err != nil || strings.Count(string(evidence), ledgertest.Origin+"\n11\n") != 2 {
		t.Errorf("evidence %v:\n%s", err, evidence)
	}
	if b, err := f.Checkpoint(t.Context()); err != nil || !errors.Is(a.Cosigned(t.Context(), b), ledger.ErrRollback) {
		t.Errorf("a checkpoint of the other history is kept: %v", err)
	}
	grow(t, f, 2)
	if b, err := f.Checkpoint(t.Context()); err != nil || !errors.Is(a.Cosigned(t.Context(), b), ledger.ErrRollback) {
		t.Errorf("a checkpoint of more records than there are is kept: %v", err)
	}
	ask("a longer fork")
	if _, err := os.Stat(filepath.Join(dir, "evidence", "suspect-"+hashOf(ledgertest.Origin))); err != nil {
		t.Error(err)
	}
	grow(t, a, 1)
	if err := Ask(t.Context(), a, &Client{URL: url, Key: s.VerifierKey()}); err != nil {
		t.Errorf("the history that it has signed goes on: %v", err)
	}
}

// fake is a log of n leaves, without a ledger.
type fake struct {
	signer note.Signer
	hashes map[int64]tlog.Hash
	n      int64
}

func (f *fake) ReadHashes(indexes []int64) (out []tlog.Hash, err error) {
	for _, i := range indexes {
		out = append(out, f.hashes[i])
	}
	return out, nil
}

func newFake(t *testing.T, origin string, n int64) (*fake, string) {
	t.Helper()
	skey, vkey, err := note.GenerateKey(nil, origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{signer: signer, hashes: map[int64]tlog.Hash{}}
	for ; f.n < n; f.n++ {
		hs, err := tlog.StoredHashes(f.n, []byte(fmt.Sprint(f.n)), f)
		if err != nil {
			t.Fatal(err)
		}
		for i, h := range hs {
			f.hashes[tlog.StoredHashIndex(0, f.n)+int64(i)] = h
		}
	}
	return f, vkey
}

func (f *fake) root(t *testing.T, n int64) tlog.Hash {
	t.Helper()
	if n == 0 {
		return emptyRoot
	}
	h, err := tlog.TreeHash(n, f)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (f *fake) checkpoint(t *testing.T, n int64, more string) string {
	t.Helper()
	b, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n%s", f.signer.Name(), n, f.root(t, n), more)}, f.signer)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (f *fake) proof(t *testing.T, n, old int64) string {
	t.Helper()
	p, err := tlog.ProveTree(n, old, f)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, h := range p {
		b.WriteString(h.String() + "\n")
	}
	return b.String()
}

// TestAddCheckpoint goes through what c2sp.org/tlog-witness demands of an
// answer.
func TestAddCheckpoint(t *testing.T) {
	f, vkey := newFake(t, "log.example/one", 20)
	stranger, _ := newFake(t, "log.example/one", 20)
	unknown, _ := newFake(t, "log.example/unknown", 20)
	dir := t.TempDir()
	s, url := eye(t, dir, "witness.example/a", func(c *Config) { c.Logs = []string{vkey} })
	post := func(body string) (int, string, string) {
		t.Helper()
		r, err := http.Post(url+"/add-checkpoint", "text/plain", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(b), r.Header.Get("Content-Type")
	}
	hash := f.root(t, 3).String() + "\n"
	broken := strings.Replace(f.checkpoint(t, 8, ""), "\n8\n", "\n9\n", 1)
	bad := "log.example/one\n0\n" + f.root(t, 3).String() + "\n"
	badEmpty, err := note.Sign(&note.Note{Text: bad}, f.signer)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, body string
		code       int
	}{
		{"the empty tree with another root", "old 0\n\n" + string(badEmpty), 422},
		{"a proof from nothing", "old 0\n" + hash + "\n" + f.checkpoint(t, 8, ""), 422},
		{"the empty tree", "old 0\n\n" + f.checkpoint(t, 0, ""), 200},
		{"the first", "old 0\n\n" + f.checkpoint(t, 8, ""), 200},
		{"the same again", "old 8\n\n" + f.checkpoint(t, 8, ""), 200},
		{"from nothing again", "old 0\n\n" + f.checkpoint(t, 8, ""), 409},
		{"from what was never signed", "old 5\n" + f.proof(t, 12, 5) + "\n" + f.checkpoint(t, 12, ""), 409},
		{"an older one", "old 3\n\n" + f.checkpoint(t, 3, ""), 409},
		{"no proof", "old 8\n\n" + f.checkpoint(t, 12, ""), 422},
		{"another's proof", "old 8\n" + f.proof(t, 12, 7) + "\n" + f.checkpoint(t, 12, ""), 422},
		{"a proof of what is the same", "old 8\n" + hash + "\n" + f.checkpoint(t, 8, ""), 422},
		{"an extension, which is signed too", "old 8\n" + f.proof(t, 12, 8) + "\n" + f.checkpoint(t, 12, "more\n"), 200},
		{"an old size above the new", "old 13\n\n" + f.checkpoint(t, 12, ""), 400},
		{"another log", "old 0\n\n" + unknown.checkpoint(t, 8, ""), 404},
		{"another key", "old 12\n" + f.proof(t, 14, 12) + "\n" + stranger.checkpoint(t, 14, ""), 403},
		{"a broken signature", "old 12\n\n" + broken, 403},
		{"nothing", "", 400},
		{"no signature", "old 0\n\nlog.example/one\n1\n" + hash, 400},
		{"no old size", hash + "\n" + f.checkpoint(t, 14, ""), 400},
		{"a size with a zero before it", "old 012\n\n" + f.checkpoint(t, 14, ""), 400},
		{"a negative size", "old -1\n\n" + f.checkpoint(t, 14, ""), 400},
		{"a hash that is none", "old 12\nAAAA\n\n" + f.checkpoint(t, 14, ""), 400},
		{"64 hashes", "old 12\n" + strings.Repeat(hash, 64) + "\n" + f.checkpoint(t, 14, ""), 400},
		{"too much", "old 12\n\n" + f.checkpoint(t, 14, strings.Repeat("x", maxBody)+"\n"), 400},
		{"the last", "old 12\n" + f.proof(t, 20, 12) + "\n" + f.checkpoint(t, 20, ""), 200},
	} {
		code, body, typ := post(c.body)
		if code != c.code {
			t.Errorf("%s: %d %q, want %d", c.name, code, body, c.code)
		}
		if code == 409 && (body != "8\n" || typ != "text/x.tlog.size") {
			t.Errorf("%s: %q, %s", c.name, body, typ)
		}
		if code == 200 {
			_, sent, _ := strings.Cut(c.body, "\n\n")
			n, err := note.Open([]byte(sent+body), note.VerifierList(s.signer))
			if err != nil || len(n.Sigs) != 1 {
				t.Errorf("%s: %v", c.name, err)
			}
		}
	}
	for _, method := range []string{"GET", "PUT"} {
		r, err := http.NewRequest(method, url+"/add-checkpoint", nil)
		if err != nil {
			t.Fatal(err)
		}
		a, err := http.DefaultClient.Do(r)
		if err != nil || a.StatusCode != http.StatusMethodNotAllowed && a.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %v, %v", method, a.Status, err)
		}
		a.Body.Close()
	}
	for path, code := range map[string]int{hashOf("log.example/one"): 200, hashOf("log.example/unknown"): 404, "x": 404} {
		r, err := http.Get(url + "/" + path + "/checkpoint")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || r.StatusCode != code {
			t.Errorf("%s: %s, %v", path, r.Status, err)
		}
		if code == 200 {
			if n, err := note.Open(b, note.VerifierList(s.signer, s.logs["log.example/one"][0])); err != nil || len(n.Sigs) != 2 || !strings.Contains(n.Text, "\n20\n") {
				t.Errorf("the checkpoint that is shown: %v\n%s", err, b)
			}
		}
	}

	// A restart forgets nothing, and a file that is gone wrong is not begun anew.
	reopen := func() (*Server, error) { return Open(s.config) }
	if _, err := reopen(); err == nil {
		t.Error("two processes keep one directory")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := reopen()
	if err != nil || again.last("log.example/one").size != 20 {
		t.Fatalf("after a restart: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(again.file("log.example/one"), []byte(f.checkpoint(t, 4, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := reopen(); err == nil {
		t.Error("opened with a checkpoint that this witness has not signed")
	}
}

// TestOneHistoryUnderRace submits many sizes at once: what is signed is one
// after the other.
func TestOneHistoryUnderRace(t *testing.T) {
	f, vkey := newFake(t, "log.example/one", 64)
	s, url := eye(t, t.TempDir(), "witness.example/a", func(c *Config) { c.Logs = []string{vkey} })
	bodies := map[[2]int64]string{}
	for old := range int64(33) {
		for n := max(old, 1); n < 33; n++ {
			proof := ""
			if old != 0 && old != n {
				proof = f.proof(t, n, old)
			}
			bodies[[2]int64{old, n}] = fmt.Sprintf("old %d\n%s\n%s", old, proof, f.checkpoint(t, n, ""))
		}
	}
	var mu sync.Mutex
	signed := map[int64]int64{} // from which old size each was signed
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for key, body := range bodies {
				w := httptest.NewRecorder()
				s.ServeHTTP(w, httptest.NewRequest("POST", url+"/add-checkpoint", strings.NewReader(body)))
				if w.Code == 200 && key[0] != key[1] {
					mu.Lock()
					if was, ok := signed[key[0]]; ok {
						t.Errorf("from %d both %d and %d were signed", key[0], was, key[1])
					}
					signed[key[0]] = key[1]
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	at := int64(0)
	for signed[at] != 0 {
		at = signed[at]
	}
	if at != s.last("log.example/one").size || len(signed) < 2 {
		t.Errorf("from 0, %v lead to %d; the last is %d", signed, at, s.last("log.example/one").size)
	}
}

func FuzzSubmission(f *testing.F) {
	f.Add([]byte("old 0\n\nlog.example/one\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n— log.example/one AAAAAAAA\n"))
	f.Add([]byte("old 12\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\nx\n13\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSubmission(b)
		if err != nil {
			return
		}
		again := fmt.Appendf(nil, "old %d\n", s.old)
		for _, h := range s.proof {
			again = append(again, h.String()+"\n"...)
		}
		if again = append(append(again, '\n'), s.note...); !bytes.Equal(again, b) {
			t.Errorf("%q is read as %q", b, again)
		}
		if text, err := textOf(s.note); err == nil {
			if h, err := parseHead(text); err == nil && !strings.HasPrefix(text, fmt.Sprintf("%s\n%d\n%s\n", h.origin, h.size, h.root)) {
				t.Errorf("%q is read as %+v", text, h)
			}
		}
	})
}
