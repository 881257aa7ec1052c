package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
)

const (
	smallLog = 10_000
	largeLog = 1_000_000
	hugeLog  = 10_000_000

	actors      = 100 // whose entries take turns
	fillWriters = 1024
	pageOf      = 100 // entries
	verifyTurns = 3
)

// filledLog is a log without a cluster: what reading costs does not depend on
// how many others hold it.
type filledLog struct {
	n       int
	dir     string
	key     *identity.Key
	genesis []byte
	store   *audit.Store
	applied atomic.Uint64 // raft index of the newest command
	apply   sync.Mutex    // held from one's index to the end of Apply
}

// Propose applies a command at once.
func (f *filledLog) Propose(_ context.Context, cmd []byte) ([]byte, error) {
	f.apply.Lock()
	defer f.apply.Unlock()
	answers, err := f.store.Apply(f.applied.Add(1), 1, [][]byte{cmd})
	if err != nil {
		return nil, err
	}
	return answers[0], nil
}

// fill makes a log of n entries and waits until its index covers them.
func fill(ctx context.Context, dir string, n int) (f *filledLog, err error) {
	f = &filledLog{n: n, dir: dir}
	if f.key, err = identity.Generate(); err != nil {
		return nil, err
	}
	f.genesis, err = registry.GenesisLeaf(registry.Genesis{
		Cluster: "bench", Time: time.Now(), Tenants: []string{"default"},
		Members: []registry.MemberBody{{ID: f.key.ID(), Role: registry.Keeper, Name: "node1"}},
		Agents:  []registry.AgentBody{{ID: f.key.ID(), Name: "admin", Tenant: "default", Roles: []string{registry.RoleAdmin}}},
	})
	if err != nil {
		return nil, err
	}
	if err := f.open(); err != nil {
		return nil, err
	}
	recorder := audit.NewRecorder(audit.RecorderConfig{Key: f.key, Proposer: f, Origin: f.store.Origin()})
	err = errors.Join(f.write(ctx, recorder, n-1), recorder.Close(), f.store.Settle())
	// The index follows by itself; a store that is opened again shows that it is whole.
	if err = errors.Join(err, f.store.Close()); err != nil {
		return nil, err
	}
	return f, f.open()
}

func (f *filledLog) open() (err error) {
	f.store, err = audit.OpenStore(audit.StoreConfig{Dir: f.dir, Genesis: f.genesis, Admit: registry.Admission{}})
	return err
}

// write records n entries as fast as they go, of [actors] in turn.
func (f *filledLog) write(ctx context.Context, recorder *audit.Recorder, n int) error {
	sample, _, err := denial(f.key.ID())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var next atomic.Int64
	var fault error // of the first writer that failed; the others then stop
	var failing sync.Once
	var work sync.WaitGroup
	for range fillWriters {
		work.Go(func() {
			for ctx.Err() == nil {
				at := next.Add(1)
				if at > int64(n) {
					return
				}
				e := sample
				e.Task, e.Actor = a2a.NewJTI(), actor(int(at))
				if _, err := recorder.Record(ctx, e); err != nil {
					failing.Do(func() { fault = err })
					cancel()
				}
			}
		})
	}
	work.Wait()
	return fault
}

func actor(n int) string { return "service:client" + strconv.Itoa(n%actors) }

// question is something that is asked of a log, of a random part of it.
type question struct {
	name string
	ask  func(ctx context.Context, f *filledLog) error
}

func questions() []question {
	return []question{
		{"inclusion proof", func(_ context.Context, f *filledLog) error {
			_, err := f.store.ProveEntry(rand.Uint64N(uint64(f.n)), uint64(f.n))
			return err
		}},
		{"entry by index", func(_ context.Context, f *filledLog) error {
			_, _, err := f.store.Entry(rand.Uint64N(uint64(f.n)))
			return err
		}},
		{"page of 100, one actor in a hundred", func(ctx context.Context, f *filledLog) error {
			// From anywhere in the log that has so many before it.
			at := smallLog - 1 + rand.IntN(f.n-smallLog+1)
			page, err := f.store.Query(ctx, audit.Filter{Actor: actor(rand.IntN(actors)), Newest: true, Limit: pageOf, Cursor: "n" + strconv.Itoa(at)})
			if err == nil && len(page.Entries) < pageOf-actors/10 {
				err = fmt.Errorf("a page has only %d entries", len(page.Entries))
			}
			return err
		}},
	}
}

