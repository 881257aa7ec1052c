package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
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
	smallLog  = 10_000
	middleLog = 100_000
	largeLog  = 1_000_000
	hugeLog   = 10_000_000
	missed    = 100_000 // entries of a large log that a keeper which was away lacks

	actors      = 100 // whose entries take turns
	fillWriters = 1024
	pageOf      = 100 // entries
	verifyTurns = 3
	// fillLinger lets a log that is being filled commit in few large parts.
	fillLinger = 2 * time.Second
	// fillGC lets the heap grow to so many percent of what is in use before
	// the collector runs, while a log is filled.
	fillGC = 400
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

// newLog makes a log of one entry.
func newLog(dir string) (f *filledLog, err error) {
	f = &filledLog{n: 1, dir: dir}
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
	return f, f.open(nil, fillLinger)
}

// grow adds entries up to n, and waits until the index covers them.
func (f *filledLog) grow(ctx context.Context, n int) error {
	before := debug.SetGCPercent(fillGC)
	defer debug.SetGCPercent(before)
	recorder := audit.NewRecorder(audit.RecorderConfig{Key: f.key, Proposer: f, Origin: f.store.Origin()})
	err := errors.Join(f.write(ctx, recorder, n-f.n), recorder.Close(), f.store.Settle())
	if err != nil {
		return err
	}
	f.n = n
	return f.indexed(ctx)
}

// indexed waits until the index covers the log.
func (f *filledLog) indexed(ctx context.Context) (err error) {
	for indexed := 0.0; indexed < float64(f.n); {
		if indexed, err = gauge(f.store.Metrics(), "agenticraft_audit_indexed_entries"); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// open opens the log's store. Its raft log went with the process, so that
// entries wait longer than a keeper lets them for others to share a flush with.
func (f *filledLog) open(fetch audit.Fetcher, linger time.Duration) (err error) {
	f.store, err = audit.OpenStore(audit.StoreConfig{Dir: f.dir, Genesis: f.genesis, Admit: registry.Admission{}, Fetch: fetch, Linger: linger})
	if err == nil {
		index, _ := f.store.Applied()
		f.applied.Store(index)
	}
	return err
}

// close closes the log's store, if it is open.
func (f *filledLog) close() error {
	s := f.store
	if s == nil {
		return nil
	}
	f.store = nil
	return s.Close()
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
// and then what it takes to catch up with, to copy and to verify one.
func (l *lab) measureReading(ctx context.Context, t *Table, each time.Duration, huge bool) (err error) {
	g := Group{Name: "reading the log, by its size"}
	var logs []*filledLog
	defer func() {
		for _, f := range logs {
			err = errors.Join(err, f.close(), os.RemoveAll(f.dir))
		}
	}()
	add := func(n int) (*filledLog, error) {
		begun := time.Now()
		f, err := newLog(l.logDir(n))
		if err != nil {
			return nil, err
		}
		logs = append(logs, f)
		if err := f.grow(ctx, n); err != nil {
			return nil, err
		}
		fmt.Fprintf(os.Stderr, "bench: a log of %d entries made in %.0f s\n", n, time.Since(begun).Seconds())
		return f, nil
	}
	small, err := add(smallLog)
	if err != nil {
		return err
	}
	// A keeper that goes away when it has all but the last of the large log.
	begun := time.Now()
	large, err := add(largeLog - missed)
	if err != nil {
		return err
	}
	behind, err := large.copied(filepath.Join(l.dir, "behind"))
	if err != nil {
		return err
	}
	logs = append(logs, behind)
	begunAgain := time.Now()
	if err := large.grow(ctx, largeLog); err != nil {
		return err
	}
	took := begunAgain.Sub(begun) + time.Since(begunAgain)
	g.Rows = append(g.Rows, Row{Name: fmt.Sprintf("writing one, of %d, without a cluster", largeLog), N: largeLog, Rate: largeLog / took.Seconds()})
	if err := small.reopen(); err != nil {
		return err
	}
	if err := large.reopen(); err != nil {
		return err
	}
	asked := []*filledLog{small, large}
	if huge {
		f, err := add(hugeLog)
		if err != nil {
			return err
		}
		asked = append(asked, f)
	}
	if err := asking(ctx, t, &g, asked, each); err != nil {
		return err
	}
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
	if err := catchingUp(ctx, t, &g, behind, large); err != nil {
		return err
	}
	if err := errors.Join(behind.close(), large.close()); err != nil {
		return err
	}
	if err := verifying(ctx, t, &g, large.dir, verification{
		name: "hashes verified offline", note: "none missing, tree, signed roots", verify: audit.VerifyHashes, goal: 200_000,
	}); err != nil {
		return err
	}
	middle, err := add(middleLog)
	if err != nil {
		return err
	}
	if err := middle.reopen(); err != nil {
		return err
	}
	if err := l.measureJoining(ctx, t, &g, middle); err != nil {
		return err
	}
	if err := middle.close(); err != nil {
		return err
	}
	if err := verifying(ctx, t, &g, middle.dir, verification{
		name: "entries verified offline", note: "form, authors' signatures, rules and look-ups, too", verify: audit.VerifyDir,
	}); err != nil {
		return err
	}
	t.Sections = append(t.Sections, g)
	return nil
}

func (l *lab) logDir(n int) string { return filepath.Join(l.dir, "log"+strconv.Itoa(n)) }

// asking measures the questions to logs side by side.
func asking(ctx context.Context, t *Table, g *Group, logs []*filledLog, each time.Duration) error {
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
	return nil
}

// verification is a way to check a folder.
type verification struct {
	name, note string
	verify     func(context.Context, string, *audit.Trust) (audit.DirReport, error)
	goal       float64 // entries a second; 0: none
}

// verifying measures `audit verify` of a whole folder.
func verifying(ctx context.Context, t *Table, g *Group, dir string, one verification) error {
	var rates []float64
	var size uint64
	for range verifyTurns {
		begun := time.Now()
		report, err := one.verify(ctx, dir, nil)
		if err != nil {
			return err
		}
		if report.Bad != nil {
			return fmt.Errorf("the log that was written is bad: %s", report.Bad)
		}
		size = report.Size
		rates = append(rates, float64(size)/time.Since(begun).Seconds())
	}
	rate := percentile(rates, 50)
	g.Rows = append(g.Rows, Row{Name: fmt.Sprintf("%s, of %d", one.name, size), N: len(rates), Rate: rate, Note: one.note})
	if one.goal > 0 {
		t.Targets = append(t.Targets, Target{Name: one.name + " per second", Least: one.goal, Got: rate})
	}
	return nil
}
