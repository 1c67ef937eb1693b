package server_test

import (
	"encoding/base64"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/server"
	"github.com/writgate/writ/writtest"
)

// waiting makes a call that waits for an approval, and gives its handle.
func (p *peer) waiting(amount string) string {
	p.d.t.Helper()
	a := p.pay(amount, "", "")
	state := a.str("/result/requestState")
	if state == "" {
		p.d.t.Fatalf("no handle: %s", a.body)
	}
	return state
}

// pay calls bank.pay, with a handle if there is one.
func (p *peer) pay(amount, state, more string) answer {
	p.d.t.Helper()
	params := `"name":"bank.pay","arguments":{"amount":` + amount + `}` + more
	if state != "" {
		params += `,"requestState":"` + state + `"`
	}
	return p.do("POST", "/mcp", headers("tools/call", "bank.pay"), modern("1", "tools/call", params, `{"elicitation":{"url":{}}}`))
}

func impatient(c *server.Config) {
	c.Status, c.Limits.Patience = "https://people.example/waiting/", time.Millisecond
}

// A handle is good for the key that it was given to, for the request that it
// was given for, unchanged, for a while. Everything else is refused in the
// same words.
func TestH46RequestState(t *testing.T) {
	d := open(t, writtest.Setup{}, impatient)
	p, other := d.agent("bank.*", "files.*"), d.agent("bank.*")
	state := p.waiting("7")
	refused := func(t *testing.T, a answer) {
		t.Helper()
		if a.status != 400 || a.code() != "bad_state" || strings.Contains(a.body, "call_") {
			t.Errorf("%d %s, want a refusal", a.status, a.body)
		}
	}
	if a := p.pay("7", state, ""); a.str("/result/resultType") != "input_required" {
		t.Fatalf("as it was given: %d %s", a.status, a.body)
	}
	t.Run("another_key", func(t *testing.T) { refused(t, other.pay("7", state, "")) })
	t.Run("other_arguments", func(t *testing.T) { refused(t, p.pay("8", state, "")) })
	t.Run("other_spelling", func(t *testing.T) { refused(t, p.pay("7.0", state, "")) })
	t.Run("another_tool", func(t *testing.T) {
		refused(t, p.ask("tools/call", "files.read", `"name":"files.read","arguments":{"amount":7},"requestState":"`+state+`"`))
	})
	t.Run("another_method", func(t *testing.T) {
		refused(t, p.ask("prompts/get", "bank.pay", `"name":"bank.pay","arguments":{"amount":7},"requestState":"`+state+`"`))
	})
	t.Run("another_spelling_of_it", func(t *testing.T) {
		refused(t, p.pay("7", state+"=", ""))
		refused(t, p.pay("7", strings.ToUpper(state), ""))
		refused(t, p.pay("7", state+"\\n", ""))
	})
	t.Run("none", func(t *testing.T) {
		for _, s := range []string{"A", "AAAA", strings.Repeat("A", 100), strings.Repeat("A", 70<<10)} {
			refused(t, p.pay("7", s, ""))
		}
	})
	t.Run("any_bit_flipped", func(t *testing.T) {
		sealed, err := base64.RawURLEncoding.DecodeString(state)
		d.must(err)
		for i := 0; i < len(sealed); i += 7 {
			b := append([]byte(nil), sealed...)
			b[i] ^= 1
			refused(t, p.pay("7", base64.RawURLEncoding.EncodeToString(b), ""))
		}
		for i := 1; i < len(sealed); i += 31 {
			refused(t, p.pay("7", base64.RawURLEncoding.EncodeToString(sealed[:i]), ""))
		}
	})
	t.Run("of_another_gateway", func(t *testing.T) {
		e := open(t, writtest.Setup{}, func(c *server.Config) { impatient(c); c.State = [32]byte{8} })
		refused(t, p.pay("7", e.agent("bank.*").waiting("7"), ""))
	})
	t.Run("expired", func(t *testing.T) {
		d.Clock.Advance(30*time.Minute - time.Millisecond)
		if a := p.pay("7", state, ""); a.code() == "bad_state" {
			t.Errorf("before its time: %s", a.body)
		}
		d.Clock.Advance(time.Millisecond)
		refused(t, p.pay("7", state, ""))
	})
	if n := len(d.Tools.Seen()); n != 0 {
		t.Errorf("%d actions reached the tools", n)
	}
}

