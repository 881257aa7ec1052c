package consensus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/agenticraft/node/identity"
)

// transportTimeout bounds one RPC between keepers; a snapshot's covers the
// receiver's restore.
const transportTimeout = 10 * time.Second

var errCut = errors.New("this node has left the group")

// layer carries raft's RPCs over the streams of the "raft" protocol. raft does
// not ask whether the sender of entries or snapshots is a member, so the layer
// must: only keepers are listened to.
type layer struct {
	g        *Group
	listener net.Listener

	mu   sync.Mutex
	open map[*layerConn]struct{}
	gone bool
}

var _ raft.StreamLayer = (*layer)(nil)

func newLayer(g *Group, l net.Listener) *layer {
	return &layer{g: g, listener: l, open: map[*layerConn]struct{}{}}
}

func (l *layer) Accept() (net.Conn, error) {
	for {
		c, err := l.listener.Accept()
		if err != nil {
			return nil, err
		}
		if from := identity.ID(c.RemoteAddr().String()); !l.g.isMember(from) {
			l.g.met.refused.Inc()
			l.g.log.Warn("refused a raft stream: not a keeper", "peer", from)
			_ = c.Close()
			continue
		}
		if kept := l.keep(c); kept != nil {
			return kept, nil
		}
	}
}

func (l *layer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(l.g.ctx, min(timeout, transportTimeout))
	defer cancel()
	c, err := l.g.streams.Dial(ctx, identity.ID(to), protocolRaft)
	if err != nil {
		return nil, err
	}
	if kept := l.keep(c); kept != nil {
		return kept, nil
	}
	return nil, fmt.Errorf("dial %s: %w", to, errCut)
}

func (l *layer) Addr() net.Addr { return layerAddr(l.g.cfg.Self) }
func (l *layer) Close() error   { return l.listener.Close() }

// cut closes every stream and opens no other: raft's own handlers would
// otherwise wait for requests of peers that never come.
func (l *layer) cut() {
	l.mu.Lock()
	l.gone = true
	open := l.open
	l.open = nil
	l.mu.Unlock()
	_ = l.listener.Close()
	for c := range open {
		_ = c.Conn.Close()
	}
}

func (l *layer) keep(c net.Conn) net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		_ = c.Close()
		return nil
	}
	kept := &layerConn{Conn: c, of: l}
	l.open[kept] = struct{}{}
	return kept
}

type layerConn struct {
	net.Conn
	of *layer
}

func (c *layerConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// layerAddr makes a keeper's ID its raft address.
type layerAddr identity.ID

func (layerAddr) Network() string  { return "raft" }
func (a layerAddr) String() string { return string(a) }
