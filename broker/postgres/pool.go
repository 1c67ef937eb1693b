package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/writgate/writ/broker"
)

const (
	maxConns = 8 // of the administrator, at once
	maxIdle  = 2 // kept
)

// A pool keeps a few connections of the administrator.
type pool struct {
	admin broker.Reference
	slots chan struct{}
	idle  chan *conn
}

func newPool(admin broker.Reference) pool {
	return pool{admin, make(chan struct{}, maxConns), make(chan *conn, maxIdle)}
}

// A conn remembers what the server warned of: a GRANT that grants nothing is
// no error to PostgreSQL.
type conn struct {
	*pgx.Conn
	warning string
}

func (c *conn) warned() error {
	if c.warning != "" {
		return errors.New("the server warns: " + c.warning)
	}
	return nil
}

// settings reads how to connect. The error does not quote it.
func (p *pool) settings() (*pgx.ConnConfig, error) {
	text, err := p.admin.Read()
	if err != nil {
		return nil, err
	}
	c, err := pgx.ParseConfig(string(text))
	if err != nil {
		return nil, errors.New("the administrator's connection string does not parse")
	}
	c.DefaultQueryExecMode = pgx.QueryExecModeExec // nothing is prepared: a proxy may stand between
	c.RuntimeParams["application_name"] = "writ"
	c.RuntimeParams["search_path"] = "pg_catalog"
	// The context bounds what Writ waits for; these bound what the server
	// goes on with when Writ is gone.
	c.RuntimeParams["lock_timeout"] = "10s"
	c.RuntimeParams["statement_timeout"] = "20s"
	c.RuntimeParams["idle_in_transaction_session_timeout"] = "20s"
	return c, nil
}

// use lends fn a connection that works.
func (p *pool) use(ctx context.Context, fn func(*conn) error) error {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	c, err := p.get(ctx)
	if err != nil {
		return err
	}
	c.warning = ""
	defer p.put(c)
	return fn(c)
}

// transact is use in a transaction, which is committed if fn returns nil.
func (p *pool) transact(ctx context.Context, fn func(*conn) error) error {
	return p.use(ctx, func(c *conn) error {
		return pgx.BeginFunc(ctx, c, func(pgx.Tx) error { return fn(c) })
	})
}

func (p *pool) get(ctx context.Context) (*conn, error) {
	for {
		select {
		case c := <-p.idle:
			if c.Ping(ctx) == nil {
				return c, nil
			}
			c.drop()
			continue
		default:
		}
		s, err := p.settings()
		if err != nil {
			return nil, err
		}
		c := new(conn)
		s.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
			if n.SeverityUnlocalized == "WARNING" {
				c.warning = n.Message
			}
		}
		if c.Conn, err = pgx.ConnectConfig(ctx, s); err != nil {
			return nil, fmt.Errorf("connecting as administrator: %w", err)
		}
		return c, nil
	}
}

func (p *pool) put(c *conn) {
	if c.IsClosed() || c.PgConn().TxStatus() != 'I' {
		c.drop()
		return
	}
	select {
	case p.idle <- c:
	default:
		c.drop()
	}
}

// drop closes c without waiting long for the server's answer.
func (c *conn) drop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Close(ctx)
}

func (p *pool) close() {
	for {
		select {
		case c := <-p.idle:
			c.drop()
		default:
			return
		}
	}
}
