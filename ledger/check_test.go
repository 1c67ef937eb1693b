package ledger

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"testing"
)

// TestAuditSeesWhatOnlyTheKeyHolderCanDo: such a log is signed, and still not
// in order.
func TestAuditSeesWhatOnlyTheKeyHolderCanDo(t *testing.T) {
	l := &Ledger{config: Config{Origin: "log.example"}}
	record := func(index int64, leaf Leaf) *Record {
		leaf.V = 1
		return &Record{Index: index, LeafBytes: leaf.append(nil), Leaf: &leaf}
	}
	key := Leaf{Type: TypeKey, Time: 5, Note: map[string]string{noteKey: testSigner(t, 1).vkey}}
	one, two := testSigner(t, 1), testSigner(t, 2)
	text := rotation("log.example", one.vkey, two.vkey)
	another := func(byOld, byNew *signer) Leaf {
		n := map[string]string{noteKey: two.vkey, noteWas: one.vkey}
		n[noteByOld] = base64.StdEncoding.EncodeToString(ed25519.Sign(byOld.key, text))
		n[noteByNew] = base64.StdEncoding.EncodeToString(ed25519.Sign(byNew.key, text))
		return Leaf{Type: TypeKey, Time: 5, Note: n}
	}
	a := l.newAudit()
	for i, leaf := range []Leaf{key, another(one, two)} {
		if err := a.record(record(int64(i), leaf)); err != nil {
			t.Errorf("a change of key: %v", err)
		}
	}
	for name, bad := range map[string][]*Record{
		"time runs backwards":            {record(0, key), record(1, Leaf{Type: TypeAdmin, Time: 4})},
		"no key at the beginning":        {record(0, Leaf{Type: TypeAdmin, Time: 5})},
		"the key of another log":         {record(0, Leaf{Type: TypeKey, Note: map[string]string{noteKey: "other.example+00000000+AA=="}})},
		"a key that nobody vouches for":  {record(0, key), record(1, Leaf{Type: TypeKey, Time: 5, Note: map[string]string{noteKey: two.vkey, noteWas: one.vkey}})},
		"a key that vouches for itself":  {record(0, key), record(1, another(two, two))},
		"a key that does not agree":      {record(0, key), record(1, another(one, one))},
		"an erasure of what comes later": {record(0, key), record(1, Leaf{Type: TypeErasure, Time: 5, Note: map[string]string{noteErased: "1"}})},
		"an erasure of nothing":          {record(0, key), record(1, Leaf{Type: TypeErasure, Time: 5})},
	} {
		a := l.newAudit()
		var err error
		for i, r := range bad {
			if err = a.record(r); err != nil && i != len(bad)-1 {
				t.Errorf("%s: record %d: %v", name, i, err)
			}
		}
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	a = l.newAudit()
	a.gone = []run{{3, 5}, {8, 8}}
	for _, note := range []string{"", "3-5", "3-4,8"} {
		if note != "" {
			if err := a.erased.add(&Leaf{Type: TypeErasure, Note: map[string]string{noteErased: note}}, 20); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.finish(); (err == nil) != (note == "3-4,8") {
			t.Errorf("payloads are gone, and erased were %q: %v", note, err)
		}
	}
}
