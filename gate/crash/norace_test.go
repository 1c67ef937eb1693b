//go:build !race

package crash_test

const slower = 1
