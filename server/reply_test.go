package server

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// An answer that takes its time becomes a stream that says it is alive, where
// the client takes one; and no answer is sent twice.
func TestQuietAnswersStayAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := httptest.NewRecorder()
		r := newReply(w, http.Header{"Accept": {"application/json", "text/event-stream"}})
		r.id = "1"
		stop := r.keepAlive()
		time.Sleep(2*quiet + time.Second)
		r.result([]byte(`{}`))
		stop()
		time.Sleep(2 * quiet)
		r.result([]byte(`{"again":true}`))
		if got, want := w.Body.String(), ":\n\n:\n\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := w.Header().Get("Content-Type"); got != "text/event-stream" {
			t.Errorf("Content-Type = %s", got)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := httptest.NewRecorder()
		r := newReply(w, http.Header{"Accept": {"application/json"}})
		r.id = "1"
		stop := r.keepAlive()
		time.Sleep(3 * quiet)
		r.say([]byte(`{"early":true}`))
		r.result([]byte(`{}`))
		stop()
		r.say([]byte(`{"late":true}`))
		r.result([]byte(`{"again":true}`))
		if got, want := w.Body.String(), `{"jsonrpc":"2.0","id":1,"result":{}}`; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
