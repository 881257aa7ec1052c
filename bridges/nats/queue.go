package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/natsrpc"
	"github.com/agenticraft/node/a2a/server"
)

// The queue, docs/decisions/0025.
const (
	queueGroup    = "agenticraft"
	queueAhead    = 8                // messages that one node works on at the same time
	queueAckWait  = 10 * time.Second // without a sign of life, then another node tries
	queueSign     = 3 * time.Second
	queueTries    = 5
	queueRetry    = time.Second // pause before the next try, unless the node said one
	queueMaxRetry = 30 * time.Second
	queueMaxAge   = 24 * time.Hour
	queueMaxBytes = 1 << 30
	queueDedupe   = 10 * time.Minute // longer than a signature is valid
	deadMaxAge    = 7 * 24 * time.Hour
	streamRetry   = 2 * time.Second
	streamWait    = 10 * time.Second // for one answer of JetStream
)

// Headers of a dead letter.
const (
	headerCode   = "Agenticraft-Error-Code"
	headerReason = "Agenticraft-Error"
)

// Done is what is published when a queued task has ended: that it has, and how,
// but nothing of what it wrote. Its owner asks for that.
type Done struct {
	Task   string           `json:"task"`
	Status a2a.Status       `json:"status,omitempty"` // "" if it never became a task
	Error  *a2a.ReportError `json:"error,omitempty"`
}

// work works on the queue until ctx is done, whenever JetStream is there.
func (d *Door) work(ctx context.Context, conn *nats.Conn) {
	for ctx.Err() == nil {
		if err := d.consume(ctx, conn); err != nil && ctx.Err() == nil {
			d.note("queue: " + err.Error())
			d.log.WarnContext(ctx, "queue of requests", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(streamRetry):
		}
	}
}

// consume works until ctx is done or JetStream fails.
func (d *Door) consume(ctx context.Context, conn *nats.Conn) error {
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	consumer, err := d.openQueue(ctx, js)
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(queueAhead))
	if err != nil {
		return err
	}
	d.setQueues(true)
	defer d.setQueues(false)
	defer context.AfterFunc(ctx, messages.Stop)()
	defer messages.Stop()
	var work sync.WaitGroup
	defer work.Wait()
	turns := make(chan struct{}, queueAhead)
	for {
		m, err := messages.Next()
		switch {
		case errors.Is(err, jetstream.ErrMsgIteratorClosed):
			return nil
		case err != nil:
			return err
		}
		select {
		case turns <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		work.Go(func() {
			defer func() { <-turns }()
			d.perform(ctx, queue{js, conn}, m)
		})
	}
}

func (d *Door) setQueues(is bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queues = is
}

// openQueue makes the streams where they are not, and takes them as they are
// where the operator made them.
func (d *Door) openQueue(ctx context.Context, js jetstream.JetStream) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, streamWait)
	defer cancel()
	name := natsrpc.StreamName(d.cfg.Subject, "QUEUE")
	stream, err := d.openStream(ctx, js, jetstream.StreamConfig{
		Name: name, Description: "signed requests that wait for a node",
		Subjects: []string{natsrpc.QueueSubject(d.cfg.Subject)}, Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew,
		MaxAge: queueMaxAge, MaxBytes: queueMaxBytes, MaxMsgSize: a2a.MaxRequestBytes, Duplicates: queueDedupe, Storage: jetstream.FileStorage,
	})
	if err != nil {
		return nil, err
	}
	if stream.CachedInfo().Config.Retention != jetstream.WorkQueuePolicy {
		return nil, fmt.Errorf("stream %s exists and is no work queue", name)
	}
	_, err = d.openStream(ctx, js, jetstream.StreamConfig{
		Name: natsrpc.StreamName(d.cfg.Subject, "DEAD"), Description: "queued requests that came to nothing, and why",
		Subjects: []string{d.deadSubject(">")}, MaxAge: deadMaxAge, MaxBytes: queueMaxBytes, Storage: jetstream.FileStorage,
	})
	if err != nil {
		return nil, err
	}
	consumer, err := stream.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: queueGroup, AckPolicy: jetstream.AckExplicitPolicy, AckWait: queueAckWait, MaxAckPending: 1024,
		MaxDeliver: -1, // we count, and say why
	})
	if err != nil {
		return nil, fmt.Errorf("consumer of stream %s: %w", name, err)
	}
	return consumer, nil
}

func (d *Door) openStream(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	stream, err := js.Stream(ctx, cfg.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = js.CreateStream(ctx, cfg)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			stream, err = js.Stream(ctx, cfg.Name) // another node was faster
		}
	}
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", cfg.Name, err)
	}
	return stream, nil
}

// queue is the connection while one consumer works.
type queue struct {
	js   jetstream.JetStream
	conn *nats.Conn
}

