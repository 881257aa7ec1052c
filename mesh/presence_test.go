package mesh

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/agenticraft/node/identity"
)

func generate(t testing.TB) *identity.Key {
	t.Helper()
	key, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func count(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

// patience ends a test that hangs; nothing is measured by it.
const patience = time.Minute

// eventually waits for a condition that other goroutines bring about.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

func TestAdvertsAreBoundToAuthorClusterAndSequence(t *testing.T) {
	key, other := generate(t), generate(t)
	wire := sealAdvert(key, "c", 7, []byte("data"))
	sequence, data, err := openAdvert(key.ID(), "c", wire)
	if err != nil || sequence != 7 || string(data) != "data" {
		t.Fatalf("openAdvert = %d, %q, %v", sequence, data, err)
	}
	changed := func(at int) []byte {
		out := bytes.Clone(wire)
		out[at] ^= 1
		return out
	}
	for name, c := range map[string]struct {
		author  identity.ID
		cluster string
		wire    []byte
	}{
		"other author":   {other.ID(), "c", wire},
		"nobody":         {"", "c", wire},
		"other cluster":  {key.ID(), "d", wire},
		"other version":  {key.ID(), "c", changed(0)},
		"other sequence": {key.ID(), "c", changed(8)},
		"bad signature":  {key.ID(), "c", changed(20)},
		"other data":     {key.ID(), "c", changed(len(wire) - 1)},
		"cut":            {key.ID(), "c", wire[:len(wire)-1]},
		"empty":          {key.ID(), "c", nil},
		"too large":      {key.ID(), "c", sealAdvert(key, "c", 7, make([]byte, maxAdvertBytes+1))},
	} {
		if _, data, err := openAdvert(c.author, c.cluster, c.wire); !errors.Is(err, errAdvert) || data != nil {
			t.Errorf("%s: openAdvert = %q, %v, want it refused", name, data, err)
		}
	}
}

func FuzzOpenAdvert(f *testing.F) {
	key, err := identity.FromSeed(make([]byte, 32))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealAdvert(key, "c", 7, []byte("data")))
	f.Fuzz(func(t *testing.T, wire []byte) {
		sequence, data, err := openAdvert(key.ID(), "c", wire)
		if err != nil {
			if data != nil || sequence != 0 {
				t.Error("an error and an advert")
			}
			return
		}
		if again := sealAdvert(key, "c", sequence, data); !bytes.Equal(again, wire) {
			t.Errorf("%x was read and written as %x", wire, again)
		}
	})
}

func FuzzReadFrame(f *testing.F) {
	var buf bytes.Buffer
	if err := writeFrame(&buf, framePing, make([]byte, 8)); err != nil {
		f.Fatal(err)
	}
	f.Add(buf.Bytes())
	f.Add([]byte{frameAdvert, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, text []byte) {
		kind, body, err := readFrame(bytes.NewReader(text))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := writeFrame(&again, kind, body); err != nil || !bytes.HasPrefix(text, again.Bytes()) || len(body) > maxFrameBytes {
			t.Errorf("%x was read as %d %x", text, kind, body)
		}
	})
}

// rawPeer is an allowed peer that need not keep to our protocols.
func rawPeer(t *testing.T) (*Node, host.Host, *identity.Key) {
	t.Helper()
	key := generate(t)
	private, err := crypto.UnmarshalEd25519PrivateKey(key.Private())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := libp2p.New(libp2p.Identity(private), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	n, err := New(Config{Key: generate(t), Cluster: "test", Allow: func(identity.ID) bool { return true }})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = n.Run(t.Context())
	}()
	t.Cleanup(func() { n.Close(); <-done })
	return n, raw, key
}

func connectRaw(t *testing.T, n *Node, raw host.Host) {
	t.Helper()
	to, err := peer.Decode(string(n.ID()))
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Connect(t.Context(), peer.AddrInfo{ID: to, Addrs: n.host.Addrs()}); err != nil {
		t.Fatal(err)
	}
}

func presenceStream(t *testing.T, n *Node, raw host.Host) network.Stream {
	t.Helper()
	to, err := peer.Decode(string(n.ID()))
	if err != nil {
		t.Fatal(err)
	}
	s, err := raw.NewStream(t.Context(), to, n.protocol(presenceName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Reset() })
	if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestHostilePresenceIsRefused(t *testing.T) {
	n, raw, key := rawPeer(t)
	connectRaw(t, n, raw)
	other := generate(t)
	oversized := sealAdvert(key, "test", 1, make([]byte, maxAdvertBytes+1))
	for name, frames := range map[string][]byte{
		"oversized advert": append(binary.BigEndian.AppendUint16([]byte{frameAdvert}, uint16(len(oversized))), oversized...),
		"huge frame":       append([]byte{frameAdvert, 0xff, 0xff}, make([]byte, math.MaxUint16)...),
		"forged advert":    frame(t, frameAdvert, sealAdvert(other, "test", 1, []byte("forged"))),
		"other cluster":    frame(t, frameAdvert, sealAdvert(key, "else", 1, []byte("forged"))),
		"unknown kind":     {9, 0, 0},
		"unasked pong":     frame(t, framePong, make([]byte, 8)),
		"long ping":        append([]byte{framePing, 0, 9}, make([]byte, 9)...),
		"flood":            bytes.Repeat(frame(t, framePing, make([]byte, 8)), 10*maxPresencePerSecond), // also on a slow machine
	} {
		t.Run(name, func(t *testing.T) {
			before := count(t, n.met.adverts.WithLabelValues("refused"))
			s := presenceStream(t, n, raw)
			_, _ = s.Write(frames) // it may be reset while we write
			if _, err := io.Copy(io.Discard, s); err == nil {
				t.Error("the stream ended as if all was well")
			}
			eventually(t, "refusal counted", func() bool {
				return count(t, n.met.adverts.WithLabelValues("refused")) == before+1
			})
			if got := n.Adverts(); len(got) != 0 {
				t.Errorf("Adverts() = %v", got)
			}
		})
	}
}

func frame(t *testing.T, kind byte, body []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := writeFrame(&buf, kind, body); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestAnOldAdvertDoesNotReplaceANewOne(t *testing.T) {
	n, raw, key := rawPeer(t)
	connectRaw(t, n, raw)
	eventually(t, "connected", func() bool { return len(n.Peers()) == 1 && n.Peers()[0].Connected })
	s := presenceStream(t, n, raw)
	for _, a := range []struct {
		sequence uint64
		data     string
	}{{5, "newer"}, {4, "older"}, {5, "same number"}} {
		if _, err := s.Write(frame(t, frameAdvert, sealAdvert(key, "test", a.sequence, []byte(a.data)))); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all adverts read", func() bool {
		return count(t, n.met.adverts.WithLabelValues("ignored")) == 2
	})
	if got := string(n.Adverts()[key.ID()].Data); got != "newer" {
		t.Errorf("advert = %q, want the newer one", got)
	}
}

func TestAdvertsExpire(t *testing.T) {
	n, raw, key := rawPeer(t)
	connectRaw(t, n, raw)
	eventually(t, "connected", func() bool { return len(n.Peers()) == 1 && n.Peers()[0].Connected })
	past := time.Now().Add(-advertTTL)
	if err := n.receive(key.ID(), sealAdvert(key, "test", 1, []byte("x")), past); err != nil {
		t.Fatal(err)
	}
	if got := n.Adverts(); len(got) != 0 {
		t.Errorf("an advert of %v ago is still given out: %v", advertTTL, got)
	}
}

// A process that is stopped keeps its connections and answers nothing.
func TestAHungPeerIsCutOff(t *testing.T) {
	n, raw, key := rawPeer(t)
	raw.SetStreamHandler(n.protocol(presenceName), func(network.Stream) {})
	connectRaw(t, n, raw)
	eventually(t, "connected", func() bool { return len(n.Peers()) == 1 && n.Peers()[0].Connected })
	begin := time.Now()
	eventually(t, "cut off", func() bool {
		peers := n.Peers()
		return len(peers) == 0 || !peers[0].Connected
	})
	t.Logf("%s cut off after %v", key.ID(), time.Since(begin))
	if got := count(t, n.met.silent); got != 1 {
		t.Errorf("%v connections closed for silence, want 1", got)
	}
}

func TestManyConnectionsFromOneAddress(t *testing.T) {
	m, err := newResourceManager()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	// 192.0.2.0/24 is for documentation; loopback is exempt from the limit and
	// would prove nothing.
	from, err := ma.NewMultiaddr("/ip4/192.0.2.7/tcp/4001")
	if err != nil {
		t.Fatal(err)
	}
	open := 0
	for range maxConnsPerAddress + 1 {
		scope, err := m.OpenConnection(network.DirInbound, true, from)
		if err != nil {
			break
		}
		defer scope.Done()
		open++
	}
	if open < 20 || open > maxConnsPerAddress {
		t.Errorf("%d connections from one address, want at least 20 and at most %d", open, maxConnsPerAddress)
	}
}

func TestBindFallsBackWhereNoPortIsFreeForBoth(t *testing.T) {
	for _, strict := range []bool{true, false} {
		h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableMetrics())
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		addrs, err := parseListen([]string{"/ip4/127.0.0.1/tcp/0"})
		if err != nil {
			t.Fatal(err)
		}
		if err := bind(h.Network(), addrs, strict); err != nil {
			t.Fatal(err)
		}
		// Somebody else has the port for UDP.
		port := portOn(h.Network(), addrs[0][:1])
		taken, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/udp/"+port+"/quic-v1"), libp2p.DisableMetrics())
		if err != nil {
			t.Skipf("the port is taken already: %v", err)
		}
		defer taken.Close()
		quicOnly, err := parseListen([]string{"/ip4/127.0.0.1/udp/0/quic-v1"})
		if err != nil {
			t.Fatal(err)
		}
		err = bind(h.Network(), quicOnly, strict)
		if strict && !errors.Is(err, errPortTaken) || !strict && err != nil {
			t.Errorf("bind(strict=%t) = %v", strict, err)
		}
	}
}

func TestDialGivesUpInTime(t *testing.T) {
	n, _, _ := rawPeer(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := n.Dial(ctx, generate(t).ID(), "x"); err == nil {
		t.Error("Dial of a peer without addresses succeeded")
	}
}
