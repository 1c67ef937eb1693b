package main

import (
	"slices"
	"strings"
)

func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// diff is a shortest edit from a to b: a line for each that goes ("-") or
// comes ("+"), and three around them. Of texts that are too long to compare,
// all of one goes and all of the other comes.
func diff(a, b []string) []string {
	if len(a)*len(b) > 1<<24 {
		return append(prefixed("- ", a), prefixed("+ ", b)...)
	}
	// keep[i][j] is how many lines a[i:] and b[j:] have in common, in order.
	keep := make([][]int, len(a)+1)
	for i := range keep {
		keep[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				keep[i][j] = keep[i+1][j+1] + 1
			} else {
				keep[i][j] = max(keep[i+1][j], keep[i][j+1])
			}
		}
	}
	var out []string
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			out = append(out, "  "+a[i])
			i, j = i+1, j+1
		case i < len(a) && (j == len(b) || keep[i+1][j] >= keep[i][j+1]):
			out = append(out, "- "+a[i])
			i++
		default:
			out = append(out, "+ "+b[j])
			j++
		}
	}
	return near(out)
}

func prefixed(mark string, lines []string) []string {
	var out []string
	for _, line := range lines {
		out = append(out, mark+line)
	}
	return out
}

// near leaves out lines that are far from any change.
func near(all []string) []string {
	const around = 3
	var out []string
	for i, line := range all {
		window := all[max(0, i-around):min(len(all), i+around+1)]
		if slices.ContainsFunc(window, func(l string) bool { return l[0] != ' ' }) {
			out = append(out, line)
		} else if len(out) == 0 || out[len(out)-1] != "…" {
			out = append(out, "…")
		}
	}
	return out
}
