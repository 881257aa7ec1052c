package audit

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agenticraft/node/identity"
)

// Proposer has commands committed. Propose may be called concurrently.
type Proposer interface {
	// Propose returns the state machine's answer once cmd is durable on a
	// quorum and applied. After an error it may or may not be committed, see
	// RecorderConfig.Ambiguous.
	Propose(ctx context.Context, cmd []byte) ([]byte, error)
}

// RecorderConfig says who records and through whom.
type RecorderConfig struct {
	Key      *identity.Key // the author
	Proposer Proposer
	Origin   string // Store.Origin: the log that the entries are signed for
	// Ambiguous reports whether a proposal that failed with err may have been
	// committed all the same. Nil: it may, unless err has a method
	// Ambiguous() bool that says no.
	Ambiguous func(err error) bool
	Log       *slog.Logger // nil: none
}

const (
	lanes     = 2                     // proposals of one recorder under way at once
	alone     = 20 * time.Millisecond // after which a proposal under way holds no other back
	firstWait = 10 * time.Millisecond
	longWait  = 250 * time.Millisecond
)

// Recorder writes entries of one author. Entries that are recorded at the same
// time become one signed command. While one is under way the next gathers, for
// what a command costs every keeper (a signature, a write, messages) it costs
// for all of its entries together: it follows once the one before is answered,
// has failed or takes longer than alone, or once a whole one waits. With none under way nobody waits
// for others to come. All methods may be called concurrently.
type Recorder struct {
	cfg RecorderConfig
	log *slog.Logger

	mu      sync.Mutex // guards the fields below
	waits   sync.Cond  // of mu: the queue is not empty, or closed is set
	queue   []*record
	idle    int       // lanes that wait for something to do
	ahead   int       // proposals under way that others wait for
	since   time.Time // when the newest of them began
	running int       // lanes
	nudging bool      // a look is due at what waits for a proposal that takes long
	closed  bool

	lanes sync.WaitGroup
	stop  context.Context
	halt  context.CancelFunc
}

// record is one entry on its way.
type record struct {
	leaf []byte
	done chan struct{} // closed by the lane that has it when the fields below are set
	ack  Ack
	err  error

	mu       sync.Mutex // guards the fields below
	proposed bool       // a proposal with it is under way
	maybe    bool       // an earlier one may have been committed
	left     bool       // nobody waits any more: do not propose it (again)
	gone     func()     // called when its caller leaves; nil: nobody wants to know
}

// Ack says where an entry is.
type Ack struct {
	Index uint64
	// Existing: the entry, or another one that took its place by id,
	// at-most-once key or outcome rule, was written before.
	Existing bool
}

// NewRecorder makes a recorder. Close it before what it proposes through.
func NewRecorder(cfg RecorderConfig) *Recorder {
	r := &Recorder{cfg: cfg, log: cfg.Log}
	r.waits.L = &r.mu
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.stop, r.halt = context.WithCancel(context.Background())
	return r
}

// Record has e committed: when it returns nil, the entry is durable on a
// quorum of keepers, though the local store may still be behind (see
// [Store.Changed]). It sets V, Author, and ID and Time where they are empty. A
// caller that wants to try again after [ErrUnknown] gives the same ID again.
//
// Until ctx ends it tries again whatever fails on the way. The errors:
// [ErrInvalid]; [ErrConflict], with the Ack naming the entry in the way;
// [*Refusal]; [ErrUnavailable] and [ErrUnknown] when ctx ended first.
func (r *Recorder) Record(ctx context.Context, e Entry) (Ack, error) {
	e.V, e.Author = EntryVersion, r.cfg.Key.ID()
	now := time.Now()
	if e.Time == "" {
		e.Time = FormatTime(now)
	}
	if e.ID == "" {
		e.ID = NewID(now)
	}
	leaf, err := e.Encode()
	if err != nil {
		return Ack{}, err
	}
	rec := &record{leaf: leaf, done: make(chan struct{})}
	if err := r.enqueue(rec); err != nil {
		return Ack{}, err
	}
	select {
	case <-rec.done:
	case <-ctx.Done():
		if err := rec.leave(); err != nil {
			return Ack{}, fmt.Errorf("record %s entry: %w: %w", e.Kind, err, ctx.Err())
		}
		<-rec.done // answered in the same moment
	}
	if rec.err != nil {
		return rec.ack, fmt.Errorf("record %s entry: %w", e.Kind, rec.err)
	}
	return rec.ack, nil
}

