package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/agent"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/mesh"
)

// Issue 5: a peer's card is verified before the peer is first used, and pinned to the
// peer's key: what another key signed, or is of another cluster, gets no work.
func TestPeersShowTheirCards(t *testing.T) {
	keys, nodes := [2]*identity.Key{}, [2]*mesh.Node{}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		running.Wait()
		for _, n := range nodes {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range nodes {
		var err error
		if keys[i], err = identity.Generate(); err != nil {
			t.Fatal(err)
		}
		nodes[i], err = mesh.New(mesh.Config{Key: keys[i], Cluster: "cards", Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Allow: func(identity.ID) bool { return true }})
		if err != nil {
			t.Fatal(err)
		}
	}
	stranger, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	card := func(key *identity.Key, cluster string, also ...*identity.Key) []byte {
		text, err := a2a.Card(a2a.CardConfig{
			Key: key, Also: also, Name: "n", Version: "1", Cluster: cluster, Interfaces: []a2a.CardInterface{{URL: "http://x/"}}, Languages: []string{"starlark"}, Sandboxes: []string{"restricted"},
		})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	own := card(keys[0], "cards")
	var shown atomic.Pointer[[]byte] // nil: none
	var asked atomic.Int64           // for work
	serves := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if text := shown.Load(); text != nil {
			_, _ = w.Write(*text)
			return
		}
		http.NotFound(w, r)
	})
	work := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		http.Error(w, "no", http.StatusServiceUnavailable)
	})
	log := slog.New(slog.DiscardHandler)
	nodes[1].SetPeers(map[identity.ID][]string{nodes[0].ID(): nodes[0].Addrs()})
	for _, run := range []func() error{
		func() error { return nodes[0].Run(ctx) }, func() error { return nodes[1].Run(ctx) },
		func() error { return serveMesh(ctx, nodes[0], work, serves, nil, nil, nil, log) },
	} {
		running.Go(func() {
			if err := run(); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		})
	}
	lines := newLinks()
	lines.node = nodes[1]
	peers := &meshPeers{node: nodes[1], links: lines, cards: &peerCards{links: lines, audience: a2a.Audience("cards"), log: log, proved: map[identity.ID]time.Time{}}}
	req, err := a2a.NewRequest(a2a.Execution{Language: "starlark", Code: "result = 1"})
	if err != nil {
		t.Fatal(err)
	}
	send := func() error {
		_, err := peers.Send(ctx, nodes[0].ID(), req, nil, nothingWritten{})
		return err
	}
	tampered := append([]byte(nil), own...)
	tampered[len(tampered)/2] ^= 1
	for name, text := range map[string][]byte{
		"none": nil, "another key's": card(stranger, "cards"), "another cluster's": card(keys[0], "other"), "changed on the way": tampered, "garbage": []byte("{}"),
	} {
		if shown.Store(nil); text != nil {
			shown.Store(&text)
		}
		if err := send(); !errors.Is(err, agent.ErrUnreachable) || asked.Load() != 0 {
			t.Errorf("%s: %v, asked %d times", name, err, asked.Load())
		}
	}
	shown.Store(&own)
	if err := send(); errors.Is(err, agent.ErrUnreachable) || asked.Load() != 1 {
		t.Errorf("its own: %v, asked %d times", err, asked.Load())
	}
	// From time to time it is read anew. The pin is the peer's own key, in whatever
	// place it signs; a peer whose card is another's by then gets no more.
	other := card(stranger, "cards", keys[0])
	shown.Store(&other)
	peers.cards.forget()
	if err := send(); errors.Is(err, agent.ErrUnreachable) {
		t.Errorf("one that its key signs, too: %v", err)
	}
	before := asked.Load()
	other = card(stranger, "cards")
	shown.Store(&other)
	peers.cards.forget()
	if err := send(); !errors.Is(err, agent.ErrUnreachable) || asked.Load() != before {
		t.Errorf("another key's, later: %v", err)
	}
}

// forget makes as if the cards had been read long ago.
func (c *peerCards) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.proved)
}

type nothingWritten struct{}

func (nothingWritten) Output(string, int64, []byte) {}
func (nothingWritten) Kept()                        {}
