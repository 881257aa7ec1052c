package mesh

import (
	"errors"
	"fmt"
	"strings"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	bindTries   = 8  // attempts to find a port that is free for TCP and UDP
	maxAddrs    = 32 // addresses kept of one peer
	maxAddrText = 512
)

var errPortTaken = errors.New("the TCP port is taken for UDP")

// parseAddrs reads multiaddrs, with or without a closing /p2p/ID, which is cut.
func parseAddrs(texts []string) ([]ma.Multiaddr, error) {
	if len(texts) > maxAddrs {
		return nil, fmt.Errorf("%d addresses, at most %d", len(texts), maxAddrs)
	}
	var out []ma.Multiaddr
	for _, text := range texts {
		if len(text) > maxAddrText {
			return nil, fmt.Errorf("address %.20q…: too long", text)
		}
		a, err := ma.NewMultiaddr(text)
		if err != nil {
			return nil, fmt.Errorf("address %q: %w", text, err)
		}
		if a, _ = peer.SplitAddr(a); a == nil {
			return nil, fmt.Errorf("address %q: no transport", text)
		}
		out = append(out, a)
	}
	return out, nil
}

func parseListen(texts []string) ([]ma.Multiaddr, error) {
	addrs, err := parseAddrs(texts)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	for _, a := range addrs {
		if shape := shapeOf(a); shape != "tcp" && shape != "udp/quic-v1" {
			return nil, fmt.Errorf("listen: address %q: want /ip4|ip6/ADDR/tcp/PORT or /ip4|ip6/ADDR/udp/PORT/quic-v1", a)
		}
	}
	return addrs, nil
}

// shapeOf names the protocols above the IP address: "tcp", "udp/quic-v1".
func shapeOf(a ma.Multiaddr) string {
	var names []string
	for i, c := range a {
		if i == 0 {
			if p := c.Protocol().Code; p != ma.P_IP4 && p != ma.P_IP6 {
				return ""
			}
			continue
		}
		names = append(names, c.Protocol().Name)
	}
	return strings.Join(names, "/")
}

// bind listens on every address in turn. A QUIC address with port 0 gets the
// port that TCP got on the same IP, so that one number reaches both; if that
// port is taken, bind fails with errPortTaken, or, unless strict, takes
// another.
func bind(into network.Network, addrs []ma.Multiaddr, strict bool) error {
	for _, a := range addrs {
		if port, _ := a.ValueForProtocol(ma.P_UDP); port == "0" {
			if tcpPort := portOn(into, a[:1]); tcpPort != "" {
				same, err := ma.NewMultiaddr(fmt.Sprintf("%s/udp/%s/quic-v1", a[:1], tcpPort))
				if err != nil {
					return fmt.Errorf("listen on %s: %w", a, err)
				}
				err = into.Listen(same)
				if err == nil {
					continue
				}
				if strict {
					return fmt.Errorf("listen on %s: %w: %w", same, errPortTaken, err)
				}
			}
		}
		if err := into.Listen(a); err != nil {
			return fmt.Errorf("listen on %s: %w", a, err)
		}
	}
	return nil
}

// portOn is the TCP port that is listened on at the given IP, or "".
func portOn(in network.Network, ip ma.Multiaddr) string {
	for _, a := range in.ListenAddresses() {
		if port, err := a.ValueForProtocol(ma.P_TCP); err == nil && a[:1].Equal(ip) {
			return port
		}
	}
	return ""
}
