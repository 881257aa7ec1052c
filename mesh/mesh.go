// Package mesh connects the nodes of one cluster: authenticated, encrypted
// streams between peers that the cluster lets in, and the signed adverts by
// which peers tell each other what they can do.
//
// A peer is named by its key ([identity.ID]) and reached over TCP or QUIC on
// one port. Who may connect is asked of [Config.Allow] on every handshake,
// every stream and again on [Node.Recheck]; nothing else lets a peer in.
// Streams run in both directions over whichever connection exists, so that a
// node which can only dial out is served as well as one with a public address.
// [Node.Listen] and [Node.Dial] speak net.Listener and net.Conn: raft, net/http
// and gRPC run over them unchanged, and RemoteAddr().String() is the peer's
// authenticated ID.
package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/gologshim"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/agenticraft/node/identity"
)

// Errors that callers act on.
var (
	// ErrSelf is returned when a node dials itself.
	ErrSelf = errors.New("a node cannot dial itself")
	// ErrRefused is returned when Config.Allow does not let the peer in.
	ErrRefused = errors.New("peer is not allowed")
	// ErrClosed is returned by a node or listener that was closed.
	ErrClosed = errors.New("mesh is closed")
)

// DefaultListen is where a node listens unless told otherwise: loopback only,
// TCP and QUIC on one free port.
var DefaultListen = []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}

// Config says who the node is and whom it lets in.
type Config struct {
	// Key is the node's key. Required.
	Key *identity.Key
	// Cluster keeps clusters apart that share machines: it is part of every
	// protocol name. Required: 1 to 64 of a-z, 0-9, '.', '_' and '-'.
	Cluster string
	// Listen holds multiaddrs of the shapes /ip4|ip6/ADDR/tcp/PORT and
	// /ip4|ip6/ADDR/udp/PORT/quic-v1. A udp port 0 takes the port of the tcp
	// address with the same IP where it is free. Default: DefaultListen.
	Listen []string
	// Announce replaces the listen addresses that peers are told, for a node
	// behind address translation. Default: the listen addresses.
	Announce []string
	// Allow says whether a peer may be connected. It is called often, and
	// concurrently. Required: without it nobody would be refused.
	Allow func(identity.ID) bool
	// Guests are peers, not allowed otherwise, that may open streams of the
	// protocol [GuestProtocol] and of no other: those who were invited and
	// bring their token. Default: none.
	Guests func(identity.ID) bool
	// DialOnly keeps the node from listening at all: it is reached over the
	// connections that it makes.
	DialOnly bool
	// Log receives what operators should know. Default: discarded.
	Log *slog.Logger
}

// GuestProtocol is the one that guests may speak.
const GuestProtocol = "join"

// Node is a member of the mesh. Its methods may be called concurrently.
type Node struct {
	cfg  Config
	log  *slog.Logger
	host host.Host
	met  *metrics

	closed   chan struct{}
	closing  sync.Once
	closeErr error
	work     sync.WaitGroup // every goroutine and stream handler of ours

	sequence atomic.Uint64          // of our next advert
	current  atomic.Pointer[[]byte] // our advert as it goes over the wire; nil: none

	mu        sync.Mutex // guards what follows; never held over I/O
	running   context.Context
	peers     map[identity.ID]*tracked
	listeners map[string]*listener
	advert    func() []byte
	adverts   map[identity.ID]received
	announce  chan struct{} // has room for one: make and send a new advert now
}

var clusterName = regexp.MustCompile(`^[a-z0-9._-]{1,64}$`)

