// Package egress is the only way from a jail to a network: an HTTP proxy for
// each run, on the node's side, that connects to the destinations that the run
// was allowed and to nothing else.
//
// A jail has a network of its own that holds its loopback interface alone. The
// listener that [Gateway.Open] is given was made inside that network and handed
// out, so that nobody but this run can reach it, and it needs no secret. There
// is no DNS in a jail: names are resolved here, once for each run.
package egress

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/agenticraft/node/sandbox"
)

// Defaults of [Config], and bounds of one connection.
const (
	DefaultConnections = 256
	DefaultOpen        = 32
	DefaultBytes       = 64 << 20

	dialTimeout    = 10 * time.Second // of one address
	resolveTimeout = 5 * time.Second
	headTimeout    = 10 * time.Second // of a request's head, and of a TLS greeting
	idleTimeout    = 30 * time.Second // between requests
	maxHead        = 32 << 10         // bytes
	maxAddresses   = 16               // of one name
)

// Resolver finds the addresses of a name. [net.Resolver] is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Config of a [Gateway]. The zero value refuses every address that is not on
// the internet.
type Config struct {
	// Allow are ranges that may be reached although they are private, this
	// machine's, … The operator names them.
	Allow []netip.Prefix
	// Nodes are the addresses of the cluster's nodes, which are refused; may be nil.
	Nodes func() []netip.Addr
	// Resolver; default: the machine's.
	Resolver Resolver
	// Of one run: connections in all (default [DefaultConnections]), at the same
	// time ([DefaultOpen]), and bytes both ways together ([DefaultBytes]).
	Connections, Open int
	Bytes             int64
	Log               *slog.Logger
}

// Gateway makes the proxies of a node. Its methods may be called concurrently.
type Gateway struct {
	cfg   Config
	guard guard

	connections *prometheus.CounterVec
	bytes       *prometheus.CounterVec
}

// New returns a gateway.
func New(cfg Config) (*Gateway, error) {
	if cfg.Connections < 0 || cfg.Open < 0 || cfg.Bytes < 0 {
		return nil, errors.New("egress: Connections, Open or Bytes is negative")
	}
	for _, p := range cfg.Allow {
		if !p.IsValid() || p.Masked() != p {
			return nil, fmt.Errorf("egress: %s is no range, or has bits beyond its length", p)
		}
	}
	if cfg.Connections == 0 {
		cfg.Connections = DefaultConnections
	}
	if cfg.Open == 0 {
		cfg.Open = DefaultOpen
	}
	if cfg.Bytes == 0 {
		cfg.Bytes = DefaultBytes
	}
	if cfg.Resolver == nil {
		cfg.Resolver = &net.Resolver{PreferGo: true}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Gateway{
		cfg:   cfg,
		guard: guard{allow: cfg.Allow, nodes: cfg.Nodes, own: net.InterfaceAddrs},
		connections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agenticraft_egress_connections_total",
			Help: "Connections that jailed programs asked for, by what became of them.",
		}, []string{"verdict"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agenticraft_egress_bytes_total",
			Help: "Bytes that jailed programs sent and received over allowed connections.",
		}, []string{"direction"}),
	}, nil
}

// Metrics returns the collectors of the gateway, to be registered once.
func (g *Gateway) Metrics() []prometheus.Collector {
	return []prometheus.Collector{g.connections, g.bytes}
}

// resolved are the addresses of one name, found at its first use.
type resolved struct {
	once  sync.Once
	addrs []netip.Addr
	err   error
}

// errAddress: a name or address leads where no program may go.
var errAddress = errors.New("address refused")

// resolve returns the addresses of a destination that may be connected to. A
// name is looked up once in a run: later answers, which may differ, are never
// asked for. One forbidden address makes the whole name forbidden.
func (p *Proxy) resolve(d sandbox.Destination) ([]netip.Addr, error) {
	if a, ok := d.Address(); ok {
		return p.permitted(d.Host, []netip.Addr{a})
	}
	p.mu.Lock()
	r := p.names[d.Host]
	if r == nil {
		r = new(resolved)
		p.names[d.Host] = r
	}
	p.mu.Unlock()
	r.once.Do(func() {
		ctx, cancel := context.WithTimeout(p.ctx, resolveTimeout)
		defer cancel()
		// With the final dot no search domain of this machine is tried.
		r.addrs, r.err = p.gateway.cfg.Resolver.LookupNetIP(ctx, "ip", d.Host+".")
		if r.err == nil && len(r.addrs) == 0 {
			r.err = errors.New("it has no address")
		}
		r.addrs = r.addrs[:min(len(r.addrs), maxAddresses)]
	})
	if r.err != nil {
		return nil, r.err
	}
	return p.permitted(d.Host, r.addrs)
}

func (p *Proxy) permitted(host string, addrs []netip.Addr) ([]netip.Addr, error) {
	out := make([]netip.Addr, len(addrs))
	for i, a := range addrs {
		if why := p.gateway.guard.refuse(a); why != "" {
			return nil, fmt.Errorf("%w: %s leads to %s", errAddress, host, why)
		}
		out[i] = a.Unmap()
	}
	return out, nil
}

// dial connects to a destination of the run's list.
func (p *Proxy) dial(ctx context.Context, d sandbox.Destination) (net.Conn, error) {
	addrs, err := p.resolve(d)
	if err != nil {
		return nil, err
	}
	var faults []error
	for _, a := range addrs {
		dialer := net.Dialer{Timeout: dialTimeout, ControlContext: p.control}
		conn, err := dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(a, d.Port).String())
		if err == nil {
			return conn, nil
		}
		faults = append(faults, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, &unreachableError{errors.Join(faults...)}
}

type unreachableError struct{ error }
