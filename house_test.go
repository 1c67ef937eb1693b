package writ_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/writgate/writ"

// imports is who may import whom among our own packages, edge by edge, test
// files aside. A package imports only what comes before it in the journey of
// a call. Adding an edge is a commit of its own that says why.
var imports = map[string][]string{
	".":                 {},
	"canon":             {"."},
	"mcp":               {".", "canon"},
	"ledger":            {".", "canon", "ledger/durable"},
	"ledger/durable":    {},
	"ledger/sqlite":     {".", "ledger", "ledger/durable"},
	"ledger/witness":    {"ledger", "ledger/durable"},
	"ledger/ledgertest": {".", "ledger"},
	"identity":          {".", "canon", "ledger"},
	"identity/devca":    {},
	"registry":          {".", "canon", "ledger"},
	"task":              {".", "canon", "ledger"},
	"flow":              {".", "canon"},
	"policy":            {".", "canon"},
	"approval":          {".", "canon", "ledger"},
	"capability":        {".", "canon"},
	"capability/issue":  {".", "canon", "capability", "policy"},
	"broker":            {".", "ledger", "capability/issue"},
	"broker/oauth":      {".", "broker"},
	"broker/postgres":   {".", "broker"},
	"broker/static":     {".", "broker"},
	"upstream":          {".", "canon", "mcp", "broker"},
	"replay":            {".", "canon", "ledger", "policy"},
	"gate":              {".", "canon", "mcp", "ledger", "identity", "registry", "task", "flow", "policy", "approval", "capability/issue", "broker", "upstream", "replay"},
	"server":            {".", "canon", "mcp", "identity", "registry", "upstream", "gate", "approval"},
	"server/token":      {".", "canon", "ledger", "identity", "registry", "task"},
	"server/admin":      {".", "canon", "ledger", "identity", "identity/devca", "registry", "task", "policy", "approval", "broker", "replay", "gate", "server/admin/api"},
	"server/admin/api":  {"."},
}

// Budgets of size. Raising one is a commit of its own that says why.
const (
	maxFile     = 500 // lines
	maxFunc     = 70  // lines
	maxParams   = 5   // after the context
	maxMethods  = 4   // of an interface
	maxFields   = 15  // of a struct; record types are exempt
	maxExported = 20  // types and functions of a package
	maxRoot     = 40  // of the root
	maxDirect   = 20  // modules required directly, one project counted once
)

// recordTypes are plain data that lands in the record, field for field. They
// are exempt from the budgets for fields and for exported names.
var recordTypes = map[string]bool{
	"Action": true, "Agent": true, "Bound": true, "Budget": true, "Caller": true, "Claim": true, "Decision": true,
	"Hop": true, "Label": true, "Leaf": true, "Permission": true, "Provenance": true, "Purpose": true, "Query": true,
	"Reason": true, "Obligation": true, "Result": true, "Task": true, "Tool": true,
}

// meaningless are package names that name no one thing.
var meaningless = []string{"util", "utils", "helper", "helpers", "common", "base", "manager", "service", "impl", "data", "info", "misc", "shared", "types"}

type unit struct {
	dir   string
	files map[string]*ast.File // by path, test files aside
	fset  *token.FileSet
}

