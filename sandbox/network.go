package sandbox

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Caps of a list of destinations.
const (
	MaxDestinations = 16
	maxNetworkText  = 480 // bytes of the list as text, which stands in the log
	maxHost         = 253 // bytes, RFC 1035
	maxLabel        = 63
)

// Destination is a place that a program may connect to over TCP.
type Destination struct {
	Host string // name in lower case without a final dot, or an address as [netip.Addr] writes it
	Port uint16
}

// String is the form that [ParseDestination] reads.
func (d Destination) String() string {
	if strings.Contains(d.Host, ":") {
		return "[" + d.Host + "]:" + strconv.Itoa(int(d.Port))
	}
	return d.Host + ":" + strconv.Itoa(int(d.Port))
}

// Address is the host as an address, if it is not a name.
func (d Destination) Address() (netip.Addr, bool) {
	a, err := netip.ParseAddr(d.Host)
	return a, err == nil
}

// ParseDestination reads HOST:PORT, where HOST is a name in ASCII, an IPv4
// address in four decimal parts or an IPv6 address in brackets. The forms of
// addresses that some resolvers also take (one number, octal, hexadecimal, with
// a zone) are refused, so that two readers never see two hosts. An error wraps
// [ErrSpec].
func ParseDestination(text string) (Destination, error) {
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return Destination{}, bad("destination %q is not HOST:PORT", cut(text))
	}
	host, portText := text[:i], text[i+1:]
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 || portText[0] < '1' || portText[0] > '9' {
		return Destination{}, bad("destination %q has no port from 1 to 65535", cut(text))
	}
	inner, bracketed := strings.CutPrefix(host, "[")
	if bracketed {
		inner, bracketed = strings.CutSuffix(inner, "]")
		a, err := netip.ParseAddr(inner)
		if err != nil || !bracketed || !a.Is6() || a.Zone() != "" {
			return Destination{}, bad("destination %q has no IPv6 address in brackets", cut(text))
		}
		// An IPv4 address in IPv6 clothes is that IPv4 address.
		return Destination{Host: a.Unmap().String(), Port: uint16(port)}, nil
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if a, err := netip.ParseAddr(host); err == nil && a.Is4() {
		return Destination{Host: a.String(), Port: uint16(port)}, nil
	}
	if !isHostname(host) {
		return Destination{}, bad("destination %q has no host name of letters, digits, dashes and dots (an international one as xn--…), nor an address as it is usually written", cut(text))
	}
	return Destination{Host: host, Port: uint16(port)}, nil
}

// isHostname says whether s is a name that no resolver takes for an address:
// its last label does not begin with a digit, as no top-level domain does and
// every form of an IPv4 address (WHATWG URL, "ends in a number").
func isHostname(s string) bool {
	if s == "" || len(s) > maxHost {
		return false
	}
	last := ""
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
		last = label
	}
	return last[0] < '0' || last[0] > '9'
}

// ParseNetwork reads what a program may reach: "none" or "" is nothing,
// "allow=HOST:PORT,…" these places. They come back sorted, each once. An error
// wraps [ErrSpec].
func ParseNetwork(text string) ([]Destination, error) {
	if text == "" || text == "none" {
		return nil, nil
	}
	list, ok := strings.CutPrefix(text, "allow=")
	if !ok {
		return nil, bad("network %q is neither none nor allow=HOST:PORT,…", cut(text))
	}
	var all []Destination
	for item := range strings.SplitSeq(list, ",") {
		d, err := ParseDestination(strings.TrimSpace(item))
		if err != nil {
			return nil, err
		}
		if all = append(all, d); len(all) > MaxDestinations {
			return nil, bad("network names more than %d destinations", MaxDestinations)
		}
	}
	slices.SortFunc(all, func(a, b Destination) int {
		return cmp.Or(strings.Compare(a.Host, b.Host), cmp.Compare(a.Port, b.Port))
	})
	all = slices.Compact(all)
	if n := len(FormatNetwork(all)); n > maxNetworkText {
		return nil, bad("network has %d bytes, more than %d", n, maxNetworkText)
	}
	return all, nil
}

// FormatNetwork is the one text that [ParseNetwork] reads as these destinations.
func FormatNetwork(all []Destination) string {
	if len(all) == 0 {
		return "none"
	}
	texts := make([]string, len(all))
	for i, d := range all {
		texts[i] = d.String()
	}
	return "allow=" + strings.Join(texts, ",")
}

// Verdict is what became of one connection that a program asked for.
type Verdict string

// The verdicts. Only the first three had a connection at all.
const (
	Connected       Verdict = "ok"
	ConnectionCut   Verdict = "byte_limit"      // the run's bytes were used up
	NameMismatch    Verdict = "name_mismatch"   // TLS for another host than was asked for
	NotAllowed      Verdict = "not_allowed"     // not on the run's list
	AddressRefused  Verdict = "address_refused" // it leads to this machine, a private network, …
	Unresolved      Verdict = "unresolved"      // the name has no address
	Unreachable     Verdict = "unreachable"     // nobody answered
	TooMany         Verdict = "too_many"        // connections of one run
	MalformedTarget Verdict = "malformed"       // what was asked for is no destination
)

// Connection is one connection that a program asked for, for the record.
type Connection struct {
	// Destination is the zero value where what was asked for is not on the run's
	// list: it is the program's own text, which no record should hold.
	Destination Destination
	Verdict     Verdict
	Sent        int64 // bytes from the program
	Received    int64 // bytes to the program
	Duration    time.Duration
}

// checkNetwork checks a list that did not come from [ParseNetwork].
func checkNetwork(all []Destination) error {
	if len(all) == 0 {
		return nil
	}
	again, err := ParseNetwork(FormatNetwork(all))
	if err != nil {
		return err
	}
	if !slices.Equal(again, all) {
		return fmt.Errorf("%w: destinations are not in the form and order of ParseNetwork", ErrSpec)
	}
	return nil
}
