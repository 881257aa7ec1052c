// Package sandboxtest holds every sandbox backend to one set of cases: the
// same program ends the same way everywhere, abuse ends as it should, and
// nothing is left afterwards.
package sandboxtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agenticraft/node/sandbox"
)

// killSlack is how long after its wall limit a run may return, on a busy
// machine.
const killSlack = 2 * time.Second

// Options of [Test].
type Options struct {
	// Language is the one to test; "" means the first that the backend offers.
	Language string
	// Residents is how many processes the backend may keep between runs, beyond
	// those it has when Test begins.
	Residents int
	// Differs gives the result of a case where it rightly differs, with the
	// reason beside it; "*" is any.
	Differs map[string]string
	// Ends gives the ends of a case that rightly ends otherwise, with the reason
	// beside them: one of these it must have, and no other.
	Ends map[string][]End
	// Brief runs what programs are for and the plainest abuse only, unless the
	// report is being written or [Long] is set: for a backend that is slow and not
	// the strongest.
	Brief bool
}

// End is one way in which a run may end.
type End struct {
	Status    sandbox.Status
	ExitCode  int
	ErrorCode string
	Value     string // "*" is any
}

// Long is set where time does not matter.
var Long bool

// Test runs every case that b's language can express.
func Test(t *testing.T, b sandbox.Backend, o Options) {
	t.Helper()
	d := b.Describe()
	if !d.Available {
		t.Fatalf("the backend is not available: %s", d.Reason)
	}
	if o.Language == "" {
		o.Language = d.Languages[0]
	}
	s := &suite{backend: b, options: o}
	if o.Language == sandbox.WASM {
		// A module is compiled when it is first used, which takes seconds.
		first := s.token(t, 0)
		first.Limits.Wall = time.Minute
		if r, err := b.Run(t.Context(), first, nil); err != nil || r.Status != sandbox.OK {
			t.Fatalf("the guest ended as %s, %v: %s", r.Status, err, r.Message)
		}
	}
	s.before = take(t)
	t.Run("cases", s.cases)
	t.Run("sequence", s.sequences)
	t.Run("stories", s.stories)
	s.nothingLeft(t)
	s.report(t, d)
}

type suite struct {
	backend sandbox.Backend
	options Options
	before  traces
	serial  int

	findings []finding // of the cases
}

// spec is a run of code with modest limits.
func (s *suite) spec(t testing.TB, code string) sandbox.Spec {
	t.Helper()
	s.serial++
	spec := sandbox.Spec{
		ID: fmt.Sprintf("case-%d", s.serial), Owner: "tester", Language: s.options.Language, Code: []byte(code),
		Limits: Limits(),
	}
	if spec.Language == sandbox.WASM {
		module(t, &spec, code)
	}
	return spec
}

// token prints "token-I" and has the result I, in any language.
func (s *suite) token(t testing.TB, i int) sandbox.Spec {
	t.Helper()
	return s.spec(t, strings.ReplaceAll(tokens[s.options.Language], "$", fmt.Sprint(i)))
}

var tokens = map[string]string{
	"python":     "print('token-$')\nresult = $",
	"starlark":   "print('token-$')\nresult = $",
	"javascript": "console.log('token-$'); const result = $",
	"sh":         "echo token-$; echo $ > result.json",
	"wasm":       "guest say token-$ value $",
}

// Limits are those of a case that asks for no others.
func Limits() sandbox.Limits {
	return sandbox.Limits{
		Memory: 128 << 20, CPUPercent: 100, Wall: 10 * time.Second, Output: 64 << 10,
		FileSize: 1 << 20, Files: 64, Processes: 16, Result: 64 << 10,
	}
}

// cases runs the table.
func (s *suite) cases(t *testing.T) {
	all := Cases()
	if s.options.Brief && !Long && os.Getenv(ReportEnv) == "" {
		all = ordinary
	}
	for _, c := range all {
		code, speaks := c.code[s.options.Language]
		if !speaks {
			continue
		}
		ends := s.ends(c)
		held := t.Run(c.name, func(t *testing.T) {
			spec := s.spec(t, code)
			benign := s.benign(t)
			if c.prepare != nil {
				c.prepare(&spec)
			}
			start := time.Now()
			r, err := s.backend.Run(t.Context(), spec, nil)
			elapsed := time.Since(start)
			benign()
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(ends, func(e End) bool {
				return r.Status == e.Status && r.ExitCode == e.ExitCode && r.ErrorCode == e.ErrorCode && (e.Value == anything || string(r.Value) == e.Value)
			}) {
				t.Errorf("ended as %s, exit code %d, error %q, result %.200q; want %s\nmessage: %s\nstderr: %.2000s", r.Status, r.ExitCode, r.ErrorCode, r.Value, must(ends), r.Message, r.Stderr)
			}
			if got := string(r.Stdout); c.stdout != anything && got != c.stdout {
				t.Errorf("stdout is %.200q, want %.200q", got, c.stdout)
			}
			if got := string(r.Stderr); c.stderr != "" && got != c.stderr {
				t.Errorf("stderr is %.200q, want %.200q", got, c.stderr)
			}
			if most := spec.Limits.Wall + killSlack; elapsed > most+startSlack {
				t.Errorf("took %v, more than %v", elapsed, most)
			}
			if c.check != nil {
				c.check(t, r)
			}
			for limit := range s.backend.Describe().Enforces {
				if r.Enforced[limit] == "" {
					t.Errorf("nothing held the limit %s", limit)
				}
			}
			s.nothingLeft(t)
		})
		s.findings = append(s.findings, finding{c.name, c.proves, must(ends), held})
	}
}

