//go:build race

package sqlite

// slower is by how much less is tried: SQLite in Go is slow to race.
const slower = 6
