package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
)

// measureJoining measures an auditor that copies and verifies a whole log, over
// a connection, and what the keeper's own appends take meanwhile. Both run in
// this process: what the auditor itself computes disturbs the keeper more than
// it would on a machine of its own.
func (l *lab) measureJoining(ctx context.Context, t *Table, g *Group, from *filledLog) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	trust, err := audit.NewTrust(from.store.Origin(), 1, []identity.ID{from.key.ID()})
	if err != nil {
		return err
	}
	points, err := audit.NewCheckpointer(audit.CheckpointerConfig{
		Store: from.store, Key: from.key, Trust: func() audit.Trust { return trust }, Lead: func() bool { return true },
		Client: func(identity.ID) *http.Client { return http.DefaultClient }, Spacing: checkpointSpacing,
	})
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: audit.LogHandler(from.store, points), ReadHeaderTimeout: 10 * time.Second}
	var work sync.WaitGroup
	defer func() {
		cancel()
		err = errors.Join(err, server.Close())
		work.Wait()
	}()
	work.Go(func() { _ = points.Run(ctx) })        // ends with ctx
	work.Go(func() { _ = server.Serve(listener) }) // ends with Close

	recorder := audit.NewRecorder(audit.RecorderConfig{Key: from.key, Proposer: settling{from}, Origin: from.store.Origin()})
	defer func() { err = errors.Join(err, recorder.Close()) }()
	sample, _, err := denial(from.key.ID())
	if err != nil {
		return err
	}
	one := repeated(func(ctx context.Context) error {
		_, err := recorder.Record(ctx, sample)
		return err
	})
	alone := &contender{name: "append of its keeper, before"}
	s, err := one(ctx, time.Second)
	if err != nil {
		return err
	}
	alone.slices = append(alone.slices, s)
	if _, _, err := from.store.WaitCheckpoint(ctx, uint64(from.n)-1); err != nil {
		return err
	}

	dir := filepath.Join(l.dir, "auditor")
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	client := clientOf(listener.Addr().String())
	defer client.CloseIdleConnections()
	to := func(identity.ID) *http.Client { return client }
	keeper := func() []identity.ID { return []identity.ID{from.key.ID()} }
	copied, err := audit.OpenStore(audit.StoreConfig{Dir: dir, Genesis: from.genesis, Admit: registry.Admission{}, Fetch: audit.NewFetcher(to, keeper)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, copied.Close()) }()
	mirror, err := audit.NewMirror(audit.MirrorConfig{
		Store: copied, Peers: keeper, Client: to, Trust: func() (audit.Trust, error) { return trust, nil },
	})
	if err != nil {
		return err
	}
	during := &contender{name: "append of its keeper, meanwhile"}
	pulled := make(chan error, 1)
	begun := time.Now()
	go func() { pulled <- mirror.Pull(ctx, 0) }()
	for joining := true; joining; {
		select {
		case err = <-pulled:
			joining = false
		default:
			s, e := one(ctx, 100*time.Millisecond)
			if e != nil {
				cancel()
				return errors.Join(e, <-pulled)
			}
			during.slices = append(during.slices, s)
		}
	}
	if err != nil {
		return err
	}
	took := time.Since(begun)
	if copied.Size() < uint64(from.n) {
		return fmt.Errorf("the auditor has %d of %d entries", copied.Size(), from.n)
	}
	rate := float64(copied.Size()) / took.Seconds()
	g.Rows = append(g.Rows, Row{Name: fmt.Sprintf("an auditor joins a log of %d", from.n), Unit: "ms", N: 1, P50: milliseconds(took), Rate: rate, Note: "each part verified before it is written"})
	before, meanwhile := alone.row(), during.row()
	meanwhile.Peers = []Ratio{{Peer: "before", Times: meanwhile.P50 / before.P50, Of: "p50"}}
	g.Rows = append(g.Rows, before, meanwhile)
	return nil
}

// clientOf reaches one address, whatever the host of the URL is.
func clientOf(addr string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addr)
		},
		DisableCompression: true,
	}}
}

// settling waits until what it applied is durable, as a keeper's raft log is.
type settling struct{ log *filledLog }

func (s settling) Propose(ctx context.Context, cmd []byte) ([]byte, error) {
	answer, err := s.log.Propose(ctx, cmd)
	return answer, errors.Join(err, s.log.store.Settle())
}
