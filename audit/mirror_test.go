package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
	"github.com/agenticraft/node/identity"
)

// mirror opens a store that pulls from the cluster's keepers, whose answers go
// through change.
func (c *cluster) mirror(change func(path string, answer []byte) []byte) (*audit.Store, *audit.Mirror) {
	c.tb.Helper()
	peers := func() []identity.ID {
		ids, err := c.trust().Keepers()
		if err != nil {
			c.tb.Error(err)
		}
		return ids
	}
	client := c.guest(change)
	store, err := audit.OpenStore(audit.StoreConfig{Dir: c.tb.TempDir(), Genesis: audittest.Genesis(c.tb), Fetch: audit.NewFetcher(client, peers)})
	if err != nil {
		c.tb.Fatal(err)
	}
	first := newTrust(c.tb, c.keys)
	m, err := audit.NewMirror(audit.MirrorConfig{Store: store, Peers: peers, Client: client, Trust: func() (audit.Trust, error) { return first, nil }})
	if err != nil {
		c.tb.Fatal(err)
	}
	c.tb.Cleanup(func() { _ = store.Close() })
	return store, m
}

// guest reaches keepers as one who is none; their answers go through change.
func (c *cluster) guest(change func(path string, answer []byte) []byte) func(identity.ID) *http.Client {
	return func(to identity.ID) *http.Client {
		return &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			in := r.Clone(r.Context())
			in.RemoteAddr = string(audittest.Key(c.tb, 99).ID())
			w := httptest.NewRecorder()
			c.handlers[to].ServeHTTP(w, in)
			res := w.Result()
			if change != nil && res.StatusCode == http.StatusOK {
				body, _ := io.ReadAll(res.Body)
				res.Body = io.NopCloser(bytes.NewReader(change(r.URL.Path, body)))
			}
			return res, nil
		})}
	}
}

// Who keeps the log now is proved by the signatures of those who kept it before,
// whoever tells it.
func TestNewestIsWhoTheKeepersBeforeSigned(t *testing.T) {
	c := newCluster(t, 5)
	first := newTrust(t, c.keys)
	c.begin(2, 0, 1, 2, 3)
	index := c.begin(3, 0, 1, 2)
	c.run()
	if _, _, err := c.stores[0].WaitCheckpoint(deadline(t), index); err != nil {
		t.Fatal(err)
	}
	at := c.keys[0].ID()
	now, err := first.Newest(deadline(t), c.guest(nil)(at))
	if err != nil || now.Epoch != 3 {
		t.Fatalf("epoch %d, %v", now.Epoch, err)
	}
	keepers, err := now.Keepers()
	if err != nil || len(keepers) != 3 || slices.Contains(keepers, c.keys[3].ID()) || slices.Contains(keepers, c.keys[4].ID()) {
		t.Errorf("keepers %v, %v", keepers, err)
	}
	other := string(audittest.Key(t, 98).ID())
	for name, change := range map[string]func(path string, answer []byte) []byte{
		"a keeper is another": replaced("/head", string(keepers[0]), other),
		"a step is left out":  replaced("/head", `\"epoch\":2`, `\"epoch\":3`),
		"no steps": func(_ string, answer []byte) []byte {
			head, _, _ := bytes.Cut(answer, []byte(`,"steps"`))
			return append(head, '}')
		},
		"garbage":               func(string, []byte) []byte { return []byte("[]") },
		"the proofs are others": replaced("/head", `"proof":["`, `"proof":["A`),
	} {
		// Without the steps the checkpoint is what three of the first five signed.
		if got, err := first.Newest(deadline(t), c.guest(change)(at)); err == nil && got.Epoch != first.Epoch {
			t.Errorf("%s: epoch %d is believed", name, got.Epoch)
		}
	}
}

