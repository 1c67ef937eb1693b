package gate_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/writgate/writ"
	"github.com/writgate/writ/approval"
	"github.com/writgate/writ/gate"
	"github.com/writgate/writ/ledger"
	"github.com/writgate/writ/policy"
	"github.com/writgate/writ/replay"
	"github.com/writgate/writ/writtest"
	"go.yaml.in/yaml/v4"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write what happened into the stories' want sections; read them afterwards")

// TestCalls tells the stories in testdata/calls. Each says in prose which
// threat it is about; "calls" is what the agent and the people do, and "want"
// is what the agent was told, what reached the tools and the vault, and what
// went on record.
//
// Lines of a calls section:
//
//	> tool {arguments}      the agent calls
//	approve omar            omar approves what waits; deny omar reason
//	end                     the task ends
//	advance 20m             time passes
//	restart                 the gateway stops and starts again
//	change tool {schema}    the tool's definition changes
//	open purpose            the agent opens another task, with another key
func TestCalls(t *testing.T) {
	files, err := filepath.Glob("testdata/calls/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no stories", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			a := txtar.Parse(text)
			got := tell(t, a)
			for i := range a.Files {
				if a.Files[i].Name != "want" {
					continue
				}
				if *update {
					a.Files[i].Data = []byte(got)
					if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
						t.Fatal(err)
					}
				} else if want := string(a.Files[i].Data); got != want {
					t.Errorf("%sgot:\n%s\nwant:\n%s", a.Comment, got, want)
				}
				return
			}
			t.Error("the story has no want section")
		})
	}
}

// A stage is where a story happens.
type stage struct {
	t       *testing.T
	w       *writtest.World
	setup   writtest.Setup
	agent   *writtest.Agent
	task    writ.Task
	out     strings.Builder
	seen    int
	vaulted int
	index   int64
	pending writ.CallID // the call that waits, to be presented again
}

func tell(t *testing.T, a *txtar.Archive) string {
	s := &stage{t: t}
	s.setup.Directory = t.TempDir()
	calls := ""
	for _, f := range a.Files {
		switch f.Name {
		case "tools.yaml":
			s.load(f.Data, &s.setup.Tools)
		case "task.yaml":
			var task struct {
				Purpose writ.Purpose      `yaml:"purpose"`
				Grant   []writ.Permission `yaml:"grant"`
				Budgets []writ.Budget     `yaml:"budgets"`
			}
			s.load(f.Data, &task)
			s.task = writ.Task{Purpose: task.Purpose, Grant: task.Grant, Budgets: task.Budgets}
		case "calls":
			calls = string(f.Data)
		case "want":
		default:
			if !strings.HasSuffix(f.Name, ".cedar") {
				t.Fatalf("a story has no section %q", f.Name)
			}
			s.setup.Policies = append(s.setup.Policies, policy.File{Name: f.Name, Text: f.Data})
		}
	}
	s.w = writtest.New(t, s.setup)
	s.agent = s.w.Agent("billing")
	if s.task.Grant != nil {
		s.agent.Open(s.task)
	}
	s.skip()
	for line := range strings.Lines(calls) {
		line = strings.TrimSuffix(line, "\n")
		fmt.Fprintln(&s.out, line)
		s.play(line)
		s.world()
	}
	s.check()
	return s.out.String()
}

