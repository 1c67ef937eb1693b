//go:build unix && !linux

package upstream

func limit(int) {}
