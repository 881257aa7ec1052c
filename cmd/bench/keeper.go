package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/consensus"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/internal/collector"
	"github.com/agenticraft/node/mesh"
	"github.com/agenticraft/node/registry"
)

// keeperArgument makes this program a keeper: the log of a node, assembled as
// `agenticraft serve` does, without what a node has beside it. No command of
// the node writes bare entries, and none should.
const keeperArgument = "keeper"

// keeperConfig is the first line that a keeper reads.
type keeperConfig struct {
	Dir     string `json:"dir"` // with the key
	Genesis []byte `json:"genesis"`
}

// ask is each further line; one field is set.
type ask struct {
	Peers map[identity.ID][]string `json:"peers,omitempty"` // whom to connect with
	Write *load                    `json:"write,omitempty"`
	// Neither asks for the state.
}

// load is entries to record.
type load struct {
	Writers int           `json:"writers"` // at the same time
	For     time.Duration `json:"for"`
	// Checkpoint has each wait for a checkpoint of a quorum that covers its entry,
	// and then for a random while of at most Pause before the next one.
	Checkpoint bool          `json:"checkpoint,omitempty"`
	Pause      time.Duration `json:"pause,omitempty"`
}

// answer is each line that a keeper writes.
type answer struct {
	Addrs   []string `json:"addrs,omitempty"`
	Leads   bool     `json:"leads"`
	Healthy bool     `json:"healthy"`
	Size    uint64   `json:"size"`
	Wrote   slice    `json:"wrote"`
	Leaf    int      `json:"leaf,omitempty"` // bytes of an entry
	Error   string   `json:"error,omitempty"`
}

// logKeeper is a running keeper.
type logKeeper struct {
	key      *identity.Key
	store    *audit.Store
	node     *mesh.Node
	group    *consensus.Group
	recorder *audit.Recorder
}

// keep runs a keeper until its input ends, which it does when whoever asks
// dies, or ctx does.
func keep(ctx context.Context, in io.Reader, out io.Writer) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	asked, answers := json.NewDecoder(in), json.NewEncoder(out)
	var cfg keeperConfig
	if err := asked.Decode(&cfg); err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	closing := func(what string, do func() error) {
		if e := do(); e != nil {
			err = errors.Join(err, fmt.Errorf("close %s: %w", what, e))
		}
	}
	k := &logKeeper{}
	if k.key, err = identity.Load(filepath.Join(cfg.Dir, "node.key")); err != nil {
		return err
	}
	begin, err := registry.ReadGenesis(cfg.Genesis)
	if err != nil {
		return err
	}
	var keepers, others []identity.ID
	for _, m := range begin.Members {
		keepers = append(keepers, m.ID)
		if m.ID != k.key.ID() {
			others = append(others, m.ID)
		}
	}
	peers := &logClients{clients: map[identity.ID]*http.Client{}}
	fetch := audit.NewFetcher(peers.to, func() []identity.ID { return others })
	k.store, err = audit.OpenStore(audit.StoreConfig{Dir: cfg.Dir, Genesis: cfg.Genesis, Admit: registry.Admission{}, Fetch: fetch})
	if err != nil {
		return err
	}
	defer closing("audit log", k.store.Close)
	k.node, err = mesh.New(mesh.Config{Key: k.key, Cluster: begin.Cluster, Allow: registry.New(k.store).Member})
	if err != nil {
		return err
	}
	defer closing("mesh", k.node.Close)
	peers.node = k.node
	k.group, err = consensus.Open(consensus.Config{Self: k.key.ID(), Keepers: keepers, Dir: cfg.Dir}, k.node, k.store)
	if err != nil {
		return err
	}
	defer closing("consensus", k.group.Close)
	k.recorder = audit.NewRecorder(audit.RecorderConfig{
		Key: k.key, Proposer: k.group, Origin: k.store.Origin(),
		Ambiguous: func(err error) bool {
			return !errors.Is(err, consensus.ErrNoLeader) && !errors.Is(err, consensus.ErrRefused)
		},
	})
	defer closing("recorder", k.recorder.Close)
	trust, err := audit.NewTrust(k.store.Origin(), 1, keepers)
	if err != nil {
		return err
	}
	checkpoints, err := audit.NewCheckpointer(audit.CheckpointerConfig{
		Store: k.store, Key: k.key, Trust: func() audit.Trust { return trust }, Client: peers.to, Lead: k.group.Lead,
		Spacing: checkpointSpacing,
	})
	if err != nil {
		return err
	}
	streams, err := k.node.Listen(logProtocol)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: audit.LogHandler(k.store, checkpoints), ReadHeaderTimeout: 10 * time.Second}

	var work sync.WaitGroup
	defer func() {
		cancel()
		err = errors.Join(err, server.Close())
		work.Wait()
	}()
	work.Go(func() { _ = collector.Run(ctx) })    // ends with ctx
	work.Go(func() { _ = k.node.Run(ctx) })       // ends with ctx
	work.Go(func() { _ = checkpoints.Run(ctx) })  // ends with ctx
	work.Go(func() { _ = server.Serve(streams) }) // ends with Close
	if err := answers.Encode(answer{Addrs: k.node.Addrs()}); err != nil {
		return err
	}
	for ctx.Err() == nil {
		var a ask
		if err := asked.Decode(&a); err != nil {
			return nil // the end, however it came
		}
		if err := answers.Encode(k.answer(ctx, a)); err != nil {
			return err
		}
	}
	return nil
}

