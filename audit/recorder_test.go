package audit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
)

// proposerFunc is a consensus that a test makes up.
type proposerFunc func(ctx context.Context, cmd []byte) ([]byte, error)

func (f proposerFunc) Propose(ctx context.Context, cmd []byte) ([]byte, error) { return f(ctx, cmd) }

// proposeError says whether a failed proposal may have been committed.
type proposeError bool

func (e proposeError) Error() string   { return fmt.Sprintf("not committed for sure: %v", !bool(e)) }
func (e proposeError) Ambiguous() bool { return bool(e) }

var denial = audit.Entry{Kind: audit.KindDenial, Body: []byte(`{"code":"policy"}`)}

func TestRecorderTellsUnknownFromUnavailable(t *testing.T) {
	for _, test := range []struct {
		name    string
		propose proposerFunc
		want    error
	}{
		{"never proposed", func(context.Context, []byte) ([]byte, error) { return nil, proposeError(false) }, audit.ErrUnavailable},
		{"perhaps committed", func(context.Context, []byte) ([]byte, error) { return nil, proposeError(true) }, audit.ErrUnknown},
		{"of unknown meaning", func(context.Context, []byte) ([]byte, error) { return nil, errors.New("?") }, audit.ErrUnknown},
		{"hanging", func(ctx context.Context, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }, audit.ErrUnknown},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := audit.NewRecorder(audit.RecorderConfig{Key: audittest.Key(t, 1), Proposer: test.propose})
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				_, err := r.Record(ctx, denial)
				if !errors.Is(err, test.want) || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Record = %v, want %v", err, test.want)
				}
				r.Close()
				if _, err := r.Record(ctx, denial); !errors.Is(err, audit.ErrClosed) {
					t.Errorf("Record after Close = %v", err)
				}
			})
		})
	}
}

// TestRecorderRetriesWithTheSameID commits an entry and reports failure: the
// retry must find it, not write it again.
func TestRecorderRetriesWithTheSameID(t *testing.T) {
	l := audittest.New(t, nil, nil)
	calls := 0
	r := audit.NewRecorder(audit.RecorderConfig{
		Key: audittest.Key(t, 1), Origin: l.Store.Origin(),
		Proposer: proposerFunc(func(ctx context.Context, cmd []byte) ([]byte, error) {
			calls++
			answer, err := l.Propose(ctx, cmd)
			switch calls {
			case 1:
				return nil, proposeError(true)
			case 2:
				return []byte("garbage"), nil
			}
			return answer, err
		}),
	})
	defer r.Close()
	e := denial
	e.ID = "fixed"
	if _, err := r.Record(deadline(t), e); !errors.Is(err, audit.ErrUnknown) {
		t.Errorf("an answer that cannot be read: %v, want ErrUnknown", err)
	}
	ack, err := r.Record(deadline(t), e)
	if err != nil || ack != (audit.Ack{Index: 1, Existing: true}) || l.Store.Size() != 2 {
		t.Errorf("Record = %+v, %v, size %d", ack, err, l.Store.Size())
	}
}

func TestRecorderBatches(t *testing.T) {
	l := audittest.New(t, nil, nil)
	const writers = 300
	gate := make(chan struct{})
	var mu sync.Mutex
	calls, proposed := 0, 0
	proposing := func() int {
		mu.Lock()
		defer mu.Unlock()
		return proposed
	}
	r := audit.NewRecorder(audit.RecorderConfig{
		Key: audittest.Key(t, 1), Origin: l.Store.Origin(),
		Proposer: proposerFunc(func(ctx context.Context, cmd []byte) ([]byte, error) {
			mu.Lock()
			calls++
			proposed += audit.BatchSize(cmd)
			mu.Unlock()
			<-gate
			return l.Propose(ctx, cmd)
		}),
	})
	defer r.Close()
	seen := make(map[uint64]bool)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			ack, err := r.Record(deadline(t), denial)
			mu.Lock()
			defer mu.Unlock()
			if err != nil || seen[ack.Index] {
				t.Errorf("Record = %+v, %v", ack, err)
			}
			seen[ack.Index] = true
		})
		// One entry to a lane first, then all the others.
		for end := deadline(t); i == 0 && proposing() == 0 && end.Err() == nil; {
			time.Sleep(time.Millisecond)
		}
	}
	for end := deadline(t); r.Queued()+proposing() < writers && end.Err() == nil; {
		time.Sleep(time.Millisecond)
	}
	close(gate)
	wg.Wait()
	if len(seen) != writers || calls > 8 {
		t.Errorf("%d entries in %d proposals", len(seen), calls)
	}
}

