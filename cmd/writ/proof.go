package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"

	"github.com/writgate/writ"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/replay"
	"github.com/writgate/writ/server/admin/api"
)

// A receiptsProveCmd prints a receipt.
type receiptsProveCmd struct {
	Of  string `arg:"" help:"The index of a record, or a call: then of its outcome, or else of its decision."`
	Out string `type:"path" placeholder:"FILE" help:"Write it to this file."`
}

// Help says what a receipt is.
func (receiptsProveCmd) Help() string {
	return `A receipt is a c2sp.org/tlog-proof: the record's leaf, the path that proves it is in the log, and the signed checkpoint of the log. It holds nothing of what was asked or answered.`
}

// Run prints it.
func (c receiptsProveCmd) Run(s *session) error {
	var r api.Record
	if err := s.client.Get(s.ctx, "/receipts/"+url.PathEscape(c.Of), &r); err != nil {
		return err
	}
	if c.Out != "" {
		if err := os.WriteFile(c.Out, []byte(r.Receipt), 0o644); err != nil {
			return err
		}
	}
	switch {
	case s.wantsJSON():
		return s.json(r)
	case c.Out != "":
		s.printf("record %d, in %s\n", r.Index, c.Out)
		return nil
	}
	s.print(r.Receipt)
	return nil
}

// A verifyCmd verifies a receipt.
type verifyCmd struct {
	Receipt string   `arg:"" type:"path" help:"The file with the receipt; - is the standard input."`
	Trust   string   `type:"path" placeholder:"FILE" help:"Whom to believe: a c2sp.org/tlog-policy file. It must come from where you trust, never with the receipt."`
	Key     []string `placeholder:"VKEY" help:"In place of a file, the log's verifier key. Give it again for an older one."`
	Witness []string `placeholder:"VKEY" help:"In place of a file, the verifier key of a witness."`
}

// Help says what it proves, and what not.
func (verifyCmd) Help() string {
	return `Nothing but the file and the public keys is read: no network, no gateway, no database.

A receipt that verifies proves that whoever holds the log's key has committed to the record. Only a witness proves that they have not committed to another history as well: without one, this says so and exits with 5. It exits with 4 if the receipt does not verify.`
}

// A verified is what verify says.
type verified struct {
	OK        bool              `json:"ok"`
	Problem   string            `json:"problem,omitempty"`
	Index     int64             `json:"index,omitempty"`
	Size      int64             `json:"size,omitempty"`
	Leaf      json.RawMessage   `json:"leaf,omitempty"`
	Witnesses map[string]string `json:"witnesses,omitempty"` // by name, when they saw it
	Quorum    bool              `json:"quorum"`              // of witnesses, as the trust file wants it
}

// Run verifies it.
func (c verifyCmd) Run(s *session) error {
	trust, err := c.trust()
	if err != nil {
		return err
	}
	text, err := readReceipt(s.in, c.Receipt)
	if err != nil {
		return err
	}
	v, err := ledger.Verify(text, trust.Trust)
	if err != nil {
		if s.wantsJSON() {
			err = s.json(verified{Problem: err.Error()})
		} else {
			s.printf("DOES NOT VERIFY  %s\n", err)
			err = nil
		}
		if err != nil {
			return err
		}
		return verdict(exitInvalid)
	}
	out := verified{OK: true, Index: v.Index, Size: v.Size, Leaf: v.LeafBytes, Quorum: trust.met(v.Witnesses)}
	for name, at := range v.Witnesses {
		if out.Witnesses == nil {
			out.Witnesses = map[string]string{}
		}
		out.Witnesses[name] = api.Time(at.UnixMilli()).String()
	}
	if s.wantsJSON() {
		err = s.json(out)
	} else {
		s.printVerified(&out, v.Leaf, trust.Origin)
	}
	if err == nil && !out.Quorum {
		return verdict(exitUnwitnessed)
	}
	return err
}

func (s *session) printVerified(v *verified, l *ledger.Leaf, origin string) {
	s.printf("OK  record %d of %s (size %d), signed by the log\n", v.Index, origin, v.Size)
	s.printf("    %s\n", v.Leaf)
	s.printf("    %s at %s\n", l.Type, api.Time(l.Time))
	for _, name := range sorted(v.Witnesses) {
		s.printf("    seen by %s at %s\n", name, v.Witnesses[name])
	}
	switch {
	case len(v.Witnesses) == 0:
		s.printf("unwitnessed: the key holder could have rewritten history\n")
	case !v.Quorum:
		s.printf("witnessed by %d, fewer than the trust file wants\n", len(v.Witnesses))
	default:
		s.printf("witnessed by %d\n", len(v.Witnesses))
	}
}

func readReceipt(in io.Reader, name string) ([]byte, error) {
	const most = 1 << 20
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	return io.ReadAll(io.LimitReader(in, most))
}

// A replayCmd decides again.
type replayCmd struct {
	Call string `arg:"" help:"The call."`
}

// Help says what is compared.
func (replayCmd) Help() string {
	return `Every decision on record about the call is made again from the recorded query and the policies whose digest it names, and must come out the same. Nothing is called. It exits with 4 if one does not.`
}

// Run has it decided again, by the gateway, which can read the record.
func (c replayCmd) Run(s *session) error {
	var r struct {
		Items []replay.Replayed `json:"items"`
		Equal bool              `json:"equal"`
	}
	if err := s.client.Get(s.ctx, "/calls/"+url.PathEscape(c.Call)+"/replay", &r); err != nil {
		return err
	}
	for _, one := range r.Items {
		if s.wantsJSON() {
			if err := s.json(one); err != nil {
				return err
			}
			continue
		}
		same := "the same again"
		if !one.Equal {
			same = "NOT THE SAME AGAIN: " + decided(&one.Again)
		}
		s.printf("#%d  %s  %s  %s\n", one.Index, one.Bundle, decided(&one.Recorded), same)
	}
	if !r.Equal {
		return verdict(exitInvalid)
	}
	return nil
}

func decided(d *writ.Decision) string {
	text := string(words[d.Effect.String()])
	if d.Code != "" {
		text += " " + string(d.Code)
	}
	for _, r := range d.Reasons {
		text += fmt.Sprintf(" %s:%d", r.File, r.Line)
	}
	return text
}
