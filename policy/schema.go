package policy

import (
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	cedarschema "github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/ast"
	"github.com/writgate/writ"
)

// schemaName is the generated file among a bundle's files.
const schemaName = "schema.cedarschema"

//go:embed base.cedarschema
var baseSchema string

// contextParts is the context of every action, the arguments aside.
const contextParts = "assurance: Assurance, budget: Budget, caller: Caller, label: Label, nulls: Set<String>, origin: Origin, task: Task, time: datetime"

// A ToolSchema is one action that policies may speak of: a tool as reviewed,
// and the JSON Schema of its arguments, as canonical JSON.
type ToolSchema struct {
	Tool  writ.Tool
	Kind  writ.Kind
	Input []byte
}

var kinds = []writ.Kind{writ.KindTool, writ.KindResource, writ.KindPrompt, writ.KindContinuation, writ.KindCredential}

// groupsOf are the action groups of a tool.
func groupsOf(t writ.Tool, k writ.Kind) []string {
	groups := []string{"all", "class:" + t.Result.Class.String(), "kind:" + string(k), "tier:" + t.Tier.String(), "upstream:" + t.Upstream}
	if t.Fetch {
		groups = append(groups, "fetch")
	}
	return groups
}

// fixedGroups are the groups that exist whether or not a tool is in them.
func fixedGroups() []string {
	groups := []string{"all", "fetch"}
	for t := range writ.ReadOnly + 1 {
		groups = append(groups, "tier:"+t.String())
	}
	for c := range writ.Public + 1 {
		groups = append(groups, "class:"+c.String())
	}
	for _, k := range kinds {
		groups = append(groups, "kind:"+string(k))
	}
	return groups
}

// generate writes the schema of these tools. The same tools give the same
// bytes.
func generate(tools []ToolSchema) ([]byte, error) {
	text, err := actions(tools, &Bundle{})
	return slices.Concat([]byte(baseSchema), text), err
}

// actions writes the tools, and the groups that they need, as far as a bundle
// does not have them.
func actions(tools []ToolSchema, known *Bundle) ([]byte, error) {
	tools = slices.Clone(tools)
	slices.SortFunc(tools, func(a, b ToolSchema) int { return strings.Compare(string(a.Tool.Name), string(b.Tool.Name)) })
	groups := fixedGroups()
	var errs []error
	for _, t := range tools {
		if err := checkTool(t); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", t.Tool.Name, err))
		}
		groups = append(groups, "upstream:"+t.Tool.Upstream)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	slices.Sort(groups)
	var w strings.Builder
	for _, g := range slices.Compact(groups) {
		if known.schema == nil || known.schema.Actions[actionUID(g)].Entity.UID.IsZero() {
			fmt.Fprintf(&w, "action %s;\n", quote(g))
		}
	}
	for _, t := range tools {
		s, err := shapeOfTool(t.Input)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", t.Tool.Name, err))
			continue
		}
		writeAction(&w, t, s)
	}
	return []byte(w.String()), errors.Join(errs...)
}

func checkTool(t ToolSchema) error {
	rest, ok := strings.CutPrefix(string(t.Tool.Name), t.Tool.Upstream+".")
	switch {
	case !ok || rest == "" || t.Tool.Upstream == "" || strings.ContainsAny(t.Tool.Upstream, ".:*"):
		return fmt.Errorf("not a tool of upstream %q", t.Tool.Upstream)
	case !utf8.ValidString(string(t.Tool.Name)):
		return errors.New("name is not UTF-8")
	case !slices.Contains(kinds, t.Kind):
		return fmt.Errorf("unknown kind %q", t.Kind)
	case t.Tool.Definition == "":
		return errors.New("has no pinned definition")
	case t.Tool.Tier > writ.ReadOnly || t.Tool.Result.Class > writ.Public || t.Tool.Result.Integrity > writ.Trusted:
		return errors.New("tier or label out of range")
	}
	return nil
}

func writeAction(w *strings.Builder, t ToolSchema, s shape) {
	annotate := func(name, value string) { fmt.Fprintf(w, "@%s(%s)\n", name, quote(value)) }
	w.WriteString("\n")
	annotate("definition", string(t.Tool.Definition))
	annotate("kind", string(t.Kind))
	annotate("upstream", t.Tool.Upstream)
	annotate("tier", t.Tool.Tier.String())
	annotate("class", t.Tool.Result.Class.String())
	annotate("integrity", t.Tool.Result.Integrity.String())
	if t.Tool.Fetch {
		annotate("fetch", "true")
	}
	if t.Tool.Credential != "" {
		annotate("credential", t.Tool.Credential)
	}
	var groups []string
	for _, g := range groupsOf(t.Tool, t.Kind) {
		groups = append(groups, quote(g))
	}
	fmt.Fprintf(w, "action %s in [%s] appliesTo {\n  principal: [Agent],\n  resource: [Tool],\n  context: {\n    args: ",
		quote(string(t.Tool.Name)), strings.Join(groups, ", "))
	writeShape(w, s, "    ")
	fmt.Fprintf(w, ",\n    %s\n  }\n};\n", contextParts)
}

