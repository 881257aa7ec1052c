// Package push delivers notifications about tasks to the web hooks that their
// owners named.
//
// What is to be delivered waits in the task store, so that it outlives the
// process; a notice leaves the store when its receiver took it, or when it grew
// too old. Each is sent at least once, those of one receiver in order. Nobody
// can make a node call an address that its operator did not mean: see [Guard].
package push

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"sync"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/agenticraft/node/a2a/taskstore"
	"github.com/agenticraft/node/identity"
)

// Store keeps what waits to be delivered; a *taskstore.Store.
type Store interface {
	// Queues lists the queues in which something waits.
	Queues() ([]taskstore.Queue, error)
	Pushes(task sdk.TaskID) ([]*sdk.PushConfig, error)
	Push(q taskstore.Queue) (*sdk.PushConfig, error)
	NextNotice(q taskstore.Queue) (taskstore.Notice, error)
	Delivered(q taskstore.Queue, number uint64) error
	DeletePush(q taskstore.Queue) error
}

// Config of a pusher.
type Config struct {
	Store   Store         // required
	Key     *identity.Key // required; signs every notification
	Guard   Guard         // whom it may call
	Roots   *x509.CertPool
	MaxAge  time.Duration // a notice is given up after so long; default 24 h
	First   time.Duration // before the first repetition; default 1 s
	Most    time.Duration // between repetitions; default 5 min
	Timeout time.Duration // of one delivery; default 15 s
	Log     *slog.Logger  // default: none
}

// How many deliveries are under way at the same time.
const (
	maxDeliveries = 32
	maxPerHost    = 4
)

// Pusher delivers. [Pusher.Run] must run while it is used.
type Pusher struct {
	cfg     Config
	log     *slog.Logger
	send    *sender
	metrics metrics

	mu      sync.Mutex // guards what follows
	queues  map[taskstore.Queue]*queue
	perHost map[string]int
	busy    int
	changed chan struct{} // of capacity 1
}

// queue is what waits for one receiver.
type queue struct {
	host  string
	due   time.Time
	tries int
	busy  bool // a delivery is under way
	again bool // something came meanwhile
}

// New makes a pusher.
func New(cfg Config) (*Pusher, error) {
	if cfg.Store == nil || cfg.Key == nil {
		return nil, errors.New("push: Store and Key are required")
	}
	for at, otherwise := range map[*time.Duration]time.Duration{
		&cfg.MaxAge: 24 * time.Hour, &cfg.First: time.Second, &cfg.Most: 5 * time.Minute, &cfg.Timeout: 15 * time.Second,
	} {
		if *at == 0 {
			*at = otherwise
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Pusher{
		cfg: cfg, log: cfg.Log, send: newSender(cfg), metrics: newMetrics(),
		queues: map[taskstore.Queue]*queue{}, perHost: map[string]int{}, changed: make(chan struct{}, 1),
	}, nil
}

// Metrics are the collectors of this package.
func (p *Pusher) Metrics() []prometheus.Collector { return p.metrics.all() }

// Check says whether the pusher would ever call a URL: an error fit for the
// caller if not. The address behind its name is checked at each call.
func (p *Pusher) Check(url string) error { return p.cfg.Guard.CheckURL(url) }

// Wake has the pusher look at a task's queues: something was added to the store.
func (p *Pusher) Wake(task sdk.TaskID) {
	configs, err := p.cfg.Store.Pushes(task)
	if err != nil {
		p.log.Error("push configurations not read", "task", task, "err", err)
		return
	}
	for _, cfg := range configs {
		p.add(taskstore.Queue{Task: task, ID: cfg.ID}, cfg.URL)
	}
}

func (p *Pusher) add(q taskstore.Queue, url string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.queues[q]
	if !ok {
		w = &queue{}
		p.queues[q] = w
	}
	w.host, w.again = hostOf(url), true
	p.poke()
}

func (p *Pusher) poke() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// Run delivers until ctx is done, then lets the deliveries under way end. What
// waits is delivered after the next start.
func (p *Pusher) Run(ctx context.Context) error {
	left, err := p.cfg.Store.Queues()
	if err != nil {
		return err
	}
	for _, q := range left {
		cfg, err := p.cfg.Store.Push(q)
		if err != nil {
			p.log.ErrorContext(ctx, "push configuration not read", "task", q.Task, "err", err)
			continue
		}
		p.add(q, cfg.URL)
	}
	var deliveries sync.WaitGroup
	defer deliveries.Wait()
	defer p.send.close()
	for {
		wait := p.begin(ctx, &deliveries)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-p.changed:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// begin starts every delivery that is due and has room, and says how long
// nothing more can be due.
func (p *Pusher) begin(ctx context.Context, deliveries *sync.WaitGroup) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, wait := time.Now(), time.Hour
	for q, w := range p.queues {
		switch left := w.due.Sub(now); {
		case w.busy || p.busy >= maxDeliveries || p.perHost[w.host] >= maxPerHost:
			continue // its end, or that of another, wakes Run
		case left > 0:
			wait = min(wait, left)
			continue
		}
		w.busy, w.again = true, false
		p.busy++
		p.perHost[w.host]++
		host := w.host
		deliveries.Go(func() { p.ended(q, host, p.deliver(ctx, q, w.tries)) })
	}
	return wait
}

// next says what becomes of a queue after a delivery.
type next struct {
	empty bool          // nothing waits any more
	retry bool          // the receiver did not take it
	after time.Duration // at the earliest, if so
}

func (p *Pusher) ended(q taskstore.Queue, host string, n next) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy--
	if p.perHost[host]--; p.perHost[host] == 0 {
		delete(p.perHost, host)
	}
	w := p.queues[q]
	w.busy = false
	switch {
	case n.empty && !w.again:
		delete(p.queues, q)
	case n.retry:
		w.tries++
		w.due = time.Now().Add(n.after)
	default:
		w.tries, w.due = 0, time.Time{}
	}
	p.poke()
}
