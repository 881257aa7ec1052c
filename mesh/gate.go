package mesh

import (
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/agenticraft/node/identity"
)

// gate asks Config.Allow before a dial and after every handshake, when the
// peer's key is proved. It is the only way in.
type gate struct{ n *Node }

func (g *gate) InterceptPeerDial(id peer.ID) bool                               { return g.n.allowed(id) }
func (g *gate) InterceptAccept(network.ConnMultiaddrs) bool                     { return true }
func (g *gate) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

func (g *gate) InterceptAddrDial(id peer.ID, at ma.Multiaddr) bool {
	return isTCP(at) || g.n.mayUseQUIC(id)
}

func (g *gate) InterceptSecured(_ network.Direction, id peer.ID, at network.ConnMultiaddrs) bool {
	if g.n.allowed(id) || g.n.guest(id) {
		return true
	}
	g.n.met.refused.Inc()
	g.n.log.Debug("refused a peer", "peer", id.String(), "addr", at.RemoteMultiaddr().String())
	return false
}

// allowed is false for keys of another kind than Ed25519: they name no
// identity of ours.
func (n *Node) allowed(id peer.ID) bool {
	known, err := identity.ParseID(id.String())
	return err == nil && n.cfg.Allow(known)
}

// guest reports whether the peer may knock, and do nothing else.
func (n *Node) guest(id peer.ID) bool {
	known, err := identity.ParseID(id.String())
	return err == nil && n.cfg.Guests(known)
}