// TestRecorderGathers: entries wait for the proposal before them and go together,
// but not behind one that fails or hangs.
func TestRecorderGathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sizes := make(chan int, 16)
		answers := make(chan error) // to the first proposal of all
		first := true
		r := audit.NewRecorder(audit.RecorderConfig{Key: audittest.Key(t, 1), Proposer: proposerFunc(func(ctx context.Context, cmd []byte) ([]byte, error) {
			sizes <- audit.BatchSize(cmd)
			if first {
				first = false
				select {
				case err := <-answers:
					return nil, err
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
			return audit.AppendedAll(cmd, 1), nil
		})})
		defer r.Close()
		var wg sync.WaitGroup
		defer wg.Wait()
		record := func(n int) {
			for range n {
				wg.Go(func() {
					if _, err := r.Record(t.Context(), denial); err != nil {
						t.Error(err)
					}
				})
			}
			synctest.Wait()
		}
		record(1)
		record(5)
		if got := len(sizes); got != 1 || r.Queued() != 5 {
			t.Errorf("%d proposals, %d entries wait behind one that is under way", got, r.Queued())
		}
		time.Sleep(50 * time.Millisecond)
		synctest.Wait()
		if got := len(sizes); got != 2 || r.Queued() != 0 {
			t.Errorf("%d proposals, %d entries wait behind one that hangs", got, r.Queued())
		}
		answers <- proposeError(false)
		wg.Wait()
		var got []int
		for len(sizes) > 0 {
			got = append(got, <-sizes)
		}
		if want := []int{1, 5, 1}; !slices.Equal(got, want) {
			t.Errorf("proposals of %v entries, want %v", got, want)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		fail := make(chan struct{})
		r := audit.NewRecorder(audit.RecorderConfig{Key: audittest.Key(t, 1), Proposer: proposerFunc(func(_ context.Context, cmd []byte) ([]byte, error) {
			if audit.BatchSize(cmd) == 1 {
				<-fail
				return nil, proposeError(false)
			}
			return audit.AppendedAll(cmd, 1), nil
		})})
		ctx, cancel := context.WithCancel(t.Context())
		var wg, behind sync.WaitGroup
		wg.Go(func() { _, _ = r.Record(ctx, denial) }) // fails as often as it is tried
		synctest.Wait()
		for range 2 {
			behind.Go(func() {
				if _, err := r.Record(t.Context(), denial); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		begun := time.Now()
		close(fail)
		behind.Wait()
		if took := time.Since(begun); took != 0 { // of the bubble's clock
			t.Errorf("entries waited %v for one that had failed", took)
		}
		cancel()
		wg.Wait()
		r.Close()
	})
}

func TestRecorderRefusesWhatIsNoEntry(t *testing.T) {
	r := audittest.New(t, nil, nil).Recorder(audittest.Key(t, 1))
	for name, e := range map[string]audit.Entry{
		"kind":         {Kind: "poem"},
		"no body":      {Kind: audit.KindIntent, Task: "t", Attempt: 1},
		"free text":    {Kind: audit.KindDenial, Actor: "some body", Body: denial.Body},
		"large number": {Kind: audit.KindMember, Body: []byte(`{"n":9007199254740993}`)},
		"not JSON":     {Kind: audit.KindMember, Body: []byte(`{`)},
		"too large":    {Kind: audit.KindMember, Body: fmt.Appendf(nil, `{"n":"%065535d"}`, 1)},
	} {
		if _, err := r.Record(deadline(t), e); !errors.Is(err, audit.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}

// TestRecorderKeepsCommandsSmall records large entries at once: no command may
// exceed what consensus takes.
func TestRecorderKeepsCommandsSmall(t *testing.T) {
	l := audittest.New(t, nil, nil)
	var mu sync.Mutex
	largest := 0
	r := audit.NewRecorder(audit.RecorderConfig{
		Key: audittest.Key(t, 1), Origin: l.Store.Origin(),
		Proposer: proposerFunc(func(ctx context.Context, cmd []byte) ([]byte, error) {
			mu.Lock()
			largest = max(largest, len(cmd))
			mu.Unlock()
			return l.Propose(ctx, cmd)
		}),
	})
	defer r.Close()
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			e := audit.Entry{Kind: audit.KindTenant, Body: fmt.Appendf(nil, `{"x":"%0*d"}`, 20_000+600*i, 1)}
			if _, err := r.Record(deadline(t), e); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	if largest > audit.MaxCommand || l.Store.Size() != 61 {
		t.Errorf("largest command %d bytes, limit %d; size %d", largest, audit.MaxCommand, l.Store.Size())
	}
}
