package mesh_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/mesh"
)

// patience ends a test that hangs; nothing is measured by it.
const patience = time.Minute

// eventually waits for a condition that other goroutines bring about.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// members is an allow-list that tests change.
type members struct {
	mu  sync.Mutex
	ids map[identity.ID]bool
}

func allow(ids ...identity.ID) *members {
	m := &members{ids: map[identity.ID]bool{}}
	for _, id := range ids {
		m.ids[id] = true
	}
	return m
}

func (m *members) Allow(id identity.ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ids[id]
}

func (m *members) set(id identity.ID, in bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ids[id] = in
}

func newKey(t testing.TB) *identity.Key {
	t.Helper()
	key, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// start runs a node until the test ends or stop is called.
func start(t testing.TB, cfg mesh.Config) (n *mesh.Node, stop func()) {
	t.Helper()
	if cfg.Cluster == "" {
		cfg.Cluster = "test"
	}
	n, err := mesh.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- n.Run(t.Context()) }()
	stop = sync.OnceFunc(func() {
		if err := n.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return n, stop
}

// pair starts two nodes that know and stay connected with each other.
func pair(t testing.TB) (a, b *mesh.Node) {
	t.Helper()
	keyA, keyB := newKey(t), newKey(t)
	list := allow(keyA.ID(), keyB.ID())
	a, _ = start(t, mesh.Config{Key: keyA, Allow: list.Allow})
	b, _ = start(t, mesh.Config{Key: keyB, Allow: list.Allow})
	a.SetPeers(map[identity.ID][]string{b.ID(): b.Addrs()})
	b.SetPeers(map[identity.ID][]string{a.ID(): a.Addrs()})
	eventually(t, "connected", func() bool { return isConnected(a, b.ID()) && isConnected(b, a.ID()) })
	return a, b
}

func isConnected(n *mesh.Node, to identity.ID) bool {
	for _, p := range n.Peers() {
		if p.ID == to {
			return p.Connected
		}
	}
	return false
}

// echo serves one protocol by sending back what comes, with the peer's name.
func echo(t testing.TB, n *mesh.Node, protocol string) {
	t.Helper()
	l, err := n.Listen(protocol)
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				lines := bufio.NewScanner(c)
				for lines.Scan() {
					fmt.Fprintf(c, "%s %s\n", c.RemoteAddr(), lines.Text())
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); n.Close(); conns.Wait() })
}

func ask(t testing.TB, n *mesh.Node, to identity.ID, protocol, text string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := n.Dial(ctx, to, protocol)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintln(c, text); err != nil {
		return "", err
	}
	return bufio.NewReader(c).ReadString('\n')
}

func TestStreamsNameTheProvedPeerInBothDirections(t *testing.T) {
	keyA, keyB := newKey(t), newKey(t)
	list := allow(keyA.ID(), keyB.ID())
	a, _ := start(t, mesh.Config{Key: keyA, Allow: list.Allow})
	b, _ := start(t, mesh.Config{Key: keyB, Allow: list.Allow})
	// Only a dials, as a worker behind address translation would.
	a.SetPeers(map[identity.ID][]string{b.ID(): b.Addrs()})
	echo(t, a, "echo")
	echo(t, b, "echo")
	eventually(t, "connected", func() bool { return isConnected(a, b.ID()) && isConnected(b, a.ID()) })
	for _, c := range []struct{ from, to *mesh.Node }{{a, b}, {b, a}} {
		got, err := ask(t, c.from, c.to.ID(), "echo", "hello")
		if want := string(c.from.ID()) + " hello\n"; err != nil || got != want {
			t.Errorf("ask = %q, %v, want %q", got, err, want)
		}
	}
}

