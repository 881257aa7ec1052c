package mesh

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/x/rate"
)

const (
	dialTimeout  = 5 * time.Second // for one connection attempt
	pingEvery    = time.Second
	pingTimeout  = 4 * time.Second // silence after which a peer counts as dead
	advertEvery  = 2 * time.Second
	advertTTL    = 10 * time.Second
	patrolEvery  = time.Second
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 5 * time.Second

	maxAdvertBytes       = 8 << 10
	maxPresencePerSecond = 50  // frames of one presence stream; a peer needs 2
	maxPending           = 128 // accepted streams that nobody took yet, per listener
	maxConnsPerAddress   = 256 // connections from one IPv4 address or IPv6 /56
)

// newResourceManager bounds what peers can make us hold. libp2p's defaults suit
// swarms of strangers: they refuse the ninth connection from one address and
// the 76th stream of one protocol from one peer. Ours are wider, since only
// members get past the gate, and stay bounded, since members may break.
func newResourceManager() (network.ResourceManager, error) {
	scaling := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&scaling)
	streams := func(n rcmgr.LimitVal) rcmgr.ResourceLimits {
		return rcmgr.ResourceLimits{Streams: 2 * n, StreamsInbound: n, StreamsOutbound: n, Memory: 128 << 20}
	}
	system := streams(16384)
	system.Conns, system.ConnsInbound, system.ConnsOutbound = 2048, 1024, 1024
	system.Memory = 512 << 20
	onePeer := streams(4096)
	onePeer.Conns, onePeer.ConnsInbound, onePeer.ConnsOutbound = 16, 8, 8
	limits := rcmgr.PartialLimitConfig{
		System:              system,
		Transient:           rcmgr.ResourceLimits{Conns: 512, ConnsInbound: 256, ConnsOutbound: 256, Streams: 2048, StreamsInbound: 1024, StreamsOutbound: 1024},
		PeerDefault:         onePeer,
		ProtocolDefault:     streams(8192),
		ProtocolPeerDefault: streams(2048),
	}.Build(scaling.AutoScale())

	loopback := []rate.PrefixLimit{
		{Prefix: netip.MustParsePrefix("127.0.0.0/8")},
		{Prefix: netip.MustParsePrefix("::1/128")},
	}
	perAddress := rate.Limit{RPS: 20, Burst: maxConnsPerAddress}
	m, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: maxConnsPerAddress}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: maxConnsPerAddress}},
		),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			NetworkPrefixLimits: loopback,
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: perAddress}},
				IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: perAddress}},
				GracePeriod:      time.Minute,
			},
		}))
	if err != nil {
		return nil, fmt.Errorf("resource limits: %w", err)
	}
	return m, nil
}