func (s *stage) load(text []byte, into any) {
	s.t.Helper()
	if err := yaml.Load(text, into, yaml.WithKnownFields(), yaml.WithUniqueKeys()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) play(line string) {
	s.t.Helper()
	verb, rest, _ := strings.Cut(line, " ")
	ctx := s.t.Context()
	switch verb {
	case ">":
		tool, args, _ := strings.Cut(rest, " ")
		s.call(writ.ToolName(tool), args)
	case "approve", "deny":
		who, reason, _ := strings.Cut(rest, " ")
		s.answer(writ.UserID(who), verb == "approve", reason)
	case "end":
		end, err := s.w.Gate.EndTask(ctx, s.agent.Task.ID, "the story says so", "omar")
		if err != nil {
			s.t.Fatal(err)
		}
		fmt.Fprintf(&s.out, "  cancelled %d\n", end.Cancelled)
	case "advance":
		d, err := time.ParseDuration(rest)
		if err != nil {
			s.t.Fatal(err)
		}
		s.w.Clock.Advance(d)
	case "change":
		name, schema, _ := strings.Cut(rest, " ")
		s.w.Change(writ.ToolName(name), schema)
	case "open":
		s.agent = s.w.Agent("billing")
		next := s.task
		next.Purpose.Instructions = rest
		s.agent.Open(next)
		s.skip()
	case "":
	default:
		s.t.Fatalf("a story has no %q", verb)
	}
}

func (s *stage) call(tool writ.ToolName, args string) {
	r := s.agent.Request(tool, args)
	if s.pending != "" {
		r.Call, s.pending = s.pending, ""
	}
	res, err := s.w.Gate.Do(s.t.Context(), r)
	if err == nil {
		text, _ := res.Body.Value().Pointer("/content/0/text").Str()
		fmt.Fprintf(&s.out, "= %q\n", text)
		return
	}
	d, ok := errors.AsType[*writ.Denial](err)
	if !ok {
		s.t.Fatalf("%s: %v is no Denial", tool, err)
	}
	fmt.Fprintf(&s.out, "! %s: %s", d.Code, d.Reason)
	if d.Argument != "" {
		fmt.Fprintf(&s.out, " [%s]", d.Argument)
	}
	if d.Remedy != "" {
		fmt.Fprintf(&s.out, " (%s)", d.Remedy)
	}
	s.out.WriteString("\n")
	if d.Code == writ.ApprovalRequired {
		s.pending = r.Call
	}
}

func (s *stage) answer(who writ.UserID, yes bool, reason string) {
	ctx := s.t.Context()
	waiting, err := s.w.Gate.Approvals.List(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	if len(waiting) != 1 {
		fmt.Fprintf(&s.out, "  %d requests wait\n", len(waiting))
		return
	}
	r := waiting[0]
	key := writtest.OperatorKey(string(who))
	_, reads, err := s.w.Gate.Catalog.Operator(ctx, key)
	if err == nil {
		_, err = s.w.Gate.Approvals.Answer(ctx, r.ID, r.Query.Action.Digest(), approval.Answer{By: who, Key: key, Yes: yes, Reason: reason}, reads...)
	}
	if err != nil {
		fmt.Fprintf(&s.out, "  %s\n", writ.AsDenial(err).Code)
	}
}

// world tells what reached the outside, and what went on record.
func (s *stage) world() {
	s.t.Helper()
	for _, a := range s.w.Tools.Seen()[s.seen:] {
		fmt.Fprintf(&s.out, "  tool got %s %s\n", a.Name, a.Arguments)
		s.seen++
	}
	for _, did := range s.w.Vault.Log()[s.vaulted:] {
		fmt.Fprintf(&s.out, "  vault %s\n", did)
		s.vaulted++
	}
	var types []string
	for _, r := range s.records(s.index) {
		types = append(types, r.Leaf.Type)
		s.index = r.Index + 1
	}
	if len(types) > 0 {
		fmt.Fprintf(&s.out, "  record %s\n", strings.Join(types, " "))
	}
}

// skip leaves out what happened so far.
func (s *stage) skip() {
	for _, r := range s.records(s.index) {
		s.index = r.Index + 1
	}
}

func (s *stage) records(from int64) []*ledger.Record {
	s.t.Helper()
	all, err := s.w.Ledger.Records(s.t.Context(), ledger.Filter{From: from})
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

// check holds of every story: every decision replays, every intent has its
// outcome, every credential is dead, and every record has a receipt that
// verifies with nothing but the log's public key.
func (s *stage) check() {
	s.t.Helper()
	ctx := s.t.Context()
	for _, r := range s.records(0) {
		if _, ok := r.Leaf.Parts[replay.PartDecision]; ok {
			again, err := replay.Record(ctx, s.w.Ledger, r)
			if err != nil || !again.Equal {
				s.t.Errorf("record %d does not replay: %+v, %v", r.Index, again, err)
			}
		}
		receipt, err := s.w.Ledger.Prove(ctx, r.Index)
		if err != nil {
			s.t.Fatal(err)
		}
		if v, err := ledger.Verify(receipt, s.w.Trust); err != nil || v.Index != r.Index {
			s.t.Errorf("the receipt of record %d: %v", r.Index, err)
		}
	}
	if orphans, err := s.w.Ledger.Orphans(ctx); err != nil || len(orphans) != 0 {
		s.t.Errorf("intents without an outcome: %v, %v", orphans, err)
	}
	if n := s.w.Vault.Live(); n != 0 {
		s.t.Errorf("%d credentials are alive", n)
	}
}

var _ = gate.DecisionMeta
