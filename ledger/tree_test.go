package ledger

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"
)

// batches is a View that has only batches.
type batches []*Batch

func (bs batches) Batch(_ context.Context, index int64) (*Batch, error) {
	for _, b := range bs {
		if index <= b.Last && index >= 0 {
			return b, nil
		}
	}
	if index < 0 && len(bs) != 0 {
		return bs[len(bs)-1], nil
	}
	return nil, nil
}
func (batches) Rows(context.Context, ...[2]string) ([]Row, error) { panic("not asked for") }
func (batches) Scan(context.Context, string, string, int) ([]Row, error) {
	panic("not asked for")
}
func (batches) Records(context.Context, ...Filter) ([]Record, error) { panic("not asked for") }

// TestTree grows logs by batches of any size: our edge, and what is stored of
// it, is the tree of package tlog, and every inclusion and every consistency
// is proven from it.
func TestTree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var e edge
		var bs batches
		var leaves [][]byte
		roots := []tlog.Hash{e.root()}
		for range rapid.IntRange(1, 12).Draw(t, "batches") {
			b := &Batch{First: e.size}
			for range rapid.IntRange(1, 20).Draw(t, "records") {
				leaf := fmt.Appendf(nil, "leaf %d", len(leaves))
				b.Hashes = e.add(leaf, b.Hashes)
				leaves, roots = append(leaves, leaf), append(roots, e.root())
			}
			b.Last = e.size - 1
			bs = append(bs, b)
		}
		n := e.size
		h := &hashes{ctx: t.Context(), view: bs}
		for _, size := range []int64{n, rapid.Int64Range(1, n).Draw(t, "size")} {
			if want, err := tlog.TreeHash(size, h); err != nil || roots[size] != want {
				t.Fatalf("the root of %d records is %v, want %v, %v", size, roots[size], want, err)
			}
			if again, err := readEdge(size, h); err != nil || again.root() != roots[size] {
				t.Fatalf("the edge of %d records: %v", size, err)
			}
		}
		i, old := rapid.Int64Range(0, n-1).Draw(t, "record"), rapid.Int64Range(1, n).Draw(t, "old")
		p, err := tlog.ProveRecord(n, i, h)
		if err != nil || tlog.CheckRecord(p, n, roots[n], i, tlog.RecordHash(leaves[i])) != nil {
			t.Fatalf("record %d of %d: %v", i, n, err)
		}
		if tlog.CheckRecord(p, n, roots[n], i, tlog.RecordHash([]byte("another"))) == nil {
			t.Fatal("another record is proven")
		}
		tp, err := tlog.ProveTree(n, old, h)
		if err != nil || tlog.CheckTree(tp, n, roots[n], old, roots[old]) != nil {
			t.Fatalf("from %d to %d: %v", old, n, err)
		}
	})
}

func TestHashesThatAreNotThere(t *testing.T) {
	whole := &Batch{Last: 3, Hashes: make([]byte, 32*7)}
	for name, bs := range map[string]batches{
		"no batch": {}, "a gap": {{First: 9, Last: 12}}, "cut off": {{Last: 3, Hashes: make([]byte, 32*6+31)}},
	} {
		if _, err := (&hashes{ctx: t.Context(), view: bs}).ReadHashes([]int64{6}); err == nil {
			t.Errorf("%s: read", name)
		}
	}
	if _, err := (&hashes{ctx: t.Context(), view: batches{whole}}).ReadHashes([]int64{6}); err != nil {
		t.Error(err)
	}
}

func testSigner(t testing.TB, seed byte) *signer {
	t.Helper()
	s, err := newSigner("log.example", ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func FuzzCheckpoint(f *testing.F) {
	s := testSigner(f, 1)
	var e edge
	e.add([]byte("x"), nil)
	b, err := s.checkpoint(&e)
	if err != nil {
		f.Fatal(err)
	}
	text, _, _ := strings.Cut(string(b), "\n\n")
	f.Add(text + "\n")
	f.Add("a\n0\n\n")
	f.Add("a\n01\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseCheckpoint(text)
		if err == nil && c.text() != text {
			t.Errorf("%q is another text of %q", text, c.text())
		}
		// As a note that nobody signed, it is nothing.
		if _, err := (&keyring{s, []note.Verifier{s}}).open([]byte(text + "\n— log.example AAAAAAAA\n")); err == nil {
			t.Errorf("%q is believed unsigned", text)
		}
	})
}

func FuzzProof(f *testing.F) {
	f.Add(appendProof(nil, &proof{leaf: []byte("{}"), index: 3, path: tlog.RecordProof{{1}, {2}}, note: []byte("a\n5\nx\n\n— a AAAAAAAA\n")}))
	f.Add([]byte("c2sp.org/tlog-proof@v1\nindex 1\n\n"))
	f.Add([]byte("c2sp.org/tlog-proof@v1\nextra \nindex 0\n\n"))
	trust := Trust{Origin: "log.example", Logs: []string{testSigner(f, 1).vkey}}
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := parseProof(b); err == nil {
			if again := appendProof(nil, p); !bytes.Equal(again, b) {
				t.Errorf("%q is another text of %q", b, again)
			}
		}
		if v, err := Verify(b, trust); err == nil {
			t.Errorf("%q verifies: %+v", b, v)
		}
	})
}

// TestLogIsNotItsOwnWitness, under whatever name.
func TestLogIsNotItsOwnWitness(t *testing.T) {
	s, other := testSigner(t, 1), testSigner(t, 2)
	var e edge
	e.add([]byte("x"), nil)
	b, err := s.checkpoint(&e)
	if err != nil {
		t.Fatal(err)
	}
	witness := func(k ed25519.PrivateKey) string {
		public := append([]byte{algCosignature}, k.Public().(ed25519.PublicKey)...)
		return fmt.Sprintf("w.example+%08x+%s", keyHash("w.example", public), base64.StdEncoding.EncodeToString(public))
	}
	trust := Trust{Origin: "log.example", Logs: []string{s.vkey}, Witnesses: []string{witness(other.key)}}
	if n, by, err := trust.Checkpoint(b); err != nil || n != 1 || len(by) != 0 {
		t.Errorf("%d, %v, %v", n, by, err)
	}
	trust.Witnesses = append(trust.Witnesses, witness(s.key))
	if _, _, err := trust.Checkpoint(b); err == nil {
		t.Error("the log's key is trusted as a witness")
	}
}
