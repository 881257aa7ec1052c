package mesh

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/agenticraft/node/identity"
)

// Peer is what the node knows about another one.
type Peer struct {
	ID        identity.ID
	Connected bool
	Since     time.Time     // of the connection, or of its loss; zero: never connected
	Addr      string        // the remote multiaddr of the connection
	RTT       time.Duration // of the last ping; zero: none answered yet
	LastError string        // of the last attempt to connect; "" once connected
}

// tracked is a peer that we want or have. One goroutine tends it at a time.
type tracked struct {
	id   peer.ID
	wake chan struct{} // has room for one: connection or wishes changed
	kick chan struct{} // has room for one: a new advert is to be sent

	// Guarded by Node.mu.
	tended   bool
	wanted   bool
	attempts int // to connect, since the last connection
	addrs    []ma.Multiaddr
	public   Peer
}

// SetPeers says whom to stay connected with, and where they may be found:
// multiaddrs, with or without /p2p/ID. It replaces what was said before; the
// node itself, malformed addresses and IDs are left out and logged. Connections
// to peers not named are kept while they last.
func (n *Node) SetPeers(peers map[identity.ID][]string) {
	parsed := map[identity.ID][]ma.Multiaddr{}
	for id, texts := range peers {
		if id == n.ID() {
			continue
		}
		addrs, err := parseAddrs(texts)
		if _, idErr := identity.ParseID(string(id)); idErr != nil || err != nil {
			n.log.Warn("ignored a peer", "peer", id, "err", errors.Join(idErr, err))
			continue
		}
		parsed[id] = addrs
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, p := range n.peers {
		if _, still := parsed[id]; !still && p.wanted {
			p.wanted, p.addrs = false, nil
			nudge(p.wake)
		}
	}
	for id, addrs := range parsed {
		p := n.trackLocked(id)
		if p == nil || p.wanted && slices.EqualFunc(p.addrs, addrs, ma.Multiaddr.Equal) {
			continue
		}
		p.wanted, p.addrs = true, addrs
		store := n.host.Peerstore()
		store.ClearAddrs(p.id)
		store.AddAddrs(p.id, addrs, peerstore.PermanentAddrTTL)
		nudge(p.wake)
	}
}

// Peers lists the peers that are wanted or connected, ordered by ID.
func (n *Node) Peers() []Peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]Peer, 0, len(n.peers))
	for _, p := range n.peers {
		out = append(out, p.public)
	}
	slices.SortFunc(out, func(a, b Peer) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return out
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// connected and disconnected are called by libp2p, which waits for them.
func (n *Node) connected(_ network.Network, c network.Conn) {
	id := c.RemotePeer()
	n.mu.Lock()
	p := n.trackLocked(identity.ID(id.String()))
	if p != nil {
		if !p.public.Connected {
			p.public.Since = time.Now()
			n.met.connected.Inc()
			n.log.Info("peer connected", "peer", id.String(), "addr", c.RemoteMultiaddr().String(), "direction", c.Stat().Direction.String())
		}
		p.public.Connected, p.public.LastError, p.attempts = true, "", 0
		p.public.Addr = c.RemoteMultiaddr().String()
		nudge(p.wake)
	}
	n.mu.Unlock()
}

func (n *Node) disconnected(net network.Network, c network.Conn) {
	id := c.RemotePeer()
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[identity.ID(id.String())]
	if p == nil || !p.public.Connected || net.Connectedness(id) == network.Connected {
		return
	}
	p.public.Connected, p.public.Since, p.public.RTT = false, time.Now(), 0
	p.public.LastError = "connection lost"
	delete(n.adverts, p.public.ID)
	n.met.connected.Dec()
	n.log.Info("peer disconnected", "peer", id.String())
	nudge(p.wake)
}

func (n *Node) track(id identity.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.trackLocked(id)
}

// trackLocked returns the peer's record, making and tending it if it is new;
// nil if the node is closed or id is not a peer ID.
func (n *Node) trackLocked(id identity.ID) *tracked {
	if p := n.peers[id]; p != nil {
		return p
	}
	raw, err := peer.Decode(string(id))
	if err != nil {
		return nil
	}
	p := &tracked{id: raw, wake: make(chan struct{}, 1), kick: make(chan struct{}, 1), public: Peer{ID: id}}
	n.peers[id] = p
	n.tendLocked(p)
	return p
}

func (n *Node) tendLocked(p *tracked) {
	ctx := n.running
	select {
	case <-n.closed:
		return
	default:
	}
	if ctx == nil || ctx.Err() != nil || p.tended {
		return
	}
	p.tended = true
	n.work.Go(func() { n.tend(ctx, p) })
}

// tend keeps one peer connected while it is wanted, and exchanges pings and
// adverts with it while it is connected.
func (n *Node) tend(ctx context.Context, p *tracked) {
	backoff := firstBackoff
	for {
		n.mu.Lock()
		isConnected, wanted, addrs := p.public.Connected, p.wanted, p.addrs
		if ctx.Err() != nil || !isConnected && !wanted {
			p.tended = false
			if !isConnected && !wanted {
				delete(n.peers, p.public.ID)
			}
			n.mu.Unlock()
			return
		}
		n.mu.Unlock()
		var pause time.Duration
		switch {
		case isConnected:
			backoff = firstBackoff
			n.presence(ctx, p)
			pause = firstBackoff
		default:
			if n.connect(ctx, p, addrs, min(time.Second+4*backoff, dialTimeout)) == nil {
				continue
			}
			pause = jitter(backoff)
			backoff = min(2*backoff, lastBackoff)
		}
		woken := p.wake
		if isConnected {
			woken = nil // whatever woke us ended presence; now only pause
		}
		select {
		case <-ctx.Done():
		case <-n.closed:
			return
		case <-time.After(pause):
		case <-woken:
			backoff = firstBackoff
		}
	}
}

// jitter spreads the attempts of nodes that lost the same peer together.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d) }

// connect tries once. A dead peer's TCP port refuses at once, its QUIC port says
// nothing, so the first attempts are short.
func (n *Node) connect(ctx context.Context, p *tracked, addrs []ma.Multiaddr, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := n.host.Connect(ctx, peer.AddrInfo{ID: p.id, Addrs: addrs})
	result := "ok"
	if err != nil {
		result = "error"
		err = fmt.Errorf("connect: %w", err)
	}
	n.met.dials.WithLabelValues(result).Inc()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil && !p.public.Connected {
		p.public.LastError = err.Error()
		p.attempts++
	}
	return err
}
