package ledger_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/ledger/ledgertest"
	"github.com/writgate/writ/ledger/sqlite"
	"github.com/writgate/writ/ledger/witness"
	"golang.org/x/mod/sumdb/tlog"
)

var writeV1 = flag.Bool("write-v1", false, "write testdata/v1, which must not exist: what is there verifies forever")

// A vectors file is what version 1 looks like, for us and for others.
type vectors struct {
	Origin      string        `json:"origin"`
	Logs        []string      `json:"logs"`
	Witnesses   []string      `json:"witnesses"`
	Receipts    []receipt     `json:"receipts"`
	Refused     []refused     `json:"refused"` // receipts that must not verify
	Consistency []consistency `json:"consistency"`
	Parts       []part        `json:"parts"`
	Sealed      []sealed      `json:"sealed"`
}

type receipt struct {
	File      string               `json:"file"`
	Index     int64                `json:"index"`
	Size      int64                `json:"size"`
	Leaf      string               `json:"leaf"`
	LeafHash  string               `json:"leaf_hash"`
	Witnesses map[string]time.Time `json:"witnesses"`
}

type refused struct {
	Why     string `json:"why"`
	Receipt string `json:"receipt"`
}

type consistency struct {
	Old     int64    `json:"old"`
	OldRoot string   `json:"old_root"`
	New     int64    `json:"new"`
	NewRoot string   `json:"new_root"`
	Proof   []string `json:"proof"`
}

type part struct {
	Record int64       `json:"record"`
	Name   string      `json:"name"`
	Salt   []byte      `json:"salt"`
	Bytes  []byte      `json:"bytes"`
	Digest writ.Digest `json:"digest"`
}

// sealed is a payload as it is stored, under the keys of package ledgertest.
type sealed struct {
	Record  int64  `json:"record"`
	Wrapped []byte `json:"wrapped"`
	Sealed  []byte `json:"sealed"`
}

const dirV1 = "testdata/v1"

