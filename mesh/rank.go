package mesh

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/agenticraft/node/identity"
)

// quicDelay is the head start of TCP over QUIC.
const quicDelay = 250 * time.Millisecond

// tcpFirst dials TCP addresses at once and QUIC where they do not answer, the
// reverse of libp2p's order. When a process is killed its kernel closes its TCP
// connections, which peers see at once; nobody closes a QUIC connection, and
// peers find out by the ping that is not answered, seconds later. QUIC is
// cheaper only where a stream is opened for each request; ours are kept.
func tcpFirst(addrs []ma.Multiaddr) []network.AddrDelay {
	out := make([]network.AddrDelay, 0, len(addrs))
	tcp := false
	for _, a := range addrs {
		if isTCP(a) {
			tcp = true
			out = append(out, network.AddrDelay{Addr: a})
		}
	}
	delay := quicDelay
	if !tcp {
		delay = 0
	}
	for _, a := range addrs {
		if !isTCP(a) {
			out = append(out, network.AddrDelay{Addr: a, Delay: delay})
		}
	}
	return out
}

func isTCP(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_TCP)
	return err == nil
}

// mayUseQUIC is false for a peer that has a TCP address, but for each third
// attempt to connect: a QUIC dial waits for a dead peer and would win against
// TCP at the moment of its return.
func (n *Node) mayUseQUIC(id peer.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[identity.ID(id.String())]
	return p == nil || p.attempts%3 == 2 || !slices.ContainsFunc(p.addrs, isTCP)
}
