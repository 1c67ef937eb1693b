package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/writgate/writ"
	"github.com/writgate/writ/demo"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/replay"
	"github.com/writgate/writ/server/admin/api"
)

// act is what people do before anything else in a scene.
func (p *play) act(ctx context.Context, scene *demo.Scene) error {
	switch scene.First {
	case demo.EndTask:
		return p.endTask(ctx)
	case demo.Verify:
		return p.audit(ctx, p.calls[scene.Of])
	case demo.Replay:
		return p.replay(ctx, p.calls[scene.Of])
	}
	return nil
}

// endTask is Ana, whose agent has done its work.
func (p *play) endTask(ctx context.Context) error {
	p.begin("end")
	p.gap()
	p.by("ana", "ends the task. When that returns, no gateway dispatches anything for it any more.")
	r, err := answer[api.Revocation](ctx, p.stage, p.ana, "tasks", "end", string(p.task), "--yes", "--reason", "the work is done")
	if err != nil {
		return err
	}
	if len(r.Tasks) != 1 || r.Tasks[0] != p.task || len(r.Remains) > 0 {
		return fmt.Errorf("ended are %v, and there remains %v", r.Tasks, r.Remains)
	}
	p.kept(report{Reason: string(p.task) + " has ended"})
	return nil
}

// audit is an auditor with a receipt and a public key, who asks nobody.
func (p *play) audit(ctx context.Context, call writ.CallID) error {
	p.begin("verify")
	p.gap()
	receipt := p.file("receipt")
	if _, err := answer[api.Record](ctx, p.stage, nil, "receipts", "prove", string(call), "--out", receipt); err != nil {
		return err
	}
	p.by("auditor", "has the receipt of the payment and the log's public key, and asks nobody.")
	v, code, err := p.verify(ctx, receipt)
	if err != nil {
		return err
	}
	var leaf ledger.Leaf
	if v.OK {
		if err := json.Unmarshal(v.Leaf, &leaf); err != nil {
			return err
		}
	}
	if code != exitUnwitnessed || leaf.Call != call || leaf.Type != ledger.TypeOutcome {
		return fmt.Errorf("exit code %d, for a receipt of %s: %s", code, leaf.Call, v.Problem)
	}
	p.by("", fmt.Sprintf("It verifies: record %d of %d in the log, the %s of %s.", v.Index, v.Size, leaf.Type, leaf.Call))
	p.more("No witness watches this log, and writ verify says so with an exit code of its own.")
	p.kept(report{Call: call, Reason: "verified"})

	p.begin("verify-altered")
	altered := p.file("altered")
	if err := alter(receipt, altered); err != nil {
		return err
	}
	if v, code, err = p.verify(ctx, altered); err != nil {
		return err
	}
	p.by("", "With another tool's name in it, it does not: "+v.Problem+".")
	if v.OK || code != exitInvalid {
		return fmt.Errorf("an altered receipt verifies, with exit code %d", code)
	}
	p.kept(report{Call: call, Reason: v.Problem})
	return nil
}

// alter writes a receipt that says of another tool what was so of one.
func alter(receipt, altered string) error {
	text, err := os.ReadFile(receipt)
	if err != nil {
		return err
	}
	_, rest, ok := bytes.Cut(text, []byte("extra "))
	encoded, _, ok2 := bytes.Cut(rest, []byte("\n"))
	leaf, err := base64.StdEncoding.DecodeString(string(encoded))
	if err != nil || !ok || !ok2 || !bytes.Contains(leaf, []byte("payments.pay")) {
		return fmt.Errorf("a receipt of another form: %v", err)
	}
	leaf = bytes.Replace(leaf, []byte("payments.pay"), []byte("helpdesk.pay"), 1)
	text = bytes.Replace(text, encoded, []byte(base64.StdEncoding.EncodeToString(leaf)), 1)
	return os.WriteFile(altered, text, 0o600)
}

// verify is writ verify, which is given no gateway to ask.
func (p *play) verify(ctx context.Context, receipt string) (*verified, int, error) {
	key, err := os.ReadFile(filepath.Join(p.stage.gateway(), "log.vkey"))
	if err != nil {
		return nil, 0, err
	}
	out, code, err := p.writ(ctx, nil, "--dir", p.file("nowhere"), "verify", receipt, "--key", strings.TrimSpace(string(key)))
	v := new(verified)
	if json.Unmarshal(out, v) != nil {
		return nil, code, err
	}
	return v, code, nil
}

// replay has a refusal decided again.
func (p *play) replay(ctx context.Context, call writ.CallID) error {
	p.begin("replay")
	p.gap()
	p.by("auditor", "has the refusal of the mail decided again, from its record and the policies of that day alone.")
	r, err := answer[replay.Replayed](ctx, p.stage, nil, "replay", string(call))
	if err != nil {
		return err
	}
	if !r.Equal {
		return errors.New("it came out differently: " + decided(&r.Again))
	}
	p.by("", "It comes out the same: "+decided(&r.Again)+".")
	p.kept(report{Call: call, Effect: r.Again.Effect.String(), Reason: "the same again"})
	return nil
}
