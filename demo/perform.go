package demo

import (
	"context"
	"encoding/json"
	"io"
	"sync"
)

// A Line is what the process of an agent says, as JSON, to whoever directs
// it. One of its members is set.
type Line struct {
	Tools []string `json:"tools,omitempty"` // it is connected, and is offered these
	Page  string   `json:"page,omitempty"`  // its call waits for a person; this page says how that stands
	Seen  *Seen    `json:"seen,omitempty"`  // its call is over
	Error string   `json:"error,omitempty"` // its call came to nothing that can be seen
}

// Perform is the process of an agent. It connects to endpoint, makes the call
// of each Step that a line of in holds, one after the other, and says on out
// what it sees. When in ends so does it, and whatever call is under way.
func Perform(ctx context.Context, endpoint string, in io.Reader, out io.Writer) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var mu sync.Mutex
	say := func(l Line) error {
		mu.Lock()
		defer mu.Unlock()
		return json.NewEncoder(out).Encode(l)
	}
	a, err := Dial(ctx, endpoint, nil, func(_ context.Context, page string) error { return say(Line{Page: page}) })
	if err != nil {
		return err
	}
	defer a.Close()
	tools, err := a.Tools(ctx)
	if err != nil {
		return err
	}
	if err := say(Line{Tools: tools}); err != nil {
		return err
	}
	steps := make(chan Step)
	go func() { // reads until in ends: that is how it hears of it in the midst of a call
		defer stop()
		for d := json.NewDecoder(in); ; {
			var s Step
			if d.Decode(&s) != nil {
				return
			}
			select {
			case steps <- s:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-steps:
			l := Line{Seen: new(Seen)}
			if *l.Seen, err = a.Do(ctx, s); err != nil {
				l = Line{Error: err.Error()}
			}
			if err := say(l); err != nil {
				return err
			}
		}
	}
}
