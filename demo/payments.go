package demo

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// Nothing keeps a payment from being made twice but whoever asks for it: a
// second one would stand in the table, and be seen.
const paymentTables = `
CREATE TABLE IF NOT EXISTS account (name TEXT PRIMARY KEY, euros INTEGER NOT NULL CHECK (euros >= 0));
CREATE TABLE IF NOT EXISTS invoice (reference TEXT PRIMARY KEY, customer TEXT NOT NULL, account TEXT NOT NULL, euros INTEGER NOT NULL, state TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS payment (n INTEGER PRIMARY KEY, at TEXT NOT NULL, recipient TEXT NOT NULL, euros INTEGER NOT NULL, reference TEXT NOT NULL, credential TEXT NOT NULL, approval TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS used (capability TEXT PRIMARY KEY, expires INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS kept (credential TEXT PRIMARY KEY, token TEXT NOT NULL);
INSERT INTO account VALUES ('operating', 5000) ON CONFLICT DO NOTHING;
INSERT INTO invoice VALUES ('INV-2041', 'Lena Vogt', 'NL-204', 40, 'paid') ON CONFLICT DO NOTHING;
INSERT INTO invoice VALUES ('INV-2038', 'Max Brandt', 'NL-311', 310, 'due 2026-12-15') ON CONFLICT DO NOTHING;`

type payments struct{ db *sql.DB }

func openPayments(o *Options) (*server, error) {
	db, err := database(o, Payments, paymentTables)
	if err != nil {
		return nil, err
	}
	p := &payments{db}
	s := newTools(Payments, "Acme's operating account. Every call wants a credential that lives for minutes.")
	tool(s, mcp.Tool{Name: "get_balance", Title: "Read the balance", Description: "Gives the balance of the operating account, in euros.", Annotations: reads},
		noArguments, p.balance)
	tool(s, mcp.Tool{Name: "get_invoice", Title: "Read an invoice", Description: "Gives one invoice and the customer's account.", Annotations: reads},
		`{"type":"object","properties":{"reference":{"type":"string","description":"Such as INV-2041","pattern":"^INV-[0-9]{1,8}$"}},"required":["reference"],"additionalProperties":false}`, p.invoice)
	tool(s, mcp.Tool{Name: "pay", Title: "Pay", Description: "Pays from the operating account. A payment cannot be taken back.", Annotations: destroys},
		`{"type":"object","properties":{"amount":{"type":"integer","description":"Whole euros","minimum":1,"maximum":10000},`+
			`"to":{"type":"string","description":"The account it goes to, such as NL-204","pattern":"^[A-Z]{2}-[0-9]{1,8}$"},`+
			`"reference":{"type":"string","description":"What it is for","minLength":1,"maxLength":100}},`+
			`"required":["amount","to","reference"],"additionalProperties":false}`, p.pay)
	d := newDoor(o, db)
	s.AddReceivingMiddleware(d.middleware)
	return &server{tools: s, pages: map[string]func(context.Context) (any, error){"/payments": p.made, "/credentials": d.kept}, close: db.Close}, nil
}

type balance struct {
	Account string `json:"account"`
	Euros   int64  `json:"euros"`
}

func (p *payments) balance(ctx context.Context, _ struct{}) (balance, error) {
	b := balance{Account: "operating"}
	err := p.db.QueryRowContext(ctx, `SELECT euros FROM account WHERE name = ?`, b.Account).Scan(&b.Euros)
	return b, err
}

type invoiceReference struct {
	Reference string `json:"reference"`
}

type invoice struct {
	Reference string `json:"reference"`
	Customer  string `json:"customer"`
	Account   string `json:"account"`
	Euros     int64  `json:"euros"`
	State     string `json:"state"`
}

func (p *payments) invoice(ctx context.Context, in invoiceReference) (invoice, error) {
	i := invoice{Reference: in.Reference}
	err := p.db.QueryRowContext(ctx, `SELECT customer, account, euros, state FROM invoice WHERE reference = ?`, in.Reference).Scan(&i.Customer, &i.Account, &i.Euros, &i.State)
	if errors.Is(err, sql.ErrNoRows) {
		return invoice{}, fmt.Errorf("there is no invoice %s", in.Reference)
	}
	return i, err
}

type payArguments struct {
	Amount    int64  `json:"amount"`
	To        string `json:"to"`
	Reference string `json:"reference"`
}

type paid struct {
	Payment int64 `json:"payment"`
	Balance int64 `json:"balance"`
}

func (p *payments) pay(ctx context.Context, in payArguments) (out paid, err error) {
	tx, err := p.db.BeginTx(ctx, nil)
	if err != nil {
		return paid{}, err
	}
	defer tx.Rollback()
	err = tx.QueryRow(`UPDATE account SET euros = euros - ? WHERE name = 'operating' AND euros >= ? RETURNING euros`, in.Amount, in.Amount).Scan(&out.Balance)
	if errors.Is(err, sql.ErrNoRows) {
		return paid{}, errors.New("the operating account does not hold that much")
	}
	if err != nil {
		return paid{}, err
	}
	by := admissionOf(ctx)
	r, err := tx.Exec(`INSERT INTO payment (at, recipient, euros, reference, credential, approval) VALUES (?, ?, ?, ?, ?, ?)`,
		time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), in.To, in.Amount, in.Reference, by.credential, by.approval)
	if err != nil {
		return paid{}, err
	}
	if out.Payment, err = r.LastInsertId(); err != nil {
		return paid{}, err
	}
	return out, tx.Commit()
}

// made is the page of what was paid.
func (p *payments) made(ctx context.Context) (any, error) {
	type payment struct {
		At         string `json:"at"`
		To         string `json:"to"`
		Amount     int64  `json:"amount"`
		Reference  string `json:"reference"`
		Credential string `json:"credential"`         // the name of the credential it was made with
		Approval   string `json:"approval,omitempty"` // and the approval that its writ named
	}
	return list(ctx, p.db, `SELECT at, recipient, euros, reference, credential, approval FROM payment ORDER BY n`, func(scan func(...any) error) (one payment, err error) {
		err = scan(&one.At, &one.To, &one.Amount, &one.Reference, &one.Credential, &one.Approval)
		return one, err
	})
}
