package mcp

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// ErrTooMuch is what a peer that sends more than it may is refused with.
var ErrTooMuch = errors.New("more than is read of one peer")

// An EventReader reads the messages of a Server-Sent Events stream (WHATWG
// HTML, 9.2): by event, not by line, and never more than it was told to hold.
// How long an event may take is for whoever owns the connection to say. A
// stream that ends inside an event ends with io.ErrUnexpectedEOF, and that
// event is lost, as the standard has it.
type EventReader struct {
	R      *bufio.Reader
	Event  int // most bytes of one event; 0 reads none
	Events int // most events, comments and empty ones included; 0 reads none

	LastID string        // of the last event that had one
	Retry  time.Duration // when the peer wants to be asked again; 0 if it has not said

	begun bool
	crlf  bool // the last line ended with CR: a LF may follow
	size  int  // bytes of the event so far
}

// Next gives the data of the next event of type message, without a final
// newline; io.EOF at a clean end; ErrTooMuch at a limit.
func (r *EventReader) Next() ([]byte, error) {
	var data []byte
	var some, other bool
	r.size = 0
	for {
		line, err := r.line()
		if err != nil {
			if err == io.EOF && r.size > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if !r.begun {
			line = bytes.TrimPrefix(line, []byte("\ufeff"))
			r.begun = true
		}
		if len(line) == 0 { // the event is complete
			if r.Events--; r.Events < 0 {
				return nil, fmt.Errorf("server-sent events: %w", ErrTooMuch)
			}
			if some && !other {
				return data[:len(data)-1], nil
			}
			data, some, other, r.size = nil, false, false, 0
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "data":
			data = append(append(data, value...), '\n')
			some = true
		case "id":
			if !bytes.ContainsRune(value, 0) && len(value) <= maxID {
				r.LastID = string(value)
			}
		case "retry":
			if ms, err := strconv.ParseUint(string(value), 10, 31); err == nil {
				r.Retry = time.Duration(ms) * time.Millisecond
			}
		case "event":
			other = len(value) > 0 && string(value) != "message"
		}
	}
}

// line gives one line without its end: LF, CR or CRLF. It is valid until the
// next.
func (r *EventReader) line() ([]byte, error) {
	var long []byte
	for {
		c, err := r.R.Peek(1)
		if err != nil {
			return nil, err
		}
		if r.crlf {
			r.crlf = false
			if c[0] == '\n' {
				r.R.Discard(1)
				continue
			}
		}
		buf, _ := r.R.Peek(r.R.Buffered())
		i := bytes.IndexAny(buf, "\r\n")
		n := i + 1
		if i < 0 {
			i, n = len(buf), len(buf)
		}
		if r.size += n; r.size > r.Event {
			return nil, fmt.Errorf("server-sent event: %w", ErrTooMuch)
		}
		if n == i { // no end in sight
			long = append(long, buf...)
			r.R.Discard(n)
			continue
		}
		r.crlf = buf[i] == '\r'
		line := buf[:i]
		if long != nil {
			line = append(long, line...)
		} else {
			line = bytes.Clone(line)
		}
		r.R.Discard(n)
		return line, nil
	}
}

// An EventWriter answers a request with a stream of events. It writes the
// framing itself, from one message at a time: no text of a tool can end an
// event or begin another.
type EventWriter struct {
	W     http.ResponseWriter
	begun bool
}

// Message sends one JSON-RPC message. Newlines between its tokens become
// spaces, and U+0085, U+2028 and U+2029, which end a line for some readers of
// streams, are escaped; they can only stand in strings.
func (w *EventWriter) Message(b []byte) error {
	w.begin()
	out := append(make([]byte, 0, len(b)+16), "data: "...)
	for i := 0; i < len(b); i++ {
		switch {
		case b[i] == '\n' || b[i] == '\r':
			out = append(out, ' ')
		case b[i] == 0xc2 && i+1 < len(b) && b[i+1] == 0x85:
			out = append(out, `\u0085`...)
			i++
		case b[i] == 0xe2 && i+2 < len(b) && b[i+1] == 0x80 && b[i+2]&^1 == 0xa8:
			out = append(out, `\u202`...)
			out = append(out, '8'+b[i+2]-0xa8)
			i += 2
		default:
			out = append(out, b[i])
		}
	}
	return w.flush(append(out, "\n\n"...))
}

// KeepAlive sends a comment, so that nobody on the way closes a quiet stream.
func (w *EventWriter) KeepAlive() error {
	w.begin()
	return w.flush([]byte(":\n\n"))
}

func (w *EventWriter) begin() {
	if w.begun {
		return
	}
	w.begun = true
	h := w.W.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
}

func (w *EventWriter) flush(b []byte) error {
	if _, err := w.W.Write(b); err != nil {
		return err
	}
	return http.NewResponseController(w.W).Flush()
}

// ReadLine reads one message of the stdio framing: a line of at most most
// bytes. An empty line is skipped; a last line without its newline is lost,
// with io.ErrUnexpectedEOF.
func ReadLine(r *bufio.Reader, most int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > most {
			return nil, fmt.Errorf("line: %w", ErrTooMuch)
		}
		line = append(line, part...)
		switch {
		case err == nil && len(bytes.TrimSpace(line)) == 0:
			line = line[:0]
		case err == nil:
			return bytes.TrimRight(line, "\r\n"), nil
		case err == io.EOF && len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		case err != bufio.ErrBufferFull:
			return nil, err
		}
	}
}
