package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/agenticraft/node/identity"
)

// protocol is the full name of a protocol. The cluster is in it, so that nodes
// of two clusters never speak to each other, whoever is allowed.
func (n *Node) protocol(name string) protocol.ID {
	return protocol.ID("/agenticraft/" + n.cfg.Cluster + "/" + name + "/1")
}

// addr is a peer as net.Addr.
type addr identity.ID

func (addr) Network() string  { return "libp2p" }
func (a addr) String() string { return string(a) }

// conn is a stream as net.Conn. Closing it closes both directions.
type conn struct{ network.Stream }

func (c conn) LocalAddr() net.Addr  { return addr(c.Conn().LocalPeer().String()) }
func (c conn) RemoteAddr() net.Addr { return addr(c.Conn().RemotePeer().String()) }

// closeGrace bounds how long Close waits for a peer that no longer answers:
// closing a stream whose protocol is still being agreed on waits for that.
const closeGrace = time.Second

// Close implements net.Conn. What was written before still arrives if the peer
// takes it in closeGrace.
func (c conn) Close() error {
	if err := c.SetDeadline(time.Now().Add(closeGrace)); err != nil {
		return plain(c.Reset())
	}
	return plain(c.Stream.Close())
}

func (c conn) Read(b []byte) (int, error) {
	count, err := c.Stream.Read(b)
	return count, plain(err)
}

func (c conn) Write(b []byte) (int, error) {
	count, err := c.Stream.Write(b)
	return count, plain(err)
}

// plain turns the transports' errors into those that the net package's users
// look for: net/http stops waiting for a request by a deadline in the past.
func plain(err error) error {
	var timeout net.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return io.EOF
	case errors.As(err, &timeout) && timeout.Timeout():
		return os.ErrDeadlineExceeded
	case errors.Is(err, network.ErrReset):
		return fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, err)
	}
	return err
}

// listener hands out the streams of one protocol.
type listener struct {
	n       *Node
	name    string
	streams chan network.Stream
	done    chan struct{}
	once    sync.Once
}

// Listen accepts streams of the named protocol ("raft", "a2a") from allowed
// peers. RemoteAddr().String() of what it accepts is the peer's proved ID. A
// name can be listened on once at a time.
func (n *Node) Listen(name string) (net.Listener, error) {
	l := &listener{n: n, name: name, streams: make(chan network.Stream, maxPending), done: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	select {
	case <-n.closed:
		return nil, fmt.Errorf("listen for %s: %w", name, ErrClosed)
	default:
	}
	if _, taken := n.listeners[name]; taken || name == presenceName {
		return nil, fmt.Errorf("listen for %s: already listened for", name)
	}
	n.listeners[name] = l
	n.host.SetStreamHandler(n.protocol(name), l.take)
	return l, nil
}

// take runs in a goroutine of libp2p's, one per stream, and must not linger.
func (l *listener) take(s network.Stream) {
	from := s.Conn().RemotePeer()
	if !l.n.allowed(from) && (l.name != GuestProtocol || !l.n.guest(from)) {
		_ = s.Reset() // the peer was revoked; patrol closes its connection
		return
	}
	select {
	case <-l.done:
		_ = s.Reset()
		return
	default:
	}
	select {
	case l.streams <- s:
		l.n.met.streams.WithLabelValues(l.name, "in").Inc()
	default:
		l.n.log.Warn("streams come faster than they are taken", "protocol", l.name, "peer", s.Conn().RemotePeer().String())
		_ = s.Reset()
		return
	}
	// If the listener closed in between, nobody will take what we just put.
	select {
	case <-l.done:
		l.drain()
	default:
	}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, net.ErrClosed
	default:
	}
	select {
	case s := <-l.streams:
		return conn{s}, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Addr() net.Addr { return addr(l.n.ID()) }

// Close refuses further streams; those accepted live on.
func (l *listener) Close() error {
	l.n.mu.Lock()
	if l.n.listeners[l.name] == l {
		delete(l.n.listeners, l.name)
		l.n.host.RemoveStreamHandler(l.n.protocol(l.name))
	}
	l.n.mu.Unlock()
	l.shut()
	return nil
}

func (l *listener) shut() {
	l.once.Do(func() { close(l.done) })
	l.drain()
}

func (l *listener) drain() {
	for {
		select {
		case s := <-l.streams:
			_ = s.Reset()
		default:
			return
		}
	}
}

// Dial opens a stream of the named protocol to a peer, connecting first if
// need be. A peer of SetPeers that was lost is not dialed, for Run does that
// already: the error comes at once, so that callers can turn to another. Dial returns ErrSelf, ErrRefused, or why the peer was not reached
// before ctx was done. A protocol that the peer does not listen for may show
// only at the first Read.
func (n *Node) Dial(ctx context.Context, to identity.ID, name string) (net.Conn, error) {
	id, err := n.dialable(to)
	if err != nil {
		return nil, fmt.Errorf("dial %s for %s: %w", to, name, err)
	}
	if why := n.unreachable(to); why != "" {
		return nil, fmt.Errorf("dial %s for %s: not connected: %s", to, name, why)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	s, err := n.host.NewStream(ctx, id, n.protocol(name))
	if err != nil {
		return nil, fmt.Errorf("dial %s for %s: %w", to, name, err)
	}
	n.met.streams.WithLabelValues(name, "out").Inc()
	return conn{s}, nil
}

// unreachable says why a peer that Run keeps dialing is not connected, or "".
func (n *Node) unreachable(id identity.ID) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[id]
	if p == nil || !p.tended || !p.wanted || p.public.Connected {
		return ""
	}
	return p.public.LastError
}

func (n *Node) dialable(to identity.ID) (peer.ID, error) {
	if to == n.ID() {
		return "", ErrSelf
	}
	id, err := peer.Decode(string(to))
	if err != nil {
		return "", fmt.Errorf("peer ID: %w", err)
	}
	if !n.allowed(id) {
		return "", ErrRefused
	}
	select {
	case <-n.closed:
		return "", ErrClosed
	default:
		return id, nil
	}
}

// deadline bounds one read or write on a stream of ours.
func deadline(set func(time.Time) error, d time.Duration) error {
	if err := set(time.Now().Add(d)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	return nil
}
