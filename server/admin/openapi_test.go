package admin

import (
	"encoding"
	"encoding/json"
	"flag"
	"go/ast"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/writgate/writ"
	"github.com/writgate/writ/server/admin/api"
	"go.yaml.in/yaml/v4"
)

var update = flag.Bool("update", false, "write openapi.yaml from the handlers")

// TestOpenAPI holds openapi.yaml against the handlers: every route with what
// it does, every member of every object with what it means, as the code has
// them.
func TestOpenAPI(t *testing.T) {
	w := &describer{t: t, docs: readDocs(t, ".", "api", "../../registry", "../../replay", "../.."), schemas: map[string]*yaml.Node{}}
	var out strings.Builder
	enc, err := yaml.NewDumper(&out, yaml.WithIndent(2))
	if err != nil {
		t.Fatal(err)
	}
	if err := enc.Dump(w.document()); err != nil {
		t.Fatal(err)
	}
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	got := "# Made from the handlers by: go test ./server/admin -run OpenAPI -update\n" + out.String()
	if *update {
		if err := os.WriteFile("openapi.yaml", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Error("openapi.yaml is not what the handlers do; go test ./server/admin -run OpenAPI -update, and read the difference")
	}
}

// TestH92RequestsNameNoPlace: nothing that a request holds is a file, an
// address or a command of the gateway's.
func TestH92RequestsNameNoPlace(t *testing.T) {
	place := regexp.MustCompile(`(?i)(^|_)(path|file|dir|url|uri|host|addr|address|listen|command|cmd|args|argv|env|exec|sink|endpoint|socket)($|_)`)
	var walk func(typ reflect.Type, where string)
	walk = func(typ reflect.Type, where string) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			walk(typ.Elem(), where)
		case reflect.Struct:
			for i := range typ.NumField() {
				name, _ := member(typ.Field(i))
				if place.MatchString(name) {
					t.Errorf("%s has a member %q", where, name)
				}
				walk(typ.Field(i).Type, where+"."+name)
			}
		}
	}
	for _, r := range routes() {
		walk(r.in, r.name)
	}
	if !place.MatchString("log_path") || !place.MatchString("url") || place.MatchString("environment") {
		t.Error("the rule has no teeth")
	}
}

// A describer turns types into schemas.
type describer struct {
	t       *testing.T
	docs    map[string]string // of "Type", "Type.Field" and "Server.method"
	schemas map[string]*yaml.Node
	order   []string
}

func (w *describer) document() *yaml.Node {
	paths := object()
	for _, r := range routes() {
		item := child(paths, r.path)
		set(item, strings.ToLower(r.method), w.operation(r))
	}
	problem := w.schema(reflect.TypeFor[api.Problem]())
	schemas := object()
	slices.Sort(w.order)
	for _, name := range w.order {
		set(schemas, name, w.schemas[name])
	}
	return object(
		"openapi", text("3.1.0"),
		"info", object("title", text("Writ, for operators"), "version", text("v1"), "description", text(w.docs["package admin"])),
		"servers", list(object("url", text("http://writ"+api.Prefix), "description", text("over the gateway's Unix socket"))),
		"paths", paths,
		"components", object(
			"responses", object("Problem", object("description", text("It was refused, or could not be done."), "content", object("application/problem+json", object("schema", problem)))),
			"securitySchemes", object("operator", object("type", text("apiKey"), "in", text("header"), "name", text(api.ProofHeader), "description", text(w.docs["Proof"]))),
			"schemas", schemas,
		),
	)
}

func (w *describer) operation(r route) *yaml.Node {
	op := object("operationId", text(r.name), "description", text(sentence(w.doc("Server."+handlerOf(w.t, r.name)))))
	switch r.right {
	case grants:
		set(op, "security", list(object("operator", list())))
	case vouched:
		set(op, "security", list(object(), object("operator", list())))
	}
	parameters, body := list(), object()
	required := list()
	for i := range r.in.NumField() {
		f := r.in.Field(i)
		for _, in := range []string{"path", "query"} {
			if name, ok := f.Tag.Lookup(in); ok {
				p := object("name", text(name), "in", text(in))
				if in == "path" {
					set(p, "required", boolean("true"))
				}
				if doc := w.docs[r.in.Name()+"."+f.Name]; doc != "" {
					set(p, "description", text(doc))
				}
				set(p, "schema", w.schema(f.Type))
				parameters.Content = append(parameters.Content, p)
			}
		}
	}
	if len(parameters.Content) > 0 {
		set(op, "parameters", parameters)
	}
	if r.method != "GET" {
		w.members(r.in, r.in.Name(), body, required)
		set(op, "requestBody", object("required", boolean("true"), "content", object("application/json", object("schema", objectSchema(body, required)))))
	}
	set(op, "responses", object(
		"200", object("description", text("It is so."), "content", object("application/json", object("schema", w.schema(r.out)))),
		"default", object("$ref", text("#/components/responses/Problem")),
	))
	return op
}

