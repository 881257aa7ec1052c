package egress

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// closed are the ranges that no program reaches, by what they are: the special
// purpose registries of IANA (RFC 6890 and its updates), and the addresses at
// which clouds serve their machines' secrets. IPv6 beyond 2000::/3 is closed as
// a whole.
var closed = ranges(map[string][]string{
	"this machine":         {"0.0.0.0/8", "127.0.0.0/8", "::1/128", "::/128"},
	"a private network":    {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10"},
	"a link-local network": {"169.254.0.0/16", "fe80::/10"},
	"a carrier's network":  {"100.64.0.0/10"},
	"a cloud's metadata":   {"168.63.129.16/32", "192.0.0.192/32", "fd00:ec2::254/128"},
	"a reserved network": {
		"192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.175.48.0/24",
		"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
		// Those of IPv6 that hold an IPv4 address, which might be any of the above.
		"2001::/23", "2002::/16", "64:ff9b::/96", "64:ff9b:1::/48",
		"2001:db8::/32", "3fff::/20", "5f00::/16", "ff00::/8",
	},
})

// global is all that IPv6 has given out for use on the internet.
var global = netip.MustParsePrefix("2000::/3")

type closedRange struct {
	prefix netip.Prefix
	what   string
}

func ranges(by map[string][]string) []closedRange {
	var out []closedRange
	for what, texts := range by {
		for _, text := range texts {
			out = append(out, closedRange{netip.MustParsePrefix(text), what})
		}
	}
	// The narrowest first: it says best what an address is.
	slices.SortFunc(out, func(a, b closedRange) int {
		if d := b.prefix.Bits() - a.prefix.Bits(); d != 0 {
			return d
		}
		return a.prefix.Addr().Compare(b.prefix.Addr())
	})
	return out
}

// guard decides which addresses may be connected to.
type guard struct {
	allow []netip.Prefix // the operator's exceptions
	nodes func() []netip.Addr
	own   func() ([]net.Addr, error) // of this machine's interfaces
}

// refuse says what stands against an address, or "". An address that stands in
// one of the operator's ranges is allowed whatever it is.
func (g *guard) refuse(a netip.Addr) string {
	if !a.IsValid() || a.Zone() != "" {
		return "not an address"
	}
	a = a.Unmap()
	for _, p := range g.allow {
		if p.Contains(a) {
			return ""
		}
	}
	for _, c := range closed {
		if c.prefix.Contains(a) {
			return c.what
		}
	}
	if a.Is6() && !global.Contains(a) {
		return "a reserved network"
	}
	if g.nodes != nil && slices.Contains(g.nodes(), a) {
		return "a node of this cluster"
	}
	own, err := g.own()
	if err != nil {
		return fmt.Sprintf("unknown, for this machine's addresses cannot be listed: %v", err)
	}
	for _, n := range own {
		p, ok := n.(*net.IPNet)
		if !ok {
			continue
		}
		if mine, ok := netip.AddrFromSlice(p.IP); ok && mine.Unmap() == a {
			return "this machine"
		}
	}
	return ""
}
