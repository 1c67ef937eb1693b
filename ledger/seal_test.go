package ledger

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"reflect"
	"testing"

	"github.com/writgate/writ"
	"pgregory.net/rapid"
)

// TestXAES is the vectors of c2sp.org/XAES-256-GCM.
func TestXAES(t *testing.T) {
	for _, v := range []struct {
		key         byte
		about, text string
	}{
		{1, "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"},
		{3, "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"},
	} {
		want, err := hex.DecodeString(v.text)
		if err != nil {
			t.Fatal(err)
		}
		s := newSealer(bytes.Repeat([]byte{v.key}, 32))
		plain, err := s.open(append([]byte("ABCDEFGHIJKLMNOPQRSTUVWX"), want...), []byte(v.about))
		if err != nil || string(plain) != "XAES-256-GCM" {
			t.Errorf("key %d: %q, %v", v.key, plain, err)
		}
	}
}

func TestSealedOpensOnlyAsWhatItIs(t *testing.T) {
	s, other := deriveSealer([32]byte{1}, "a"), deriveSealer([32]byte{1}, "b")
	seen := map[string]bool{}
	for i := range 2000 {
		b := s.seal([]byte("text"), []byte("about"))
		if seen[string(b[:nonceSize])] {
			t.Fatalf("a nonce is used twice, after %d", i)
		}
		seen[string(b[:nonceSize])] = true
		if got, err := s.open(b, []byte("about")); err != nil || string(got) != "text" {
			t.Fatalf("%q, %v", got, err)
		}
		if _, err := s.open(b, []byte("another")); err == nil {
			t.Fatal("opens as something else")
		}
		if _, err := other.open(b, []byte("about")); err == nil {
			t.Fatal("opens with a key for another purpose")
		}
		b[i%len(b)] ^= 1
		if _, err := s.open(b, []byte("about")); err == nil {
			t.Fatalf("opens with byte %d changed", i%len(b))
		}
	}
	s.uses = maxUses
	half := s.mine.half
	b := s.seal(nil, nil)
	if [12]byte(b) == half {
		t.Error("a derived key is used beyond its end")
	}
	if _, err := s.open(b[:nonceSize+15], nil); err == nil {
		t.Error("opens cut off")
	}
}

func TestRowIsBoundToItsName(t *testing.T) {
	v := vault{state: deriveSealer([32]byte{1}, "state")}
	row := Row{Kind: "task", Key: "a", Value: []byte("v"), Count: 7, At: 3, Until: 9}
	sealed := v.sealRow(&row)
	if got, err := v.openRow(&sealed); err != nil || !reflect.DeepEqual(*got, row) {
		t.Fatalf("%+v, %v", got, err)
	}
	for name, change := range map[string]func(*Row){
		"kind": func(r *Row) { r.Kind = "tas" }, "key": func(r *Row) { r.Key = "ka" }, "at": func(r *Row) { r.At++ },
		"until": func(r *Row) { r.Until = 0 }, "shift": func(r *Row) { r.Kind, r.Key = "taska", "" },
	} {
		r := sealed
		change(&r)
		if got, err := v.openRow(&r); err == nil {
			t.Errorf("with another %s it opens: %+v", name, got)
		}
	}
}

