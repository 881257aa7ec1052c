package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/agenticraft/node/sandbox"
)

// Proxy serves one run.
type Proxy struct {
	gateway *Gateway
	run     string
	allowed []sandbox.Destination
	tell    func(sandbox.Connection)

	ctx    context.Context // done when closed
	stop   context.CancelFunc
	server *http.Server
	wg     sync.WaitGroup // the server, and each connection that left it

	asked atomic.Int64 // connections
	left  atomic.Int64 // bytes

	mu     sync.Mutex // guards the rest
	closed bool
	names  map[string]*resolved
}

// Open serves a run through l, which the proxy owns from then on, until
// [Proxy.Close]. tell, which may be nil, is called once for each connection that
// the program asked for, when it is over, from several goroutines.
func (g *Gateway) Open(l net.Listener, run string, allowed []sandbox.Destination, tell func(sandbox.Connection)) *Proxy {
	p := &Proxy{gateway: g, run: run, allowed: slices.Clone(allowed), tell: tell, names: map[string]*resolved{}}
	p.left.Store(g.cfg.Bytes)
	p.ctx, p.stop = context.WithCancel(context.Background())
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	p.server = &http.Server{
		Handler: p, Protocols: &protocols, DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout: headTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHead,
		BaseContext: func(net.Listener) context.Context { return p.ctx },
		ErrorLog:    slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	p.wg.Go(func() {
		_ = p.server.Serve(&few{Listener: l, free: make(chan struct{}, g.cfg.Open), done: p.ctx.Done()}) // ends with Close
	})
	return p
}

// Close ends every connection and waits until all are told of. It may be
// called twice.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.stop()
	_ = p.server.Close() // the listener and what it accepted; nothing is lost
	p.wg.Wait()
}

// OpenFile is [Gateway.Open] on a listening socket that was made elsewhere. The
// file is closed.
func (g *Gateway) OpenFile(f *os.File, run string, allowed []sandbox.Destination, tell func(sandbox.Connection)) (*Proxy, error) {
	if f == nil {
		return nil, errors.New("open proxy: no listener")
	}
	l, err := net.FileListener(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("open proxy: %w", err)
	}
	return g.Open(l, run, allowed, tell), nil
}

// Environment is what tells common programs and libraries to use the proxy at
// an address, and where certificates are ("" for nowhere).
func Environment(proxy, certificates string) []string {
	at := "http://" + proxy
	env := []string{
		"HTTP_PROXY=" + at, "HTTPS_PROXY=" + at, "http_proxy=" + at, "https_proxy=" + at, "ALL_PROXY=" + at, "all_proxy=" + at,
		"NO_PROXY=", "no_proxy=", "NODE_USE_ENV_PROXY=1",
	}
	if certificates != "" {
		for _, name := range []string{"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"} {
			env = append(env, name+"="+certificates)
		}
	}
	return env
}

func (p *Proxy) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.wg.Add(1)
	}
	return !p.closed
}

// ServeHTTP handles one request of the program.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !p.enter() {
		panic(http.ErrAbortHandler)
	}
	defer p.wg.Done()
	began := time.Now()
	d, err := target(r)
	c := &sandbox.Connection{Destination: d}
	defer func() {
		c.Duration = time.Since(began)
		p.over(*c)
	}()
	if err == nil {
		err = p.admit(c)
	} else {
		c.Verdict, c.Destination = sandbox.MalformedTarget, sandbox.Destination{}
	}
	if err != nil {
		p.refuse(w, c, err)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	conn, err := p.dial(ctx, d)
	if err != nil {
		c.Verdict = verdictOf(err)
		p.refuse(w, c, err)
		return
	}
	c.Verdict = sandbox.Connected
	out := &counted{Conn: conn, proxy: p}
	defer func() {
		c.Sent, c.Received = out.finish()
		if out.cut.Load() {
			c.Verdict = sandbox.ConnectionCut
		}
	}()
	defer context.AfterFunc(p.ctx, func() { _ = out.Close() })() // wakes whoever reads or writes it
	if r.Method == http.MethodConnect {
		if p.tunnel(w, out, d) != nil {
			c.Verdict = sandbox.NameMismatch
		}
		return
	}
	p.forward(ctx, w, r, out, d)
}

// target is what a request asks for: the authority of CONNECT, or the host of
// an absolute http URL.
func target(r *http.Request) (sandbox.Destination, error) {
	if r.Method == http.MethodConnect {
		return sandbox.ParseDestination(r.RequestURI)
	}
	u := r.URL
	switch {
	case u.Scheme != "http":
		return sandbox.Destination{}, errors.New("this is a proxy: it takes CONNECT host:port, or a whole http:// URL")
	case u.User != nil:
		return sandbox.Destination{}, errors.New("a URL with a user name in it is refused")
	}
	host := u.Host
	if strings.LastIndexByte(host, ':') <= strings.LastIndexByte(host, ']') {
		host += ":80"
	}
	return sandbox.ParseDestination(host)
}

