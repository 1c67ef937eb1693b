package demo

import (
	"context"
	"database/sql"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

const mailerTables = `CREATE TABLE IF NOT EXISTS mail (n INTEGER PRIMARY KEY, recipient TEXT NOT NULL, subject TEXT NOT NULL, body TEXT NOT NULL);`

// A mail has left, for whoever reads the outbox.
type mail struct {
	To      string `json:"to"`
	Subject string `json:"subject"`
	Body    string `json:"body"`
}

type mailer struct{ db *sql.DB }

func openMailer(o *Options) (*server, error) {
	db, err := database(o, Mailer, mailerTables)
	if err != nil {
		return nil, err
	}
	m := &mailer{db}
	s := newTools(Mailer, "Sends mail from support@acme.example to anybody.")
	tool(s, mcp.Tool{Name: "send_mail", Title: "Send a mail", Description: "Sends one mail from support@acme.example.", Annotations: reachesOut},
		`{"type":"object","properties":{"to":{"type":"string","description":"The address it goes to","minLength":3,"maxLength":254},`+
			`"subject":{"type":"string","maxLength":200},"body":{"type":"string","description":"Plain text","maxLength":100000}},`+
			`"required":["to","subject","body"],"additionalProperties":false}`, m.send)
	return &server{tools: s, pages: map[string]func(context.Context) (any, error){"/outbox": m.outbox}, close: db.Close}, nil
}

type sent struct {
	Mail int64 `json:"mail"`
}

func (m *mailer) send(ctx context.Context, in mail) (sent, error) {
	r, err := m.db.ExecContext(ctx, `INSERT INTO mail (recipient, subject, body) VALUES (?, ?, ?)`, in.To, in.Subject, in.Body)
	if err != nil {
		return sent{}, err
	}
	n, err := r.LastInsertId()
	return sent{n}, err
}

// outbox is the page of what has left.
func (m *mailer) outbox(ctx context.Context) (any, error) {
	return list(ctx, m.db, `SELECT recipient, subject, body FROM mail ORDER BY n`, func(scan func(...any) error) (one mail, err error) {
		err = scan(&one.To, &one.Subject, &one.Body)
		return one, err
	})
}
