package egress_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/egress"
)

// names is a resolver with fixed answers: the n-th look-up of a name gets its
// n-th answer.
type names struct {
	mu      sync.Mutex
	answers map[string][]string // each a list of addresses
	asked   []string
}

func (n *names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, host)
	name := strings.TrimSuffix(host, ".")
	left := n.answers[name]
	if len(left) == 0 {
		return nil, errors.New("no such host")
	}
	if len(left) > 1 {
		n.answers[name] = left[1:]
	}
	var out []netip.Addr
	for text := range strings.FieldsSeq(left[0]) {
		out = append(out, netip.MustParseAddr(text))
	}
	return out, nil
}

// run is one run's proxy and what was told of its connections.
type run struct {
	*egress.Proxy
	t    *testing.T
	addr string
	mu   sync.Mutex
	told []sandbox.Connection
}

func open(t *testing.T, cfg egress.Config, allow string) *run {
	t.Helper()
	g, err := egress.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	list, err := sandbox.ParseNetwork(allow)
	if err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &run{t: t, addr: l.Addr().String()}
	r.Proxy = g.Open(l, "test", list, func(c sandbox.Connection) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.told = append(r.told, c)
	})
	t.Cleanup(r.Close)
	return r
}

// verdicts closes the proxy and returns what became of each connection.
func (r *run) verdicts() string {
	r.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, c := range r.told {
		out = append(out, string(c.Verdict))
	}
	return strings.Join(out, " ")
}

func (r *run) client() *http.Client {
	via := &url.URL{Scheme: "http", Host: r.addr}
	return &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(via), DisableKeepAlives: true}, Timeout: time.Minute}
}