// admit holds a connection to the run's list and number.
func (p *Proxy) admit(c *sandbox.Connection) error {
	if n := p.gateway.cfg.Connections; p.asked.Add(1) > int64(n) {
		c.Verdict, c.Destination = sandbox.TooMany, sandbox.Destination{}
		return fmt.Errorf("a run may open %d connections", n)
	}
	if !slices.Contains(p.allowed, c.Destination) {
		asked := c.Destination
		c.Verdict, c.Destination = sandbox.NotAllowed, sandbox.Destination{}
		return fmt.Errorf("%s is not among the destinations of this run: %s", asked, sandbox.FormatNetwork(p.allowed))
	}
	if p.left.Load() <= 0 {
		c.Verdict = sandbox.ConnectionCut
		return fmt.Errorf("the run used up its %d bytes", p.gateway.cfg.Bytes)
	}
	return nil
}

func verdictOf(err error) sandbox.Verdict {
	if errors.Is(err, errAddress) {
		return sandbox.AddressRefused
	}
	if _, ok := errors.AsType[*unreachableError](err); ok {
		return sandbox.Unreachable
	}
	return sandbox.Unresolved
}

// statuses are the answers to what is refused; the rest is 403.
var statuses = map[sandbox.Verdict]int{
	sandbox.MalformedTarget: http.StatusBadRequest, sandbox.TooMany: http.StatusTooManyRequests,
	sandbox.Unresolved: http.StatusBadGateway, sandbox.Unreachable: http.StatusBadGateway,
}

// said is what the program is told of a failure on the node's side, whose own
// text names the node's resolver and addresses.
var said = map[sandbox.Verdict]string{
	sandbox.Unresolved: "the name has no address", sandbox.Unreachable: "nobody answers there",
}

// refuse tells the program why it has no connection, in words that may be shown.
func (p *Proxy) refuse(w http.ResponseWriter, c *sandbox.Connection, err error) {
	status := statuses[c.Verdict]
	if status == 0 {
		status = http.StatusForbidden
	}
	text := said[c.Verdict]
	if text == "" {
		text = err.Error()
	}
	p.gateway.cfg.Log.Debug("connection of a program refused", "run", p.run, "verdict", c.Verdict, "err", err)
	h := w.Header()
	h.Set("Connection", "close")
	h.Set("X-Agenticraft-Verdict", string(c.Verdict))
	h.Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, "agenticraft: "+string(c.Verdict)+": "+text+"\n") // it may have hung up
}

// over records a connection that has ended.
func (p *Proxy) over(c sandbox.Connection) {
	g := p.gateway
	g.connections.WithLabelValues(string(c.Verdict)).Inc()
	g.bytes.WithLabelValues("sent").Add(float64(c.Sent))
	g.bytes.WithLabelValues("received").Add(float64(c.Received))
	g.cfg.Log.Info("connection of a program", "run", p.run, "host", c.Destination.Host, "port", c.Destination.Port,
		"verdict", c.Verdict, "sent", c.Sent, "received", c.Received, "elapsed", c.Duration)
	if p.tell != nil {
		p.tell(c)
	}
}

// forward sends one plain HTTP request on, and its answer back. The request is
// written anew: what a program hides in its form does not reach the other side.
func (p *Proxy) forward(ctx context.Context, w http.ResponseWriter, r *http.Request, conn net.Conn, d sandbox.Destination) {
	used := false
	via := &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			if used {
				return nil, errors.New("one connection, one request")
			}
			used = true
			return conn, nil
		},
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: maxHead,
	}
	defer via.CloseIdleConnections()
	out := r.Clone(ctx)
	out.RequestURI, out.Close = "", true
	out.URL = &url.URL{Scheme: "http", Host: d.String(), Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
	out.Host = d.String()
	if d.Port == 80 {
		out.Host = strings.TrimSuffix(out.Host, ":80")
	}
	dropHops(out.Header)
	if r.ContentLength == 0 {
		out.Body = nil
	}
	resp, err := via.RoundTrip(out)
	if err != nil {
		http.Error(w, "agenticraft: the other side broke off", http.StatusBadGateway)
		return
	}
	dropHops(resp.Header)
	maps.Copy(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	flusher := http.NewResponseController(w)
	buf := make([]byte, 32<<10)
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				break
			}
			_ = flusher.Flush() // it may have hung up, which the next write tells
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, io.EOF) {
			_ = resp.Body.Close()       // broken already
			panic(http.ErrAbortHandler) // cut short: the program must not take it for whole
		}
		break
	}
	_ = resp.Body.Close() // read to its end, or of no more use
}

// dropHops removes the headers that are meant for the next hop only (RFC 9110,
// section 7.6.1).
func dropHops(h http.Header) {
	for _, list := range h.Values("Connection") {
		for name := range strings.SplitSeq(list, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range []string{
		"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	} {
		h.Del(name)
	}
}

// control is asked of each socket just before it connects, whoever chose the
// address.
//
// INVARIANT: no connection leaves to an address that the guard refuses.
func (p *Proxy) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %w", errAddress, err)
	}
	if why := p.gateway.guard.refuse(at.Addr()); why != "" {
		return fmt.Errorf("%w: it is %s", errAddress, why)
	}
	return nil
}