func TestTCPAndQUICShareAPort(t *testing.T) {
	key := newKey(t)
	n, _ := start(t, mesh.Config{Key: key, Allow: allow().Allow})
	ports := map[string]bool{}
	for _, a := range n.Addrs() {
		parts := strings.Split(a, "/")
		ports[parts[4]] = true
	}
	if len(n.Addrs()) != 2 || len(ports) != 1 || ports["0"] {
		t.Errorf("Addrs() = %q, want TCP and QUIC on one port", n.Addrs())
	}
}

func TestTCPIsDialedFirst(t *testing.T) {
	a, b := pair(t)
	for _, p := range append(a.Peers(), b.Peers()...) {
		if !strings.Contains(p.Addr, "/tcp/") {
			t.Errorf("connected by %s, want TCP", p.Addr)
		}
	}
	// QUIC serves where TCP does not.
	keyA, keyB := newKey(t), newKey(t)
	list := allow(keyA.ID(), keyB.ID())
	c, _ := start(t, mesh.Config{Key: keyA, Allow: list.Allow, Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1"}})
	d, _ := start(t, mesh.Config{Key: keyB, Allow: list.Allow})
	d.SetPeers(map[identity.ID][]string{c.ID(): append([]string{"/ip4/127.0.0.1/tcp/1"}, c.Addrs()...)})
	eventually(t, "connected by QUIC", func() bool { return isConnected(d, c.ID()) })
	echo(t, c, "echo")
	if _, err := ask(t, d, c.ID(), "echo", "hello"); err != nil {
		t.Errorf("ask over QUIC: %v", err)
	}
}

func TestDialSelfAndStrangersIsRefused(t *testing.T) {
	key := newKey(t)
	n, _ := start(t, mesh.Config{Key: key, Allow: allow(key.ID()).Allow})
	if _, err := n.Dial(t.Context(), key.ID(), "x"); !errors.Is(err, mesh.ErrSelf) {
		t.Errorf("Dial(self) = %v, want ErrSelf", err)
	}
	if _, err := n.Dial(t.Context(), newKey(t).ID(), "x"); !errors.Is(err, mesh.ErrRefused) {
		t.Errorf("Dial(stranger) = %v, want ErrRefused", err)
	}
	if _, err := n.Dial(t.Context(), "nonsense", "x"); err == nil {
		t.Error("Dial(nonsense) succeeded")
	}
}

func TestAStrangerIsRefused(t *testing.T) {
	keyA, keyB := newKey(t), newKey(t)
	for _, transport := range []string{"tcp", "quic"} {
		t.Run(transport, func(t *testing.T) {
			a, _ := start(t, mesh.Config{Key: keyA, Allow: allow(keyA.ID()).Allow})
			echo(t, a, "echo")
			// The stranger itself would talk to anyone.
			stranger, _ := start(t, mesh.Config{Key: keyB, Allow: func(identity.ID) bool { return true }})
			var at []string
			for _, addr := range a.Addrs() {
				if strings.Contains(addr, transport) {
					at = append(at, addr)
				}
			}
			stranger.SetPeers(map[identity.ID][]string{a.ID(): at})
			if got, err := ask(t, stranger, a.ID(), "echo", "let me in"); err == nil {
				t.Errorf("stranger got an answer: %q", got)
			}
			if isConnected(a, stranger.ID()) {
				t.Error("stranger is connected")
			}
		})
	}
}

func TestARevokedPeerIsCutOff(t *testing.T) {
	keyA, keyB := newKey(t), newKey(t)
	list := allow(keyA.ID(), keyB.ID())
	a, _ := start(t, mesh.Config{Key: keyA, Allow: list.Allow})
	b, _ := start(t, mesh.Config{Key: keyB, Allow: func(identity.ID) bool { return true }})
	echo(t, a, "echo")
	b.SetPeers(map[identity.ID][]string{a.ID(): a.Addrs()})
	eventually(t, "connected", func() bool { return isConnected(a, b.ID()) && isConnected(b, a.ID()) })
	c, err := b.Dial(t.Context(), a.ID(), "echo")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := bufio.NewReader(c)
	fmt.Fprintln(c, "one")
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	list.set(b.ID(), false)
	a.Recheck()
	c.SetReadDeadline(time.Now().Add(patience))
	if _, err := r.ReadString('\n'); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("open stream of a revoked peer: %v", err)
	}
	eventually(t, "cut off", func() bool { return !isConnected(a, b.ID()) })
	if _, err := ask(t, b, a.ID(), "echo", "two"); err == nil {
		t.Error("a revoked peer was answered")
	}
	list.set(b.ID(), true)
	eventually(t, "let in again", func() bool { return isConnected(a, b.ID()) })
}

func TestReconnectAfterRestart(t *testing.T) {
	keyA, keyB := newKey(t), newKey(t)
	list := allow(keyA.ID(), keyB.ID())
	a, _ := start(t, mesh.Config{Key: keyA, Allow: list.Allow})
	b, stop := start(t, mesh.Config{Key: keyB, Allow: list.Allow})
	a.SetPeers(map[identity.ID][]string{b.ID(): b.Addrs()})
	eventually(t, "connected", func() bool { return isConnected(a, b.ID()) })
	at := b.Addrs()
	stop()
	eventually(t, "noticed", func() bool { return !isConnected(a, b.ID()) })

	// On the same port.
	b, stop = start(t, mesh.Config{Key: keyB, Allow: list.Allow, Listen: at})
	begin := time.Now()
	eventually(t, "connected again", func() bool { return isConnected(a, b.ID()) })
	t.Logf("reconnected after %v", time.Since(begin))
	stop()
	eventually(t, "noticed", func() bool { return !isConnected(a, b.ID()) })

	// On another, which SetPeers tells.
	b, _ = start(t, mesh.Config{Key: keyB, Allow: list.Allow})
	a.SetPeers(map[identity.ID][]string{b.ID(): b.Addrs()})
	eventually(t, "connected on another port", func() bool { return isConnected(a, b.ID()) })
	echo(t, b, "echo")
	if _, err := ask(t, a, b.ID(), "echo", "hello"); err != nil {
		t.Errorf("ask after restart: %v", err)
	}
}

func TestTwentyPeersFromOneAddress(t *testing.T) {
	hub := newKey(t)
	everyone := func(identity.ID) bool { return true }
	n, _ := start(t, mesh.Config{Key: hub, Allow: everyone})
	const peers = 20
	for range peers {
		p, _ := start(t, mesh.Config{Key: newKey(t), Allow: everyone})
		p.SetPeers(map[identity.ID][]string{n.ID(): n.Addrs()})
	}
	eventually(t, "all connected", func() bool {
		count := 0
		for _, p := range n.Peers() {
			if p.Connected {
				count++
			}
		}
		return count == peers
	})
}

func TestClustersDoNotSpeak(t *testing.T) {
	everyone := func(identity.ID) bool { return true }
	a, _ := start(t, mesh.Config{Key: newKey(t), Allow: everyone, Cluster: "one"})
	b, _ := start(t, mesh.Config{Key: newKey(t), Allow: everyone, Cluster: "two"})
	echo(t, a, "echo")
	b.SetPeers(map[identity.ID][]string{a.ID(): a.Addrs()})
	if got, err := ask(t, b, a.ID(), "echo", "hello"); err == nil {
		t.Errorf("ask across clusters = %q", got)
	}
}

func TestHTTPOverStreams(t *testing.T) {
	a, b := pair(t)
	l, err := b.Listen("http")
	if err != nil {
		t.Fatal(err)
	}
	step := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/who", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RemoteAddr) })
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		for i := range 3 {
			fmt.Fprintf(w, "event %d\n", i)
			w.(http.Flusher).Flush()
			<-step
		}
	})
	var accepted atomic.Int32
	server := &http.Server{Handler: mux, ReadHeaderTimeout: patience, ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			accepted.Add(1)
		}
	}}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() { server.Close(); serving.Wait() })
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return a.Dial(ctx, b.ID(), "http") },
	}}
	t.Cleanup(client.CloseIdleConnections)
	for range 5 {
		resp, err := client.Get("http://mesh/who")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(body) != string(a.ID()) {
			t.Fatalf("GET /who = %q, %v, want %s", body, err, a.ID())
		}
	}
	if got := accepted.Load(); got != 1 {
		t.Errorf("5 requests took %d streams, want 1 kept alive", got)
	}
	resp, err := client.Get("http://mesh/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for i := range 3 {
		// Each line must come before the next one is allowed.
		if !lines.Scan() || lines.Text() != fmt.Sprintf("event %d", i) {
			t.Fatalf("line %d = %q, %v", i, lines.Text(), lines.Err())
		}
		step <- struct{}{}
	}
}

