package policy

import (
	"embed"
	"fmt"
	"path"
)

//go:embed starter/*.cedar starter/*.yaml
var starter embed.FS

// Starter is the policy set to begin with: reads are free, writes are free
// until untrusted text has a say in them, and what is privileged needs a
// person. It is meant to be read, and changed.
func Starter() []File { return starterFiles("*.cedar") }

// StarterTests are the tests of the starter policies, for RunTests.
func StarterTests() []File { return starterFiles("*.yaml") }

func starterFiles(pattern string) []File {
	entries, err := starter.ReadDir("starter")
	if err != nil {
		panic(fmt.Sprintf("the starter policies are not embedded: %v", err))
	}
	var files []File
	for _, e := range entries {
		if ok, _ := path.Match(pattern, e.Name()); !ok {
			continue
		}
		text, err := starter.ReadFile("starter/" + e.Name())
		if err != nil {
			panic(fmt.Sprintf("the starter policies are not embedded: %v", err))
		}
		files = append(files, File{e.Name(), text})
	}
	return files
}
