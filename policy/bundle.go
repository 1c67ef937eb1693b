package policy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/writgate/writ"
)

// A File is one file of a bundle. Names end in ".cedar", but for the generated
// schema.
type File struct {
	Name string
	Text []byte
}

// A Bundle is a set of policies, validated and ready to decide. It is
// immutable, and safe for concurrent use. The zero Bundle denies everything.
type Bundle struct {
	digest   writ.Digest
	files    []File // sorted by name, the schema included
	policies []*rule
	rules    map[cedar.PolicyID]*rule
	ops      map[writ.ToolName]*operation
	schema   *resolved.Schema
	standIn  *resolved.AppliesTo
	static   cedar.EntityMap
}

// A rule is one policy of a bundle.
type rule struct {
	policy   *cedar.Policy
	id       cedar.PolicyID // file:line:column, unique in the bundle
	reason   writ.Reason
	redact   []string // pointers to redact from the result of what it permits
	facts    factSet  // that its conditions read
	position int      // in the bundle, which orders reasons
}

// A LoadError is every reason why files are no bundle, each "file:line: what"
// where it has a line.
type LoadError struct {
	Problems []string
}

func (e *LoadError) Error() string { return strings.Join(e.Problems, "\n") }

// Limits of a bundle, so that loading one ends in good time whoever wrote it.
const (
	maxText  = 16 << 20 // bytes of all files
	maxDepth = 200      // of brackets
)

// Load validates policies against a schema made from tools. Its error is a
// *LoadError with everything that is wrong. No policies is no error: such a
// bundle denies everything, and says so.
func Load(files []File, tools []ToolSchema) (*Bundle, error) {
	text, err := generate(tools)
	if err != nil {
		return nil, &LoadError{strings.Split(err.Error(), "\n")}
	}
	for _, f := range files {
		if f.Name == schemaName {
			return nil, &LoadError{[]string{schemaName + ": is generated, and cannot be given"}}
		}
	}
	return Restore(append(slices.Clone(files), File{schemaName, text}))
}

