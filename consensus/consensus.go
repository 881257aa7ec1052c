// Package consensus agrees on the order of commands: raft among the keepers,
// over any authenticated streams, into any state machine.
//
// Whoever proposes a command, on whichever node, gets the answer that the state
// machine gave on the leader, or one of two errors: [ErrNoLeader], after which
// surely nothing was proposed, and [ErrAmbiguous], after which the command may
// or may not be committed, now or later. A caller that must not act twice puts
// an id of its own into the command, lets the state machine recognise it, and
// proposes the same bytes again.
//
// Concurrent proposals share raft entries without waiting for each other: what
// arrives while the disk is busy forms the next entry. Nodes that do not lead
// send proposals to the leader over one kept stream, one hop and no further.
// The raft log is the write-ahead log of the state machine; a snapshot is a
// description of a few bytes, and a keeper that is far behind fetches what it
// misses from its peers (see StateMachine.Restore).
package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/internal/durable"
)

// Errors that callers act on.
var (
	// ErrNoLeader means that nothing was proposed: there was no leader, or
	// none that could be reached, before the context was done.
	ErrNoLeader = errors.New("no leader")
	// ErrAmbiguous means that the command may or may not be committed, now or
	// later. Propose the same command again, with the same ids.
	ErrAmbiguous = errors.New("commit is uncertain")
	// ErrRefused means that the state machine would not take the command, so
	// nothing was proposed. It is permanent.
	ErrRefused = errors.New("command refused")
	// ErrTooLarge means that the command has more than MaxCommandBytes.
	ErrTooLarge = errors.New("command is too large")
	// ErrCorrupt means that a record of the raft log or of raft's vote does
	// not have the checksum it was written with.
	ErrCorrupt = errors.New("corrupt record")
)

// MaxCommandBytes is the largest command that Propose takes.
const MaxCommandBytes = 256 << 10

const (
	maxKeepers      = 7
	maxSnapshot     = 64 << 10 // bytes of a state machine's description
	maxBatch        = 256      // commands in one raft entry
	maxBatchBytes   = 256 << 10
	maxQueuedBytes  = 32 << 20 // of proposals under way on this node
	defaultPatience = 10 * time.Second
	protocolRaft    = "raft"
	protocolForward = "forward"
)

// StateMachine is what the keepers agree on. Apply and Restore are called by
// one goroutine; Applied and Snapshot at any time.
type StateMachine interface {
	// Apply applies the commands of one or more raft entries in order, the
	// last of which has the given index and term, and answers one result per
	// command. It must be pure: the same commands in the same order give the
	// same state on every keeper. It may make its state durable later, but
	// always together with the index. An error means that the store is broken:
	// nothing more is applied, and the process must stop.
	Apply(index, term uint64, cmds [][]byte) ([][]byte, error)
	// Applied is the durable index and the term of its entry. Nothing above it
	// leaves the raft log.
	Applied() (index, term uint64)
	// Snapshot describes the state at Applied in a few bytes, at most 64 KiB;
	// it does not contain the state.
	Snapshot() ([]byte, error)
	// Restore makes the state durable that meta describes at index, by
	// fetching from peers what is missing. It never shrinks or forks what is
	// there. After an error it is called again some time later.
	Restore(ctx context.Context, index, term uint64, meta []byte) error
}

// Checker is what a [StateMachine] may have, too: Check refuses a command that
// no keeper could apply, before it is in the raft log, where it would stop
// every keeper. It may be called concurrently and does no I/O.
type Checker interface {
	Check(cmd []byte) error
}

// Streams are authenticated streams to other nodes: the remote address of each
// connection is the peer's proved ID.
type Streams interface {
	Listen(protocol string) (net.Listener, error)
	Dial(ctx context.Context, to identity.ID, protocol string) (net.Conn, error)
}