// ends are those that a case may have on this backend.
func (s *suite) ends(c testCase) []End {
	if others, differs := s.options.Ends[c.name]; differs {
		return others
	}
	usual := End{c.status, c.exit, c.errorCode, c.value}
	if other, differs := s.options.Differs[c.name]; differs {
		usual.Value = other
	}
	return []End{usual}
}

// benign starts a well-behaved run of another owner beside a case and returns a
// function that waits for it: whatever the case does, it must not be hurt.
func (s *suite) benign(t *testing.T) (wait func()) {
	t.Helper()
	spec := s.token(t, 7)
	spec.Owner = "neighbour"
	var result sandbox.Result
	var err error
	var wg sync.WaitGroup
	wg.Go(func() { result, err = s.backend.Run(t.Context(), spec, nil) })
	return func() {
		t.Helper()
		wg.Wait()
		if err != nil || result.Status != sandbox.OK || string(result.Value) != "7" || string(result.Stdout) != "token-7\n" {
			t.Errorf("the run beside it ended as %s, value %s, stdout %q, %v: %s", result.Status, result.Value, result.Stdout, err, result.Message)
		}
	}
}

// startSlack is for making the jail and starting the interpreter, on a machine that
// has much else to do.
const startSlack = 30 * time.Second

// sequences runs programs one after the other as the same owner: none may see
// anything of those before it.
func (s *suite) sequences(t *testing.T) {
	for name, programs := range sequences[s.options.Language] {
		t.Run(name, func(t *testing.T) {
			for i, p := range programs {
				r, err := s.backend.Run(t.Context(), s.spec(t, p.code), nil)
				if err != nil {
					t.Fatal(err)
				}
				if r.Status != p.status || string(r.Value) != p.value {
					t.Errorf("program %d ended as %s with %.100s, want %s with %s; stderr %.1000s", i, r.Status, r.Value, p.status, p.value, r.Stderr)
				}
			}
			s.nothingLeft(t)
		})
	}
}

// stories are the cases that are about the call, not the program.
func (s *suite) stories(t *testing.T) {
	for name, story := range map[string]func(*testing.T){
		"code waits for ready":                   s.codeWaitsForReady,
		"an error of ready means nothing ran":    s.readyError,
		"cancelled before it started":            s.cancelledBefore,
		"cancelled while it waits for ready":     s.cancelledInReady,
		"cancelled while it runs":                s.cancelledDuring,
		"I6 unenforceable limit refuses the run": s.unenforceable,
		"every limit it offers can be required":  s.required,
		"unknown language":                       s.unknownLanguage,
		"output comes while it runs":             s.streams,
		"runs side by side keep apart":           s.sideBySide,
	} {
		t.Run(name, func(t *testing.T) {
			story(t)
			s.nothingLeft(t)
		})
	}
}

func (s *suite) codeWaitsForReady(t *testing.T) {
	var mu sync.Mutex
	var order []string
	note := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		if len(order) == 0 || order[len(order)-1] != what {
			order = append(order, what)
		}
	}
	spec := s.token(t, 1)
	spec.Output = func(string, int64, []byte) { note("output") }
	r, err := s.backend.Run(t.Context(), spec, func(context.Context) error { note("ready"); return nil })
	if err != nil || r.Status != sandbox.OK {
		t.Fatalf("Run = %v, %v", r.Status, err)
	}
	if want := []string{"ready", "output"}; !slices.Equal(order, want) {
		t.Errorf("order is %v, want %v", order, want)
	}
}

func (s *suite) readyError(t *testing.T) {
	want := errors.New("no quorum")
	spec := s.token(t, 1)
	spec.Output = func(string, int64, []byte) { t.Error("the code ran") }
	r, err := s.backend.Run(t.Context(), spec, func(context.Context) error { return want })
	if !errors.Is(err, want) {
		t.Errorf("Run = %v, %v, want the error of ready", r.Status, err)
	}
}

