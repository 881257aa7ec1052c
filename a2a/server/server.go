// Package server answers A2A requests: one [Handler] behind the official SDK's
// codecs, whatever door a request came through.
//
// The handler decides nothing. It hands a request to the [Path], runs what the
// path admitted in a goroutine that outlives the request, keeps the task in a
// store, and shows each task to its owner only. [HTTP] puts it behind the SDK's
// JSON-RPC codec, for HTTP and for libp2p streams alike.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2asrv"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/taskstore"
)

// Config of a handler.
type Config struct {
	Path  Path             // required
	Store *taskstore.Store // required; the caller closes it after the handler
	Push  Notifier         // default: no push notifications
	// Card is the agent card as a caller may see it, who has proved himself.
	// Default: there are no such cards.
	Card func(ctx context.Context, caller Caller) (*sdk.AgentCard, error)
	// SignedOnly refuses messages without a signature by the extension
	// [a2a.SignedMessageURI] at every door, as the card says: required.
	SignedOnly bool
	Log        *slog.Logger // default: none
}

// Handler is the SDK's request handler over our path and task store. It may be
// used concurrently.
type Handler struct {
	path  Path
	store *taskstore.Store
	push  Notifier
	card  func(ctx context.Context, caller Caller) (*sdk.AgentCard, error)
	log   *slog.Logger

	signedOnly bool

	stop       context.Context // done when runs must end at once
	stopNow    context.CancelFunc
	inProgress sync.WaitGroup // submissions and runs

	mu     sync.Mutex // guards what follows; never held over I/O
	closed bool
	runs   map[sdk.TaskID]*run
	looked time.Time // when forgotten tasks were looked for
}

var _ a2asrv.RequestHandler = (*Handler)(nil)

// New makes a handler.
func New(cfg Config) (*Handler, error) {
	if cfg.Path == nil || cfg.Store == nil {
		return nil, errors.New("a2a server: Path and Store are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	h := &Handler{path: cfg.Path, store: cfg.Store, push: cfg.Push, card: cfg.Card, signedOnly: cfg.SignedOnly, log: cfg.Log, runs: make(map[sdk.TaskID]*run)}
	h.stop, h.stopNow = context.WithCancel(context.Background())
	return h, nil
}

// closeGrace is how long Close waits, after it cancelled the runs, for them to
// record their outcome.
const closeGrace = 5 * time.Second

// Close refuses new requests and waits for the runs. When ctx is done it
// cancels them and waits a little longer; runs that are left even then are an
// error. It may be called twice.
func (h *Handler) Close(ctx context.Context) error {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	defer h.stopNow()
	idle := make(chan struct{})
	go func() { // ends with the last run, which is what Close is asked to wait for
		h.inProgress.Wait()
		close(idle)
	}()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
	}
	h.stopNow()
	select {
	case <-idle:
		return nil
	case <-time.After(closeGrace):
		h.mu.Lock()
		defer h.mu.Unlock()
		return fmt.Errorf("a2a server: %d runs did not end: %w", len(h.runs), ctx.Err())
	}
}

// enter counts a submission as in progress, unless the handler is closing.
func (h *Handler) enter() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return &a2a.Error{Code: a2a.CodeUnavailable, Message: "this node is shutting down", RetryAfter: time.Second}
	}
	h.inProgress.Add(1)
	return nil
}

// landWait is how long somebody waits for a disk to store the end of a task.
const landWait = 5 * time.Second

// running is the run of a task that has not ended, nil if there is none.
func (h *Handler) running(id sdk.TaskID) *run {
	h.mu.Lock()
	r := h.runs[id]
	h.mu.Unlock()
	if r == nil || h.landed(r.landing()) {
		return nil
	}
	return r
}

// landed waits for the end of a task that is being stored. It is false at once if
// none is, and after a while if the disk hangs.
func (h *Handler) landed(stored <-chan struct{}) bool {
	if stored == nil {
		return false
	}
	h.store.Hurry()
	late := time.NewTimer(landWait)
	defer late.Stop()
	select {
	case <-stored:
		return true
	case <-late.C:
		return false
	}
}