// TestV1VerifiesForever reads what was written when version 1 was made.
func TestV1VerifiesForever(t *testing.T) {
	if *writeV1 {
		makeV1(t)
	}
	b, err := os.ReadFile(filepath.Join(dirV1, "vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	trust := ledger.Trust{Origin: v.Origin, Logs: v.Logs, Witnesses: v.Witnesses}
	leaves := map[int64]*ledger.Leaf{}
	for _, r := range v.Receipts {
		b, err := os.ReadFile(filepath.Join(dirV1, r.File))
		if err != nil {
			t.Fatal(err)
		}
		got, err := ledger.Verify(b, trust)
		if err != nil {
			t.Errorf("%s: %v", r.File, err)
			continue
		}
		if hash := tlog.RecordHash(got.LeafBytes); got.Index != r.Index || got.Size != r.Size || string(got.LeafBytes) != r.Leaf || hash.String() != r.LeafHash {
			t.Errorf("%s is %d of %d: %s", r.File, got.Index, got.Size, got.LeafBytes)
		}
		if !maps.EqualFunc(got.Witnesses, r.Witnesses, time.Time.Equal) {
			t.Errorf("%s is witnessed by %v, want %v", r.File, got.Witnesses, r.Witnesses)
		}
		leaves[r.Index] = got.Leaf
		for name, less := range map[string]ledger.Trust{
			"nobody": {}, "the witness alone": {Origin: v.Origin, Witnesses: v.Witnesses}, "another origin": {Origin: "other", Logs: v.Logs},
			"a key that is none": {Origin: v.Origin, Logs: []string{"x"}}, "the witness as the log": {Origin: v.Origin, Logs: v.Witnesses},
		} {
			if _, err := ledger.Verify(b, less); err == nil {
				t.Errorf("%s verifies for somebody who trusts %s", r.File, name)
			}
		}
	}
	for _, r := range v.Refused {
		if got, err := ledger.Verify([]byte(r.Receipt), trust); err == nil {
			t.Errorf("a receipt with %s verifies: %+v", r.Why, got)
		}
	}
	for _, p := range v.Parts {
		q := ledger.Part{Name: p.Name, Bytes: p.Bytes, Salt: [32]byte(p.Salt)}
		if q.Digest() != p.Digest || leaves[p.Record].Parts[p.Name] != p.Digest {
			t.Errorf("part %s of record %d has the digest %s, want %s, and in the leaf %s", p.Name, p.Record, q.Digest(), p.Digest, leaves[p.Record].Parts[p.Name])
		}
	}
	for _, c := range v.Consistency {
		var p tlog.TreeProof
		for _, s := range c.Proof {
			p = append(p, hashOf(t, s))
		}
		if err := tlog.CheckTree(p, c.New, hashOf(t, c.NewRoot), c.Old, hashOf(t, c.OldRoot)); err != nil {
			t.Errorf("from %d to %d: %v", c.Old, c.New, err)
		}
	}
	if len(v.Receipts) < 10 || len(v.Refused) < 10 || len(v.Parts) < 5 || len(v.Consistency) < 5 || len(v.Sealed) < 5 {
		t.Errorf("little is left of version 1: %d receipts, %d refused, %d parts, %d consistency proofs, %d payloads", len(v.Receipts), len(v.Refused), len(v.Parts), len(v.Consistency), len(v.Sealed))
	}
}

func hashOf(t *testing.T, s string) tlog.Hash {
	t.Helper()
	h, err := tlog.ParseHash(s)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// makeV1 writes a small log with some of everything.
func makeV1(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll("testdata", 0o755))
	must(os.Mkdir(dirV1, 0o755)) // never over what is there
	now := time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	path := filepath.Join(t.TempDir(), "ledger.db")
	s, err := sqlite.Open(path)
	must(err)
	l := ledgertest.Open(t, s, ledger.Config{Origin: "acme.example/writ/v1", Gateway: "gateway-1", Now: clock})
	w, err := witness.Open(witness.Config{
		Name: "witness.example/w1", Key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{4}, 32)),
		Logs: []string{l.VerifierKey()}, Dir: t.TempDir(), Now: clock,
	})
	must(err)
	server := httptest.NewServer(w)
	defer server.Close()

	v := vectors{Origin: "acme.example/writ/v1", Logs: []string{l.VerifierKey()}, Witnesses: []string{w.VerifierKey()}}
	var sizes []int64
	roots := map[int64]string{}
	commit := func(es ...*ledger.Entry) []ledger.Receipt {
		t.Helper()
		now = now.Add(1234 * time.Millisecond)
		rs, err := l.Commit(t.Context(), es...)
		must(err)
		b, err := l.Checkpoint(t.Context())
		must(err)
		n := rs[len(rs)-1].Index() + 1
		sizes, roots[n] = append(sizes, n), strings.Split(string(b), "\n")[2]
		return rs
	}
	call, task := writ.CallID("call_06e0q1f5jx3b19w6m2c8v4t7rz"), writ.TaskID("task_06e0q1ee1x1rq3h2k5d7n9pbvw")
	erased, gone := writ.CallID("call_06e0q1g0a23dr58k7n9pbvwxyz"), writ.CallID("call_06e0q1gtt7z4m1q8s2c6v0b3dn")
	commit(&ledger.Entry{
		Leaf:    ledger.Leaf{Type: ledger.TypeTaskOpen, Task: task, Agent: "spiffe://acme.example/agent/billing", Key: "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I", Environment: "prod"},
		User:    "ana@acme.example",
		Parts:   []ledger.Part{{Name: "task", Bytes: []byte(`{"purpose":"pay the open invoices of \"Müller & Söhne\""}`)}},
		Changes: []ledger.Change{{Op: ledger.Put, Kind: "task", Key: string(task), Value: []byte(`{"state":"open"}`)}},
	})
	made := func(c writ.CallID) []ledger.Receipt {
		return commit(&ledger.Entry{
			Leaf: ledger.Leaf{
				Type: ledger.TypeIntent, Call: c, Task: task, Agent: "spiffe://acme.example/agent/billing", Key: "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I",
				Tool: "bank.transfer", Definition: writ.Hash("tool", []byte("bank.transfer")), Tier: "privileged", Environment: "prod",
				Bundle: writ.Hash("bundle", []byte("v1")), Effect: "permit", Reasons: []string{"transfers-of-billing", "within\nbudget \u2028 <&> \u0001"},
				Approval: "appr_06e0q1fh8x5s2d9k7m3n6pbvwz", Capability: "cap_06e0q1fhq14b8z3y6c9v2n5rtw", Lease: "lease_06e0q1fj2t7q9x4h1m8d3k6pbv",
			},
			User: "ana@acme.example",
			Parts: []ledger.Part{
				{Name: "query", Bytes: []byte(`{"args":{"amount":"120.00","iban":"DE02120300000000202051"}}`)},
				{Name: "decision", Bytes: []byte(`{"effect":"permit"}`)}, {Name: "empty", Bytes: nil},
			},
			Changes: []ledger.Change{
				{Op: ledger.Once, Kind: "cap", Key: "cap_" + string(c), Until: now.Add(time.Hour).UnixMilli()},
				{Op: ledger.Add, Kind: "budget", Key: string(task) + "/transfers", Delta: 1, Limit: 10},
			},
		}, &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeOutcome, Call: c, Task: task, Effect: "done"}, Parts: []ledger.Part{{Name: "result", Bytes: []byte(`{"ok":true}`)}}})
	}
	made(call)
	dead := made(erased)
	commit(&ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeDecision, Call: gone, Task: task, Effect: "deny", Code: writ.BudgetExceeded}, Parts: []ledger.Part{{Name: "query", Bytes: bytes.Repeat([]byte("long "), 2000)}}})
	must(witness.Ask(t.Context(), l, &witness.Client{URL: server.URL, Key: w.VerifierKey()}))
	now = now.Add(90 * time.Minute)
	_, err = l.Erase(t.Context(), &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeErasure, Note: map[string]string{"why": "GDPR, article 17"}}, User: "dpo@acme.example"}, dead[0].Index(), dead[1].Index())
	must(err)
	commit(&ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeRevocation, Lease: "lease_06e0q1fj2t7q9x4h1m8d3k6pbv", Note: map[string]string{"evidence": "dropped"}}},
		&ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeTaskEnd, Task: task, Note: map[string]string{"why": "done"}}, Changes: []ledger.Change{{Op: ledger.Delete, Kind: "task", Key: string(task)}}})
	next := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{5}, 32))
	now = now.Add(time.Second)
	_, err = l.Rotate(t.Context(), &ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeKey, Note: map[string]string{"why": "yearly"}}, User: "ana@acme.example"}, next)
	must(err)
	v.Logs = append(v.Logs, l.VerifierKey())
	commit(&ledger.Entry{Leaf: ledger.Leaf{Type: ledger.TypeHalt, Note: map[string]string{"halt": "off"}}})

	trust := ledger.Trust{Origin: v.Origin, Logs: v.Logs, Witnesses: v.Witnesses}
	rs, err := l.Records(t.Context(), ledger.Filter{})
	must(err)
	for _, r := range rs {
		b, err := l.Prove(t.Context(), r.Index)
		must(err)
		got, err := ledger.Verify(b, trust)
		must(err)
		file := fmt.Sprintf("%02d-%s.tlog-proof", r.Index, r.Leaf.Type)
		must(os.WriteFile(filepath.Join(dirV1, file), b, 0o644))
		v.Receipts = append(v.Receipts, receipt{file, r.Index, got.Size, string(r.LeafBytes), tlog.RecordHash(r.LeafBytes).String(), got.Witnesses})
		for _, p := range r.Parts {
			v.Parts = append(v.Parts, part{r.Index, p.Name, p.Salt[:], p.Bytes, p.Digest()})
		}
	}
	good, err := l.Prove(t.Context(), 2)
	must(err)
	v.Refused = spoil(string(good))
	for i, old := range sizes {
		for _, n := range sizes[i:] {
			text, err := l.Consistency(t.Context(), old, n)
			must(err)
			v.Consistency = append(v.Consistency, consistency{old, roots[old], n, roots[n], strings.Fields(string(text))})
		}
	}
	must(s.View(t.Context(), func(view ledger.View) error {
		rs, err := view.Records(t.Context(), ledger.Filter{})
		for _, r := range rs {
			if r.Wrapped != nil {
				v.Sealed = append(v.Sealed, sealed{r.Index, r.Wrapped, r.Sealed})
			}
		}
		return err
	}))
	b, err := json.MarshalIndent(v, "", "\t")
	must(err)
	must(os.WriteFile(filepath.Join(dirV1, "vectors.json"), append(b, '\n'), 0o644))
	must(l.Close())
	b, err = os.ReadFile(path)
	must(err)
	must(os.MkdirAll("sqlite/testdata", 0o755))
	must(os.WriteFile("sqlite/testdata/v1.db", b, 0o644))
}

