// Package audittest gives tests a real audit log without a cluster: a store in
// a temporary folder and a proposer that applies commands to it at once.
package audittest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
)

// Log is a store and the proposer that feeds it (an [audit.Proposer]). It may
// be used concurrently.
type Log struct {
	Store *audit.Store

	tb    testing.TB
	mu    sync.Mutex // guards the fields below
	index uint64
}

// New makes a log that ends with the test. Its entry 0 is genesis, or
// [Genesis] if that is nil; admit may be nil.
func New(tb testing.TB, genesis []byte, admit audit.Admission) *Log {
	tb.Helper()
	if genesis == nil {
		genesis = Genesis(tb)
	}
	store, err := audit.OpenStore(audit.StoreConfig{Dir: tb.TempDir(), Genesis: genesis, Admit: admit})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := store.Close(); err != nil {
			tb.Error(err)
		}
	})
	return Of(tb, store)
}

// Of makes a log of a store that the test opened and closes itself.
func Of(tb testing.TB, store *audit.Store) *Log {
	index, _ := store.Applied()
	return &Log{Store: store, tb: tb, index: index}
}

// Genesis is the leaf of an entry 0 that is the same in every test.
func Genesis(tb testing.TB) []byte {
	tb.Helper()
	leaf, err := audit.Entry{
		V: audit.EntryVersion, Kind: audit.KindGenesis, ID: "genesis",
		Time: "2026-01-01T00:00:00.000Z", Body: []byte(`{"cluster":"test"}`),
	}.Encode()
	if err != nil {
		tb.Fatal(err)
	}
	return leaf
}

// Propose applies cmd as the next raft entry and makes it durable: there is no
// raft log to apply it again from.
func (l *Log) Propose(ctx context.Context, cmd []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.index++
	answers, err := l.Store.Apply(l.index, 1, [][]byte{cmd})
	if err != nil {
		return nil, err
	}
	return answers[0], l.Store.Settle()
}

// Recorder makes a recorder for key that ends with the test.
func (l *Log) Recorder(key *identity.Key) *audit.Recorder {
	l.tb.Helper()
	r := audit.NewRecorder(audit.RecorderConfig{Key: key, Proposer: l, Origin: l.Store.Origin()})
	l.tb.Cleanup(func() { _ = r.Close() }) // waits; a Recorder's Close never fails
	return r
}

// Record records e by key and fails the test if that fails.
func (l *Log) Record(key *identity.Key, e audit.Entry) uint64 {
	l.tb.Helper()
	r := audit.NewRecorder(audit.RecorderConfig{Key: key, Proposer: l, Origin: l.Store.Origin()})
	defer func() { _ = r.Close() }() // everything is recorded by then
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ack, err := r.Record(ctx, e)
	if err != nil {
		l.tb.Fatal(err)
	}
	return ack.Index
}

// Key makes a key from a small number, the same in every run.
func Key(tb testing.TB, n byte) *identity.Key {
	tb.Helper()
	seed := make([]byte, 32)
	seed[0] = n
	key, err := identity.FromSeed(seed)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// Intent is an intent entry of executor for a task, complete but for what a
// recorder sets.
func Intent(tb testing.TB, executor identity.ID, task string) audit.Entry {
	tb.Helper()
	body, err := audit.MarshalBody(audit.IntentBody{
		Language: "starlark", Sandbox: "restricted", Network: "none", LeaseMS: 60_000,
		Door: executor, Executor: executor, Request: audit.Commit("salt", []byte(task)),
	})
	if err != nil {
		tb.Fatal(err)
	}
	return audit.Entry{
		Kind: audit.KindIntent, Task: task, Attempt: 1, Actor: "agent:" + executor.DID(),
		Decision: &audit.Decision{Allow: true, Reasons: []string{"role_runner"}}, Body: body,
	}
}

// Outcome is an outcome entry for the task's first attempt.
func Outcome(tb testing.TB, task string, intent uint64, status string) audit.Entry {
	tb.Helper()
	body, err := audit.MarshalBody(audit.OutcomeBody{Status: status})
	if err != nil {
		tb.Fatal(err)
	}
	return audit.Entry{Kind: audit.KindOutcome, Task: task, Attempt: 1, Ref: &intent, Body: body}
}