// A handle may be presented again: while nobody has answered it waits, and
// once the call has run it gives that call's outcome. However often it is
// presented at once, the call runs once (case F15).
func TestF15HandlePresentedByMany(t *testing.T) {
	d := open(t, writtest.Setup{}, func(c *server.Config) { impatient(c); c.Limits.Patience = 5 * time.Second })
	p := d.agent("bank.*")
	state := p.waiting("7")
	var wg sync.WaitGroup
	answers := make([]answer, 8)
	for i := range answers {
		wg.Go(func() {
			answers[i], _ = p.try(t.Context(), "POST", "/mcp", headers("tools/call", "bank.pay"),
				modern("1", "tools/call", `"name":"bank.pay","arguments":{"amount":7},"requestState":"`+state+`"`, `{"elicitation":{"url":{}}}`))
		})
	}
	time.Sleep(50 * time.Millisecond)
	d.answer(true)
	wg.Wait()
	paid := 0
	for i, a := range answers {
		switch {
		case a.text() == "paid":
			paid++
		case a.str("/result/resultType") == "input_required" || a.code() == "already_used":
		default:
			t.Errorf("answer %d: %d %s", i, a.status, a.body)
		}
	}
	if n := len(d.Tools.Seen()); n != 1 || paid < 1 {
		t.Errorf("%d payments, and %d were told so", n, paid)
	}
	if a := p.pay("7", state, ""); a.text() != "paid" || len(d.Tools.Seen()) != 1 {
		t.Errorf("afterwards: %s", a.body)
	}
}

// A client that chose its call's id gets the outcome of a call whose answer
// it lost (cases F04, F10); nobody else does, and nothing runs twice.
func TestF04OutcomeIsFetchedByCall(t *testing.T) {
	d := open(t, writtest.Setup{}, nil)
	p, other := d.agent("mail.*"), d.agent("mail.*")
	send := func(p *peer, id, to string) answer {
		body := modern("1", "tools/call", `"name":"mail.send","arguments":{"to":"`+to+`"}`, "")
		body = strings.Replace(body, `"_meta":{`, `"_meta":{"io.github.writgate/call":"`+id+`",`, 1)
		return p.do("POST", "/mcp", headers("tools/call", "mail.send"), body)
	}
	const id = "call_06eajrq8msv0q1bt3r4vckg5ym"
	first := send(p, id, "a@example.com")
	if first.text() != "sent" || first.str("/result/_meta/io.github.writgate~1receipt/call") != id {
		t.Fatalf("first: %s", first.body)
	}
	if again := send(p, id, "a@example.com"); again.body != first.body {
		t.Errorf("again:\n%s\nwant\n%s", again.body, first.body)
	}
	if a := send(other, id, "a@example.com"); a.code() != "already_used" || strings.Contains(a.body, "sent") {
		t.Errorf("another key: %s", a.body)
	}
	if n := len(d.Tools.Seen()); n != 1 {
		t.Errorf("%d mails were sent", n)
	}
	intents, err := d.Ledger.Records(t.Context(), ledger.Filter{Type: ledger.TypeIntent})
	d.must(err)
	if len(intents) != 1 {
		t.Errorf("%d intents", len(intents))
	}
}

// A client that names its calls cannot hide one behind another: what it asks
// for next by the same name is a call of its own, and stays in sight.
func TestCallsDoNotHideBehindEachOther(t *testing.T) {
	d := open(t, writtest.Setup{}, nil)
	p := d.agent("mail.*", "files.*")
	const id = "call_06eajrq8msv0q1bt3r4vckg5ym"
	named := func(tool, args string) answer {
		body := modern("1", "tools/call", `"name":"`+tool+`","arguments":`+args, "")
		body = strings.Replace(body, `"_meta":{`, `"_meta":{"io.github.writgate/call":"`+id+`",`, 1)
		return p.do("POST", "/mcp", headers("tools/call", tool), body)
	}
	call := func(a answer) string { return a.str("/result/_meta/io.github.writgate~1decision/call") }
	denied := named("bank.pay", `{"amount":9000}`)
	if denied.code() != "outside_task" || call(denied) != id {
		t.Fatalf("denied: %s", denied.body)
	}
	if again := named("bank.pay", `{"amount":9000}`); call(again) != id {
		t.Errorf("the same again is %s", call(again))
	}
	read := named("files.read", `{"path":"a"}`)
	if read.text() != "the content" || call(read) == id {
		t.Errorf("another call by the same name: %s", read.body)
	}
	sent := named("mail.send", `{"to":"a@example.com"}`)
	if call(sent) == id || call(sent) == call(read) {
		t.Errorf("a third: %s", sent.body)
	}

	// What was made is not made again for another action, and that is a
	// decision on record like any other.
	const made = "call_06eajrq8msv0q1bt3r4vckg5yr"
	first := strings.Replace(modern("1", "tools/call", `"name":"files.read","arguments":{"path":"a"}`, ""), `"_meta":{`, `"_meta":{"io.github.writgate/call":"`+made+`",`, 1)
	p.do("POST", "/mcp", headers("tools/call", "files.read"), first)
	if a := p.do("POST", "/mcp", headers("tools/call", "files.read"), strings.Replace(first, `"path":"a"`, `"path":"b"`, 1)); a.code() != "already_used" {
		t.Errorf("another action under a call that was made: %s", a.body)
	}
	records, err := d.Ledger.Records(t.Context(), ledger.Filter{Call: made})
	d.must(err)
	if len(records) != 3 || records[2].Leaf.Code != "already_used" {
		t.Errorf("%d records of that call", len(records))
	}
}