// units parses every package below root.
func units(t *testing.T, root string) []unit {
	t.Helper()
	byDir := map[string]*unit{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); path != root && (n == "testdata" || strings.HasPrefix(n, ".") || n == "node_modules") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		u := byDir[dir]
		if u == nil {
			u = &unit{dir: filepath.ToSlash(dir), files: map[string]*ast.File{}, fset: token.NewFileSet()}
			byDir[dir] = u
		}
		f, err := parser.ParseFile(u.fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		u.files[path] = f
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var all []unit
	for _, u := range byDir {
		all = append(all, *u)
	}
	slices.SortFunc(all, func(a, b unit) int { return strings.Compare(a.dir, b.dir) })
	return all
}

// violations lists what a package does against the rules of the house.
func violations(u unit) []string {
	var bad []string
	say := func(pos token.Pos, format string, args ...any) {
		p := u.fset.Position(pos)
		bad = append(bad, fmt.Sprintf("%s:%d: %s", filepath.ToSlash(p.Filename), p.Line, fmt.Sprintf(format, args...)))
	}
	docs, exported := 0, 0
	for _, f := range u.files {
		if f.Doc != nil {
			docs++
		}
		if slices.Contains(meaningless, f.Name.Name) {
			say(f.Pos(), "package name %q names no one thing", f.Name.Name)
		}
		if n := u.fset.File(f.Pos()).LineCount(); n > maxFile {
			say(f.Pos(), "file of %d lines, more than %d", n, maxFile)
		}
		for _, im := range f.Imports {
			path, _ := strconv.Unquote(im.Path.Value)
			own, ok := strings.CutPrefix(path, module)
			if !ok {
				continue
			}
			if own = strings.TrimPrefix(own, "/"); own == "" {
				own = "."
			}
			if !mayImport(u.dir, own) {
				say(im.Pos(), "%s may not import %s", u.dir, own)
			}
		}
		ast.Inspect(f, func(n ast.Node) bool { checkNode(n, u, say); return true })
		exported += countExported(f)
	}
	limit := maxExported
	if u.dir == "." {
		limit = maxRoot
	}
	if exported > limit && !strings.HasPrefix(u.dir, "cmd/") {
		bad = append(bad, fmt.Sprintf("%s: %d exported types and functions, more than %d", u.dir, exported, limit))
	}
	if docs != 1 {
		bad = append(bad, fmt.Sprintf("%s: %d package comments, want one", u.dir, docs))
	}
	return bad
}

// mayImport says whether the table has the edge. What wires everything, and
// what plays the outside world, stands outside the table.
func mayImport(from, to string) bool {
	if strings.HasPrefix(from, "cmd/") || from == "writtest" || strings.HasPrefix(from, "demo") {
		return true
	}
	return slices.Contains(imports[from], to)
}

func checkNode(n ast.Node, u unit, say func(token.Pos, string, ...any)) {
	lines := func(n ast.Node) int {
		return u.fset.Position(n.End()).Line - u.fset.Position(n.Pos()).Line + 1
	}
	switch n := n.(type) {
	case *ast.FuncDecl:
		if n.Recv == nil && n.Name.Name == "init" {
			say(n.Pos(), "init: nothing happens at import")
		}
		if got := lines(n); got > maxFunc {
			say(n.Pos(), "%s has %d lines, more than %d", n.Name.Name, got, maxFunc)
		}
		if n.Name.IsExported() && n.Doc == nil && (n.Recv == nil || !obvious(n.Name.Name)) {
			say(n.Pos(), "%s has no comment", n.Name.Name)
		}
		params := 0
		for _, p := range n.Type.Params.List {
			if s, ok := p.Type.(*ast.SelectorExpr); ok && s.Sel.Name == "Context" {
				continue
			}
			params += max(1, len(p.Names))
		}
		if params > maxParams {
			say(n.Pos(), "%s takes %d parameters, more than %d", n.Name.Name, params, maxParams)
		}
	case *ast.TypeSpec:
		switch typ := n.Type.(type) {
		case *ast.InterfaceType:
			if typ.Methods.NumFields() > maxMethods {
				say(n.Pos(), "interface %s has %d methods, more than %d", n.Name.Name, typ.Methods.NumFields(), maxMethods)
			}
		case *ast.StructType:
			if typ.Fields.NumFields() > maxFields && !recordTypes[n.Name.Name] {
				say(n.Pos(), "struct %s has %d fields, more than %d", n.Name.Name, typ.Fields.NumFields(), maxFields)
			}
		}
	}
}

// obvious are methods whose contract the standard library states.
func obvious(name string) bool {
	return slices.Contains([]string{"String", "GoString", "MarshalText", "UnmarshalText", "MarshalJSON", "UnmarshalJSON", "Error", "Unwrap", "LogValue", "Format"}, name)
}

func countExported(f *ast.File) int {
	n := 0
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil && d.Name.IsExported() {
				n++
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if ts, ok := s.(*ast.TypeSpec); ok && ts.Name.IsExported() && !recordTypes[ts.Name.Name] {
					n++
				}
			}
		}
	}
	return n
}

func TestHouse(t *testing.T) {
	for _, u := range units(t, ".") {
		for _, v := range violations(u) {
			t.Error(v)
		}
	}
}

// TestHouseBites plants one violation of each rule and expects it named.
func TestHouseBites(t *testing.T) {
	long := "package util\nimport _ \"" + module + "/gate\"\nfunc init() {\n" + strings.Repeat("\n", maxFile) + "}\n" +
		"func Bare(a, b, c, d, e, f int) {}\ntype Wide struct{ " + strings.Repeat("A int;", maxFields+1) + " }\n" +
		"type Fat interface { A(); B(); C(); D(); E() }\n"
	for i := range maxExported {
		long += fmt.Sprintf("type T%d int\n", i)
	}
	dir := filepath.Join(t.TempDir(), "canon")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bad.go"), []byte(long), 0o600); err != nil {
		t.Fatal(err)
	}
	us := units(t, filepath.Dir(dir))
	if len(us) != 1 {
		t.Fatalf("found %d packages, want the planted one", len(us))
	}
	got := strings.Join(violations(us[0]), "\n")
	for _, want := range []string{
		"names no one thing", "file of", "canon may not import gate", "init: nothing happens", "init has",
		"Bare has no comment", "Bare takes 6", "struct Wide has 16", "interface Fat has 5",
		"exported types and functions, more than", "0 package comments",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("planted violation not named: %q\ngot:\n%s", want, got)
		}
	}
}

// TestDirectDependencies keeps the modules we chose few.
func TestDirectDependencies(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	projects := map[string]bool{}
	for line := range strings.Lines(string(mod)) {
		fields := strings.Fields(line)
		if len(fields) == 2 && strings.Contains(fields[0], ".") && strings.HasPrefix(fields[1], "v") {
			project, _, _ := strings.Cut(strings.TrimPrefix(fields[0], "golang.org/"), "/")
			if strings.HasPrefix(fields[0], "github.com/") {
				project = strings.Join(strings.Split(fields[0], "/")[:2], "/")
			}
			projects[project] = true
		}
		if strings.HasPrefix(line, "replace") {
			t.Error("go.mod replaces a module")
		}
	}
	if len(projects) > maxDirect {
		t.Errorf("%d direct dependencies, more than %d: %v", len(projects), maxDirect, projects)
	}
}