func (k *logKeeper) answer(ctx context.Context, a ask) answer {
	var out answer
	switch {
	case a.Peers != nil:
		k.node.SetPeers(a.Peers)
	case a.Write != nil:
		var err error
		if out.Wrote, out.Leaf, err = k.write(ctx, *a.Write); err != nil {
			out.Error = err.Error()
		}
	}
	status := k.group.Status()
	out.Leads, out.Healthy, out.Size = status.Role == "leader", status.Healthy, k.store.Size()
	return out
}

// write records entries with so many writers, each waiting for its own.
func (k *logKeeper) write(ctx context.Context, l load) (slice, int, error) {
	entry, size, err := denial(k.key.ID())
	if err != nil {
		return slice{}, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, l.For+startWait)
	defer cancel()
	each := make([][]time.Duration, l.Writers)
	faults := make([]error, l.Writers)
	var work sync.WaitGroup
	begun := time.Now()
	for w := range l.Writers {
		work.Go(func() {
			for faults[w] == nil {
				entry := entry
				entry.Task = a2a.NewJTI()
				before := time.Now()
				var ack audit.Ack
				ack, faults[w] = k.recorder.Record(ctx, entry)
				if l.Checkpoint && faults[w] == nil {
					_, _, faults[w] = k.store.WaitCheckpoint(ctx, ack.Index)
				}
				each[w] = append(each[w], time.Since(before))
				if time.Since(begun) >= l.For {
					return
				}
				if l.Pause > 0 && faults[w] == nil {
					faults[w] = pause(ctx, rand.N(l.Pause))
				}
			}
		})
	}
	work.Wait()
	s := slice{Elapsed: time.Since(begun)}
	for _, e := range each {
		s.Each = append(s.Each, e...)
	}
	return s, size, errors.Join(faults...)
}

// denial is an entry as the path writes it when policy says no, and its size
// as a leaf.
func denial(author identity.ID) (audit.Entry, int, error) {
	const digest = "3b6c9f1d2e8a4b7c5d0e9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c3d2e1f0a9b8c"
	body, err := audit.MarshalBody(audit.DenialBody{Code: "denied", Door: author})
	if err != nil {
		return audit.Entry{}, 0, err
	}
	e := audit.Entry{
		Kind: audit.KindDenial, Actor: "agent:" + author.DID(), Tenant: "default", Task: digest[:32], Body: body,
		Decision: &audit.Decision{Reasons: []string{"network_not_granted"}, Policy: digest, Input: digest, Micros: 120, Node: author},
	}
	whole := e
	whole.V, whole.ID, whole.Author, whole.Time = audit.EntryVersion, digest[:32], author, audit.FormatTime(time.Now())
	leaf, err := whole.Encode()
	return e, len(leaf), err
}

// checkpointSpacing is that of a node (cmd/node/keeping.go).
const checkpointSpacing = 400 * time.Millisecond

const logProtocol = "log"

// logClients are HTTP clients over streams between keepers.
type logClients struct {
	node *mesh.Node // set before the first request

	mu      sync.Mutex // guards clients
	clients map[identity.ID]*http.Client
}

func (l *logClients) to(id identity.ID) *http.Client {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.clients[id] == nil {
		l.clients[id] = &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return l.node.Dial(ctx, id, logProtocol)
			},
			MaxIdleConnsPerHost: 16,
			DisableCompression:  true,
		}}
	}
	return l.clients[id]
}
