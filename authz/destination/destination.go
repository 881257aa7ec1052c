// Package destination reads places in the network as requests and policies write
// them: HOST:PORT, and patterns that cover many.
package destination

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// None is a network of no destinations, as requests write it.
const None = "none"

const (
	maxAsked     = 16
	maxHostBytes = 253
	maxLabels    = 16 // of a name; each costs two patterns
	allow        = "allow="
	anyHost      = "*"
)

// ErrSyntax is returned for what is no destination, or no pattern of one.
var ErrSyntax = errors.New("not HOST:PORT")

// Parse reads what a request asks of the network, "none" or
// "allow=HOST:PORT,…", as destinations: lower case, sorted, each once. "none" and
// "" are no destinations.
func Parse(text string) ([]string, error) {
	if text == "" || text == None {
		return nil, nil
	}
	list, ok := strings.CutPrefix(text, allow)
	if !ok {
		return nil, fmt.Errorf("%w: network is none or allow=HOST:PORT,…", ErrSyntax)
	}
	items := strings.SplitN(list, ",", maxAsked+1)
	if len(items) > maxAsked {
		return nil, fmt.Errorf("%w: more than %d destinations", ErrSyntax, maxAsked)
	}
	var out []string
	for _, item := range items {
		host, port, err := split(item)
		if err == nil && (strings.Contains(host, "*") || port == "*") {
			err = fmt.Errorf("%w: %.80q: a request names one host and one port", ErrSyntax, item)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, join(host, port))
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// ParsePattern reads a pattern of destinations in its one form: HOST:PORT, where
// HOST may be * (any) or *.DOMAIN (any name below it, not itself), and PORT may
// be *. An IPv6 address stands in brackets.
func ParsePattern(text string) (string, error) {
	host, port, err := split(text)
	if err != nil {
		return "", err
	}
	return join(host, port), nil
}

func split(text string) (host, port string, err error) {
	bad := func(why string) error { return fmt.Errorf("%w: %.80q: %s", ErrSyntax, text, why) }
	i := strings.LastIndexByte(text, ':')
	if i <= 0 {
		return "", "", bad("it has no port")
	}
	host, port = strings.ToLower(text[:i]), text[i+1:]
	if port != "*" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
			return "", "", bad("the port is not 1 to 65535")
		}
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		ip, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil || !ip.Is6() || ip.Zone() != "" || !strings.HasSuffix(inner, "]") {
			return "", "", bad("the host is not an IPv6 address in brackets")
		}
		return ip.String(), port, nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if !ip.Is4() {
			return "", "", bad("an IPv6 address stands in brackets")
		}
		return ip.String(), port, nil
	}
	if host != anyHost && !isHostName(strings.TrimPrefix(host, "*.")) {
		return "", "", bad("the host is neither a name nor an address")
	}
	return host, port, nil
}

// isHostName holds names to letters, digits, - and _ between dots. A name whose
// last label is a number is none: resolvers read such as addresses.
func isHostName(name string) bool {
	if name == "" || len(name) > maxHostBytes {
		return false
	}
	labels := strings.Split(name, ".")
	if len(labels) > maxLabels {
		return false
	}
	for _, label := range labels {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	last := labels[len(labels)-1]
	return strings.Trim(last, "0123456789") != "" && !strings.HasPrefix(last, "0x")
}

func join(host, port string) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + port
}

// Patterns are all patterns that cover a destination, so that policies look it
// up instead of searching.
func Patterns(destination string) []string {
	i := strings.LastIndexByte(destination, ':')
	host, port := destination[:i], destination[i+1:]
	hosts := []string{host}
	// Only names have domains: *.0.0.1 would be a pattern of addresses.
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err != nil {
		for rest := host; ; {
			_, after, ok := strings.Cut(rest, ".")
			if !ok {
				break
			}
			hosts = append(hosts, "*."+after)
			rest = after
		}
	}
	var out []string
	for _, h := range append(hosts, anyHost) {
		out = append(out, h+":"+port, h+":*")
	}
	return out
}

// Covered are the destinations that some pattern covers.
func Covered(destinations, patterns []string) []string {
	var out []string
	for _, d := range destinations {
		if slices.ContainsFunc(Patterns(d), func(p string) bool { return slices.Contains(patterns, p) }) {
			out = append(out, d)
		}
	}
	return out
}

// Text writes destinations as requests and runs name them.
func Text(destinations []string) string {
	if len(destinations) == 0 {
		return None
	}
	return allow + strings.Join(destinations, ",")
}
