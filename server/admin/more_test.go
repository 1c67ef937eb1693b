package admin_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/broker"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/registry"
	"github.com/writgate/writ/server/admin"
	"github.com/writgate/writ/server/admin/api"
	"github.com/writgate/writ/upstream"
	"github.com/writgate/writ/writtest"
)

func TestH66NotForBrowsers(t *testing.T) {
	d := open(t)
	for _, h := range []string{"Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode"} {
		for _, value := range []string{"null", "same-origin", "http://localhost"} {
			status, text := d.raw("GET", "/status", nil, map[string]string{h: value})
			if status != http.StatusForbidden {
				t.Errorf("%s: %s is answered with %d %s", h, value, status, text)
			}
		}
	}
}

// TestOnlyTheSocketIsServed: a listener that does not know who connects gives
// nobody anything.
func TestOnlyTheSocketIsServed(t *testing.T) {
	d := open(t)
	srv := httptest.NewServer(d.server.Handler())
	defer srv.Close()
	resp, err := http.Get(srv.URL + api.Prefix + "/status")
	d.must(err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("over TCP: %s", resp.Status)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	d.must(err)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- d.server.Serve(ctx, ln) }()
	if resp, err = http.Get("http://" + ln.Addr().String() + api.Prefix + "/status"); err != nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("served over TCP: %v, %v", resp, err)
	}
	stop()
	d.must(<-done)
}