// Config describes a node's place in the group.
type Config struct {
	// Self is the node. If it is not one of Keepers and does not Join, it holds
	// nothing and forwards what it proposes.
	Self identity.ID
	// Keepers are the 1 to 7 voters that the group began with: the same on
	// every node, and for ever. Who votes now is raft's own knowledge, see
	// Arrange.
	Keepers []identity.ID
	// Join makes a keeper of a node that is none of Keepers: it goes on from
	// where its state machine stands, a copy of a member's, and waits until the
	// leader lets it in.
	Join bool
	// Aside keeps a keeper out of the group: it holds nothing and forwards what
	// it proposes, as if it were none.
	Aside bool
	// MayVote reports whether this keeper may give its vote in a term, to
	// another or to itself. While it may not, it takes the log all the same, so
	// that it can catch up with a leader that the others elected. It is called
	// concurrently. Default: it may.
	MayVote func(term uint64) bool
	// Members are the nodes whose raft streams are taken, and whom a node that
	// is no keeper asks for the leader: the keepers of now and those about to
	// become one. Default: Keepers.
	Members func() []identity.ID
	// Dir holds the folder of raft's log and vote. Required of keepers.
	Dir string
	// AllowForward says which nodes, other than keepers, may propose through
	// this one. Default: none.
	AllowForward func(identity.ID) bool

	// Heartbeat is the silence of the leader after which a keeper stands for
	// election. Default: 400 ms. A keeper that is alone does not wait.
	Heartbeat time.Duration
	// Election is the time after which an undecided election is repeated.
	// Default: Heartbeat.
	Election time.Duration
	// Lease is the time without a quorum after which a leader steps down, at
	// most Heartbeat. Default: 3/4 of Heartbeat.
	Lease time.Duration
	// WriteTimeout is the time after which a write to the raft log that the
	// disk does not finish costs a leader its lead. Default: 3 s.
	WriteTimeout time.Duration

	// SnapshotInterval is how often the raft log is considered for
	// truncation, SnapshotThreshold after how many entries it is truncated,
	// TrailingLogs how many entries it keeps for keepers that are behind.
	// Defaults: 2 min, 65,536 and 100,000.
	SnapshotInterval  time.Duration
	SnapshotThreshold uint64
	TrailingLogs      uint64

	// Log receives what operators should know. Default: discarded.
	Log *slog.Logger
}

// Group is a node's part in the consensus. Its methods may be called
// concurrently.
type Group struct {
	cfg     Config
	check   func(cmd []byte) error // nil: anything goes
	log     *slog.Logger
	met     *metrics
	streams Streams

	// Of a keeper; nil or unused on other nodes.
	raft      *raft.Raft
	store     *store
	layer     *layer
	transport *durableTransport
	members   *membership
	fsm       *fsm
	queue     chan *proposal
	inflight  chan flight
	budget    *semaphore.Weighted

	forward  *forwarder
	listener net.Listener // of the forward protocol

	ctx     context.Context // done when the group closes or fails
	cancel  context.CancelFunc
	work    sync.WaitGroup
	merging sync.WaitGroup // batch and settle, which end before raft does
	closing sync.Once
	err     error // of Close

	stalled atomic.Pointer[error] // why no proposal is taken now
	release func()                // of the machine; nil if it never waits

	failed  chan error
	failure atomic.Pointer[error]

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when the leader may have changed
	silent  map[identity.ID]time.Time
	hint    identity.ID // the leader as another node named it
	heir    int         // counts attempts to hand the lead over
}

