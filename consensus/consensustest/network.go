// Package consensustest gives tests of consensus a network whose links can be
// cut, and a small state machine that remembers what it applied.
package consensustest

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/agenticraft/node/identity"
)

// Network connects nodes in memory. Its methods may be called concurrently.
type Network struct {
	mu        sync.Mutex
	listeners map[endpoint]*listener
	cut       map[link]bool
	conns     map[*conn]link
}

type endpoint struct {
	id       identity.ID
	protocol string
}

// link is an unordered pair.
type link struct{ a, b identity.ID }

func between(a, b identity.ID) link {
	if a > b {
		a, b = b, a
	}
	return link{a, b}
}

// NewNetwork returns a network without nodes.
func NewNetwork() *Network {
	return &Network{listeners: map[endpoint]*listener{}, cut: map[link]bool{}, conns: map[*conn]link{}}
}

// Node is one node's view of the network: it implements consensus.Streams.
func (n *Network) Node(id identity.ID) *Node { return &Node{n, id} }

// Cut breaks every connection between a and b and lets no new one through.
func (n *Network) Cut(a, b identity.ID) {
	n.mu.Lock()
	n.cut[between(a, b)] = true
	var broken []*conn
	for c, l := range n.conns {
		if l == between(a, b) {
			broken = append(broken, c)
		}
	}
	n.mu.Unlock()
	for _, c := range broken {
		_ = c.Close() // it breaks, whatever it says
	}
}

// Join mends what Cut broke.
func (n *Network) Join(a, b identity.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cut, between(a, b))
}

// Isolate cuts id off from every one of the others.
func (n *Network) Isolate(id identity.ID, others ...identity.ID) {
	for _, other := range others {
		if other != id {
			n.Cut(id, other)
		}
	}
}

// Heal mends every link.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
}

// Node opens and accepts streams in the name of one node.
type Node struct {
	n  *Network
	id identity.ID
}

// Listen accepts streams of a protocol.
func (s *Node) Listen(protocol string) (net.Listener, error) {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	at := endpoint{s.id, protocol}
	if s.n.listeners[at] != nil {
		return nil, fmt.Errorf("listen for %s: already listened for", protocol)
	}
	l := &listener{n: s.n, at: at, conns: make(chan net.Conn), done: make(chan struct{})}
	s.n.listeners[at] = l
	return l, nil
}

// Dial opens a stream; it fails at once if the link is cut or nobody listens.
func (s *Node) Dial(ctx context.Context, to identity.ID, protocol string) (net.Conn, error) {
	s.n.mu.Lock()
	l := s.n.listeners[endpoint{to, protocol}]
	lk := between(s.id, to)
	if l == nil || s.n.cut[lk] {
		s.n.mu.Unlock()
		return nil, fmt.Errorf("dial %s for %s: unreachable", to, protocol)
	}
	a, b := net.Pipe()
	here := &conn{Conn: a, n: s.n, local: addr(s.id), remote: addr(to)}
	there := &conn{Conn: b, n: s.n, local: addr(to), remote: addr(s.id)}
	s.n.conns[here], s.n.conns[there] = lk, lk
	s.n.mu.Unlock()
	var err error
	select {
	case l.conns <- there:
		return here, nil
	case <-l.done:
		err = net.ErrClosed
	case <-ctx.Done():
		err = ctx.Err()
	}
	_ = here.Close() // never used
	_ = there.Close()
	return nil, fmt.Errorf("dial %s for %s: %w", to, protocol, err)
}

type listener struct {
	n     *Network
	at    endpoint
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Addr() net.Addr { return addr(l.at.id) }

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.n.mu.Lock()
		defer l.n.mu.Unlock()
		if l.n.listeners[l.at] == l {
			delete(l.n.listeners, l.at)
		}
	})
	return nil
}

type conn struct {
	net.Conn
	n             *Network
	local, remote addr
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) Close() error {
	c.n.mu.Lock()
	delete(c.n.conns, c)
	c.n.mu.Unlock()
	return c.Conn.Close()
}

type addr identity.ID

func (addr) Network() string  { return "test" }
func (a addr) String() string { return string(a) }
