package sandbox_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agenticraft/node/sandbox"
)

// bare is a backend that holds nothing before its ready returns, and whose programs
// take as long as it is told.
type bare struct {
	*fake
	length time.Duration

	mu      sync.Mutex
	running int
	most    int      // at the same time
	began   []string // owners
}

func (b *bare) Describe() sandbox.Description {
	d := b.fake.Describe()
	d.Bare = true
	return d
}

func (b *bare) Run(ctx context.Context, spec sandbox.Spec, ready func(context.Context) error) (sandbox.Result, error) {
	if ready != nil {
		if err := ready(ctx); err != nil {
			return sandbox.Result{}, err
		}
	}
	if ctx.Err() != nil {
		return sandbox.Result{Status: sandbox.Cancelled}, nil
	}
	b.mu.Lock()
	b.running++
	b.most = max(b.most, b.running)
	b.began = append(b.began, spec.Owner)
	b.mu.Unlock()
	time.Sleep(b.length)
	b.mu.Lock()
	b.running--
	b.mu.Unlock()
	return sandbox.Result{Status: sandbox.OK}, nil
}

// seen has the manager see short runs, so that it lends.
func (b *bare) seen(t *testing.T, m *sandbox.Manager, length time.Duration) {
	t.Helper()
	b.length = length
	for range 60 {
		if _, err := m.Run(t.Context(), "auto", sandbox.Spec{Language: "python"}, nil); err != nil {
			t.Fatal(err)
		}
	}
	b.most, b.began = 0, nil
}

// intents counts those who wait for theirs; they take as long as a quorum.
type intents struct {
	mu        sync.Mutex
	now, most int
}

func (i *intents) wait(ctx context.Context) error {
	i.mu.Lock()
	i.now++
	i.most = max(i.most, i.now)
	i.mu.Unlock()
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
	}
	i.mu.Lock()
	i.now--
	i.mu.Unlock()
	return ctx.Err()
}

func TestALentSlotComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bare{fake: speaks("python")}
		m := newManager(t, sandbox.ManagerConfig{Backends: map[string]sandbox.Backend{"restricted": b}, Slots: 2})
		b.seen(t, m, time.Millisecond)
		var at intents
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if res, err := m.Run(t.Context(), "auto", sandbox.Spec{Language: "python"}, at.wait); err != nil || res.Status != sandbox.OK {
					t.Errorf("%+v, %v", res, err)
				}
			})
		}
		synctest.Wait()
		if got := m.Load(); got != (sandbox.Load{Slots: 2, Busy: 2, Queued: 18}) {
			t.Errorf("with 20 who wait for their intents Load() = %+v", got)
		}
		wg.Wait()
		if at.most != 20 || b.most != 2 {
			t.Errorf("%d waited for their intents at the same time, want 20; %d ran, want 2", at.most, b.most)
		}
		// Who gives up on the way, or is refused, leaves no slot behind.
		for range 5 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			_, err := m.Run(ctx, "auto", sandbox.Spec{Language: "python"}, at.wait)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("given up: %v", err)
			}
			refused := errors.New("refused")
			if _, err := m.Run(t.Context(), "auto", sandbox.Spec{Language: "python"}, func(context.Context) error { return refused }); !errors.Is(err, refused) {
				t.Errorf("refused: %v", err)
			}
		}
		if got := m.Load(); got != (sandbox.Load{Slots: 2}) {
			t.Errorf("afterwards Load() = %+v", got)
		}
	})
}

// A cancelled run whose intent is durable waits for no slot, and takes none along.
func TestCancelledWhileItsSlotIsLent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bare{fake: speaks("python")}
		m := newManager(t, sandbox.ManagerConfig{Backends: map[string]sandbox.Backend{"restricted": b}, Slots: 1})
		b.seen(t, m, time.Millisecond)
		ctx, cancel := context.WithCancel(t.Context())
		b.length = time.Hour
		var wg sync.WaitGroup
		for i, of := range []context.Context{t.Context(), ctx} {
			wg.Go(func() {
				ready := func(context.Context) error { time.Sleep(time.Duration(i+1) * time.Second); return nil }
				res, err := m.Run(of, "auto", sandbox.Spec{Language: "python"}, ready)
				if want := []sandbox.Status{sandbox.OK, sandbox.Cancelled}[i]; err != nil || res.Status != want {
					t.Errorf("run %d: %+v, %v, want %s", i, res, err, want)
				}
			})
			synctest.Wait()
		}
		time.Sleep(time.Minute) // the second waits for the slot of the first
		cancel()
		wg.Wait()
		if got := m.Load(); got != (sandbox.Load{Slots: 1}) {
			t.Errorf("afterwards Load() = %+v", got)
		}
	})
}

func TestNothingIsLentWhereRunsAreLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bare{fake: speaks("python")}
		m := newManager(t, sandbox.ManagerConfig{Backends: map[string]sandbox.Backend{"restricted": b}, Slots: 2, Wait: time.Hour})
		b.seen(t, m, time.Second)
		var at intents
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, err := m.Run(t.Context(), "auto", sandbox.Spec{Language: "python"}, at.wait); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if at.most != 2 {
			t.Errorf("%d waited for their intents at the same time, want 2", at.most)
		}
		// Of those in between, as many as are served soon.
		b.seen(t, m, 100*time.Millisecond)
		at = intents{}
		for range 20 {
			wg.Go(func() {
				if _, err := m.Run(t.Context(), "auto", sandbox.Spec{Language: "python"}, at.wait); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if at.most < 4 || at.most > 8 {
			t.Errorf("%d waited for their intents at the same time, want 4 to 8", at.most)
		}
	})
}

func TestLentSlotsGoRoundTheOwners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bare{fake: speaks("python")}
		m := newManager(t, sandbox.ManagerConfig{Backends: map[string]sandbox.Backend{"restricted": b}, Slots: 1, Wait: time.Hour})
		b.seen(t, m, time.Millisecond)
		b.length = time.Minute // it could not be foreseen
		var wg sync.WaitGroup
		for i, owner := range []string{"a", "a", "a", "b"} {
			ready := func(context.Context) error { time.Sleep(time.Second + time.Duration(i)*time.Millisecond); return nil }
			wg.Go(func() {
				if _, err := m.Run(t.Context(), "auto", sandbox.Spec{Owner: owner, Language: "python"}, ready); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		if want := []string{"a", "a", "b", "a"}; !slices.Equal(b.began, want) {
			t.Errorf("owners ran in the order %v, want %v", b.began, want)
		}
	})
}