// A mirror has what a quorum signed, over changes of keepers, and follows.
func TestMirrorFollowsTheKeepers(t *testing.T) {
	c := newCluster(t, 3)
	for i := range 50 {
		c.execution(i%3, fmt.Sprint("before", i))
	}
	c.begin(2, 0, 1)
	c.execution(0, "after")
	c.run()
	store, m := c.mirror(nil)
	if err := m.Fresh(); err == nil {
		t.Error("a mirror that never pulled is fresh")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	_, outcome := c.execution(1, "last")
	if err := store.Changed(deadline(t), outcome); err != nil {
		t.Fatal(err)
	}
	at, _, err := store.WaitCheckpoint(deadline(t), outcome)
	if err != nil {
		t.Fatal(err)
	}
	root, err := store.Root(at.Size)
	if err != nil || root != at.Root {
		t.Errorf("root %v, %v; the keepers signed %v", root, err, at.Root)
	}
	// The mirror says so when the pull ends, a moment after the checkpoint came.
	for ctx := deadline(t); m.Fresh() != nil; time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatalf("Fresh = %v", m.Fresh())
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A mirror takes nothing that no quorum signed, and keeps what it had.
func TestMirrorRefusesWhatNobodySigned(t *testing.T) {
	c := newCluster(t, 3)
	for i := range 5 {
		c.execution(0, fmt.Sprint("t", i))
	}
	c.run()
	if _, _, err := c.stores[0].WaitCheckpoint(deadline(t), c.stores[0].Size()-1); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(path string, answer []byte) []byte{
		"an entry is changed":        replaced("/batches", `"succeeded"`, `"cancelled"`),
		"batches are garbage":        func(path string, answer []byte) []byte { return answer[:len(answer)/2] },
		"a signature is another one": replaced("/head", "\\n— ", "\\n— 1"),
		"the checkpoint is bare": func(path string, answer []byte) []byte {
			if path != "/head" {
				return answer
			}
			head, _, _ := strings.Cut(string(answer), `\n\n`)
			return []byte(head + `\n"}`)
		},
		"the size is another one": replaced("/head", `\n11\n`, `\n10\n`),
		"head has more":           replaced("/head", `{"v":1`, `{"x":1,"v":1`),
	} {
		t.Run(name, func(t *testing.T) {
			store, m := c.mirror(change)
			if err := m.Pull(deadline(t), 0); err == nil {
				t.Error("Pull succeeded")
			}
			if size := store.Size(); size != 1 {
				t.Errorf("the mirror has %d entries", size)
			}
		})
	}
}

func replaced(where, from, to string) func(path string, answer []byte) []byte {
	return func(path string, answer []byte) []byte {
		if path != where {
			return answer
		}
		return bytes.ReplaceAll(answer, []byte(from), []byte(to))
	}
}

// A mirror whose own log is another one says so and stops.
func TestMirrorThatForked(t *testing.T) {
	c := newCluster(t, 3)
	store, m := c.mirror(nil)
	e := audittest.Intent(t, c.keys[0].ID(), "elsewhere")
	e.V, e.Author, e.ID, e.Time = audit.EntryVersion, c.keys[0].ID(), "x", "2026-01-01T00:00:00.000Z"
	leaf, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Apply(1, 1, [][]byte{audit.SignBatch(c.keys[0], store.Origin(), [][]byte{leaf})}); err != nil {
		t.Fatal(err)
	}
	c.execution(0, "here")
	c.run()
	if _, _, err := c.stores[0].WaitCheckpoint(deadline(t), 2); err != nil {
		t.Fatal(err)
	}
	if err := m.Run(deadline(t)); !errors.Is(err, audit.ErrFork) {
		t.Errorf("Run = %v, want ErrFork", err)
	}
	if err := m.Fresh(); !errors.Is(err, audit.ErrFork) {
		t.Errorf("Fresh = %v, want ErrFork", err)
	}
	if size := store.Size(); size != 2 {
		t.Errorf("the mirror's own log changed: %d entries", size)
	}
}

func FuzzParseHead(f *testing.F) {
	f.Add([]byte(`{"v":1,"checkpoint":"x","steps":[{"index":1,"leaf":"{}","proof":[]}]}`))
	f.Add([]byte(`{"v":2}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		steps, checkpoint, err := audit.ParseHead(answer)
		if err != nil {
			return
		}
		trust, err := audit.NewTrust(audit.OriginOf([]byte("x")), 1, []identity.ID{audittest.Key(t, 1).ID()})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := trust.Follow(steps, checkpoint); err == nil {
			t.Errorf("a head that nobody signed was taken: %q", answer)
		}
	})
}

func FuzzParseEpochAsk(f *testing.F) {
	f.Add([]byte(`{"v":1,"epoch":2,"keepers":[]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if n, err := audit.ParseEpochAsk(body); err == nil && n > 32 {
			t.Errorf("%d keepers were taken", n)
		}
	})
}
