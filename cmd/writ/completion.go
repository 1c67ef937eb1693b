package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// A completionCmd prints a shell's completion.
type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help says where it goes.
func (completionCmd) Help() string {
	return `For bash: writ completion bash > ~/.local/share/bash-completion/completions/writ. For zsh: writ completion zsh > "${fpath[1]}/_writ". For fish: writ completion fish > ~/.config/fish/completions/writ.fish.`
}

var completions = map[string]string{
	"bash": "_writ() {\n  mapfile -t COMPREPLY < <(writ complete -- \"${COMP_WORDS[@]:1:COMP_CWORD}\")\n}\ncomplete -o default -F _writ writ\n",
	"zsh":  "#compdef writ\n_writ() {\n  local -a next\n  next=(\"${(@f)$(writ complete -- \"${(@)words[2,CURRENT]}\")}\")\n  compadd -- $next || _files\n}\n_writ \"$@\"\n",
	"fish": "complete -c writ -a '(writ complete -- (commandline -opc)[2..] (commandline -ct))'\n",
}

// Run prints it.
func (c completionCmd) Run(s *session) error {
	_, err := io.WriteString(s.out, completions[c.Shell])
	return err
}

// A completeCmd answers a shell.
type completeCmd struct {
	Words []string `arg:"" optional:"" passthrough:"" help:"What was typed, the last word perhaps not whole."`
}

// Run prints a candidate a line.
func (c completeCmd) Run(s *session) error {
	var grammar cli
	p, err := parser(&grammar, io.Discard, io.Discard, func(int) {})
	if err != nil {
		return err
	}
	for _, word := range candidates(p.Model.Node, c.Words) {
		fmt.Fprintln(s.out, word)
	}
	return nil
}

// candidates are what may come next: commands, the flags of the command that
// was typed, or the values that an argument or a flag can have.
func candidates(n *kong.Node, words []string) []string {
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	last, positional := "", 0
	if len(words) > 0 {
		last, words = words[len(words)-1], words[:len(words)-1]
	}
	known := n.Flags
	var wants *kong.Flag // whose value comes next
	for _, word := range words {
		if wants != nil {
			wants = nil
			continue
		}
		if strings.HasPrefix(word, "-") {
			i := slices.IndexFunc(known, func(f *kong.Flag) bool { return word == "--"+f.Name || word == "-"+string(f.Short) })
			if i >= 0 && !known[i].IsBool() {
				wants = known[i]
			}
			continue
		}
		if i := slices.IndexFunc(n.Children, func(c *kong.Node) bool { return c.Name == word }); i >= 0 {
			n = n.Children[i]
			known = append(slices.Clone(known), n.Flags...)
		} else {
			positional++
		}
	}
	var all []string
	switch {
	case wants != nil:
		all = wants.EnumSlice()
	case strings.HasPrefix(last, "-"):
		for _, f := range known {
			all = append(all, "--"+f.Name)
		}
	case len(n.Children) > 0:
		for _, c := range n.Children {
			if !c.Hidden {
				all = append(all, c.Name)
			}
		}
	case positional < len(n.Positional):
		all = n.Positional[positional].EnumSlice()
	}
	return slices.DeleteFunc(all, func(w string) bool { return w == "" || !strings.HasPrefix(w, last) })
}
