package demo

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// maxFile bounds one file, in bytes.
const maxFile = 256 << 10

// store is what the files begin with. The first is what must not leave.
var store = map[string]string{
	"customers.csv": "customer,name,mail,account\n" +
		"C-204,Lena Vogt,lena.vogt@vogt-keramik.example,NL-204\n" +
		"C-311,Max Brandt,max@brandt-logistik.example,NL-311\n" +
		"C-498,Iris Okafor,iris@okafor.example,NL-498\n",
	"policies/refunds.md": "# Refunds\n\nGoods that arrive broken are refunded in full, up to 100 euros, to the customer's account.\n",
}

type files struct{ root *os.Root }

func openFiles(o *Options) (*server, error) {
	dir := filepath.Join(o.Dir, "files")
	for name, text := range store {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
		if _, err := os.Stat(path); err == nil {
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	f := &files{root}
	path := `"path":{"type":"string","description":"Relative, such as policies/refunds.md","minLength":1,"maxLength":200}`
	s := newTools(Files, "The shared files of Acme's support desk.")
	tool(s, mcp.Tool{Name: "list", Title: "List files", Description: "Lists every file with its size.", Annotations: reads}, noArguments, f.list)
	tool(s, mcp.Tool{Name: "read", Title: "Read a file", Description: "Gives the text of one file.", Annotations: reads},
		`{"type":"object","properties":{`+path+`},"required":["path"],"additionalProperties":false}`, f.read)
	tool(s, mcp.Tool{Name: "write", Title: "Write a file", Description: "Makes a file, or replaces it.", Annotations: overwrites},
		`{"type":"object","properties":{`+path+`,"text":{"type":"string","maxLength":200000}},"required":["path","text"],"additionalProperties":false}`, f.write)
	return &server{tools: s, close: root.Close}, nil
}

type fileSize struct {
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
}

type fileList struct {
	Files []fileSize `json:"files"`
}

func (f *files) list(context.Context, struct{}) (fileList, error) {
	var all fileList
	err := fs.WalkDir(f.root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		all.Files = append(all.Files, fileSize{path, info.Size()})
		return nil
	})
	slices.SortFunc(all.Files, func(a, b fileSize) int { return strings.Compare(a.Path, b.Path) })
	return all, err
}

type filePath struct {
	Path string `json:"path"`
}

type fileText struct {
	Path string `json:"path"`
	Text string `json:"text"`
}

func (f *files) read(_ context.Context, in filePath) (fileText, error) {
	r, err := f.root.Open(filepath.FromSlash(in.Path))
	if err != nil {
		return fileText{}, fmt.Errorf("there is no file %q", in.Path)
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil || len(text) > maxFile {
		return fileText{}, fmt.Errorf("%q cannot be read", in.Path)
	}
	return fileText{in.Path, string(text)}, nil
}

func (f *files) write(_ context.Context, in fileText) (fileSize, error) {
	path := filepath.FromSlash(in.Path)
	if err := f.root.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fileSize{}, fmt.Errorf("%q cannot be written", in.Path)
	}
	if err := f.root.WriteFile(path, []byte(in.Text), 0o600); err != nil {
		return fileSize{}, fmt.Errorf("%q cannot be written", in.Path)
	}
	return fileSize{in.Path, int64(len(in.Text))}, nil
}
