package push

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/net/idna"

	"github.com/agenticraft/node/a2a"
)

// Guard says whom a node may call. The zero value lets it call public addresses
// by https, and nobody else. It is asked about the address that is dialled,
// after names were resolved, so that no name leads past it.
type Guard struct {
	// Allow are the networks that the operator lets be called besides: by http,
	// too, and though they are not public.
	Allow []netip.Prefix
}

// ParseGuard reads networks ("10.1.0.0/16") and addresses ("127.0.0.1").
func ParseGuard(networks []string) (Guard, error) {
	var g Guard
	for _, text := range networks {
		text = strings.TrimSpace(text)
		p, err := netip.ParsePrefix(text)
		if a, notNetwork := netip.ParseAddr(text); err != nil && notNetwork == nil {
			p, err = a.Prefix(a.BitLen())
		}
		if err != nil {
			return Guard{}, fmt.Errorf("%q is neither a network such as 10.1.0.0/16 nor an address", text)
		}
		g.Allow = append(g.Allow, p.Masked())
	}
	return g, nil
}

const maxURL = 2 << 10 // bytes

// lookup maps a host as a dialler does before it resolves it: full-width digits are
// digits. Unlike the profile of registries it lets names have an underscore.
var lookup = idna.New(idna.MapForLookup(), idna.StrictDomainName(false))

// CheckURL refuses a URL that would never be called.
func (g Guard) CheckURL(text string) error {
	bad := func(why string) error {
		return a2a.Errorf(a2a.CodeInvalidRequest, "push notification URL: %s", why)
	}
	if len(text) > maxURL {
		return bad(fmt.Sprintf("longer than %d bytes", maxURL))
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || u.Opaque != "":
		return bad("not an absolute URL")
	case u.Scheme != "https" && u.Scheme != "http":
		return bad("not an https URL")
	case u.User != nil:
		return bad("credentials belong into the configuration's authentication")
	case u.Fragment != "":
		return bad("it has a fragment")
	case u.Port() != "" && !validPort(u.Port()):
		return bad("it has no valid port")
	}
	host := u.Hostname()
	if !strings.Contains(host, ":") { // no address of IPv6
		if host, err = lookup.ToASCII(host); err != nil {
			return bad("its host is not a name")
		}
		host = strings.TrimSuffix(host, ".")
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case err != nil && endsInNumber(host):
		return bad("its host is an address in an unusual form; write it as four decimal numbers")
	case err != nil && u.Scheme == "http" && len(g.Allow) == 0:
		return bad("not an https URL")
	case err == nil && !g.permits(u.Scheme, ip):
		return bad("this node does not call that address")
	}
	return nil
}

// endsInNumber reports whether a host is an address of IPv4 to those who read it as the
// URL standard of browsers does, and so is no name (WHATWG URL, "ends in a number"):
// 2130706433, 0x7f.1, 127.1.
func endsInNumber(host string) bool {
	last := host[strings.LastIndexByte(host, '.')+1:]
	digits := "0123456789"
	if len(last) > 1 && (last[:2] == "0x" || last[:2] == "0X") {
		last, digits = last[2:], digits+"abcdefABCDEF"
	}
	return strings.Trim(last, digits) == ""
}

func validPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}

// errBlocked is why a connection was not made.
var errBlocked = errors.New("this node does not call that address")

type schemeKey struct{}

// withScheme tells the guard how the address will be spoken to.
func withScheme(ctx context.Context, text string) context.Context {
	scheme, _, _ := strings.Cut(text, ":")
	return context.WithValue(ctx, schemeKey{}, strings.ToLower(scheme))
}

// control is asked by the dialler right before it connects.
func (g Guard) control(ctx context.Context, _, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return errBlocked
	}
	scheme, _ := ctx.Value(schemeKey{}).(string)
	if !g.permits(scheme, at.Addr()) {
		return errBlocked
	}
	return nil
}

func (g Guard) permits(scheme string, ip netip.Addr) bool {
	ip = ip.WithZone("").Unmap()
	for _, p := range g.Allow {
		if p.Contains(ip) {
			return true
		}
	}
	return scheme == "https" && public(ip)
}

// notPublic are the addresses that are not part of the public Internet (the
// special-purpose registries of IANA), and those by which clouds serve
// metadata and credentials to their machines.
var notPublic = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
	"192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
	"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"168.63.129.16/32", // Azure's machine agent and resolver
	"::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16",
	"fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
)

// carriers are networks of IPv6 whose addresses hold one of IPv4 at an offset
// in bytes: a packet may end up there.
var carriers = []struct {
	in     netip.Prefix
	offset int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12}, // NAT64, RFC 6052
	{netip.MustParsePrefix("2002::/16"), 2},     // 6to4, RFC 3056
}

func public(ip netip.Addr) bool {
	if !ip.IsValid() || !ip.IsGlobalUnicast() {
		return false
	}
	for _, p := range notPublic {
		if p.Contains(ip) {
			return false
		}
	}
	for _, c := range carriers {
		if c.in.Contains(ip) {
			all := ip.As16()
			return public(netip.AddrFrom4([4]byte(all[c.offset : c.offset+4])))
		}
	}
	return true
}

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		out[i] = netip.MustParsePrefix(text)
	}
	return out
}
