package process_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/egress"
	"github.com/agenticraft/node/sandbox/jail/jailtest"
	"github.com/agenticraft/node/sandbox/process"
)

// openEgress is a backend whose programs may reach the test's own servers.
func openEgress(tb testing.TB) bench {
	tb.Helper()
	g, err := egress.New(egress.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	if err != nil {
		tb.Fatal(err)
	}
	s := jailtest.Start(tb)
	b, err := process.New(process.Config{Spawner: s, Runtimes: python(tb), Egress: g, Warm: 1})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := b.Close(); err != nil {
			tb.Error(err)
		}
	})
	return bench{b, s}
}

// told collects what is told of connections.
type told struct {
	mu  sync.Mutex
	all []sandbox.Connection
}

func (c *told) add(one sandbox.Connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, one)
}

func allow(tb testing.TB, text string) []sandbox.Destination {
	tb.Helper()
	all, err := sandbox.ParseNetwork("allow=" + text)
	if err != nil {
		tb.Fatal(err)
	}
	return all
}

func greeter(tb testing.TB) (address string) {
	tb.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprintf(w, "hello %s", r.Host) }))
	tb.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func TestProgramsReachWhatTheyMay(t *testing.T) {
	b := openEgress(t)
	at := greeter(t)
	s := spec(`
import urllib.request, urllib.error, http.client, os
def get(url):
    try:
        return urllib.request.urlopen(url, timeout=5).read().decode()
    except urllib.error.HTTPError as e:
        return str(e.code) + " " + e.headers.get("X-Agenticraft-Verdict", "")
tunnel = http.client.HTTPConnection("127.0.0.1", 3128, timeout=5)
tunnel.set_tunnel("` + at + `")
tunnel.request("GET", "/")
certificates = os.environ.get("SSL_CERT_FILE")
result = {"plain": get("http://` + at + `/"), "tunnel": tunnel.getresponse().read().decode(), "other": get("http://example.org/"),
    "certificates": "" if certificates is None or os.path.getsize(certificates) > 1000 else "empty"}
`)
	s.Network = allow(t, at)
	s.Required = []string{sandbox.LimitNetwork}
	var seen told
	s.Connected = seen.add
	r := b.run(t, s)
	got := asMap(t, r.Value)
	if got["plain"] != "hello "+at || got["tunnel"] != "hello "+at || got["other"] != "403 not_allowed" || got["certificates"] != "" {
		t.Errorf("result is %v; stderr %s", got, r.Stderr)
	}
	if r.Enforced[sandbox.LimitNetwork] != "netns+seccomp+proxy" {
		t.Errorf("enforced is %v", r.Enforced)
	}
	verdicts := map[sandbox.Verdict]int{}
	for _, c := range seen.all {
		verdicts[c.Verdict]++
	}
	if len(seen.all) != 3 || verdicts[sandbox.Connected] != 2 || verdicts[sandbox.NotAllowed] != 1 {
		t.Errorf("told of %+v", seen.all)
	}
}