// measureReading measures questions to logs of different sizes, side by side,
// then what it takes to verify, and to copy, the largest log that is not huge.
func (l *lab) measureReading(ctx context.Context, t *Table, each time.Duration, huge bool) (err error) {
	sizes := []int{smallLog, largeLog}
	if huge {
		sizes = append(sizes, hugeLog)
	}
	g := Group{Name: "reading the log, by its size"}
	var logs []*filledLog
	defer func() {
		for _, f := range logs {
			if f.store != nil {
				err = errors.Join(err, f.store.Close())
			}
			err = errors.Join(err, os.RemoveAll(f.dir))
		}
	}()
	for _, n := range sizes {
		begun := time.Now()
		f, err := fill(ctx, filepath.Join(l.dir, "log"+strconv.Itoa(n)), n)
		if err != nil {
			return err
		}
		logs = append(logs, f)
		if n == largeLog {
			r := Row{Name: "writing one, of 1000000, without a cluster", N: n, Rate: float64(n) / time.Since(begun).Seconds()}
			g.Rows = append(g.Rows, r)
		}
	}
	for _, q := range questions() {
		var all []*contender
		for _, f := range logs {
			all = append(all, &contender{
				name: fmt.Sprintf("%s, of %d", q.name, f.n),
				run:  repeated(func(ctx context.Context) error { return errors.Join(q.ask(ctx, f), ctx.Err()) }),
			})
		}
		if err := interleave(ctx, rounds, each/rounds, all); err != nil {
			return err
		}
		for i, c := range all {
			row := c.row()
			if i > 0 {
				flat := times(c, all[0])
				row.Peers = []Ratio{{Peer: "of " + strconv.Itoa(smallLog), Times: flat, Of: "p50"}}
				t.Targets = append(t.Targets, Target{Name: fmt.Sprintf("%s, of %d over %d", q.name, logs[i].n, smallLog), Unit: "x", Most: 1.5, Got: flat})
				if logs[i].n == largeLog {
					t.Targets = append(t.Targets, Target{Name: c.name + ", p99", Unit: "ms", Most: 5, Got: row.P99})
				}
			}
			g.Rows = append(g.Rows, row)
		}
	}
	large := logs[1]
	size, err := diskBytes(large.dir)
	if err != nil {
		return err
	}
	_, leaf, err := large.store.Entry(uint64(large.n) - 1)
	if err != nil {
		return err
	}
	r := summary("on disk for each, log and index", "bytes", []float64{float64(size) / float64(large.n)})
	r.N, r.Note = large.n, fmt.Sprintf("entries of %d bytes", len(leaf))
	g.Rows = append(g.Rows, r)
	if err := l.measureJoining(ctx, t, &g, large); err != nil {
		return err
	}
	if err := verifying(ctx, t, &g, large); err != nil {
		return err
	}
	t.Sections = append(t.Sections, g)
	return nil
}

// verifying measures `audit verify` of the whole folder, and with --hashes.
func verifying(ctx context.Context, t *Table, g *Group, f *filledLog) error {
	err := f.store.Close()
	f.store = nil
	if err != nil {
		return err
	}
	for _, one := range []struct {
		name, note string
		verify     func(context.Context, string, *audit.Trust) (audit.DirReport, error)
		goal       float64
	}{
		{"hashes verified offline", "none missing, tree, signed roots", audit.VerifyHashes, 200_000},
		{"entries verified offline", "form, authors' signatures, rules and look-ups, too", audit.VerifyDir, 0},
	} {
		var rates []float64
		for range verifyTurns {
			begun := time.Now()
			report, err := one.verify(ctx, f.dir, nil)
			if err != nil {
				return err
			}
			if report.Bad != nil {
				return fmt.Errorf("the log that was written is bad: %s", report.Bad)
			}
			rates = append(rates, float64(report.Size)/time.Since(begun).Seconds())
		}
		rate := percentile(rates, 50)
		g.Rows = append(g.Rows, Row{Name: one.name + ", of " + strconv.Itoa(f.n), N: len(rates), Rate: rate, Note: one.note})
		if one.goal > 0 {
			t.Targets = append(t.Targets, Target{Name: one.name + " per second", Least: one.goal, Got: rate})
		}
	}
	return nil
}
