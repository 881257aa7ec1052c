// Package nats is the NATS door: A2A over request and reply
// ([github.com/agenticraft/node/a2a/natsrpc]), a micro service with the acts
// run, status, result, cancel, card and receipt, and a JetStream queue of
// signed requests.
//
// INVARIANT: I5, a door decides nothing. What a message asks for goes to the
// same handlers as over HTTP, which prove the caller and ask policy. That a
// client may speak on NATS proves nothing here: NATS names no sender.
package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/a2aproject/a2a-go/v2/a2asrv"
	"github.com/nats-io/nats.go"

	"github.com/agenticraft/node/a2a/natsrpc"
	"github.com/agenticraft/node/identity"
)

// Config of the door. Fields without a default are required.
type Config struct {
	Access  Access
	Subject string // that all of the cluster's begin with; default [natsrpc.DefaultSubject]

	Node    identity.ID
	Cluster string
	Version string // of the program
	Schema  string // JSON Schema of an execution, for those who discover the service

	// Handler answers for callers over NATS on the paths of the HTTP door.
	Handler http.Handler
	JSONRPC string // path of A2A there

	// Queue has this node work on the cluster's JetStream queue, with Tasks,
	// which must know a task by the same request again.
	Queue bool
	Tasks a2asrv.RequestHandler

	Drain     time.Duration // that replies may still take after a stop was asked for; default 3 s
	KeepAlive time.Duration // between signs of life; default [natsrpc.KeepAlive]
	MaxTime   time.Duration // of one reply; default 10 minutes
	Logger    *slog.Logger  // default: none
}

// Limits for all requests together.
const (
	maxConcurrent = 512
	maxPending    = 1024     // messages that wait for their turn
	maxPendingMem = 64 << 20 // bytes of them
	defaultDrain  = 3 * time.Second
)

// Door is the NATS door of one node.
type Door struct {
	cfg     Config
	options []nats.Option
	log     *slog.Logger
	turns   chan struct{} // one for each request at work

	mu     sync.Mutex // guards what follows
	conn   *nats.Conn
	fault  string // the last, of the connection or of the queue
	queues bool   // the queue is being worked on
}

// Status is how the door is.
type Status struct {
	Connected bool   `json:"connected"`
	Server    string `json:"server"` // the one connected to, or those that are tried
	Subject   string `json:"subject"`
	Queue     string `json:"queue,omitempty"` // "working", or "waiting" for JetStream; "" if this node has none
	Fault     string `json:"fault,omitempty"` // the last
}

// New checks the configuration and reads the credentials. It opens no
// connection.
func New(cfg Config) (*Door, error) {
	if cfg.Subject == "" {
		cfg.Subject = natsrpc.DefaultSubject
	}
	if cfg.Drain == 0 {
		cfg.Drain = defaultDrain
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	d := &Door{cfg: cfg, log: cfg.Logger, turns: make(chan struct{}, maxConcurrent)}
	faults := []error{natsrpc.CheckSubject(cfg.Subject)}
	if cfg.Handler == nil || cfg.Node == "" || cfg.Cluster == "" || (cfg.Queue && cfg.Tasks == nil) {
		faults = append(faults, errors.New("nats: Handler, Node, Cluster and, for a queue, Tasks are required"))
	}
	options, err := cfg.Access.options()
	if err := errors.Join(append(faults, err)...); err != nil {
		return nil, err
	}
	d.options = append(options, d.watch()...)
	return d, nil
}

// Run answers until ctx is done, then lets running requests end. Without a
// connection it keeps trying: the node lives without NATS.
func (d *Door) Run(ctx context.Context) error {
	conn, err := nats.Connect(d.cfg.Access.URL, d.options...)
	if err != nil {
		return fmt.Errorf("nats: %w", err)
	}
	// Replies may take a little longer than the door is open.
	replies, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var work sync.WaitGroup
	service, err := d.serve(replies, conn, &work)
	if err != nil {
		conn.Close()
		return fmt.Errorf("nats: %w", err)
	}
	if conn.IsConnected() {
		// Who sees the door connected is heard. A server that does not answer
		// now gets the subscriptions with the next connection.
		_ = conn.FlushTimeout(time.Second)
	}
	d.mu.Lock()
	d.conn = conn
	d.mu.Unlock()
	if d.cfg.Queue {
		work.Go(func() { d.work(ctx, conn) })
	}
	<-ctx.Done()
	err = service.Stop()
	hurry := time.AfterFunc(d.cfg.Drain, cut)
	work.Wait()
	hurry.Stop()
	if conn.IsConnected() {
		err = errors.Join(err, conn.FlushTimeout(time.Second)) // the last replies
	}
	conn.Close()
	if err != nil {
		return fmt.Errorf("close the NATS door: %w", err)
	}
	return nil
}

// Status may be called at any time.
func (d *Door) Status() Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Status{Server: d.cfg.Access.URL, Subject: d.cfg.Subject, Fault: d.fault}
	if d.conn != nil && d.conn.IsConnected() {
		s.Connected, s.Server = true, d.conn.ConnectedUrlRedacted()
	}
	if d.cfg.Queue {
		s.Queue = "waiting"
		if d.queues {
			s.Queue = "working"
		}
	}
	return s
}

func (d *Door) note(fault string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = fault
}

// watch tells of what becomes of the connection.
func (d *Door) watch() []nats.Option {
	ctx := context.Background() // of the connection: no request's
	up := func(c *nats.Conn) {
		d.note("")
		d.log.InfoContext(ctx, "connected to NATS", "server", c.ConnectedUrlRedacted())
	}
	return []nats.Option{
		nats.ConnectHandler(up),
		nats.ReconnectHandler(up),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				d.note("disconnected: " + err.Error())
				d.log.WarnContext(ctx, "disconnected from NATS", "err", err)
			}
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			d.note("cannot connect: " + err.Error())
			d.log.DebugContext(ctx, "cannot connect to NATS", "err", err)
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			d.note(err.Error())
			d.log.WarnContext(ctx, "NATS refused something", "subject", subject, "err", err)
		}),
	}
}