func (s *suite) cancelledBefore(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	spec := s.token(t, 1)
	spec.Output = func(string, int64, []byte) { t.Error("the code ran") }
	r, err := s.backend.Run(ctx, spec, nil)
	if err != nil || r.Status != sandbox.Cancelled || r.ExitCode != 130 {
		t.Errorf("Run = %v %d, %v, want cancelled 130", r.Status, r.ExitCode, err)
	}
}

func (s *suite) cancelledInReady(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	spec := s.token(t, 1)
	spec.Output = func(string, int64, []byte) { t.Error("the code ran") }
	r, err := s.backend.Run(ctx, spec, func(context.Context) error { cancel(); return nil })
	if err != nil || r.Status != sandbox.Cancelled || r.ExitCode != 130 {
		t.Errorf("Run = %v %d, %v, want cancelled 130", r.Status, r.ExitCode, err)
	}
}

func (s *suite) cancelledDuring(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	spec := s.spec(t, started[s.options.Language])
	spec.Output = func(string, int64, []byte) { cancel() }
	start := time.Now()
	r, err := s.backend.Run(ctx, spec, nil)
	if err != nil || r.Status != sandbox.Cancelled || r.ExitCode != 130 || r.Value != nil {
		t.Errorf("Run = %v %d, %v, want cancelled 130", r.Status, r.ExitCode, err)
	}
	if elapsed := time.Since(start); elapsed > startSlack+killSlack {
		t.Errorf("the cancelled run took %v", elapsed)
	}
}

func (s *suite) unenforceable(t *testing.T) {
	spec := s.token(t, 1)
	spec.Required = []string{sandbox.LimitWall, "gravity"}
	spec.Output = func(string, int64, []byte) { t.Error("the code ran") }
	ready := func(context.Context) error { t.Error("ready was called"); return nil }
	r, err := s.backend.Run(t.Context(), spec, ready)
	if !errors.Is(err, sandbox.ErrUnenforceable) || !strings.Contains(fmt.Sprint(err), "gravity") {
		t.Errorf("Run = %v, %v, want ErrUnenforceable naming the limit", r.Status, err)
	}
}

func (s *suite) required(t *testing.T) {
	spec := s.token(t, 1)
	for limit := range s.backend.Describe().Enforces {
		spec.Required = append(spec.Required, limit)
	}
	if len(spec.Required) < 8 {
		t.Errorf("it offers to enforce only %v", spec.Required)
	}
	r, err := s.backend.Run(t.Context(), spec, nil)
	if err != nil || r.Status != sandbox.OK {
		t.Errorf("Run = %v, %v", r.Status, err)
	}
	if r.Tier == "" || r.Runtime == "" {
		t.Errorf("tier %q, runtime %q", r.Tier, r.Runtime)
	}
}

func (s *suite) unknownLanguage(t *testing.T) {
	spec := s.token(t, 1)
	spec.Language = "cobol"
	if r, err := s.backend.Run(t.Context(), spec, nil); !errors.Is(err, sandbox.ErrUnavailable) {
		t.Errorf("Run = %v, %v, want ErrUnavailable", r.Status, err)
	}
}

func (s *suite) streams(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	spec := s.spec(t, started[s.options.Language])
	spec.Limits.Wall = 20 * time.Second
	first := make(chan string, 1)
	spec.Output = func(stream string, offset int64, data []byte) {
		select {
		case first <- fmt.Sprintf("%s %d %s", stream, offset, data):
		default:
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := s.backend.Run(ctx, spec, nil); err != nil {
			t.Error(err)
		}
	})
	defer wg.Wait()
	select {
	case got := <-first:
		if got != "stdout 0 started\n" {
			t.Errorf("the first output is %q", got)
		}
	case <-ctx.Done():
		t.Error("no output while the program runs")
	}
	cancel()
}

func (s *suite) sideBySide(t *testing.T) {
	const runs = 6
	specs := make([]sandbox.Spec, runs)
	for i := range specs {
		specs[i] = s.token(t, i)
		specs[i].Owner = fmt.Sprintf("owner-%d", i%3)
	}
	var wg sync.WaitGroup
	for i, spec := range specs {
		wg.Go(func() {
			r, err := s.backend.Run(t.Context(), spec, nil)
			if err != nil {
				t.Error(err)
				return
			}
			if want := fmt.Sprintf("token-%d\n", i); string(r.Stdout) != want || string(r.Value) != fmt.Sprint(i) {
				t.Errorf("run %d printed %q and gave %s", i, r.Stdout, r.Value)
			}
		})
	}
	wg.Wait()
}

// nothingLeft waits until processes, control groups, mounts and descriptors
// are what they were at the beginning.
func (s *suite) nothingLeft(t *testing.T) {
	t.Helper()
	Left{s.before}.NothingBeyond(t, s.options.Residents)
}
