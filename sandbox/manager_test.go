package sandbox_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agenticraft/node/sandbox"
	"github.com/prometheus/client_golang/prometheus"
)

// fake is a backend whose runs a test holds open.
type fake struct {
	description sandbox.Description
	run         func(ctx context.Context, spec sandbox.Spec) (sandbox.Result, error)
	mu          sync.Mutex
	closed      int
}

func (f *fake) Run(ctx context.Context, spec sandbox.Spec, ready func(context.Context) error) (sandbox.Result, error) {
	if ready != nil {
		if err := ready(ctx); err != nil {
			return sandbox.Result{}, err
		}
	}
	return f.run(ctx, spec)
}

func (f *fake) Describe() sandbox.Description { return f.description }

func (f *fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed++
	return nil
}

func speaks(languages ...string) *fake {
	return &fake{
		description: sandbox.Description{Available: true, Languages: languages},
		run: func(context.Context, sandbox.Spec) (sandbox.Result, error) {
			return sandbox.Result{Status: sandbox.OK}, nil
		},
	}
}

func newManager(t *testing.T, cfg sandbox.ManagerConfig) *sandbox.Manager {
	t.Helper()
	m, err := sandbox.NewManager(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func TestResolve(t *testing.T) {
	down := speaks("python")
	down.description.Available = false
	down.description.Reason = "user namespaces are off"
	down.description.Hint = "run: sysctl kernel.unprivileged_userns_clone=1"
	m := newManager(t, sandbox.ManagerConfig{
		Backends: map[string]sandbox.Backend{"process": speaks("python"), "restricted": speaks("starlark"), "docker": down, "bare": speaks("sh"), "wasm": speaks("wasm")},
		Order:    map[string][]string{"python": {"docker", "process"}, "starlark": {"restricted", "process"}, "javascript": {"process"}},
	})
	for _, tt := range []struct {
		backend, language, want string
		err                     error
		text                    string
	}{
		{"auto", "python", "process", nil, ""},
		{"", "starlark", "restricted", nil, ""},
		{"auto", "sh", "bare", nil, ""},
		{"process", "python", "process", nil, ""},
		{"docker", "python", "", sandbox.ErrUnavailable, "user namespaces are off"},
		{"docker", "python", "", sandbox.ErrUnavailable, "run: sysctl"},
		{"restricted", "python", "", sandbox.ErrUnavailable, "restricted does not run python"},
		{"bare", "python", "", sandbox.ErrUnavailable, "run: agenticraft runtime add python"},
		{"wasm", "python", "", sandbox.ErrUnavailable, "run: agenticraft runtime add FILE.wasm --language python"},
		{"auto", "javascript", "", sandbox.ErrUnavailable, "this node runs python, sh, starlark, wasm"},
		{"auto", "cobol", "", sandbox.ErrSpec, `unknown language "cobol"; this node knows javascript, python, sh, starlark`},
		{"moon", "python", "", sandbox.ErrSpec, "this node has bare, docker, process, restricted, wasm"},
	} {
		got, err := m.Resolve(tt.backend, tt.language, "")
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("Resolve(%q, %q) = %q, %v, want %q, %v", tt.backend, tt.language, got, err, tt.want, tt.err)
		}
		if tt.text != "" && !strings.Contains(fmt.Sprint(err), tt.text) {
			t.Errorf("Resolve(%q, %q): %q does not say %q", tt.backend, tt.language, err, tt.text)
		}
	}
}

// What a backend says of itself is said once, its hint with it.
func TestWhyNothingRunsIsSaidOnce(t *testing.T) {
	const hint = "agenticraft runtime add python"
	bare := speaks("python")
	bare.description.Available = false
	bare.description.Reason = fmt.Sprint(fmt.Errorf("%w: no python runtime; run: %s", sandbox.ErrUnavailable, hint))
	bare.description.Hint = hint
	m := newManager(t, sandbox.ManagerConfig{
		Backends: map[string]sandbox.Backend{"process": bare, "restricted": speaks("starlark")},
		Order:    map[string][]string{"python": {"process"}, "starlark": {"restricted"}},
	})
	_, err := m.Resolve("auto", "python", "")
	const want = "sandbox unavailable: python cannot run here; this node runs starlark; " +
		"sandbox process is unavailable: no python runtime; run: agenticraft runtime add python"
	if fmt.Sprint(err) != want {
		t.Errorf("Resolve = %q, want %q", err, want)
	}
}

func TestResolvePrefersTheDefaultWhereItSpeaksTheLanguage(t *testing.T) {
	m := newManager(t, sandbox.ManagerConfig{
		Backends: map[string]sandbox.Backend{"process": speaks("python"), "docker": speaks("python"), "restricted": speaks("starlark")},
		Default:  "docker",
		Order:    map[string][]string{"python": {"process"}, "starlark": {"restricted"}},
	})
	for language, want := range map[string]string{"python": "docker", "starlark": "restricted"} {
		if got, err := m.Resolve("auto", language, ""); got != want || err != nil {
			t.Errorf("Resolve(auto, %s) = %q, %v, want %q", language, got, err, want)
		}
	}
}

func TestRunFillsAndClampsLimits(t *testing.T) {
	var got sandbox.Spec
	b := speaks("python")
	b.run = func(_ context.Context, spec sandbox.Spec) (sandbox.Result, error) {
		got = spec
		return sandbox.Result{Status: sandbox.OK}, nil
	}
	m := newManager(t, sandbox.ManagerConfig{
		Backends: map[string]sandbox.Backend{"process": b},
		Defaults: sandbox.Limits{Wall: 5 * time.Second},
		Max:      sandbox.Limits{Memory: 64 << 20},
	})
	if _, err := m.Run(t.Context(), "auto", sandbox.Spec{Language: "python", Limits: sandbox.Limits{CPUPercent: 7}}, nil); err != nil {
		t.Fatal(err)
	}
	want := sandbox.DefaultLimits()
	want.Wall, want.Memory, want.CPUPercent = 5*time.Second, 64<<20, 7
	if got.Limits != want {
		t.Errorf("limits are %+v, want %+v", got.Limits, want)
	}
	if got.ID == "" {
		t.Error("the run got no id")
	}
}

func TestSpecValidate(t *testing.T) {
	good := sandbox.Spec{ID: "r-1", Owner: "agent:did:key:z6Mk", Language: "python"}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	file := func(p string) func(*sandbox.Spec) {
		return func(s *sandbox.Spec) { s.Files = append(s.Files, sandbox.File{Path: p}) }
	}
	for name, spoil := range map[string]func(*sandbox.Spec){
		"empty id":          func(s *sandbox.Spec) { s.ID = "" },
		"id with slash":     func(s *sandbox.Spec) { s.ID = "../x" },
		"long id":           func(s *sandbox.Spec) { s.ID = strings.Repeat("a", 65) },
		"owner control":     func(s *sandbox.Spec) { s.Owner = "a\nb" },
		"language":          func(s *sandbox.Spec) { s.Language = "Python 3" },
		"long code":         func(s *sandbox.Spec) { s.Code = make([]byte, sandbox.MaxCode+1) },
		"binary code":       func(s *sandbox.Spec) { s.Code = []byte{0xff} },
		"code with NUL":     func(s *sandbox.Spec) { s.Code = []byte("a\x00b") },
		"negative limit":    func(s *sandbox.Spec) { s.Limits.Wall = -1 },
		"tiny memory":       func(s *sandbox.Spec) { s.Limits.Memory = 1 },
		"unknown required":  func(s *sandbox.Spec) { s.Required = []string{"memry"} },
		"absolute path":     file("/etc/passwd"),
		"parent path":       file("a/../../b"),
		"unclean path":      file("a//b"),
		"dot path":          file("."),
		"empty path":        file(""),
		"backslash path":    file(`a\b`),
		"control path":      file("a\nb"),
		"non-UTF-8 path":    file("\xff"),
		"long name":         file(strings.Repeat("n", 256)),
		"deep path":         file(strings.Repeat("d/", 20) + "f"),
		"same path twice":   func(s *sandbox.Spec) { file("a")(s); file("a")(s) },
		"file under a file": func(s *sandbox.Spec) { file("a/b")(s); file("a")(s) },
		"too many files": func(s *sandbox.Spec) {
			for i := range sandbox.MaxFiles + 1 {
				file(fmt.Sprint(i))(s)
			}
		},
		"too much input": func(s *sandbox.Spec) { s.Stdin = make([]byte, sandbox.MaxInput+1) },
	} {
		s := good
		spoil(&s)
		if err := s.Validate(); !errors.Is(err, sandbox.ErrSpec) {
			t.Errorf("%s: Validate() = %v, want ErrSpec", name, err)
		} else if len(err.Error()) > 700 {
			t.Errorf("%s: the message has %d bytes", name, len(err.Error()))
		}
	}
}

// blocking returns a backend whose runs end when the test lets them, and the
// order in which owners were started.
func blocking() (b *fake, release chan struct{}, started *[]string) {
	release, started = make(chan struct{}), new([]string)
	b = speaks("python")
	var mu sync.Mutex
	b.run = func(ctx context.Context, spec sandbox.Spec) (sandbox.Result, error) {
		mu.Lock()
		*started = append(*started, spec.Owner)
		mu.Unlock()
		select {
		case <-release:
			return sandbox.Result{Status: sandbox.OK}, nil
		case <-ctx.Done():
			return sandbox.Result{Status: sandbox.Cancelled}, nil
		}
	}
	return b, release, started
}

func TestQueueGoesRoundTheOwners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, release, started := blocking()
		m := newManager(t, sandbox.ManagerConfig{Backends: map[string]sandbox.Backend{"process": b}, Slots: 1, Wait: time.Hour})
		var wg sync.WaitGroup
		for _, owner := range []string{"a", "a", "a", "a", "b", "b", "c"} {
			wg.Go(func() {
				if _, err := m.Run(t.Context(), "auto", sandbox.Spec{Owner: owner, Language: "python"}, nil); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		if got := m.Load(); got != (sandbox.Load{Slots: 1, Busy: 1, Queued: 6}) {
			t.Errorf("Load() = %+v", got)
		}
		for range 7 {
			release <- struct{}{}
			synctest.Wait()
		}
		wg.Wait()
		if want := []string{"a", "a", "b", "c", "a", "b", "a"}; !slices.Equal(*started, want) {
			t.Errorf("owners ran in the order %v, want %v", *started, want)
		}
		if got := m.Load(); got != (sandbox.Load{Slots: 1}) {
			t.Errorf("afterwards Load() = %+v", got)
		}
	})
}

func TestFullQueueRefusesWithRetryHintButNotOtherOwners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, release, started := blocking()
		m := newManager(t, sandbox.ManagerConfig{Backends: map[string]sandbox.Backend{"process": b}, Slots: 1, Queue: 3, Wait: time.Hour})
		var wg sync.WaitGroup
		var mu sync.Mutex
		busy := map[string]int{}
		run := func(owner string) {
			wg.Go(func() {
				_, err := m.Run(t.Context(), "auto", sandbox.Spec{Owner: owner, Language: "python"}, nil)
				var refusal *sandbox.BusyError
				if errors.As(err, &refusal) && errors.Is(err, sandbox.ErrBusy) {
					if refusal.RetryAfter <= 0 {
						t.Errorf("RetryAfter = %v", refusal.RetryAfter)
					}
					mu.Lock()
					busy[owner]++
					mu.Unlock()
				} else if err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		for range 6 {
			run("flood")
		}
		run("other")
		if busy["flood"] != 3 || busy["other"] != 0 {
			t.Errorf("refused %v, want 3 of the flood's and none of the other's", busy)
		}
		for range 4 {
			release <- struct{}{}
			synctest.Wait()
		}
		wg.Wait()
		if want := []string{"flood", "flood", "other", "flood"}; !slices.Equal(*started, want) {
			t.Errorf("owners ran in the order %v, want %v", *started, want)
		}
	})
}

func TestQueueGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, started := blocking()
		m := newManager(t, sandbox.ManagerConfig{Backends: map[string]sandbox.Backend{"process": b}, Slots: 1})
		var wg sync.WaitGroup
		wg.Go(func() { m.Run(t.Context(), "auto", sandbox.Spec{Language: "python"}, nil) })
		synctest.Wait()

		start := time.Now()
		if _, err := m.Run(t.Context(), "auto", sandbox.Spec{Language: "python"}, nil); !errors.Is(err, sandbox.ErrBusy) {
			t.Errorf("Run after the longest wait = %v, want ErrBusy", err)
		}
		if waited := time.Since(start); waited != 4*time.Second {
			t.Errorf("waited %v, want 4s", waited)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		never := func(context.Context) error { t.Error("ready was called"); return nil }
		if got, err := m.Run(ctx, "auto", sandbox.Spec{Language: "python"}, never); err != nil || got.Status != sandbox.Cancelled {
			t.Errorf("Run cancelled in the queue = %v, %v, want cancelled", got.Status, err)
		}
		if len(*started) != 1 {
			t.Errorf("%d programs ran, want 1", len(*started))
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	})
}

func TestCloseKillsWaitsAndRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, _ := blocking()
		m := newManager(t, sandbox.ManagerConfig{Backends: map[string]sandbox.Backend{"process": b}, Slots: 1})
		type answer struct {
			status sandbox.Status
			err    error
		}
		answers := make(chan answer, 2)
		for range 2 {
			go func() {
				r, err := m.Run(t.Context(), "auto", sandbox.Spec{Language: "python"}, nil)
				answers <- answer{r.Status, err}
			}()
		}
		synctest.Wait()
		for range 2 {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}
		got := map[answer]int{}
		for range 2 {
			got[<-answers]++
		}
		if got[answer{sandbox.Cancelled, nil}] != 1 || got[answer{"", sandbox.ErrClosed}] != 1 {
			t.Errorf("answers are %v, want one cancelled and one ErrClosed", got)
		}
		if _, err := m.Run(t.Context(), "auto", sandbox.Spec{Language: "python"}, nil); !errors.Is(err, sandbox.ErrClosed) {
			t.Errorf("Run after Close = %v, want ErrClosed", err)
		}
		if b.closed != 1 {
			t.Errorf("the backend was closed %d times", b.closed)
		}
	})
}

// TestI6RequiredLimitNotEnforced: a limit that cannot be enforced refuses the
// run, never weakens it silently; even a backend that errs is caught.
func TestI6RequiredLimitNotEnforced(t *testing.T) {
	b := speaks("python")
	b.run = func(context.Context, sandbox.Spec) (sandbox.Result, error) {
		return sandbox.Result{Status: sandbox.OK, Value: []byte("1"), Enforced: map[string]string{"wall": "timer"}}, nil
	}
	m := newManager(t, sandbox.ManagerConfig{Backends: map[string]sandbox.Backend{"process": b}})
	spec := sandbox.Spec{Language: "python", Required: []string{sandbox.LimitWall}}
	if got, err := m.Run(t.Context(), "auto", spec, nil); err != nil || got.Status != sandbox.OK {
		t.Errorf("Run = %v, %v, want ok", got.Status, err)
	}
	spec.Required = []string{sandbox.LimitMemory}
	if got, err := m.Run(t.Context(), "auto", spec, nil); err != nil || got.Status != sandbox.Internal || got.Value != nil {
		t.Errorf("Run = %v, %v, want internal", got.Status, err)
	}
}