// raw sends text and returns the whole answer.
func (r *run) raw(text string) string {
	r.t.Helper()
	c, err := new(net.Dialer).DialContext(r.t.Context(), "tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, text); err != nil {
		r.t.Fatal(err)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	answer, _ := io.ReadAll(c) // a reset ends it as well
	return string(answer)
}

func loopback() egress.Config {
	return egress.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
}

func hostPort(t *testing.T, s *httptest.Server) string {
	t.Helper()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

func hello(t *testing.T, secure bool) *httptest.Server {
	t.Helper()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "hello %s %s %s %q", r.Method, r.Host, r.URL.RequestURI(), body)
	})
	s := httptest.NewUnstartedServer(h)
	if secure {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

func body(t *testing.T, resp *http.Response, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func get(t *testing.T, c *http.Client, url string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c.Do(req)
}

func TestAllowedDestinationsAreReached(t *testing.T) {
	plain, secure := hello(t, false), hello(t, true)
	_, port, _ := net.SplitHostPort(hostPort(t, secure))
	cfg := loopback()
	cfg.Resolver = &names{answers: map[string][]string{"example.com": {"127.0.0.1"}}} // the test server's certificate is for it
	r := open(t, cfg, "allow="+hostPort(t, plain)+",example.com:"+port)
	c := r.client()
	resp, err := get(t, c, plain.URL+"/a?b=c")
	if got, want := body(t, resp, err), `hello GET `+hostPort(t, plain)+` /a?b=c ""`; got != want {
		t.Errorf("plain answer is %q, want %q", got, want)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, plain.URL, strings.NewReader(strings.Repeat("x", 100)))
	if err != nil {
		t.Fatal(err)
	}
	resp, err = c.Do(req)
	if got := body(t, resp, err); !strings.Contains(got, "xxx") {
		t.Errorf("answer to a POST is %q", got)
	}
	pool := x509.NewCertPool()
	pool.AddCert(secure.Certificate())
	c.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	resp, err = get(t, c, "https://example.com:"+port+"/")
	if got, want := body(t, resp, err), "hello GET example.com:"+port+` / ""`; got != want {
		t.Errorf("answer through TLS is %q, want %q", got, want)
	}
	if got := r.verdicts(); got != "ok ok ok" {
		t.Errorf("verdicts are %q", got)
	}
	for _, c := range r.told {
		if c.Sent < 50 || c.Received < 50 || c.Duration <= 0 || c.Destination.Port == 0 {
			t.Errorf("told of %+v", c)
		}
	}
}

// What leads elsewhere is refused, in whatever form it is written.
func TestOnlyTheListIsReached(t *testing.T) {
	s := hello(t, false)
	at := hostPort(t, s)
	_, port, _ := net.SplitHostPort(at)
	r := open(t, loopback(), "allow="+at)
	for _, c := range []struct{ name, request, verdict string }{
		{"another port", "CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n", "not_allowed"},
		{"another host", "CONNECT example.org:" + port + " HTTP/1.1\r\nHost: x\r\n\r\n", "not_allowed"},
		{"another host behind the right one", "CONNECT " + at + "@example.org:80 HTTP/1.1\r\nHost: x\r\n\r\n", "malformed"},
		{"user name", "GET http://" + at + "@example.org/ HTTP/1.1\r\nHost: x\r\n\r\n", "malformed"},
		{"user name before the right host", "GET http://u:p@" + at + "/ HTTP/1.1\r\nHost: x\r\n\r\n", "malformed"},
		{"another host header", "GET http://example.org/ HTTP/1.1\r\nHost: " + at + "\r\n\r\n", "not_allowed"},
		{"decimal address", "CONNECT 2130706433:" + port + " HTTP/1.1\r\nHost: x\r\n\r\n", "malformed"},
		{"octal address", "CONNECT 0177.0.0.1:" + port + " HTTP/1.1\r\nHost: x\r\n\r\n", "malformed"},
		{"hexadecimal address", "CONNECT 0x7f.1:" + port + " HTTP/1.1\r\nHost: x\r\n\r\n", "malformed"},
		{"short address", "CONNECT 127.1:" + port + " HTTP/1.1\r\nHost: x\r\n\r\n", "malformed"},
		{"zone", "CONNECT [fe80::1%25lo]:" + port + " HTTP/1.1\r\nHost: x\r\n\r\n", "malformed"},
		{"no port", "CONNECT 127.0.0.1 HTTP/1.1\r\nHost: x\r\n\r\n", "malformed"},
		{"port with a sign", "CONNECT 127.0.0.1:+" + port + " HTTP/1.1\r\nHost: x\r\n\r\n", ""},
		{"port with a zero", "CONNECT 127.0.0.1:0" + port + " HTTP/1.1\r\nHost: x\r\n\r\n", "malformed"},
		{"to itself", "GET / HTTP/1.1\r\nHost: " + at + "\r\n\r\n", "malformed"},
		{"another scheme", "GET ftp://" + at + "/ HTTP/1.1\r\nHost: x\r\n\r\n", "malformed"},
		{"https without a tunnel", "GET https://" + at + "/ HTTP/1.1\r\nHost: x\r\n\r\n", "malformed"},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""},
		{"split header", "GET http://" + at + "/ HTTP/1.1\r\nHost: x\r\nX: a\nHost : y\r\n\r\n", ""},
		{"two lengths", "POST http://" + at + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", ""},
		{"nothing", "\r\n\r\n", ""},
		{"head without end", "GET http://" + at + "/ HTTP/1.1\r\nX: " + strings.Repeat("x", 64<<10), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := r.raw(c.request)
			if strings.Contains(got, "hello") || strings.HasPrefix(got, "HTTP/1.1 2") {
				t.Errorf("answer is %q", got)
			}
			if c.verdict != "" && !strings.Contains(got, "X-Agenticraft-Verdict: "+c.verdict+"\r\n") {
				t.Errorf("answer is %q, want the verdict %s", got, c.verdict)
			}
		})
	}
	r.Close()
	for _, c := range r.told {
		if c.Destination != (sandbox.Destination{}) {
			t.Errorf("what the program wrote is on record: %+v", c)
		}
	}
}

// A second request on a connection, and one hidden in the first, are held to the
// list as well.
func TestSmuggledRequests(t *testing.T) {
	var seen atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Add(1)
		if r.URL.Path != "/" {
			t.Errorf("the other side saw %s", r.URL)
		}
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	t.Cleanup(s.Close)
	at := hostPort(t, s)
	second := "GET http://example.org/x HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, request := range map[string]string{
		"pipelined":          "GET http://" + at + "/ HTTP/1.1\r\nHost: x\r\n\r\n" + second,
		"after a body":       fmt.Sprintf("POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc%s", at, second),
		"in a chunk":         fmt.Sprintf("POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", at, len(second), second),
		"length and chunked": fmt.Sprintf("POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n%s", at, second),
	} {
		t.Run(name, func(t *testing.T) {
			r := open(t, loopback(), "allow="+at)
			answer := r.raw(request)
			verdicts := r.verdicts()
			if strings.Count(verdicts, "ok") > 1 || strings.Contains(answer, "HTTP/1.1 200 OK\r\n\r\n\r\n") {
				t.Errorf("verdicts %q, answer %q", verdicts, answer)
			}
		})
	}
	if seen.Load() == 0 {
		t.Error("no request came through at all")
	}
}

