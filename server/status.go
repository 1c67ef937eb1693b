package server

import (
	"context"
	"errors"
	"html/template"
	"net/http"

	"github.com/writgate/writ"
	"github.com/writgate/writ/approval"
)

// Status serves the page that a user is sent to while a call waits for an
// approval: GET /{approval}. It shows how the request stands and nothing else,
// not even what was asked, to whoever knows its unguessable id; it takes no
// answer. It belongs on the listener of people, not on that of agents.
func Status(find func(context.Context, writ.ApprovalID) (*approval.Request, error)) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{id}", func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		var req *approval.Request
		var err error
		if id, bad := writ.ParseID[writ.ApprovalID](r.PathValue("id")); bad == nil {
			req, err = find(r.Context(), id)
		}
		status, page := standing(req, err)
		if page.Pending {
			h.Set("Refresh", "5")
		}
		w.WriteHeader(status)
		statusPage.Execute(w, page) // whoever is gone sees nothing
	})
	return mux
}

type pageOf struct {
	Title, Text string
	Pending     bool
}

// standing is how a request for approval stands, in words.
func standing(r *approval.Request, err error) (int, pageOf) {
	if d, ok := errors.AsType[*writ.Denial](err); ok && d.Code == writ.InvalidRequest || err == nil && r == nil {
		return http.StatusNotFound, pageOf{Title: "Not found", Text: "There is no such request."}
	}
	if err != nil {
		return http.StatusServiceUnavailable, pageOf{Title: "Unavailable", Text: "How this stands cannot be told right now."}
	}
	switch r.State {
	case approval.Pending:
		return http.StatusOK, pageOf{"Waiting", "An agent's action waits for a person to approve it.", true}
	case approval.Approved:
		return http.StatusOK, pageOf{Title: "Approved", Text: "The action was approved. The agent can go on."}
	case approval.Used:
		return http.StatusOK, pageOf{Title: "Done", Text: "The action was approved, and the agent has gone on."}
	case approval.Denied:
		return http.StatusOK, pageOf{Title: "Denied", Text: "A person said no. The action was not carried out."}
	}
	return http.StatusOK, pageOf{Title: "Expired", Text: "Nobody answered in time. The action was not carried out."}
}

var statusPage = template.Must(template.New("status").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Title}} – Writ</title>
<main>
<h1>{{.Title}}</h1>
<p>{{.Text}}</p>
{{if .Pending}}<p>This page looks again by itself. Approving needs a sign-in of its own; nobody can approve here.</p>{{end}}
</main>
</html>
`))