// Whatever a program with a network tries, it has its proxy and nothing else.
func TestProgramsReachNothingElse(t *testing.T) {
	b := openEgress(t)
	host, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Close() })
	_, port, _ := net.SplitHostPort(host.Addr().String())
	s := spec(`
import socket, errno
def tried(f):
    try:
        f()
        return "done"
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e))
def connect(addr):
    return tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).connect(addr))
def make(*a):
    return tried(lambda: socket.socket(*a))
def proxied(text):
    with socket.create_connection(("127.0.0.1", 3128)) as s:
        s.sendall(text.encode())
        s.shutdown(socket.SHUT_WR)
        answer = b""
        while part := s.recv(4096):
            answer += part
    line = [l for l in answer.decode().split("\r\n") if l.startswith("X-Agenticraft-Verdict")]
    return line[0].split(": ")[1] if line else answer.decode().split("\r\n")[0]
result = {
    "host by address": connect(("127.0.0.1", ` + port + `)), "outside": connect(("192.0.2.1", 80)), "metadata": connect(("169.254.169.254", 80)),
    "udp": make(socket.AF_INET, socket.SOCK_DGRAM), "raw": make(socket.AF_INET, socket.SOCK_RAW, 6), "ipv6": make(socket.AF_INET6, socket.SOCK_STREAM),
    "packet": make(socket.AF_PACKET, socket.SOCK_RAW, 0), "netlink": make(socket.AF_NETLINK, socket.SOCK_RAW, 0), "vsock": make(40, socket.SOCK_STREAM),
    "unix": make(socket.AF_UNIX, socket.SOCK_STREAM), "mptcp": make(socket.AF_INET, socket.SOCK_STREAM, 262),
    "bind": tried(lambda: socket.socket().bind(("127.0.0.1", 4000))), "listen": tried(lambda: socket.socket().listen()),
    "dns": tried(lambda: socket.getaddrinfo("example.org", 80)),
    "through the proxy": proxied("CONNECT 127.0.0.1:` + port + ` HTTP/1.1\r\nHost: x\r\n\r\n"),
    "metadata through the proxy": proxied("GET http://169.254.169.254/latest/meta-data/ HTTP/1.1\r\nHost: x\r\n\r\n"),
}
`)
	s.Network = allow(t, "169.254.169.254:80,127.0.0.1:1")
	r := b.run(t, s)
	got := asMap(t, r.Value)
	for name, want := range map[string]string{
		"udp": "EPERM", "raw": "EPERM", "ipv6": "EPERM", "packet": "EPERM", "netlink": "EPERM", "vsock": "EPERM", "unix": "EPERM", "mptcp": "EPERM",
		"bind": "EPERM", "listen": "EPERM", "through the proxy": "not_allowed", "metadata through the proxy": "address_refused",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %s", name, got[name], want)
		}
	}
	for _, name := range []string{"host by address", "outside", "metadata", "dns"} {
		if got[name] == "done" || got[name] == "" {
			t.Errorf("%s: %q; stderr %s", name, got[name], r.Stderr)
		}
	}
}

// Each run has a proxy of its own, which no other run can reach, and one without
// a network has none.
func TestRunsHaveProxiesOfTheirOwn(t *testing.T) {
	b := openEgress(t)
	at := greeter(t)
	ask := `
import http.client
try:
    c = http.client.HTTPConnection("127.0.0.1", 3128, timeout=5)
    c.request("GET", "http://` + at + `/")
    result = c.getresponse().getheader("X-Agenticraft-Verdict") or "reached"
except OSError as e:
    result = str(e.errno)
`
	var wg sync.WaitGroup
	for range 3 {
		for network, want := range map[string]string{at: `"reached"`, "127.0.0.1:1": `"not_allowed"`, "": `"1"`} {
			wg.Go(func() {
				s := spec(ask)
				if network != "" {
					s.Network = allow(t, network)
				}
				if r := b.run(t, s); string(r.Value) != want {
					t.Errorf("with %q the result is %s, want %s; stderr %s", network, r.Value, want, r.Stderr)
				}
			})
		}
	}
	wg.Wait()
}

// A connection that is still open when the program ends, or is ended, ends with
// it, and is told of before Run returns.
func TestConnectionsEndWithTheRun(t *testing.T) {
	b := openEgress(t)
	silent, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	for _, end := range []string{"os._exit(0)", "os.kill(os.getpid(), 9)", "os.fork() or time.sleep(60)"} {
		s := spec(`
import socket, os, time
s = socket.create_connection(("127.0.0.1", 3128))
s.sendall(b"CONNECT ` + silent.Addr().String() + ` HTTP/1.1\r\nHost: x\r\n\r\n")
s.recv(100)
` + end)
		s.Network = allow(t, silent.Addr().String())
		var seen told
		s.Connected = seen.add
		b.run(t, s)
		if len(seen.all) != 1 || seen.all[0].Verdict != sandbox.Connected {
			t.Errorf("after %s: told of %+v", end, seen.all)
		}
	}
}