// Open starts the node's part. Every keeper must be given the same Keepers; a
// keeper that starts for the first time begins with them, and refuses to open
// with others later. The caller must Close the group, and must stop the process
// when Failed says so.
func Open(cfg Config, s Streams, m StateMachine) (*Group, error) {
	if err := cfg.complete(m); err != nil {
		return nil, fmt.Errorf("consensus: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := &Group{
		cfg:     cfg,
		log:     cfg.Log,
		met:     newMetrics(),
		streams: s,
		ctx:     ctx,
		cancel:  cancel,
		failed:  make(chan error, 1),
		changed: make(chan struct{}),
		silent:  map[identity.ID]time.Time{},
	}
	g.forward = newForwarder(g)
	if !cfg.keeps() {
		return g, nil
	}
	if err := g.openKeeper(m); err != nil {
		return nil, errors.Join(fmt.Errorf("consensus: %w", err), g.Close())
	}
	return g, nil
}

// keeps reports whether the node holds the group's log.
func (cfg *Config) keeps() bool {
	return !cfg.Aside && (cfg.Join || slices.Contains(cfg.Keepers, cfg.Self))
}

func (cfg *Config) complete(m StateMachine) error {
	var faults []error
	if cfg.Self == "" {
		faults = append(faults, errors.New("self is not named"))
	}
	cfg.Keepers = slices.Clone(cfg.Keepers)
	slices.Sort(cfg.Keepers)
	if n := len(cfg.Keepers); n < 1 || n > maxKeepers {
		faults = append(faults, fmt.Errorf("%d keepers, want 1 to %d", n, maxKeepers))
	}
	if len(slices.Compact(slices.Clone(cfg.Keepers))) != len(cfg.Keepers) {
		faults = append(faults, errors.New("a keeper is named twice"))
	}
	if cfg.keeps() {
		if cfg.Dir == "" {
			faults = append(faults, errors.New("a keeper needs a folder"))
		}
		if m == nil {
			faults = append(faults, errors.New("a keeper needs a state machine"))
		}
	}
	if cfg.AllowForward == nil {
		cfg.AllowForward = func(identity.ID) bool { return false }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MayVote == nil {
		cfg.MayVote = func(uint64) bool { return true }
	}
	if cfg.Members == nil {
		cfg.Members = func() []identity.ID { return cfg.Keepers }
	}
	cfg.Heartbeat = orDefault(cfg.Heartbeat, 400*time.Millisecond)
	cfg.Election = orDefault(cfg.Election, cfg.Heartbeat)
	cfg.Lease = orDefault(cfg.Lease, cfg.Heartbeat*3/4)
	if cfg.Lease > cfg.Heartbeat {
		faults = append(faults, errors.New("lease is longer than heartbeat"))
	}
	cfg.WriteTimeout = orDefault(cfg.WriteTimeout, 3*time.Second)
	cfg.SnapshotInterval = orDefault(cfg.SnapshotInterval, 2*time.Minute)
	cfg.SnapshotThreshold = orDefault(cfg.SnapshotThreshold, 64<<10)
	cfg.TrailingLogs = orDefault(cfg.TrailingLogs, 100_000)
	return errors.Join(faults...)
}

func orDefault[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

func (g *Group) openKeeper(m StateMachine) error {
	if err := durable.Mkdir(g.cfg.Dir, 0o700); err != nil {
		return err
	}
	var err error
	g.store, err = openStore(storeConfig{
		Dir:     g.cfg.Dir,
		Keepers: g.cfg.Keepers,
		Join:    g.cfg.Join,
		Durable: m.Applied,
		MayVote: g.cfg.MayVote,
		Timeout: g.cfg.WriteTimeout,
		Fail:    g.fail,
		Metrics: g.met,
	})
	if err != nil {
		return err
	}
	if g.members, err = openMembership(g.cfg.Dir, g.cfg.Keepers); err != nil {
		return err
	}
	listener, err := g.streams.Listen(protocolRaft)
	if err != nil {
		return err
	}
	logger := raftLogger(g.log)
	g.layer = newLayer(g, listener)
	g.transport = newDurableTransport(raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:                  g.layer,
		MaxPool:                 3,
		Timeout:                 transportTimeout,
		Logger:                  logger,
		MsgpackUseNewTimeFormat: true,
	}), g.store)
	applied, _ := m.Applied()
	if c, ok := m.(Checker); ok {
		g.check = c.Check
	}
	g.fsm = &fsm{machine: m, store: g.store, members: g.members, ctx: g.ctx, fail: g.fail, met: g.met, applied: applied}
	if err := g.startRaft(logger, m); err != nil {
		return err
	}
	g.store.live.Store(true)
	g.queue = make(chan *proposal, maxBatch)
	g.inflight = make(chan flight, maxBatch)
	g.budget = semaphore.NewWeighted(maxQueuedBytes)
	g.merging.Go(g.batch)
	g.merging.Go(g.settle)
	observe := g.observe()
	g.work.Go(observe)
	staller, _ := m.(Staller)
	if staller != nil {
		g.release = staller.Release
	}
	g.work.Go(func() { g.watchMachine(staller) })
	if g.listener, err = g.streams.Listen(protocolForward); err != nil {
		return err
	}
	g.work.Go(g.acceptForwards)
	return nil
}

func (g *Group) startRaft(logger hclogLogger, m StateMachine) (err error) {
	// NewRaft panics where it cannot read its log or write its term.
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("start raft: %v", cause)
		}
	}()
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(g.cfg.Self)
	conf.HeartbeatTimeout = g.cfg.Heartbeat
	conf.ElectionTimeout = g.cfg.Election
	conf.LeaderLeaseTimeout = g.cfg.Lease
	conf.MaxAppendEntries = 64
	conf.SnapshotInterval = g.cfg.SnapshotInterval
	conf.SnapshotThreshold = g.cfg.SnapshotThreshold
	conf.TrailingLogs = g.cfg.TrailingLogs
	conf.NoSnapshotRestoreOnStart = true // the state machine is durable by itself
	conf.NoLegacyTelemetry = true
	conf.Logger = logger

	servers, _ := g.members.get()
	alone := len(servers.Servers) == 1 && servers.Servers[0].ID == conf.LocalID
	if alone {
		conf.HeartbeatTimeout += time.Millisecond
		conf.ElectionTimeout = max(conf.ElectionTimeout, conf.HeartbeatTimeout)
	}
	snapshots := &snapshots{machine: m, members: g.members}
	logs, err := raft.NewLogCache(logCache, g.store)
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	switch {
	case g.store.fresh && g.cfg.Join:
		if err := g.store.joins(); err != nil {
			return err
		}
	case g.store.fresh:
		if err := raft.BootstrapCluster(conf, logs, g.store, snapshots, g.transport, servers); err != nil {
			return fmt.Errorf("begin raft: %w", err)
		}
		if err := g.store.begun(); err != nil {
			return err
		}
	}
	if g.raft, err = raft.NewRaft(conf, g.fsm, logs, g.store, snapshots, g.transport); err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	if !alone {
		return nil
	}
	// There is nobody to wait for: a shorter time-out, however little, makes
	// raft look at its clock now.
	faster := g.raft.ReloadableConfig()
	faster.HeartbeatTimeout = g.cfg.Heartbeat
	if err := g.raft.ReloadConfig(faster); err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	return nil
}