// TestPayload seals parts and changes, and reads them back; nothing of it can
// be changed, and its length says only the bucket.
func TestPayload(t *testing.T) {
	v := vault{wrap: deriveSealer([32]byte{1}, "wrap")}
	rapid.Check(t, func(t *rapid.T) {
		bytesOf := rapid.SliceOfN(rapid.Byte(), 0, 700)
		var parts []Part
		for i := range rapid.IntRange(0, 4).Draw(t, "parts") {
			parts = append(parts, Part{Name: string(rune('a' + i)), Bytes: bytesOf.Draw(t, "bytes"), Salt: newSalt()})
		}
		p := v.newPayload(parts)
		var changes *Part
		if rapid.Bool().Draw(t, "changes") {
			changes = &Part{Name: partChanges, Bytes: bytesOf.Draw(t, "changes"), Salt: newSalt()}
		}
		p.seal(&Part{Name: partChanges, Bytes: []byte("of a batch that failed")})
		stored := bytes.Clone(p.seal(changes))
		want := parts
		if changes != nil {
			want = append(want, *changes)
		}
		got, err := v.openPayload(p.wrapped, stored)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%d parts, %v; want %d", len(got), err, len(want))
		}
		for i := range want {
			if got[i].Name != want[i].Name || got[i].Salt != want[i].Salt || !bytes.Equal(got[i].Bytes, want[i].Bytes) {
				t.Fatalf("part %d is %+v, want %+v", i, got[i], want[i])
			}
		}
		if n := partsSize(parts); len(parts) != 0 && (n%256 != 0 || n > 4096 && n%4096 != 0) {
			t.Fatalf("%d bytes of parts", n)
		}
		at := rapid.IntRange(0, len(stored)-1).Draw(t, "at")
		bad := bytes.Clone(stored)
		bad[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "by"))
		if got, err := v.openPayload(p.wrapped, bad); err == nil && len(got) == len(want) {
			t.Fatalf("byte %d of %d can be changed", at, len(stored))
		}
		if got, err := v.openPayload(p.wrapped, append(stored, 0)); err == nil && len(got) == len(want) {
			t.Fatal("bytes can be added")
		}
	})
}

func TestPseudonym(t *testing.T) {
	v, w := vault{user: [32]byte{1}}, vault{user: [32]byte{2}}
	ana := v.pseudonym("ana")
	if v.pseudonym("") != "" || v.pseudonym("ana") != ana || v.pseudonym("bo") == ana || w.pseudonym("ana") == ana {
		t.Error("a pseudonym is not one name for one user under one key")
	}
}

func TestPartDigestIsItsCommitment(t *testing.T) {
	p := Part{Name: "x", Bytes: []byte("bytes"), Salt: [saltSize]byte{1, 2}}
	if got, want := p.Digest(), writ.Hash("payload", append(p.Salt[:], "bytes"...)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestCacheIsBounded fills it with more than it keeps.
func TestCacheIsBounded(t *testing.T) {
	var c cache
	big := make([]byte, 100<<10)
	for i := range 3000 {
		c.publish(map[rowKey]*Row{{"k", string(rune(i))}: {Kind: "k", Key: string(rune(i)), Value: big, At: int64(i)}})
	}
	if n := len(c.young) + len(c.old); n > 2*generation/len(big)+2 || n < 100 {
		t.Errorf("%d rows of 100 KiB are kept", n)
	}
	if c.get(rowKey{"k", string(rune(2999))}) == nil {
		t.Error("the newest row is forgotten")
	}
	at := c.at()
	c.publish(map[rowKey]*Row{{"k", "x"}: {Kind: "k", Key: "x", At: 5}})
	c.learn(at, &Row{Kind: "k", Key: "x", At: 4})
	if r := c.get(rowKey{"k", "x"}); r == nil || r.At != 5 {
		t.Errorf("a late reader brings back the past: %+v", r)
	}
}

// TestV1PayloadsOpenForever opens payloads that were sealed when version 1 was
// made, under the keys of package ledgertest.
func TestV1PayloadsOpenForever(t *testing.T) {
	b, err := os.ReadFile("testdata/v1/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Sealed []struct {
			Record          int64
			Wrapped, Sealed []byte
		}
		Parts []struct {
			Record int64
			Name   string
			Bytes  []byte
		}
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	seal := [32]byte(bytes.Repeat([]byte{2}, 32))
	keys := vault{wrap: deriveSealer(seal, "wrap")}
	found := 0
	for _, s := range v.Sealed {
		parts, err := keys.openPayload(s.Wrapped, s.Sealed)
		if err != nil {
			t.Errorf("record %d: %v", s.Record, err)
		}
		for _, p := range parts {
			for _, w := range v.Parts {
				if w.Record == s.Record && w.Name == p.Name && bytes.Equal(w.Bytes, p.Bytes) {
					found++
				}
			}
		}
	}
	if found != len(v.Parts) || found == 0 {
		t.Errorf("%d of %d parts were found", found, len(v.Parts))
	}
}