func TestDeadlinesWork(t *testing.T) {
	a, b := pair(t)
	echo(t, b, "echo")
	c, err := a.Dial(t.Context(), b.ID(), "echo")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	_, err = c.Read(make([]byte, 1))
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("Read past the deadline = %v, want a time-out", err)
	}
}

func TestAdverts(t *testing.T) {
	a, b := pair(t)
	var said atomic.Pointer[string]
	say := func(s string) { said.Store(&s) }
	say("one")
	a.SetAdvert(func() []byte { return []byte(*said.Load()) })
	hears := func(want string) func() bool {
		return func() bool { return string(b.Adverts()[a.ID()].Data) == want }
	}
	eventually(t, "first advert", hears("one"))
	// What is announced does not wait for its turn, which comes every two seconds: if
	// it did, each but the first, which begins anywhere, would take as long.
	const announced = 10
	soonest := patience
	for i := range announced {
		begin := time.Now()
		say(fmt.Sprint("announced ", i))
		a.Announce()
		eventually(t, "announced advert", hears(*said.Load()))
		if i > 0 {
			soonest = min(soonest, time.Since(begin))
		}
	}
	if soonest > time.Second {
		t.Errorf("the soonest of %d announced adverts took %v", announced, soonest)
	}
	say("three")
	eventually(t, "advert that nobody announced", hears("three"))
	say(strings.Repeat("x", 8<<10))
	a.Announce()
	eventually(t, "largest advert", hears(*said.Load()))
	say(strings.Repeat("x", 8<<10+1))
	a.Announce()
	say("small again")
	a.Announce()
	eventually(t, "advert after one that was too large", hears("small again"))
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "advert of a peer that left", func() bool { return len(b.Adverts()) == 0 })
}

func TestPingsAreMeasured(t *testing.T) {
	a, b := pair(t)
	eventually(t, "round trip", func() bool { return a.Peers()[0].RTT > 0 && b.Peers()[0].RTT > 0 })
}

func TestCloseIsFinal(t *testing.T) {
	a, b := pair(t)
	l, err := a.Listen("x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Listen("x"); err == nil {
		t.Error("a protocol was listened for twice")
	}
	for range 2 {
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close = %v, want net.ErrClosed", err)
	}
	if _, err := a.Listen("y"); !errors.Is(err, mesh.ErrClosed) {
		t.Errorf("Listen after Close = %v, want ErrClosed", err)
	}
	if _, err := a.Dial(t.Context(), b.ID(), "x"); !errors.Is(err, mesh.ErrClosed) {
		t.Errorf("Dial after Close = %v, want ErrClosed", err)
	}
}

func TestConfigFaultsAreToldTogether(t *testing.T) {
	_, err := mesh.New(mesh.Config{Cluster: "Not A Name", Listen: []string{"/ip4/127.0.0.1/tcp/0/ws"}})
	for _, want := range []string{"no key", "cluster", "no allow", "/ws"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New = %v, want it to name %q", err, want)
		}
	}
}