// Failed delivers the error, once, after which this node must not go on: its
// store is broken, its log is corrupt, or it met a command of a version that
// it does not know. The node has left the group by then; restart the process
// once the cause is mended.
func (g *Group) Failed() <-chan error { return g.failed }

// fail takes the node out of the group: a keeper that cannot trust its own
// disk must neither lead nor vote.
func (g *Group) fail(err error) {
	if !g.failure.CompareAndSwap(nil, &err) {
		return
	}
	g.log.Error("consensus failed, this node must stop", "err", err)
	g.failed <- err
	g.cancel()
	if g.layer != nil {
		g.layer.cut()
	}
}

func (g *Group) hasFailed() error {
	if err := g.failure.Load(); err != nil {
		return fmt.Errorf("%w: this node has failed: %w", ErrNoLeader, *err)
	}
	return nil
}

// Close leaves the group and waits for all that it started. What is being
// proposed ends with ErrNoLeader or ErrAmbiguous.
func (g *Group) Close() error {
	g.closing.Do(func() {
		g.cancel()
		var faults []error
		if g.listener != nil {
			faults = append(faults, g.listener.Close())
		}
		g.forward.close()
		if g.store != nil && g.failure.Load() != nil {
			g.store.stop() // raft may be parked in it
		}
		if g.release != nil {
			g.release()
		}
		// raft answers every entry under way while it runs (committed, or lost
		// with the lead), but not those that its end overtakes.
		g.merging.Wait()
		if g.Lead() && len(g.voters()) > 1 && g.failure.Load() == nil {
			if err := g.raft.LeadershipTransfer().Error(); err != nil {
				g.log.Debug("hand over the lead", "err", err)
			}
		}
		if g.store != nil {
			g.store.stop()
		}
		if g.layer != nil {
			g.layer.cut()
		}
		if g.raft != nil {
			faults = append(faults, g.raft.Shutdown().Error())
		}
		if g.transport != nil {
			faults = append(faults, g.transport.Close())
		}
		g.work.Wait()
		if g.store != nil {
			faults = append(faults, g.store.close())
		}
		g.err = errors.Join(faults...)
	})
	return g.err
}

// Metrics are the group's collectors, for the caller to register.
func (g *Group) Metrics() []prometheus.Collector { return g.met.all() }
