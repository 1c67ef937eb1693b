//go:build race

package crash_test

// slower is by how much gateways are: SQLite in Go is slow to race.
const slower = 12