// Close ends what is under way and waits for it. Entries whose commit is not
// known by then fail with [ErrUnknown], the others with [ErrUnavailable].
func (r *Recorder) Close() error {
	r.mu.Lock()
	r.closed = true
	r.waits.Broadcast()
	r.mu.Unlock()
	r.halt()
	r.lanes.Wait()
	return nil
}

// NewID makes an [Entry.ID]: 80 random bits behind the time, so that the ids of
// one author are written in about the order in which the store keeps them, and
// not each into another page of it.
func NewID(now time.Time) string {
	var id [16]byte
	_, _ = rand.Read(id[6:]) // never fails (crypto/rand)
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(now.UnixMilli()))
	copy(id[:6], ms[2:])
	return hex.EncodeToString(id[:])
}

// enqueue hands rec to a lane, a new one if all are busy and there may be more.
func (r *Recorder) enqueue(rec *record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return ErrClosed
	}
	r.queue = append(r.queue, rec)
	r.wake()
	return nil
}

// wake has a lane take the queue, if that is not to wait and not all are busy.
// The caller holds mu.
func (r *Recorder) wake() {
	switch {
	case r.gathers():
		if !r.nudging {
			r.nudging = true
			time.AfterFunc(alone, r.nudge)
		}
	case r.idle > 0:
		r.waits.Signal()
	case r.running < lanes:
		r.running++
		r.lanes.Go(r.lane)
	}
}

// nudge has what waits go on without the proposal before it, if that takes long.
func (r *Recorder) nudge() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nudging = false
	if len(r.queue) > 0 && !r.closed {
		r.wake()
	}
}

// gathers reports whether what is queued is to wait for the proposal under way.
// The caller holds mu.
func (r *Recorder) gathers() bool {
	return r.ahead > 0 && len(r.queue) < MaxBatch && time.Since(r.since) < alone
}

// lane commits batches from the queue until the recorder is closed and the
// queue is empty. It goes on as the same goroutine, whose stack has grown to
// what a signature needs.
func (r *Recorder) lane() {
	for r.ready() {
		// Whoever was answered just now, or runs at this moment, comes along: no
		// time passes but what others use.
		runtime.Gosched()
		if batch := r.take(); len(batch) > 0 {
			r.commit(batch)
		}
	}
}

// ready waits for something in the queue that is to be proposed now.
func (r *Recorder) ready() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for (len(r.queue) == 0 || r.gathers()) && !r.closed {
		r.idle++
		r.waits.Wait()
		r.idle--
	}
	return len(r.queue) > 0
}

// take removes the next batch from the queue; it is empty if another lane was
// faster.
func (r *Recorder) take() []*record {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, size := 0, batchHead
	for n < len(r.queue) && n < MaxBatch {
		if size += leafHead + len(r.queue[n].leaf); size > MaxCommand {
			break // never at the first: a leaf is much smaller
		}
		n++
	}
	batch := r.queue[:n:n]
	if r.queue = r.queue[n:]; len(r.queue) == 0 {
		r.queue = nil
	}
	if n > 0 {
		r.ahead++
		r.since = time.Now()
	}
	return batch
}

// pass has nobody wait any more for a proposal that take began. Its lane goes on
// to what is queued, unless that proposal failed and is to be tried again.
func (r *Recorder) pass(failed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ahead--
	if failed && len(r.queue) > 0 {
		r.wake()
	}
}