func TestAddressesThatAreRefused(t *testing.T) {
	own, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	bad := []string{
		"127.0.0.1", "127.8.8.8", "0.0.0.0", "0.1.2.3", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
		"100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.0.2.1", "198.18.0.1", "224.0.0.1", "255.255.255.255",
		"::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1",
		"64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2001::1", "2001:db8::1", "100::1", "4000::1", "8.8.4.4",
	}
	for _, a := range own {
		if n, ok := a.(*net.IPNet); ok {
			bad = append(bad, n.IP.String())
		}
	}
	cfg := egress.Config{Nodes: func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("8.8.4.4")} }}
	for _, addr := range bad {
		t.Run(addr, func(t *testing.T) {
			lookup := &names{answers: map[string][]string{"name.example": {addr}, "both.example": {"8.8.8.8 " + addr}}}
			cfg.Resolver = lookup
			literal := sandbox.Destination{Host: netip.MustParseAddr(addr).Unmap().String(), Port: 443}
			r := open(t, cfg, "allow=name.example:443,both.example:443,"+literal.String())
			for _, d := range []string{"name.example:443", "both.example:443", literal.String()} {
				if got := r.raw("CONNECT " + d + " HTTP/1.1\r\nHost: x\r\n\r\n"); !strings.Contains(got, "X-Agenticraft-Verdict: address_refused\r\n") {
					t.Errorf("CONNECT %s: %q", d, got)
				}
			}
		})
	}
}

// A name is looked up once in a run, however its answer changes.
func TestRebindingChangesNothing(t *testing.T) {
	s := hello(t, false)
	_, port, _ := net.SplitHostPort(hostPort(t, s))
	cfg := egress.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}
	first := &names{answers: map[string][]string{"name.example": {"127.0.0.1", "127.0.0.2"}}}
	cfg.Resolver = first
	r := open(t, cfg, "allow=name.example:"+port)
	for range 3 {
		resp, err := get(t, r.client(), "http://name.example:"+port)
		if got := body(t, resp, err); !strings.HasPrefix(got, "hello") {
			t.Errorf("answer is %q", got)
		}
	}
	if len(first.asked) != 1 || first.asked[0] != "name.example." {
		t.Errorf("looked up %q, want once and without search domains", first.asked)
	}
	// The other way round, the first answer stands as well.
	cfg.Resolver = &names{answers: map[string][]string{"name.example": {"10.0.0.1", "127.0.0.1"}}}
	r = open(t, cfg, "allow=name.example:"+port)
	for range 2 {
		resp, err := get(t, r.client(), "http://name.example:"+port)
		if got := body(t, resp, err); !strings.Contains(got, "address_refused") || strings.Contains(got, "10.0.0.1") {
			t.Errorf("answer is %q", got)
		}
	}
	if got := r.verdicts(); got != "address_refused address_refused" {
		t.Errorf("verdicts are %q", got)
	}
}