func writeShape(w *strings.Builder, s shape, indent string) {
	switch s.kind {
	case asSet:
		w.WriteString("Set<")
		writeShape(w, *s.elem, indent)
		w.WriteString(">")
	case asRecord:
		w.WriteString("{")
		for _, a := range s.attrs {
			w.WriteString("\n" + indent + "  ")
			if a.nullable {
				w.WriteString(`@nullable("") `)
			}
			w.WriteString(quote(a.name))
			if a.nullable || !a.required {
				w.WriteString("?")
			}
			w.WriteString(": ")
			writeShape(w, a.shape, indent+"  ")
			w.WriteString(",")
		}
		if len(s.attrs) > 0 {
			w.WriteString("\n" + indent)
		}
		w.WriteString("}")
	default:
		w.WriteString(typeNames[s.kind])
	}
}

// quote writes a Cedar string literal.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r >= 0x7f:
			fmt.Fprintf(&b, `\u{%x}`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// An operation is one action of the schema: a tool, and its arguments.
type operation struct {
	tool     writ.Tool
	kind     writ.Kind
	args     shape
	uid      cedar.EntityUID
	parents  []cedar.EntityUID
	resource cedar.EntityUID
	lists    []*list // the policies that may apply to it, by principal
	answers  []*list // those that apply besides if it answers its upstream
}

// standIn is an action without arguments, for the policies that read none. No
// tool has its name.
const standIn = `action "*" appliesTo { principal: [Agent], resource: [Tool], context: { ` + contextParts + ` } };`

// parseSchema reads a generated schema back.
func (b *Bundle) parseSchema(text []byte) error {
	var s cedarschema.Schema
	s.SetFilename(schemaName)
	if err := s.UnmarshalCedar(slices.Concat(text, []byte(standIn))); err != nil {
		return err
	}
	var err error
	if b.schema, err = s.Resolve(); err != nil {
		return fmt.Errorf("%s: %w", schemaName, err)
	}
	b.standIn = b.schema.Actions[actionUID("*")].AppliesTo
	delete(b.schema.Actions, actionUID("*"))
	b.ops = map[writ.ToolName]*operation{}
	for id, a := range s.AST().Actions {
		if a.AppliesTo == nil || id == "*" {
			continue
		}
		op, err := parseAction(string(id), a)
		if err != nil {
			return fmt.Errorf("%s: action %q: %w", schemaName, id, err)
		}
		b.ops[op.tool.Name] = op
	}
	return nil
}

func parseAction(id string, a ast.Action) (*operation, error) {
	note := func(key types.AnnotationKey) string { return string(a.Annotations[key]) }
	op := &operation{uid: actionUID(id), resource: cedar.NewEntityUID("Tool", cedar.String(id)), kind: writ.Kind(note("kind"))}
	op.tool = writ.Tool{Name: writ.ToolName(id), Upstream: note("upstream"), Definition: writ.Digest(note("definition")),
		Fetch: note("fetch") == "true", Credential: note("credential")}
	err := errors.Join(
		op.tool.Tier.UnmarshalText([]byte(note("tier"))),
		op.tool.Result.Class.UnmarshalText([]byte(note("class"))),
		op.tool.Result.Integrity.UnmarshalText([]byte(note("integrity"))),
		checkTool(ToolSchema{Tool: op.tool, Kind: op.kind}))
	if err != nil {
		return nil, err
	}
	context, ok := a.AppliesTo.Context.(ast.RecordType)
	if !ok {
		return nil, errors.New("has no context")
	}
	args, err := shapeFromSchema(context["args"].Type)
	if err != nil {
		return nil, err
	}
	if args.kind != asRecord {
		return nil, errors.New("arguments are not a record")
	}
	args.point("")
	op.args = args
	for _, g := range groupsOf(op.tool, op.kind) {
		op.parents = append(op.parents, actionUID(g))
	}
	return op, nil
}

func actionUID(id string) cedar.EntityUID { return cedar.NewEntityUID("Action", cedar.String(id)) }