// spoil makes receipts that must be refused out of a good one.
func spoil(good string) []refused {
	lines := strings.Split(good, "\n")
	leaf, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	with := func(why string, i int, line string) refused {
		l := slices.Clone(lines)
		l[i] = line
		return refused{why, strings.Join(l, "\n")}
	}
	extra := func(b []byte) string { return "extra " + base64.StdEncoding.EncodeToString(b) }
	blank := slices.Index(lines, "")
	return []refused{
		with("another header", 0, "c2sp.org/tlog-proof@v2"),
		with("a changed leaf", 1, extra(bytes.Replace(leaf, []byte("permit"), []byte("denied"), 1))),
		with("a space in its leaf", 1, extra(append([]byte(" "), leaf...))),
		with("a leaf of another version", 1, extra(bytes.Replace(leaf, []byte(`"v":1`), []byte(`"v":2`), 1))),
		with("a member that version 1 does not know", 1, extra(append(leaf[:len(leaf)-1:len(leaf)-1], `,"x":1}`...))),
		with("another index", 2, "index 3"),
		with("an index with a zero before it", 2, "index 02"),
		with("an index that is not in the log", 2, "index 999"),
		with("a changed hash", 3, lines[4]),
		{"a hash too few", strings.Join(slices.Delete(slices.Clone(lines), 3, 4), "\n")},
		{"a hash too many", strings.Join(slices.Insert(slices.Clone(lines), 3, lines[3]), "\n")},
		with("another origin", blank+1, "other.example/log"),
		with("another size", blank+2, "8"),
		with("another root", blank+3, lines[3]),
		with("no signature of the log", blank+5, lines[blank+6]),
		with("a changed signature of the log", blank+5, lines[blank+5][:len(lines[blank+5])-8]+"AAAAAAA="),
		with("a changed cosignature", blank+6, lines[blank+6][:len(lines[blank+6])-8]+"AAAAAAA="),
		{"a line too many", good + "\n"},
		{"no checkpoint", strings.Join(lines[:blank+1], "\n")},
		{"nothing", ""},
	}
}
