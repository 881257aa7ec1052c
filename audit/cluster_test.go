package audit_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
	"github.com/agenticraft/node/identity"
)

// cluster is a few keepers whose stores are fed alike and whose log handlers
// reach each other through memory.
type cluster struct {
	tb       testing.TB
	keys     []*identity.Key
	stores   []*audit.Store
	points   []*audit.Checkpointer
	fetches  []audit.Fetcher
	leader   atomic.Int64
	down     sync.Map // identity.ID -> true
	alarms   chan audit.Alarm
	clocks   [9]atomic.Int64 // how far off each keeper's clock is, as time.Duration
	outvoted atomic.Int64    // how often a leader was
	trusted  atomic.Pointer[audit.Trust]

	mu       sync.Mutex // guards index and feeding
	index    uint64
	handlers map[identity.ID]http.Handler
	running  sync.WaitGroup
	stop     context.CancelFunc
}

func newCluster(tb testing.TB, n int) *cluster {
	tb.Helper()
	c := &cluster{tb: tb, handlers: make(map[identity.ID]http.Handler), alarms: make(chan audit.Alarm, 100)}
	for i := range n {
		c.keys = append(c.keys, audittest.Key(tb, byte(i+1)))
	}
	first := newTrust(tb, c.keys)
	c.trusted.Store(&first)
	for i := range n {
		fetch := audit.NewFetcher(c.client(i), c.others(i))
		store, err := audit.OpenStore(audit.StoreConfig{Dir: tb.TempDir(), Genesis: audittest.Genesis(tb), Fetch: fetch, Linger: -1})
		if err != nil {
			tb.Fatal(err)
		}
		c.stores, c.fetches = append(c.stores, store), append(c.fetches, fetch)
		point, err := audit.NewCheckpointer(audit.CheckpointerConfig{
			Store: store, Key: c.keys[i], Trust: c.trust, Client: c.client(i),
			Lead:     func() bool { return c.leader.Load() == int64(i) },
			Alarm:    func(a audit.Alarm) { c.alarms <- a },
			Spacing:  time.Millisecond,
			Now:      func() time.Time { return time.Now().Add(time.Duration(c.clocks[i].Load())) },
			Outvoted: func() { c.outvoted.Add(1) },
		})
		if err != nil {
			tb.Fatal(err)
		}
		c.points = append(c.points, point)
		c.handlers[c.keys[i].ID()] = audit.LogHandler(store, point)
	}
	tb.Cleanup(c.close)
	return c
}

// run starts the checkpointers.
func (c *cluster) run() {
	ctx, cancel := context.WithCancel(context.Background())
	c.stop = cancel
	for _, p := range c.points {
		c.running.Go(func() {
			if err := p.Run(ctx); err != nil {
				c.tb.Error(err)
			}
		})
	}
}

// halt ends the checkpointers and waits for them: none of them touches c.tb
// afterwards. The stores stay open.
func (c *cluster) halt() {
	if c.stop != nil {
		c.stop()
	}
	c.running.Wait()
}

func (c *cluster) close() {
	c.halt()
	for _, s := range c.stores {
		if err := s.Close(); err != nil {
			c.tb.Error(err)
		}
	}
}

// trust is called by goroutines that may outlive the part of a fuzz test that
// a testing.TB may be used in.
func (c *cluster) trust() audit.Trust { return *c.trusted.Load() }

func newTrust(tb testing.TB, keys []*identity.Key) audit.Trust {
	tb.Helper()
	var ids []identity.ID
	for _, k := range keys {
		ids = append(ids, k.ID())
	}
	t, err := audit.NewTrust(audit.OriginOf(audittest.Genesis(tb)), 1, ids)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

func (c *cluster) others(i int) func() []identity.ID {
	return func() []identity.ID {
		var out []identity.ID
		for j, k := range c.keys {
			if j != i {
				out = append(out, k.ID())
			}
		}
		return out
	}
}

// client calls the handlers of peers directly, as keeper i.
func (c *cluster) client(i int) func(identity.ID) *http.Client {
	return func(to identity.ID) *http.Client {
		return &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			if _, down := c.down.Load(to); down {
				return nil, fmt.Errorf("%s is down", to)
			}
			in := r.Clone(r.Context())
			in.RemoteAddr = string(c.keys[i].ID())
			w := httptest.NewRecorder()
			c.handlers[to].ServeHTTP(w, in)
			return w.Result(), nil
		})}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Propose applies cmd to the stores that are up.
func (c *cluster) Propose(_ context.Context, cmd []byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index++
	var answer []byte
	for i, s := range c.stores {
		if _, down := c.down.Load(c.keys[i].ID()); down {
			continue
		}
		answers, err := s.Apply(c.index, 1, [][]byte{cmd})
		if err != nil {
			return nil, err
		}
		if answer != nil && !bytes.Equal(answer, answers[0]) {
			c.tb.Errorf("store %d answers %x, another %x", i, answers[0], answer)
		}
		answer = answers[0]
	}
	return answer, nil
}

func (c *cluster) recorder(i int) *audit.Recorder {
	r := audit.NewRecorder(audit.RecorderConfig{Key: c.keys[i], Proposer: c, Origin: c.stores[0].Origin()})
	c.tb.Cleanup(func() { _ = r.Close() })
	return r
}

// record records e by keeper i, which must succeed.
func (c *cluster) record(i int, e audit.Entry) uint64 {
	c.tb.Helper()
	ack, err := c.recorder(i).Record(deadline(c.tb), e)
	if err != nil {
		c.tb.Fatal(err)
	}
	return ack.Index
}

// execution records an intent and its outcome.
func (c *cluster) execution(i int, task string) (intent, outcome uint64) {
	c.tb.Helper()
	intent = c.record(i, audittest.Intent(c.tb, c.keys[i].ID(), task))
	return intent, c.record(i, audittest.Outcome(c.tb, task, intent, audit.StatusSucceeded))
}

// deadline is a context that ends a test that hangs.
func deadline(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	tb.Cleanup(cancel)
	return ctx
}

// copyDir copies the files of a data folder.
func copyDir(tb testing.TB, from string) string {
	tb.Helper()
	to := tb.TempDir()
	for _, name := range []string{"audit.db", "cosigned.json"} {
		src, err := os.Open(filepath.Join(from, name))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			tb.Fatal(err)
		}
		data, err := io.ReadAll(src)
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), data, 0o600)
		}
		if err != nil {
			tb.Fatal(err)
		}
		src.Close()
	}
	return to
}