// New makes a node that listens at once and dials once it runs. The caller
// must Close it.
func New(cfg Config) (*Node, error) {
	listen, announce, err := cfg.check()
	if err != nil {
		return nil, fmt.Errorf("mesh: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	n := &Node{
		cfg:       cfg,
		log:       cfg.Log,
		met:       newMetrics(),
		closed:    make(chan struct{}),
		peers:     map[identity.ID]*tracked{},
		listeners: map[string]*listener{},
		adverts:   map[identity.ID]received{},
		announce:  make(chan struct{}, 1),
	}
	// A node that restarts must go on above the numbers it used before.
	n.sequence.Store(uint64(time.Now().UnixNano()))
	if n.host, err = n.open(listen, announce); err != nil {
		return nil, fmt.Errorf("mesh: %w", err)
	}
	n.host.Network().Notify(&network.NotifyBundle{ConnectedF: n.connected, DisconnectedF: n.disconnected})
	n.host.SetStreamHandler(n.protocol(presenceName), n.answerPresence)
	return n, nil
}

func (cfg *Config) check() (listen, announce []ma.Multiaddr, err error) {
	var faults []error
	if cfg.Key == nil {
		faults = append(faults, errors.New("no key"))
	}
	if !clusterName.MatchString(cfg.Cluster) {
		faults = append(faults, fmt.Errorf("cluster %q: want 1 to 64 of a-z 0-9 . _ -", cfg.Cluster))
	}
	if cfg.Allow == nil {
		faults = append(faults, errors.New("no allow function"))
	}
	if cfg.Guests == nil {
		cfg.Guests = func(identity.ID) bool { return false }
	}
	switch {
	case cfg.DialOnly:
		cfg.Listen = nil
	case len(cfg.Listen) == 0:
		cfg.Listen = DefaultListen
	}
	listen, err = parseListen(cfg.Listen)
	faults = append(faults, err)
	announce, err = parseAddrs(cfg.Announce)
	if err != nil {
		faults = append(faults, fmt.Errorf("announce: %w", err))
	}
	return listen, announce, errors.Join(faults...)
}

// quiet keeps libp2p's own log, which goes to stderr unasked, out of the
// node's; what matters of it reaches us as errors.
var quiet = sync.OnceFunc(func() { gologshim.SetDefaultHandler(slog.DiscardHandler) })

func (n *Node) open(listen, announce []ma.Multiaddr) (host.Host, error) {
	quiet()
	private, err := crypto.UnmarshalEd25519PrivateKey(n.cfg.Key.Private())
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	for try := 1; ; try++ {
		resources, err := newResourceManager()
		if err != nil {
			return nil, err
		}
		options := []libp2p.Option{
			libp2p.Identity(private),
			libp2p.UserAgent("agenticraft"),
			libp2p.NoListenAddrs,
			// With the listen port as source port, two nodes that dial each other
			// at one moment share a connection on which both play the client.
			libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()),
			libp2p.Transport(quic.NewTransport),
			libp2p.ResourceManager(resources),
			libp2p.ConnectionGater(&gate{n}),
			libp2p.ConnectionManager(connmgr.NullConnMgr{}),
			libp2p.WithDialTimeout(dialTimeout),
			libp2p.SwarmOpts(swarm.WithDialRanker(tcpFirst)),
			// Everything we do not use is off: relays, hole punching, NAT
			// probes, address discovery, libp2p's own metrics and ping.
			libp2p.DisableRelay(),
			libp2p.DisableIdentifyAddressDiscovery(),
			libp2p.ForceReachabilityPublic(),
			libp2p.DisableMetrics(),
			libp2p.Ping(false),
		}
		if len(announce) > 0 {
			options = append(options, libp2p.AddrsFactory(func([]ma.Multiaddr) []ma.Multiaddr { return announce }))
		}
		h, err := libp2p.New(options...)
		if err != nil {
			return nil, fmt.Errorf("start: %w", err)
		}
		err = bind(h.Network(), listen, try < bindTries)
		if err == nil {
			return h, nil
		}
		err = errors.Join(err, h.Close())
		if !errors.Is(err, errPortTaken) || try >= bindTries {
			return nil, err
		}
	}
}

// ID names the node.
func (n *Node) ID() identity.ID { return n.cfg.Key.ID() }

// Addrs are the multiaddrs by which peers can reach the node, without its ID.
func (n *Node) Addrs() []string {
	out := []string{}
	for _, a := range n.host.Addrs() {
		out = append(out, a.String())
	}
	return out
}

// Run keeps the connections to the peers of SetPeers and exchanges adverts
// until ctx is done, which is not an error. It may be called once.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n.mu.Lock()
	if n.running != nil {
		n.mu.Unlock()
		return errors.New("mesh: runs already")
	}
	n.running = ctx
	var tending sync.WaitGroup
	for _, p := range n.peers {
		n.tendLocked(p)
	}
	n.mu.Unlock()
	for _, id := range n.host.Network().Peers() {
		n.track(identity.ID(id.String()))
	}
	tending.Go(func() { n.advertise(ctx) })
	tending.Go(func() { n.patrol(ctx) })
	select {
	case <-ctx.Done():
	case <-n.closed:
	}
	cancel()
	tending.Wait()
	return nil
}

// Close ends every connection and listener and waits for all that the node
// started.
func (n *Node) Close() error {
	n.closing.Do(func() {
		n.mu.Lock()
		close(n.closed)
		open := make([]*listener, 0, len(n.listeners))
		for _, l := range n.listeners {
			open = append(open, l)
		}
		n.mu.Unlock()
		for _, l := range open {
			l.shut()
		}
		n.closeErr = n.host.Close()
		n.work.Wait()
	})
	return n.closeErr
}

// begin reports whether work may start; if so the caller must call n.work.Done.
func (n *Node) begin() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	select {
	case <-n.closed:
		return false
	default:
		n.work.Add(1)
		return true
	}
}

// Recheck asks Allow about every connected peer and cuts those off that it now
// refuses. Call it when membership changes.
func (n *Node) Recheck() {
	for _, id := range n.host.Network().Peers() {
		if !n.allowed(id) && !n.guest(id) {
			n.log.Info("peer is not allowed any more", "peer", id.String())
			n.met.refused.Inc()
			n.cut(id)
		}
	}
}

func (n *Node) cut(id peer.ID) {
	if err := n.host.Network().ClosePeer(id); err != nil {
		n.log.Debug("close connections", "peer", id.String(), "err", err)
	}
}

// patrol catches a peer that was let in while it was being revoked, and drops
// adverts that nobody renewed.
func (n *Node) patrol(ctx context.Context) {
	tick := time.NewTicker(patrolEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			n.Recheck()
			n.expire(time.Now())
		}
	}
}

// Metrics are the node's collectors, for the caller to register.
func (n *Node) Metrics() []prometheus.Collector { return n.met.all() }