// A tunnel is for the host that it was asked for, not for what else its address
// serves.
func TestTLSForAnotherHostIsCut(t *testing.T) {
	s := hello(t, true)
	_, port, _ := net.SplitHostPort(hostPort(t, s))
	cfg := loopback()
	cfg.Resolver = &names{answers: map[string][]string{"allowed.example": {"127.0.0.1"}}}
	for _, name := range []string{"other.example", ""} {
		r := open(t, cfg, "allow=allowed.example:"+port)
		c := r.client()
		c.Transport.(*http.Transport).TLSClientConfig = &tls.Config{InsecureSkipVerify: true, ServerName: name} //nolint:gosec // the name is the test
		if name == "" {
			c.Transport.(*http.Transport).TLSClientConfig.ServerName = "127.0.0.1" // sends none
		}
		resp, err := get(t, c, "https://allowed.example:"+port)
		if err == nil {
			t.Errorf("TLS for %q gives %d", name, resp.StatusCode)
			_ = resp.Body.Close()
		}
		if got := r.verdicts(); got != "name_mismatch" {
			t.Errorf("verdicts for %q are %q", name, got)
		}
	}
}

func TestCapsOfARun(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for range 1 << 10 {
			if _, err := w.Write(make([]byte, 1<<10)); err != nil {
				return
			}
		}
	}))
	t.Cleanup(s.Close)
	at := hostPort(t, s)
	cfg := loopback()
	cfg.Bytes, cfg.Connections = 100<<10, 3
	r := open(t, cfg, "allow="+at)
	resp, err := get(t, r.client(), s.URL)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if err == nil || n > 200<<10 {
		t.Errorf("%d bytes came through, %v", n, err)
	}
	for range 3 {
		resp, err := get(t, r.client(), s.URL)
		if got := body(t, resp, err); resp.StatusCode/100 != 4 {
			t.Errorf("answer %d %q", resp.StatusCode, got)
		}
	}
	if got := r.verdicts(); got != "byte_limit byte_limit byte_limit too_many" {
		t.Errorf("verdicts are %q", got)
	}
}

// Those who say nothing, or say it slowly, hold up nobody, and Close ends them.
func TestSilentConnectionsEndWithTheRun(t *testing.T) {
	silent, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	r := open(t, loopback(), "allow="+silent.Addr().String())
	for range 5 {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", silent.Addr()); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, " 200 ") {
			t.Fatalf("answer %q, %v", line, err)
		}
		slow, err := new(net.Dialer).DialContext(t.Context(), "tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = slow.Close() })
		if _, err := io.WriteString(slow, "GET http://"); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.verdicts(); got != "ok ok ok ok ok" {
		t.Errorf("verdicts are %q", got)
	}
}

// More connections than may be open at once wait their turn.
func TestOpenConnectionsAreBounded(t *testing.T) {
	var now, most atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		_, _ = io.WriteString(w, "hello")
	}))
	t.Cleanup(s.Close)
	cfg := loopback()
	cfg.Open = 2
	r := open(t, cfg, "allow="+hostPort(t, s))
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, s.URL, nil)
			if err != nil {
				t.Error(err)
				return
			}
			resp, err := r.client().Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			_ = resp.Body.Close()
		})
	}
	wg.Wait()
	if most.Load() > 2 {
		t.Errorf("%d were open at once", most.Load())
	}
}

func TestBadConfigs(t *testing.T) {
	for _, cfg := range []egress.Config{{Open: -1}, {Allow: []netip.Prefix{{}}}, {Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}}} {
		if _, err := egress.New(cfg); err == nil {
			t.Errorf("New(%+v) takes it", cfg)
		}
	}
}