// perform takes one queued request to its end. It is acknowledged only then:
// whoever gets it again, after this node died in the middle, finds in the log
// what became of it.
//
// INVARIANT: I8, at most one run per (issuer, jti, attempt): a message that is
// delivered twice is the same request twice.
func (d *Door) perform(ctx context.Context, q queue, m jetstream.Msg) {
	var tries uint64
	if meta, err := m.Metadata(); err == nil {
		tries = meta.NumDelivered
	}
	task, err := d.runQueued(ctx, m)
	refusal := a2a.FromWire(err)
	switch {
	case ctx.Err() != nil && (err != nil || task == nil || !task.Status.State.Terminal()):
		d.settle(m, "nak", m.Nak()) // this node stops; another goes on at once
	case err == nil:
		d.tell(q.conn, task)
		// Twice told is as good as once; never told is seen by asking.
		d.settle(m, "ack", m.DoubleAck(context.WithoutCancel(ctx)))
	case again(refusal.Code) && tries <= queueTries:
		pause := min(max(refusal.RetryAfter, queueRetry*time.Duration(tries)), queueMaxRetry)
		d.settle(m, "nak", m.NakWithDelay(pause))
	default:
		d.bury(ctx, q, m, refusal)
	}
}

// again reports whether the same request may fare better later.
func again(code string) bool {
	return code == a2a.CodeBusy || code == a2a.CodeUnavailable || code == a2a.CodeInternal
}

// runQueued runs a queued request and waits for its end.
func (d *Door) runQueued(ctx context.Context, m jetstream.Msg) (*sdk.Task, error) {
	req, err := a2a.ParseRequest(m.Data())
	if err != nil {
		return nil, err
	}
	// No credential but a signature: the queue keeps what it is given on disk,
	// and an API key is a secret.
	if !a2a.IsSigned(req) {
		return nil, a2a.Errorf(a2a.CodeSignatureMissing, "the queue takes signed requests only")
	}
	if req.Config != nil && req.Config.ReturnImmediately {
		return nil, a2a.Errorf(a2a.CodeInvalidRequest, "a queued request waits for its end: it cannot ask to return immediately")
	}
	ctx, cancel := context.WithCancel(server.WithCaller(ctx, server.Caller{Door: server.DoorNATS}))
	defer cancel()
	var signs sync.WaitGroup
	defer signs.Wait()
	defer cancel()
	signs.Go(func() {
		tick := time.NewTicker(queueSign)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				d.settle(m, "in progress", m.InProgress())
			}
		}
	})
	result, err := d.cfg.Tasks.SendMessage(ctx, req)
	if err != nil {
		return nil, err
	}
	task, ok := result.(*sdk.Task)
	if !ok {
		return nil, a2a.Errorf(a2a.CodeInvalidRequest, "the request asks for no task")
	}
	return task, nil
}

// tell publishes that a task has ended.
func (d *Door) tell(conn *nats.Conn, task *sdk.Task) {
	report, err := a2a.Describe(task)
	if err != nil {
		report = a2a.Report{Task: string(task.ID), Status: a2a.Lost}
	}
	d.publish(conn, Done{Task: string(task.ID), Status: report.Status, Error: report.Error})
}

func (d *Door) publish(conn *nats.Conn, done Done) {
	text, err := json.Marshal(done)
	if err == nil {
		err = conn.PublishMsg(&nats.Msg{Subject: natsrpc.DoneSubject(d.cfg.Subject, done.Task), Data: text})
	}
	if err != nil {
		d.log.DebugContext(context.Background(), "end of a queued task not told", "task", done.Task, "err", err)
	}
}

// bury keeps a request that came to nothing where an operator finds it, and
// says why.
func (d *Door) bury(ctx context.Context, q queue, m jetstream.Msg, why *a2a.Error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), streamWait)
	defer cancel()
	task := taskOf(m.Data())
	letter := &nats.Msg{Subject: d.deadSubject(task), Data: m.Data(), Header: nats.Header{}}
	letter.Header.Set(headerCode, why.Code)
	letter.Header.Set(headerReason, why.Message)
	if _, err := q.js.PublishMsg(ctx, letter); err != nil {
		d.log.WarnContext(ctx, "dead letter not kept", "task", task, "code", why.Code, "err", err)
		d.settle(m, "nak", m.NakWithDelay(queueMaxRetry))
		return
	}
	if task != unreadable {
		d.publish(q.conn, Done{Task: task, Error: &a2a.ReportError{Code: why.Code, Message: why.Message}})
	}
	d.log.InfoContext(ctx, "queued request came to nothing", "task", task, "code", why.Code)
	d.settle(m, "term", m.Term())
}

const unreadable = "unreadable"

// taskOf is the task that a queued request claims to be. It proves nothing, and
// names nothing but a subject.
func taskOf(raw []byte) string {
	signed, err := a2a.VerifyRaw(raw)
	if err != nil {
		return unreadable
	}
	return signed.Task()
}

func (d *Door) deadSubject(task string) string { return d.cfg.Subject + ".dead." + task }

func (d *Door) settle(m jetstream.Msg, what string, err error) {
	if err != nil {
		d.log.DebugContext(context.Background(), "queued message not settled", "what", what, "subject", m.Subject(), "err", err)
	}
}