func TestH97TheSocketIsPrivate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if ln, err := admin.Listen(path); err == nil {
		ln.Close()
		t.Error("a socket in a directory that others can enter")
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ln, err := admin.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v", info.Mode(), err)
	}
	if ln, err := admin.Listen(path); err == nil {
		ln.Close()
		t.Error("a socket that another gateway answers on is taken over")
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if ln, err := admin.Listen(file); err == nil {
		ln.Close()
		t.Error("a file is replaced by a socket")
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "x" {
		t.Errorf("the file is %q, %v", b, err)
	}
}

func TestRequestsAreReadStrictly(t *testing.T) {
	d := open(t)
	post := func(body, kind string) (int, []byte) {
		return d.raw("POST", "/halt", []byte(body), map[string]string{"Content-Type": kind})
	}
	for name, c := range map[string]struct {
		body, kind string
		status     int
	}{
		"unknown member":     {`{"reason":"x","force":true}`, "application/json", 400},
		"another case":       {`{"Reason":"x"}`, "application/json", 400},
		"a member twice":     {`{"reason":"x","reason":"y"}`, "application/json", 400},
		"a second value":     {`{} {}`, "application/json", 400},
		"not UTF-8":          {"{\"reason\":\"\xff\"}", "application/json", 400},
		"nothing":            {``, "application/json", 400},
		"a list":             {`[]`, "application/json", 400},
		"another type":       {`{}`, "text/plain", 415},
		"a form":             {`reason=x`, "application/x-www-form-urlencoded", 415},
		"another charset":    {`{}`, "application/json; charset=utf-16", 415},
		"no type":            {`{}`, "", 415},
		"more than anything": {`{"reason":"` + strings.Repeat("x", 1<<20) + `"}`, "application/json", 413},
	} {
		if status, text := post(c.body, c.kind); status != c.status {
			t.Errorf("%s: %d %.200s, want %d", name, status, text, c.status)
		}
	}
	for target, want := range map[string]int{
		"/calls?colour=blue": 400, "/calls?limit=1&limit=2": 400, "/calls?limit=-1": 400, "/calls?limit=x": 400, "/calls?since=yesterday": 400,
		"/calls/%00": 400, "/calls/call_06h1101vd1saf48gv9btqejjjg": 404, "/receipts/999": 404, "/receipts/-1": 404, "/nothing": 404, "/tasks/x": 400,
	} {
		if status, text := d.raw("GET", target, nil, nil); status != want {
			t.Errorf("%s: %d %s, want %d", target, status, text, want)
		}
	}
	if status, _ := d.raw("DELETE", "/tasks/x", nil, nil); status != 404 {
		t.Errorf("DELETE: %d", status)
	}
	var st api.Status
	d.must(d.Get(t.Context(), "/status", &st))
	if st.Halted {
		t.Error("one of them was understood")
	}
}

func TestCallsAreFoundOnce(t *testing.T) {
	d := open(t)
	a := d.agent()
	for range 3 {
		_, err := a.Call("mail.read", `{}`)
		d.must(err)
		d.Clock.Advance(time.Second)
	}
	first := d.Clock.Now()
	waits := d.waiting(a)
	_, err := d.approve("omar", waits.Approval, d.show(waits.Approval).Shown.Digest)
	d.must(err)
	// The waiting call comes back under its own name, and is one call still.
	r := a.Request("bank.pay", `{"eur":10,"to":"lena"}`)
	var asked api.Page[api.Call]
	d.must(d.Get(t.Context(), "/calls?tool=bank.pay", &asked))
	if len(asked.Items) != 1 || asked.Items[0].Effect != "step-up" || asked.Items[0].Approval != waits.Approval {
		t.Fatalf("asked: %+v", asked)
	}
	r.Call = asked.Items[0].ID
	_, err = d.Gate.Do(t.Context(), r)
	d.must(err)

	for query, want := range map[string]int{
		"": 4, "?tool=mail.read": 3, "?tool=mail.send": 0, "?effect=permit": 4, "?effect=step-up": 0, "?limit=2": 2,
		"?task=" + string(a.Task.ID): 4, "?agent=" + string(writtest.AgentID("billing")): 4, "?agent=x": 0,
		"?since=" + api.Time(first.UnixMilli()).String(): 1,
	} {
		var page api.Page[api.Call]
		d.must(d.Get(t.Context(), "/calls"+query, &page))
		if len(page.Items) != want {
			t.Errorf("%q finds %d, want %d: %+v", query, len(page.Items), want, page.Items)
		}
	}
	// Every page, one call at a time.
	seen := map[writ.CallID]bool{}
	for next := "0"; next != ""; {
		var page api.Page[api.Call]
		d.must(d.Get(t.Context(), "/calls?limit=1&after="+next, &page))
		for _, c := range page.Items {
			if seen[c.ID] {
				t.Errorf("%s is there twice", c.ID)
			}
			seen[c.ID] = true
		}
		next = page.Next
	}
	if len(seen) != 4 {
		t.Errorf("page by page there are %d calls", len(seen))
	}
}

// TestWhatWasMadeStaysInSight asks for something else by the name of a call that
// was made.
func TestWhatWasMadeStaysInSight(t *testing.T) {
	d := open(t)
	a := d.Agent("billing")
	a.Open(writ.Task{Grant: writ.Grant{{Tool: "mail.*"}}})
	made := a.Request("mail.send", `{"to":"drop@evil.example"}`)
	if _, err := d.Gate.Do(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	later := a.Request("mail.read", `{}`)
	later.Call = made.Call
	if _, err := d.Gate.Do(t.Context(), later); writ.AsDenial(err).Code != writ.AlreadyUsed {
		t.Fatal(err)
	}
	var page api.Page[api.Call]
	if err := d.Get(t.Context(), "/calls", &page); err != nil {
		t.Fatal(err)
	}
	if len(page.Items) != 1 || page.Items[0].Tool != "mail.send" || page.Items[0].Effect != "permit" || page.Items[0].Outcome != "result" {
		t.Errorf("the calls are %+v", page.Items)
	}
}

func TestTailWaits(t *testing.T) {
	d := open(t)
	var page api.Page[api.Record]
	d.must(d.Get(t.Context(), "/records", &page))
	if len(page.Items) == 0 {
		t.Fatal("no records")
	}
	after := page.Next
	d.must(d.Get(t.Context(), "/records?after="+after, &page))
	if len(page.Items) != 0 || page.Next != after {
		t.Fatalf("without waiting: %+v", page)
	}
	got := make(chan api.Page[api.Record])
	go func() {
		var page api.Page[api.Record]
		if err := d.Get(t.Context(), "/records?wait=20&after="+after, &page); err != nil {
			t.Error(err)
		}
		got <- page
	}()
	if _, err := d.agent().Call("mail.read", `{}`); err != nil {
		t.Fatal(err)
	}
	if page := <-got; len(page.Items) == 0 {
		t.Error("who waited got nothing")
	}
}

func TestReceiptVerifiesOffline(t *testing.T) {
	d := open(t)
	_, err := d.agent().Call("mail.read", `{}`)
	d.must(err)
	var calls api.Page[api.Call]
	d.must(d.Get(t.Context(), "/calls", &calls))
	var r api.Record
	d.must(d.Get(t.Context(), "/receipts/"+string(calls.Items[0].ID), &r))
	v, err := ledger.Verify([]byte(r.Receipt), d.Trust)
	d.must(err)
	if v.Leaf.Type != ledger.TypeOutcome || v.Leaf.Call != calls.Items[0].ID || string(v.LeafBytes) != string(r.Leaf) {
		t.Errorf("the receipt is of %s", v.LeafBytes)
	}
}

func TestExplainSaysWhatWouldPermit(t *testing.T) {
	d := open(t)
	a := d.agent()
	d.waiting(a)
	var calls api.Page[api.Call]
	d.must(d.Get(t.Context(), "/calls", &calls))
	var e api.Explanation
	target := "/calls/" + string(calls.Items[0].ID)
	d.must(d.Post(t.Context(), target+"/explain", struct{}{}, &e))
	if e.Decision.Effect != writ.StepUp || len(e.Permits) == 0 || e.Permits[0].Requires != writ.OneReviewer || !e.InForce {
		t.Errorf("explained: %+v", e)
	}
	if len(e.Provenance) != 2 || e.Owner != "maya" || e.Call.Task != a.Task.ID || e.Call.Index >= e.Size {
		t.Errorf("explained: %+v", e)
	}

	// Other policies come into force: what was decided stays explained by the
	// policies that decided, and comes out the same when it is replayed.
	d.policy[0].Text = append([]byte("// new\n"), d.policy[0].Text...)
	var p api.Policy
	d.must(d.Get(t.Context(), "/policy", &p))
	if len(p.Changes) != 1 || p.Changes[0] != "~ "+d.policy[0].Name {
		t.Errorf("changes: %v", p.Changes)
	}
	d.want(d.act("omar", "/policy/apply", map[string]any{"bundle": p.Bundle}, &p), writ.StateChanged)
	var applied api.Policy
	d.must(d.act("omar", "/policy/apply", map[string]any{"bundle": p.Offered}, &applied))
	if applied.Bundle != p.Offered || len(applied.Changes) != 0 {
		t.Errorf("applied: %v, %v", applied.Bundle, applied.Changes)
	}
	before := e
	e = api.Explanation{}
	d.must(d.Post(t.Context(), target+"/explain", struct{}{}, &e))
	if e.InForce || e.Bundle != before.Bundle || e.Why != before.Why {
		t.Errorf("explained again: %+v", e)
	}
	var again struct{ Equal bool }
	d.must(d.Get(t.Context(), target+"/replay", &again))
	if !again.Equal {
		t.Error("it is decided otherwise when it is replayed")
	}
}

func TestPoliciesThatDoNotLoad(t *testing.T) {
	d := open(t)
	d.policy[0].Text = []byte("permit (principal, action, resource) when { context.nonsense };")
	var p api.Policy
	d.must(d.Get(t.Context(), "/policy", &p))
	if len(p.Problems) == 0 || p.Offered != "" || p.Bundle == "" {
		t.Errorf("the policy is %+v", p)
	}
	d.want(d.act("omar", "/policy/apply", map[string]any{"bundle": p.Bundle}, &p), writ.InvalidRequest)
}

func (d *desk) revoke(kind, of string) *api.Revocation {
	d.t.Helper()
	var r api.Revocation
	d.must(d.Post(d.t.Context(), "/revoke", map[string]string{"kind": kind, "of": of, "reason": "drill"}, &r))
	return &r
}

// TestRevokingStopsWhatIsUnderWay: a call is at the tool, with a credential,
// when its task, its agent, its owner's agents or its capability is revoked.
func TestRevokingStopsWhatIsUnderWay(t *testing.T) {
	for _, kind := range []string{"task", "agent", "owner", "capability"} {
		t.Run(kind, func(t *testing.T) {
			d := open(t)
			a := d.agent()
			id := d.waiting(a).Approval
			_, err := d.approve("omar", id, d.show(id).Shown.Digest)
			d.must(err)
			there := make(chan struct{})
			d.Tools.Do = func(ctx context.Context, _ *broker.Lease, _ upstream.Order) (*upstream.Answer, error) {
				close(there)
				<-ctx.Done()
				return nil, ctx.Err()
			}
			answered := make(chan error)
			go func() {
				_, err := a.Call("bank.pay", `{"eur":10,"to":"lena"}`)
				answered <- err
			}()
			<-there
			intents, err := d.Ledger.Records(t.Context(), ledger.Filter{Type: ledger.TypeIntent})
			d.must(err)
			of := map[string]string{
				"task": string(a.Task.ID), "agent": string(writtest.AgentID("billing")), "owner": "maya", "capability": intents[0].Leaf.Capability,
			}[kind]
			r := d.revoke(kind, of)
			if err := <-answered; err == nil {
				t.Error("the call is answered as if nothing had happened")
			}
			if r.Cancelled != 1 || len(r.Tasks) != 1 || r.Tasks[0] != a.Task.ID || r.Fenced == 0 {
				t.Errorf("revoked: %+v", r)
			}
			if len(r.Credentials) != 1 || r.Credentials[0].Outcome != "revoked" || r.Credentials[0].Backend != "vault" || d.Vault.Live() != 0 {
				t.Errorf("credentials: %+v, %d alive", r.Credentials, d.Vault.Live())
			}
			if _, err := a.Call("mail.read", `{}`); err == nil {
				t.Error("another call of the task is let through")
			}
		})
	}
}

func TestRevokedCapabilityIsNotUsed(t *testing.T) {
	d := open(t)
	id := writ.NewID[writ.CapabilityID](d.Clock.Now())
	if r := d.revoke("capability", string(id)); len(r.Remains) != 0 || r.Fenced == 0 {
		t.Errorf("revoked: %+v", r)
	}
	if r := d.revoke("capability", string(id)); len(r.Remains) != 1 {
		t.Errorf("revoked again: %+v", r)
	}
}

func TestRevokedToolsAreReviewedAgain(t *testing.T) {
	d := open(t)
	a := d.agent()
	if r := d.revoke("tool", "mail.send"); len(r.Tools) != 1 || r.Tools[0] != "mail.send" {
		t.Errorf("revoked: %+v", r)
	}
	if _, err := a.Call("mail.send", `{"to":"lena"}`); err == nil {
		t.Error("a revoked tool is called")
	}
	if _, err := a.Call("mail.read", `{}`); err != nil {
		t.Errorf("another tool: %v", err)
	}
	if r := d.revoke("upstream", "mail"); len(r.Tools) != 2 {
		t.Errorf("revoked: %+v", r)
	}
	if _, err := a.Call("mail.read", `{}`); err == nil {
		t.Error("a tool of a revoked upstream is called")
	}
	var tool api.Tool
	d.must(d.Get(t.Context(), "/tools/mail.read", &tool))
	if tool.Quarantine != registry.Unreviewed || !tool.Proposed || tool.Tier != writ.ReadOnly || len(tool.Offered) == 0 {
		t.Errorf("the tool is %+v", tool)
	}
	review := map[string]any{"reviews": map[writ.ToolName]registry.Review{"mail.read": {Definition: tool.Definition, Tier: tool.Tier, Result: tool.Result}}}
	var page api.Page[api.Tool]
	d.must(d.act("omar", "/tools/review", review, &page))
	if len(page.Items) != 1 || page.Items[0].Quarantine != "" {
		t.Errorf("reviewed: %+v", page)
	}
	if _, err := a.Call("mail.read", `{}`); err != nil {
		t.Errorf("a tool that was reviewed again: %v", err)
	}
	// What was looked at is not what is offered any more.
	d.Change("bank.pay", `{"type":"object"}`)
	review = map[string]any{"reviews": map[writ.ToolName]registry.Review{"bank.pay": {Definition: tool.Definition}}}
	d.want(d.act("omar", "/tools/review", review, &page), writ.StateChanged)
}

func TestNobodyOfThatName(t *testing.T) {
	d := open(t)
	for kind, of := range map[string]string{"task": "task_06h1101vd1yk36dwj8nms44p68", "agent": "x", "owner": "x", "tool": "x", "upstream": "x"} {
		d.want(d.Post(t.Context(), "/revoke", map[string]string{"kind": kind, "of": of}, nil), api.NotFound)
	}
	d.want(d.Post(t.Context(), "/revoke", map[string]string{"kind": "everything", "of": "x"}, nil), writ.InvalidRequest)
}

// TestRunsWithoutAProof: whoever can open the socket gets a token for a key,
// and no task, no prompt and no tools with it.
func TestRunsWithoutAProof(t *testing.T) {
	d := open(t)
	d.want(d.Post(t.Context(), "/runs", map[string]any{"agent": writtest.AgentID("local"), "key": "k"}, nil), writ.Forbidden)

	tokens := newTokens(t)
	d = open(t, func(d *desk) { d.server.Tokens, d.server.Audience = tokens, "https://localhost:7442/mcp" })
	var run api.Run
	d.must(d.Post(t.Context(), "/runs", map[string]any{"agent": writtest.AgentID("local"), "key": "k"}, &run))
	if run.Token == "" || run.Task != "" {
		t.Errorf("run: %+v", run)
	}
	for _, in := range []map[string]any{{"for": "x"}, {"data": "x"}, {"grant": []map[string]string{{"tool": "*"}}}, {"minutes": 5}} {
		in["agent"], in["key"] = writtest.AgentID("local"), "k"
		d.want(d.Post(t.Context(), "/runs", in, nil), writ.NoPossession)
	}
	in := map[string]any{"agent": writtest.AgentID("local"), "key": "k", "for": "answer the mail", "grant": []map[string]string{{"tool": "mail.*"}}}
	d.must(d.act("omar", "/runs", in, &run))
	held, err := d.Gate.Tasks.Get(t.Context(), run.Task)
	d.must(err)
	if k := held.Task; k.Purpose.Prompt() != "answer the mail" || k.User != "omar" || len(k.Grant) != 1 || k.Grant[0].Tool != "mail.*" || k.Unattended {
		t.Errorf("the task is %+v", k)
	}
	for _, agent := range []string{"spiffe://acme.example/agent/billing", string(writtest.AgentID("nobody")), ""} {
		err := d.Post(t.Context(), "/runs", map[string]any{"agent": agent, "key": "k2"}, nil)
		if p, ok := err.(*api.Problem); !ok || p.Status != http.StatusForbidden {
			t.Errorf("a run of %q: %v", agent, err)
		}
	}
	d.revoke("task", string(run.Task))
	d.want(d.Post(t.Context(), "/runs/"+string(run.Task)+"/token", struct{}{}, nil), writ.OutsideTask)
}

func TestOperatorOpensATask(t *testing.T) {
	d := open(t)
	a := d.Agent("billing")
	in := map[string]any{"agent": writtest.AgentID("billing"), "key": a.Key, "for": "answer the mail", "grant": []writ.Permission{{Tool: "mail.*"}}, "minutes": 5}
	d.want(d.Post(t.Context(), "/tasks", in, nil), writ.NoPossession)
	var task api.Task
	d.must(d.act("omar", "/tasks", in, &task))
	if task.User != "omar" || task.State != writ.Open || int64(task.Expires-task.Opened) != 5*60*1000 || task.Purpose != nil {
		t.Errorf("the task is %+v", task)
	}
	if _, err := a.Call("mail.send", `{"to":"lena"}`); err != nil {
		t.Errorf("a call of the task: %v", err)
	}
	if _, err := a.Call("bank.pay", `{"eur":1,"to":"lena"}`); writ.AsDenial(err).Code != writ.OutsideTask {
		t.Errorf("a call outside its grant: %v", err)
	}
	d.want(d.act("omar", "/tasks", in, &task), writ.AlreadyUsed)
	in["agent"] = writtest.AgentID("nobody")
	d.want(d.act("omar", "/tasks", in, &task), writ.AgentNotActive)
}

func TestDoctor(t *testing.T) {
	d := open(t)
	d.Vault.FailRevoke = func() error { return os.ErrDeadlineExceeded }
	a := d.agent()
	id := d.waiting(a).Approval
	_, err := d.approve("omar", id, d.show(id).Shown.Digest)
	d.must(err)
	_, err = a.Call("bank.pay", `{"eur":10,"to":"lena"}`)
	d.must(err)
	d.Change("mail.send", `{"type":"object"}`)
	facts := func() map[string]api.Fact {
		var page api.Page[api.Fact]
		d.must(d.Get(t.Context(), "/doctor", &page))
		all := map[string]api.Fact{}
		for _, f := range page.Items {
			all[f.About+" "+f.Name] = f
		}
		return all
	}
	all := facts()
	for name, want := range map[string]string{
		"config listen": "ok", "log records": "ok", "policy in force": "ok", "tools changed": "note", "work credentials awaiting revocation": "warning",
	} {
		if got := all[name]; got.Level != want {
			t.Errorf("%s is %+v, want %s", name, got, want)
		}
	}
	text, err := json.Marshal(all)
	d.must(err)
	if strings.Contains(string(text), "s3cr3t") {
		t.Error("the doctor tells a secret")
	}
	var st api.Status
	d.must(d.Post(t.Context(), "/halt", struct{}{}, &st))
	d.Clock.Advance(-time.Minute)
	all = facts()
	if all["gateway halt"].Level != "warning" || all["log clock"].Level != "bad" {
		t.Errorf("halted, and the clock set back: %+v", all)
	}
}

// TestProposals: what is guessed of a tool that nobody has reviewed. A tool's
// own word can make it harmless only where it says nothing else, and a review
// still has to say so.
func TestProposals(t *testing.T) {
	d := open(t)
	schema := `"inputSchema":{"properties":{},"type":"object"}`
	for name, want := range map[string]struct {
		more  string
		tier  writ.Tier
		fetch bool
	}{
		"list_issues":  {schema, writ.ReadOnly, false},
		"getIssue":     {schema, writ.Privileged, false}, // one word, as far as anybody can tell
		"create_issue": {schema, writ.BoundedWrite, false},
		"drop_table":   {schema, writ.Privileged, false},
		"export":       {schema + `,"annotations":{"readOnlyHint":true}`, writ.ReadOnly, false},
		"get_and_wipe": {schema + `,"annotations":{"readOnlyHint":false}`, writ.Privileged, false},
		"update_all":   {schema + `,"annotations":{"destructiveHint":true}`, writ.Privileged, false},
		"read_page":    {`"inputSchema":{"properties":{"url":{"type":"string"}},"type":"object"}`, writ.ReadOnly, true},
		"fetch":        {schema, writ.ReadOnly, true},
	} {
		raw := writ.JSON(`{"name":"` + name + `",` + want.more + `}`)
		d.must(d.Gate.Catalog.Offer(t.Context(), "x", []registry.Definition{{Kind: writ.KindTool, Upstream: "x", Name: name, Raw: raw}}))
		var tool api.Tool
		d.must(d.Get(t.Context(), "/tools/x."+name, &tool))
		if !tool.Proposed || tool.Tier != want.tier || tool.Fetch != want.fetch || tool.Result.Integrity != writ.Untrusted {
			t.Errorf("%s is proposed as %+v", name, tool)
		}
	}
}
