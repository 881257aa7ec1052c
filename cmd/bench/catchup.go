package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
)

// copied is a copy of the log as it is now, in a folder of its own.
func (f *filledLog) copied(dir string) (*filledLog, error) {
	if err := f.close(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if err := copyFile(filepath.Join(f.dir, "audit.db"), filepath.Join(dir, "audit.db")); err != nil {
		return nil, err
	}
	return &filledLog{n: f.n, dir: dir, key: f.key, genesis: f.genesis}, f.open(nil, fillLinger)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}

// reopen opens the log as a keeper would have it open.
func (f *filledLog) reopen() error {
	if err := f.close(); err != nil {
		return err
	}
	return f.open(nil, 0)
}

// gauge reads one of the metrics of a store.
func gauge(of []prometheus.Collector, name string) (float64, error) {
	r := prometheus.NewRegistry()
	for _, c := range of {
		if err := r.Register(c); err != nil {
			return 0, err
		}
	}
	families, err := r.Gather()
	if err != nil {
		return 0, err
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue(), nil
		}
	}
	return 0, fmt.Errorf("the store has no metric %s", name)
}

// catchingUp measures a keeper that was away and fetches what it lacks, from
// another one over a connection, as raft has it do: each part is proved and
// durable before the next is applied. It was away for a while, not for ever: its
// index covers what it has.
func catchingUp(ctx context.Context, t *Table, g *Group, behind, ahead *filledLog) error {
	server := httptest.NewServer(audit.LogHandler(ahead.store, nil))
	defer server.Close()
	client := clientOf(server.Listener.Addr().String())
	defer client.CloseIdleConnections()
	peers := func() []identity.ID { return []identity.ID{ahead.key.ID()} }
	if err := behind.open(nil, 0); err != nil {
		return err
	}
	if err := errors.Join(behind.indexed(ctx), behind.close()); err != nil {
		return err
	}
	if err := behind.open(audit.NewFetcher(func(identity.ID) *http.Client { return client }, peers), 0); err != nil {
		return err
	}
	index, term, meta, err := audit.Describe(ctx, client)
	if err != nil {
		return err
	}
	before := behind.store.Size()
	begun := time.Now()
	if err := behind.store.Restore(ctx, index, term, meta); err != nil {
		return err
	}
	took := time.Since(begun)
	fetched := behind.store.Size() - before
	if fetched != missed {
		return fmt.Errorf("%d entries were fetched, not %d", fetched, missed)
	}
	g.Rows = append(g.Rows, Row{
		Name: fmt.Sprintf("catching up, %d missing of %d", missed, ahead.n), Unit: "ms", N: 1, P50: milliseconds(took), Rate: float64(fetched) / took.Seconds(),
		Note: "proved, admitted and durable",
	})
	t.Targets = append(t.Targets, Target{Name: fmt.Sprintf("catching up with %d entries", missed), Unit: "s", Most: 5, Got: took.Seconds()})
	return nil
}