// Restore makes a bundle from another's Files: the same digest, and the same
// decisions. It needs no tools, since the schema has them.
func Restore(files []File) (*Bundle, error) {
	b := &Bundle{}
	size := 0
	for _, f := range files {
		size += len(f.Text)
		b.files = append(b.files, File{f.Name, bytes.Clone(f.Text)})
	}
	if size > maxText {
		return nil, &LoadError{[]string{fmt.Sprintf("%d bytes of policy, more than %d", size, maxText)}}
	}
	slices.SortFunc(b.files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	i := slices.IndexFunc(b.files, func(f File) bool { return f.Name == schemaName })
	if i < 0 {
		return nil, &LoadError{[]string{schemaName + ": missing"}}
	}
	if err := b.parseSchema(b.files[i].Text); err != nil {
		return nil, &LoadError{[]string{err.Error()}}
	}
	var problems []string
	for i, f := range b.files {
		switch {
		case i > 0 && b.files[i-1].Name == f.Name:
			problems = append(problems, f.Name+": given twice")
		case f.Name == schemaName:
		case !strings.HasSuffix(f.Name, ".cedar") || strings.ContainsFunc(f.Name, func(r rune) bool { return r < ' ' || r == ':' }):
			problems = append(problems, fmt.Sprintf("%q: not the name of a policy file", f.Name))
		default:
			problems = append(problems, b.parse(f)...)
		}
	}
	problems = append(problems, b.validate()...)
	if len(problems) > 0 {
		return nil, &LoadError{problems}
	}
	b.digest = digest(b.files)
	b.static = b.entities()
	b.index()
	return b, nil
}

// Digest names the bundle: the same names and contents of files, the same
// schema, the same digest.
func (b *Bundle) Digest() writ.Digest { return b.digest }

// Files is everything that Restore needs.
func (b *Bundle) Files() []File {
	files := make([]File, len(b.files))
	for i, f := range b.files {
		files[i] = File{f.Name, bytes.Clone(f.Text)}
	}
	return files
}

// Empty reports whether there is no policy at all.
func (b *Bundle) Empty() bool { return len(b.policies) == 0 }

// digest is over the files in order, each name and text preceded by its
// length in 8 bytes, big-endian.
func digest(files []File) writ.Digest {
	var buf []byte
	for _, f := range files {
		for _, part := range [][]byte{[]byte(f.Name), f.Text} {
			buf = binary.BigEndian.AppendUint64(buf, uint64(len(part)))
			buf = append(buf, part...)
		}
	}
	return writ.Hash("policy-bundle", buf)
}

// parse adds the policies of one file.
func (b *Bundle) parse(f File) (problems []string) {
	if line, ok := tooDeep(f.Text); ok {
		return []string{fmt.Sprintf("%s:%d: brackets nested more than %d deep", f.Name, line, maxDepth)}
	}
	list, err := cedar.NewPolicyListFromBytes(f.Name, f.Text)
	if err != nil {
		return []string{parseProblem(f.Name, err)}
	}
	for i, p := range list {
		pos := p.Position()
		r := &rule{policy: p, position: len(b.policies)}
		r.id = cedar.PolicyID(fmt.Sprintf("%s:%d:%d", f.Name, pos.Line, pos.Column))
		r.reason = writ.Reason{Policy: fmt.Sprintf("policy%d", i), File: f.Name, Line: pos.Line}
		if err := r.annotate(); err != nil {
			problems = append(problems, r.problem(err.Error()))
		}
		b.policies = append(b.policies, r)
	}
	return problems
}

// annotate reads a policy's annotations. One that nobody reads is refused,
// because its author believes that somebody does.
func (r *rule) annotate() error {
	for key, value := range r.policy.Annotations() {
		switch key {
		case "doc":
		case "id":
			if value == "" || len(value) > 100 || strings.ContainsFunc(string(value), func(r rune) bool { return r < ' ' }) {
				return errors.New("@id is empty or not one short line")
			}
			r.reason.Policy = string(value)
		case "redact":
			r.redact = strings.Fields(string(value))
			if r.policy.Effect() != cedar.Permit {
				return errors.New("@redact on a forbid does nothing")
			}
			if len(r.redact) == 0 || slices.ContainsFunc(r.redact, func(p string) bool { return p[0] != '/' }) {
				return errors.New("@redact wants JSON Pointers, separated by spaces")
			}
		default:
			return fmt.Errorf("unknown annotation @%s", key)
		}
	}
	return nil
}

func (r *rule) problem(what string) string {
	return fmt.Sprintf("%s:%d: %s", r.reason.File, r.reason.Line, what)
}

var parsePosition = regexp.MustCompile(`parse error at [^:]*:(\d+):\d+ `)

var parseExpected = regexp.MustCompile(`^parser error: "[^"]*": exact got (\S*) want (\S+)$`)

// parseProblem moves the line of a parser's error to the front, and says in
// words what it found.
func parseProblem(file string, err error) string {
	what := err.Error()
	m := parsePosition.FindStringSubmatch(what)
	if m == nil {
		return file + ": " + what
	}
	what = strings.Replace(what, m[0], "", 1)
	if e := parseExpected.FindStringSubmatch(what); e != nil {
		found := strconv.Quote(e[1])
		if e[1] == "" {
			found = "the end of the file"
		}
		what = fmt.Sprintf("found %s, want %q", found, e[2])
	}
	return fmt.Sprintf("%s:%s: %s", file, m[1], what)
}

// tooDeep finds the line where brackets are nested so deep that parsing them
// would cost more stack than a bundle may.
func tooDeep(text []byte) (line int, ok bool) {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '"': // to its end, past what is escaped
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case '/': // a comment, to the end of its line
			if i+1 < len(text) && text[i+1] == '/' {
				for i < len(text) && text[i] != '\n' {
					i++
				}
			}
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			depth--
		}
		if depth > maxDepth {
			return 1 + bytes.Count(text[:i], []byte("\n")), true
		}
	}
	return 0, false
}
