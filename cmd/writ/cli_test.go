package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/alecthomas/kong"
	"github.com/writgate/writ/server/admin/api"
)

var update = flag.Bool("update", false, "write docs/cli.md and the scripts' expected output")

// keyHash is the key ID of c2sp.org/signed-note.
func keyHash(name string, algAndKey []byte) uint32 {
	h := sha256.Sum256(append([]byte(name+"\n"), algAndKey...))
	return binary.BigEndian.Uint32(h[:4])
}

// TestManual holds docs/cli.md against the help texts.
func TestManual(t *testing.T) {
	const name = "../../docs/cli.md"
	got := manual(t)
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/cli.md is not what the help says: go test ./cmd/writ -run Manual -update, and read the difference")
	}
}

func manual(t *testing.T) []byte {
	var c cli
	p, err := parser(&c, io.Discard, io.Discard, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# writ\n\n<!-- Made from the help texts: go test ./cmd/writ -run Manual -update -->\n\n%s\n\n", p.Model.Help)
	b.WriteString("With `-o json` every command prints one JSON object a line: a list is one line for each of its items. The objects are those of [openapi.yaml](../server/admin/openapi.yaml). What went wrong is one object on the standard error, with at least `code` and `detail`.\n\n")
	b.WriteString("## Every command\n\n")
	flags(&b, p.Model.Flags)
	for _, n := range p.Model.Leaves(true) {
		fmt.Fprintf(&b, "## %s\n\n    %s\n\n%s\n\n", n.FullPath(), strings.TrimSpace(n.FullPath()+" "+usage(n)), n.Help)
		if n.Detail != "" {
			fmt.Fprintf(&b, "%s\n\n", n.Detail)
		}
		for _, a := range n.Positional {
			fmt.Fprintf(&b, "- `%s`: %s\n", strings.ToUpper(a.Name), a.Help)
		}
		flags(&b, n.Flags)
		if b.Bytes()[b.Len()-2] != '\n' {
			b.WriteString("\n")
		}
	}
	return append(bytes.TrimRight(b.Bytes(), "\n"), '\n')
}

func usage(n *kong.Node) string {
	var words []string
	for _, a := range n.Positional {
		word := strings.ToUpper(a.Name)
		if a.IsCumulative() {
			word += " ..."
		}
		if !a.Required {
			word = "[" + word + "]"
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

func flags(b *bytes.Buffer, flags []*kong.Flag) {
	n := 0
	for _, f := range flags {
		if f.Hidden || f.Name == "help" {
			continue
		}
		name := "--" + f.Name
		if f.Tag.Negatable != "" {
			name = "--[no-]" + f.Name
		}
		if !f.IsBool() {
			name += " " + f.FormatPlaceHolder()
		}
		if f.Short != 0 {
			name = "-" + string(f.Short) + ", " + name
		}
		env := ""
		if len(f.Envs) > 0 {
			env = " (`$" + f.Envs[0] + "`)"
		}
		fmt.Fprintf(b, "- `%s`: %s%s\n", name, f.Help, env)
		n++
	}
	if n > 0 {
		b.WriteString("\n")
	}
}

// TestH88Visible: nothing that a terminal would act on, or would not show,
// comes through.
func TestH88Visible(t *testing.T) {
	for in, want := range map[string]string{
		"plain ümlaut 漢字 🙂":         "plain ümlaut 漢字 🙂",
		"\x1b[2J\x1b]8;;http://x\a": "⟦U+001B⟧[2J⟦U+001B⟧]8;;http://x⟦U+0007⟧",
		"a\r\nb\tc":                 "a⟦U+000D⟧⟦U+000A⟧b⟦U+0009⟧c",
		"\u202egnp.exe":             "⟦U+202E⟧gnp.exe",
		"zero\u200bwidth\ufeff":     "zero⟦U+200B⟧width⟦U+FEFF⟧",
		"\U000E0041tag":             "⟦U+E0041⟧tag",
		"vs\ufe0f":                  "vs⟦U+FE0F⟧",
		"\u009b31m":                 "⟦U+009B⟧31m",
		"nb\u00a0sp":                "nb⟦U+00A0⟧sp",
		"⟦U+0041⟧":                  "⟦U+27E6⟧U+0041⟦U+27E7⟧",
		"bad\xff\xc0utf":            "bad⟦FF⟧⟦C0⟧utf",
		"\uFFFD":                    "⟦U+FFFD⟧",
	} {
		if got := visible(in); got != want {
			t.Errorf("visible(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzVisible also holds the JSON side: it says the same, in visible
// characters.
func FuzzVisible(f *testing.F) {
	f.Add("plain")
	f.Add("\x1b]0;x\a\u202e\U000E0041\xff\r\n⟦")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range visible(s) {
			if r != '⟦' && r != '⟧' && (r < ' ' || hidden(r) || !unicode.IsPrint(r)) {
				t.Fatalf("visible(%q) has %U", s, r)
			}
		}
		var b bytes.Buffer
		if err := writeJSON(&b, s); err != nil {
			t.Fatal(err)
		}
		for _, r := range strings.TrimSuffix(b.String(), "\n") {
			if r != '⟦' && r != '⟧' && hidden(r) {
				t.Fatalf("%q has %U", b.String(), r)
			}
		}
		var back string
		if err := json.Unmarshal(b.Bytes(), &back); err != nil || back != strings.ToValidUTF8(s, "\uFFFD") && s != back {
			plain, _ := json.Marshal(s)
			var same string
			if json.Unmarshal(plain, &same); err != nil || same != back {
				t.Fatalf("%q reads back as %q, %v", s, back, err)
			}
		}
	})
}

func TestDiff(t *testing.T) {
	a := strings.Split("1 2 3 4 5 6 7 8 9", " ")
	for b, want := range map[string]string{
		"1 2 3 4 5 6 7 8 9":   "…",
		"1 2 3 4 x 6 7 8 9":   "…,  2,  3,  4,- 5,+ x,  6,  7,  8,…",
		"0 1 2 3 4 5 6 7 8 9": "+ 0,  1,  2,  3,…",
		"1 2 3 4 5 6 7 8":     "…,  6,  7,  8,- 9",
		"9":                   "- 1,- 2,- 3,- 4,- 5,- 6,- 7,- 8,  9",
	} {
		if got := strings.Join(diff(a, strings.Split(b, " ")), ","); got != want {
			t.Errorf("diff to %q is %q, want %q", b, got, want)
		}
	}
	long := strings.Split(strings.Repeat("x\n", 5000), "\n")
	if got := diff(long, long); len(got) != 2*len(long) {
		t.Errorf("texts too long to compare give %d lines", len(got))
	}
}

// TestWhoeverAnswersIsNotBelieved: an agent that runs as the operator can put
// a socket of its own in the gateway's place. What it shows and what it wants
// signed are then not the same, and nothing is signed.
func TestWhoeverAnswersIsNotBelieved(t *testing.T) {
	dir := t.TempDir()
	ln, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	digest := `"sha256:` + strings.Repeat("0", 64) + `"`
	answers := map[string]string{
		"POST /api/v1/approvals/appr_x/show": `{"approval":"appr_x","state":"pending","shown":{"digest":` + digest + `,"action":{"kind":"tool","arguments":"{}"}}}`,
		"POST /api/v1/approvals/appr_y/show": `{"approval":"appr_y","state":"pending"}`,
		"GET /api/v1/tools":                  `{"items":[{"tool":"a.b","definition":` + digest + `,"quarantine":"changed"}]}`,
		"GET /api/v1/tools/a.b":              `{"tool":"a.b","definition":` + digest + `,"quarantine":"changed","offered":{"name":"b"}}`,
		"GET /api/v1/policy":                 `{"files":{},"offered":` + digest + `,"drafts":{}}`,
	}
	var signed []string
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := r.Header.Get(api.ProofHeader); p != "" {
			signed = append(signed, p)
		}
		fmt.Fprint(w, answers[r.Method+" "+r.URL.Path])
	})}
	go srv.Serve(ln)
	defer srv.Close()
	for _, args := range []string{"approvals approve appr_x", "approvals show appr_x", "approvals approve appr_y", "tools review", "policy apply"} {
		var out, errs bytes.Buffer
		code := dispatch(t.Context(), append([]string{"--socket", ln.Addr().String(), "--operator-key", filepath.Join(dir, "none")}, strings.Fields(args)...), strings.NewReader(""), &out, &errs)
		if code != exitNo || strings.Contains(errs.String(), "operator init") {
			t.Errorf("%s exits with %d: %s", args, code, errs.String())
		}
	}
	if len(signed) != 0 {
		t.Errorf("signed: %v", signed)
	}
}

func TestCompletion(t *testing.T) {
	for words, want := range map[string]string{
		"ap":                        "approvals",
		"approvals ":                "ls show approve deny",
		"approvals appr":            "approve",
		"approvals approve --d":     "--dir --digest",
		"approvals approve -":       "--help --output --dir --socket --operator-key --digest --reason",
		"-o ":                       "text json",
		"--output json calls ":      "ls tail show explain",
		"calls ls --only a":         "all allow ask",
		"revoke t":                  "task tool",
		"revoke task --yes task_x ": "",
		"compl":                     "completion",
	} {
		var out, errs bytes.Buffer
		args := append([]string{"complete", "--"}, strings.Split(words, " ")...)
		if code := dispatch(t.Context(), args, strings.NewReader(""), &out, &errs); code != exitOK {
			t.Errorf("%q: exit code %d, %s", words, code, errs.String())
		}
		if got := strings.Join(strings.Fields(out.String()), " "); got != want {
			t.Errorf("%q is completed with %q, want %q", words, got, want)
		}
	}
}