// commit proposes a batch until it is answered or nobody waits for it.
func (r *Recorder) commit(batch []*record) {
	held := true // others wait for it
	pass := func(failed bool) {
		if held {
			held = false
			r.pass(failed)
		}
	}
	defer pass(false)
	for wait := firstWait; ; wait = min(2*wait, longWait) {
		batch = waiting(batch)
		if len(batch) == 0 {
			return
		}
		answer, err := r.propose(batch)
		if err == nil {
			r.resolve(batch, answer)
			return
		}
		r.settle(batch, err)
		pass(true)
		r.log.DebugContext(r.stop, "audit proposal failed", "entries", len(batch), "err", err)
		pause := time.NewTimer(wait/2 + mathrand.N(wait/2))
		select {
		case <-pause.C:
		case <-r.stop.Done():
			pause.Stop()
			abandon(batch)
			return
		}
	}
}

// waiting keeps those that somebody waits for, and marks them as proposed.
func waiting(batch []*record) []*record {
	var out []*record
	for _, rec := range batch {
		rec.mu.Lock()
		if !rec.left {
			rec.proposed = true
			out = append(out, rec)
		}
		rec.mu.Unlock()
	}
	return out
}

// propose proposes once, for as long as somebody waits.
func (r *Recorder) propose(batch []*record) ([]byte, error) {
	ctx, cancel := context.WithCancel(r.stop)
	defer cancel()
	var wait atomic.Int64 // callers of Record
	wait.Store(int64(len(batch)))
	gone := func() {
		if wait.Add(-1) == 0 {
			cancel()
		}
	}
	for _, rec := range batch {
		rec.watch(gone)
	}
	leaves := make([][]byte, len(batch))
	for i, rec := range batch {
		leaves[i] = rec.leaf
	}
	return r.cfg.Proposer.Propose(ctx, signBatch(r.cfg.Key, r.cfg.Origin, leaves))
}

// settle takes the mark of a failed proposal away where it surely was not
// committed and no earlier one may have been.
func (r *Recorder) settle(batch []*record, err error) {
	ambiguous := r.ambiguous(err)
	for _, rec := range batch {
		rec.mu.Lock()
		rec.proposed = false
		rec.maybe = rec.maybe || ambiguous
		rec.mu.Unlock()
	}
}

func (r *Recorder) ambiguous(err error) bool {
	if r.cfg.Ambiguous != nil {
		return r.cfg.Ambiguous(err)
	}
	var says interface{ Ambiguous() bool }
	return !errors.As(err, &says) || says.Ambiguous()
}

// resolve gives each entry of a committed batch its answer.
func (r *Recorder) resolve(batch []*record, answer []byte) {
	results, err := decodeResults(answer)
	if err == nil && len(results) != len(batch) {
		err = fmt.Errorf("%w: %d answers to %d entries", ErrInvalid, len(results), len(batch))
	}
	for i, rec := range batch {
		if err != nil {
			rec.end(Ack{}, fmt.Errorf("%w: %w", ErrUnknown, err))
			continue
		}
		switch one := results[i]; one.code {
		case codeAppended:
			rec.end(Ack{Index: one.index}, nil)
		case codeExisting:
			rec.end(Ack{Index: one.index, Existing: true}, nil)
		case codeConflict:
			rec.end(Ack{Index: one.index, Existing: true}, fmt.Errorf("%w at index %d", ErrConflict, one.index))
		case codeRefused:
			rec.end(Ack{}, one.refusal)
		}
	}
}

// abandon answers the entries of a recorder that was closed.
func abandon(batch []*record) {
	for _, rec := range batch {
		rec.mu.Lock()
		err := rec.fate()
		rec.mu.Unlock()
		rec.end(Ack{}, fmt.Errorf("%w: %w", err, ErrClosed))
	}
}

// end answers the entry, once.
func (rec *record) end(ack Ack, err error) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if !rec.left {
		rec.left = true
		rec.ack, rec.err = ack, err
		close(rec.done)
	}
}

// leave says that nobody waits for the entry any more, and what is known of
// it; nil: it has just been answered.
func (rec *record) leave() error {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if rec.left {
		return nil
	}
	rec.left = true
	if rec.gone != nil {
		rec.gone()
	}
	return rec.fate()
}

// watch has gone called when the caller leaves, or now if it has left.
func (rec *record) watch(gone func()) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if rec.gone = gone; rec.left {
		gone()
	}
}

func (rec *record) fate() error {
	if rec.proposed || rec.maybe {
		return ErrUnknown
	}
	return ErrUnavailable
}