func TestRunRefusesAnActiveID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, release, _ := blocking()
		m := newManager(t, sandbox.ManagerConfig{Backends: map[string]sandbox.Backend{"process": b}})
		spec := sandbox.Spec{ID: "same", Language: "python"}
		var wg sync.WaitGroup
		wg.Go(func() { m.Run(t.Context(), "auto", spec, nil) })
		synctest.Wait()
		if _, err := m.Run(t.Context(), "auto", spec, nil); !errors.Is(err, sandbox.ErrSpec) {
			t.Errorf("second run with the id = %v, want ErrSpec", err)
		}
		release <- struct{}{}
		wg.Wait()
		wg.Go(func() { m.Run(t.Context(), "auto", spec, nil) })
		release <- struct{}{}
		wg.Wait()
	})
}

func TestReadyErrorEndsTheRun(t *testing.T) {
	m := newManager(t, sandbox.ManagerConfig{Backends: map[string]sandbox.Backend{"process": speaks("python")}})
	want := errors.New("no quorum")
	_, err := m.Run(t.Context(), "auto", sandbox.Spec{Language: "python"}, func(context.Context) error { return want })
	if !errors.Is(err, want) {
		t.Errorf("Run = %v, want the error of ready", err)
	}
	if got := m.Load(); got.Busy != 0 {
		t.Errorf("%d slots are still busy", got.Busy)
	}
}

func TestNewManagerNamesEveryFault(t *testing.T) {
	_, err := sandbox.NewManager(sandbox.ManagerConfig{
		Backends: map[string]sandbox.Backend{"auto": speaks("python"), "none": nil},
		Default:  "moon",
		Defaults: sandbox.Limits{Wall: -1},
		Slots:    -1,
	})
	for _, want := range []string{`"auto"`, `"none"`, `"moon"`, "wall", "slots"} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("NewManager: %v does not mention %s", err, want)
		}
	}
}

func TestMetricsRegisterAndCount(t *testing.T) {
	m := newManager(t, sandbox.ManagerConfig{Backends: map[string]sandbox.Backend{"process": speaks("python")}})
	r := prometheus.NewRegistry()
	for _, c := range m.Metrics() {
		if err := r.Register(c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Run(t.Context(), "auto", sandbox.Spec{Language: "python"}, nil); err != nil {
		t.Fatal(err)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "agenticraft_sandbox_runs_total" && f.GetMetric()[0].GetCounter().GetValue() == 1 {
			return
		}
	}
	t.Errorf("the run was not counted: %v", families)
}
