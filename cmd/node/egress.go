package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/mesh"
)

// prefixes reads a comma-separated list of ranges in CIDR form.
func prefixes(text string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for item := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == '\n' }) {
		p, err := netip.ParsePrefix(strings.TrimSpace(item))
		if err != nil {
			return nil, fmt.Errorf("%q is not a range like 10.1.2.0/24", item)
		}
		if p != p.Masked() {
			return nil, fmt.Errorf("%q has bits beyond its length; write %s", item, p.Masked())
		}
		out = append(out, p)
	}
	return out, nil
}

func joined(all []netip.Prefix) string {
	texts := make([]string, len(all))
	for i, p := range all {
		texts[i] = p.String()
	}
	return strings.Join(texts, ",")
}

// nodeAddresses are where the cluster's other nodes are, as far as this one
// knows: no program connects there unless the operator allows it.
func nodeAddresses(node *mesh.Node, configured map[identity.ID][]string) func() []netip.Addr {
	var fixed []netip.Addr
	for _, addrs := range configured {
		for _, addr := range addrs {
			fixed = appendIP(fixed, addr)
		}
	}
	return func() []netip.Addr {
		out := slices.Clip(fixed)
		for _, p := range node.Peers() {
			out = appendIP(out, p.Addr)
		}
		return out
	}
}

// appendIP adds the address in a multiaddr like /ip4/192.0.2.1/tcp/8520.
func appendIP(out []netip.Addr, multiaddr string) []netip.Addr {
	parts := strings.SplitN(multiaddr, "/", 4)
	if len(parts) < 3 || parts[1] != "ip4" && parts[1] != "ip6" {
		return out
	}
	if a, err := netip.ParseAddr(parts[2]); err == nil {
		out = append(out, a.Unmap())
	}
	return out
}
