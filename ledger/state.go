package ledger

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"sync"
)

// partChanges is the part that says what a record made of the rows it
// changed. State is the fold of these parts over the log.
const partChanges = "changes"

var opNames = [...]string{Put: "put", Delete: "delete", Once: "once", Add: "add"}

// A changed is one change as it is recorded: what was asked, and what the row
// became. Folding needs only the latter, so that an older record can be
// erased without a newer one losing its meaning.
type changed struct {
	Op    string `json:"op"`
	Kind  string `json:"kind"`
	Key   string `json:"key"`
	Value []byte `json:"value,omitempty"`
	Count int64  `json:"count,omitempty"`
	Until int64  `json:"until,omitempty"`
	Delta int64  `json:"delta,omitempty"`
	Limit int64  `json:"limit,omitempty"`
}

// appendChange writes what encoding/json would.
func appendChange(b []byte, c *Change, r *Row) []byte {
	b = append(append(append(b, `{"op":"`...), opNames[c.Op]...), '"')
	b = appendMember(b, "kind", c.Kind)
	b = appendMember(b, "key", c.Key)
	if len(r.Value) != 0 {
		b = base64.StdEncoding.AppendEncode(append(b, `,"value":"`...), r.Value)
		b = append(b, '"')
	}
	for _, n := range [...]struct {
		name  string
		value int64
	}{{"count", r.Count}, {"until", r.Until}, {"delta", c.Delta}, {"limit", c.Limit}} {
		if n.value != 0 {
			b = append(append(append(b, `,"`...), n.name...), `":`...)
			b = strconv.AppendInt(b, n.value, 10)
		}
	}
	return append(b, '}')
}

// parseChanges reads the changes of the record at index.
func parseChanges(index int64, part []byte) ([]changed, error) {
	var all []changed
	if err := json.Unmarshal(part, &all); err != nil {
		return nil, damaged("the changes of record %d: %v", index, err)
	}
	return all, nil
}

// fold applies a record's changes to state.
func fold(state map[rowKey]*Row, index int64, part []byte) error {
	all, err := parseChanges(index, part)
	if err != nil {
		return err
	}
	for _, c := range all {
		k := rowKey{c.Kind, c.Key}
		if c.Op == opNames[Delete] {
			delete(state, k)
			continue
		}
		state[k] = &Row{Kind: c.Kind, Key: c.Key, Value: c.Value, Count: c.Count, At: index, Until: c.Until}
	}
	return nil
}

// A rowKey is the kind and the key of a row.
type rowKey = [2]string

func (r *Row) name() rowKey { return rowKey{r.Kind, r.Key} }

// forever is the Until of a row that Once makes for good.
const forever = math.MaxInt64

func absent(k rowKey) *Row { return &Row{Kind: k[0], Key: k[1], At: Absent} }

// live is r at a time: a row whose time is over is absent.
func (r *Row) live(now int64) *Row {
	if r.Until != 0 && r.Until < now {
		return absent(r.name())
	}
	return r
}

// apply is what the row becomes by a change, at a time, by the record at
// index. It is the whole meaning of the four operations.
func (r *Row) apply(c *Change, index, now int64) (*Row, error) {
	r = r.live(now)
	if r.Until != 0 {
		return nil, &Error{Err: ErrUsed, Kind: c.Kind, Key: c.Key}
	}
	next := &Row{Kind: c.Kind, Key: c.Key, Value: r.Value, Count: r.Count, At: index}
	switch c.Op {
	case Put:
		next.Value = c.Value
	case Delete:
		next = absent(rowKey{c.Kind, c.Key})
	case Once:
		if r.At != Absent {
			return nil, &Error{Err: ErrUsed, Kind: c.Kind, Key: c.Key}
		}
		next.Value, next.Until = c.Value, c.Until
		if c.Until == 0 {
			next.Until = forever
		}
	case Add:
		over := c.Delta > 0 && r.Count > c.Limit-c.Delta // no overflow: the limit is not negative
		under := c.Delta < 0 && r.Count+c.Delta < 0      // nor the count
		if over || under {
			return nil, &Error{Err: ErrExceeded, Kind: c.Kind, Key: c.Key, Have: r.Count, Limit: c.Limit}
		}
		next.Count += c.Delta
	}
	return next, nil
}

// A cache remembers rows, and that rows do not exist, as the last commit left
// them. It is right as long as nobody else writes, which every commit checks;
// until then it answers questions on which no permit rests.
//
// It keeps two generations and forgets the older when the younger is full.
type cache struct {
	mu       sync.Mutex
	young    map[rowKey]*Row
	old      map[rowKey]*Row
	size     int   // of young, in bytes, roughly
	revision int64 // grows with every change, so that a late reader does not bring back the past
}

const (
	generation = 16 << 20 // bytes
	rowSize    = 256      // bytes that a row takes besides its value
)

func (c *cache) get(k rowKey) *Row {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.young[k]; r != nil {
		return r
	}
	r := c.old[k]
	if r != nil {
		c.set(r)
	}
	return r
}

func (c *cache) set(r *Row) {
	if c.young == nil || c.size >= generation {
		c.old, c.young, c.size = c.young, map[rowKey]*Row{}, 0
	}
	c.young[r.name()] = r
	c.size += rowSize + len(r.Value)
}

// publish makes what a commit did visible.
func (c *cache) publish(rows map[rowKey]*Row) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revision++
	for k, r := range rows {
		delete(c.old, k)
		if r.At == Absent || r.Until != 0 { // seldom asked for again
			delete(c.young, k)
			continue
		}
		c.set(r)
	}
}

// learn remembers what a reader found, if nothing was published since at.
func (c *cache) learn(at int64, r *Row) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.revision == at {
		c.set(r)
	}
}

func (c *cache) at() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.revision
}

// forget is for when somebody else has written.
func (c *cache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revision++
	c.young, c.old, c.size = nil, nil, 0
}