// schema describes a type, by reference if it has a name.
func (w *describer) schema(typ reflect.Type) *yaml.Node {
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	switch {
	case typ == reflect.TypeFor[json.RawMessage]():
		return object()
	case typ == reflect.TypeFor[api.Time]():
		return object("type", text("string"), "format", text("date-time"))
	case typ == reflect.TypeFor[writ.JSON]():
		return object("type", text("string"), "contentMediaType", text("application/json"))
	case reflect.PointerTo(typ).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		return object("type", text("string"), "enum", w.names(typ))
	}
	switch typ.Kind() {
	case reflect.String:
		return object("type", text("string"))
	case reflect.Bool:
		return object("type", text("boolean"))
	case reflect.Int, reflect.Int64:
		return object("type", text("integer"))
	case reflect.Slice:
		return object("type", text("array"), "items", w.schema(typ.Elem()))
	case reflect.Map:
		return object("type", text("object"), "additionalProperties", w.schema(typ.Elem()))
	case reflect.Struct:
		name := schemaName(typ)
		if w.schemas[name] == nil {
			properties, required := object(), list()
			s := objectSchema(properties, required)
			w.schemas[name], w.order = s, append(w.order, name)
			if doc := w.doc(docName(typ)); doc != "" {
				s.Content = append([]*yaml.Node{text("description"), text(doc)}, s.Content...)
			}
			w.members(typ, docName(typ), properties, required)
		}
		return object("$ref", text("#/components/schemas/"+name))
	}
	w.t.Fatalf("no schema for %v", typ)
	return nil
}

func (w *describer) members(typ reflect.Type, owner string, properties, required *yaml.Node) {
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, optional := member(f)
		if name == "" {
			continue
		}
		s := w.schema(f.Type)
		if doc := w.docs[owner+"."+f.Name]; doc != "" {
			s.Content = append([]*yaml.Node{text("description"), text(doc)}, s.Content...)
		}
		set(properties, name, s)
		if !optional {
			required.Content = append(required.Content, text(name))
		}
	}
}

// member is how a field is called in JSON, and whether it may be left out.
func member(f reflect.StructField) (name string, optional bool) {
	name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
	if name == "-" || f.Tag.Get("path") != "" || f.Tag.Get("query") != "" {
		return "", false
	}
	return name, strings.Contains(options, "omitempty")
}

// names are the values that a type of names can have.
func (w *describer) names(typ reflect.Type) *yaml.Node {
	all := list()
	v := reflect.New(typ).Elem()
	for i := range uint64(64) {
		v.SetUint(i)
		b, err := v.Interface().(encoding.TextMarshaler).MarshalText()
		if err != nil {
			break
		}
		all.Content = append(all.Content, text(string(b)))
	}
	return all
}

var typeArgument = regexp.MustCompile(`^(\w+)\[(?:.*[./])?(\w+)\]$`)

func schemaName(typ reflect.Type) string {
	if m := typeArgument.FindStringSubmatch(typ.Name()); m != nil {
		return m[2] + m[1]
	}
	return strings.ToUpper(typ.Name()[:1]) + typ.Name()[1:]
}

func docName(typ reflect.Type) string {
	name, _, _ := strings.Cut(typ.Name(), "[")
	return name
}

func (w *describer) doc(name string) string {
	if _, ok := w.docs[name]; !ok && !strings.HasSuffix(name, "Answer") {
		w.t.Errorf("%s has no comment", name)
	}
	return w.docs[name]
}

// sentence drops the name that a comment begins with.
func sentence(doc string) string {
	_, rest, _ := strings.Cut(doc, " ")
	if rest == "" {
		return ""
	}
	return strings.ToUpper(rest[:1]) + rest[1:]
}

// readDocs reads what the comments say of types, their fields, and methods.
func readDocs(t *testing.T, dirs ...string) map[string]string {
	docs := map[string]string{}
	say := func(name string, groups ...*ast.CommentGroup) {
		for _, g := range groups {
			if s := g.Text(); s != "" && docs[name] == "" {
				var parser comment.Parser
				docs[name] = strings.TrimSpace(string((&comment.Printer{TextWidth: -1}).Text(parser.Parse(s))))
			}
		}
	}
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			say("package "+f.Name.Name, f.Doc)
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.FuncDecl:
					if n.Recv != nil {
						say("Server."+n.Name.Name, n.Doc)
					}
				case *ast.GenDecl:
					for _, spec := range n.Specs {
						ts, ok := spec.(*ast.TypeSpec)
						if !ok {
							continue
						}
						say(ts.Name.Name, ts.Doc, n.Doc)
						if st, ok := ts.Type.(*ast.StructType); ok {
							for _, field := range st.Fields.List {
								for _, id := range field.Names {
									say(ts.Name.Name+"."+id.Name, field.Doc, field.Comment)
								}
							}
						}
					}
				}
				return true
			})
		}
	}
	return docs
}

// handlerOf is the method that answers a route, as routes.go has it.
func handlerOf(t *testing.T, name string) string {
	source, err := os.ReadFile("routes.go")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`at\(\w+, "` + name + `", "[^"]+", \(\*Server\)\.(\w+)\)`).FindSubmatch(source)
	if m == nil {
		t.Fatalf("routes.go has no %s", name)
	}
	return string(m[1])
}

func text(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	if s == "true" || s == "200" || strings.HasPrefix(s, "3.") {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

func boolean(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: s} }

func list(items ...*yaml.Node) *yaml.Node { return &yaml.Node{Kind: yaml.SequenceNode, Content: items} }

func object(pairs ...any) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for i := 0; i < len(pairs); i += 2 {
		set(n, pairs[i].(string), pairs[i+1].(*yaml.Node))
	}
	return n
}

func set(n *yaml.Node, key string, value *yaml.Node) {
	n.Content = append(n.Content, text(key), value)
}

func child(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	set(n, key, object())
	return n.Content[len(n.Content)-1]
}

func objectSchema(properties, required *yaml.Node) *yaml.Node {
	s := object("type", text("object"), "properties", properties, "additionalProperties", boolean("false"))
	set(s, "required", required)
	return s
}
