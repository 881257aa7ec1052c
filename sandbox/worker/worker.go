// Package worker keeps jailed workers: interpreters of our own, each in the
// tightest jail there is, that run one program after another for one owner.
//
// That saves their start. A worker never changes owner, and one that hit a
// limit, was killed or broke the protocol is destroyed.
package worker

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail"
	"github.com/agenticraft/node/sandbox/jail/wire"
	"github.com/agenticraft/node/sandbox/worker/protocol"
)

// Times and caps around a worker.
const (
	writeTimeout = 5 * time.Second  // for handing over one program
	killTimeout  = 10 * time.Second // for the jail to be gone after a kill
	deathTimeout = 2 * time.Second  // for a worker that hung up to be gone by itself
	maxStderr    = 128 << 10        // bytes of traceback
	maxLastWords = 4 << 10          // bytes of what the Go runtime says at its end
	maxLeft      = 256              // files that a program leaves
	maxLeftBytes = 8 << 20          // of them together
)

// Process is the jail of a worker, or a test's imitation.
type Process interface {
	Control() Control
	Stderr() io.Reader
	Enforced() map[string]string
	Done() <-chan struct{}
	Kill()
	Wait(context.Context) (jail.Exit, error)
	Release()
}

// Control is the private channel to a worker. All that comes from it is hostile.
type Control interface {
	io.ReadWriter
	SetDeadline(time.Time) error
}

type jailed struct{ *jail.Jail }

func (j jailed) Control() Control  { return j.Jail.Control() }
func (j jailed) Stderr() io.Reader { return j.Jail.Stderr() }

// threads of a worker's own runtime; its programs have none.
const threads = 32

// Jail makes the jail of a worker that argv starts in root, which holds at
// least the helper ("" for one that holds nothing else). cores is for how many its
// runtime schedules: one is cheaper to wake, if no program holds on to it.
func Jail(ctx context.Context, s *jail.Spawner, id, root string, c Class, cores int, argv ...string) (Process, error) {
	j, err := s.Start(ctx, jail.Profile{
		ID:   id,
		Root: root,
		Argv: append([]string{"/jail"}, argv...),
		Env: []string{
			"GOMAXPROCS=" + strconv.Itoa(cores),
			"GOTRACEBACK=none",
			// The collector works harder before the limit is reached.
			"GOMEMLIMIT=" + strconv.FormatInt(c.Memory*3/4, 10),
		},
		Limits: sandbox.Limits{
			Memory:     c.Memory,
			CPUPercent: c.CPU,
			// A run has its own wall limit, kept by [Worker.Run]. This one is the
			// worker's, whose processor time may add up over its runs.
			Wall:      time.Hour,
			FileSize:  1,
			Files:     1,
			Processes: threads,
		},
		Worker:   true,
		Syscalls: jail.SyscallsWorker,
	})
	if err != nil {
		return nil, err
	}
	return jailed{j}, nil
}

// Worker is one jailed interpreter. It is used by one goroutine at a time.
type Worker struct {
	Version  string            // of the interpreter, as it greets
	Enforced map[string]string // limit -> mechanism

	cfg     *Config
	process Process
	class   Class
	owner   string // "" until it is first claimed
	runs    int
	in      *bufio.Reader
	ran     bool // some code entered it

	words  sync.WaitGroup // the reader of lastly
	lastly bytes.Buffer   // beginning of stderr; read it after words.Wait
	expiry *time.Timer    // while it waits in the pool
}

// greet makes a worker of a fresh process that says Hello in time.
func greet(p Process, c Class, cfg *Config) (*Worker, error) {
	w := &Worker{process: p, class: c, cfg: cfg, Enforced: p.Enforced(), in: bufio.NewReaderSize(p.Control(), 32<<10)}
	if cfg.Enforced != nil {
		w.Enforced = cfg.Enforced(w.Enforced)
	}
	w.words.Go(func() {
		// What cannot be read or kept is of no use.
		_, _ = io.CopyN(&w.lastly, p.Stderr(), maxLastWords)
		_, _ = io.Copy(io.Discard, p.Stderr())
	})
	if err := p.Control().SetDeadline(time.Now().Add(cfg.Hello)); err != nil {
		w.destroy()
		return nil, fmt.Errorf("%w: %s worker: %w", sandbox.ErrUnavailable, cfg.Name, err)
	}
	_, version, err := protocol.Read(w.in, protocol.Hello)
	if err != nil {
		exit, words := w.bury(deathTimeout)
		return nil, &StartError{
			OOM: outOfMemory(exit, words, w.Enforced),
			err: fmt.Errorf("%w: %s worker did not start: %w (exit code %d, signal %d): %.500s", sandbox.ErrUnavailable, cfg.Name, err, exit.Code, exit.Signal, words),
		}
	}
	w.Version = string(version)
	return w, nil
}

// StartError: a worker ended before it greeted. It wraps [sandbox.ErrUnavailable].
type StartError struct {
	OOM bool // for want of memory
	err error
}

func (e *StartError) Error() string { return e.err.Error() }
func (e *StartError) Unwrap() error { return e.err }

// outOfMemory says whether memory ended a worker, however the limit answered.
func outOfMemory(exit jail.Exit, words string, enforced map[string]string) bool {
	if exit.OOM || strings.Contains(words, "out of memory") || strings.Contains(words, "cannot allocate memory") || askedForAll(words) {
		return true
	}
	// Where memory is refused and not the process killed, Go's collector may use
	// what it did not get: it falls over on its own stack, goroutine 0, on which
	// no program of ours runs.
	return strings.Contains(enforced[sandbox.LimitMemory], "rlimit_data") &&
		strings.HasPrefix(words, "SIGSEGV: ") && strings.Contains(words, "\ngoroutine 0 ")
}

// askedForAll says whether the Go runtime refused a size before it looked for
// memory: one that no machine has.
func askedForAll(words string) bool {
	_, said, panicked := strings.Cut(words, "panic: ")
	said, _, _ = strings.Cut(said, "\n")
	return panicked && (strings.HasPrefix(said, "runtime error: makeslice: ") || strings.HasPrefix(said, "runtime error: growslice: ") ||
		strings.HasPrefix(said, "strings: ") && strings.HasSuffix(said, "overflow") || strings.HasPrefix(said, "bytes.Buffer: too large"))
}

// alive says whether the worker can be given a program.
func (w *Worker) alive() bool {
	select {
	case <-w.process.Done():
		return false
	default:
		return w.in.Buffered() == 0
	}
}

// destroy kills the worker, waits until its jail is gone and returns how it
// ended and what it said last.
func (w *Worker) destroy() (jail.Exit, string) {
	w.process.Kill()
	return w.bury(killTimeout)
}

// bury waits for the end of a worker, killing it if that takes too long.
func (w *Worker) bury(patience time.Duration) (jail.Exit, string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	exit, err := w.process.Wait(ctx)
	cancel()
	if err != nil {
		w.process.Kill()
		ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
		exit, err = w.process.Wait(ctx)
		cancel()
	}
	w.process.Release() // ends the reader of stderr even if the jail hangs
	w.words.Wait()
	words := w.lastly.String()
	if err != nil {
		words += err.Error()
	}
	return exit, words
}

// Run hands one program over and collects what comes of it. Unless reusable is
// true, the worker has been destroyed. steps bounds the interpreter's steps,
// where it counts them; 0 is no bound.
func (w *Worker) Run(ctx context.Context, spec sandbox.Spec, steps uint64) (result sandbox.Result, reusable bool) {
	w.runs++
	w.ran = true
	start := time.Now()
	c := &collector{spec: spec}
	err := w.exchange(ctx, spec, steps, start, c)
	c.result.Usage.Wall = time.Since(start)
	if err == nil {
		r := c.report
		c.result.Status, c.result.ExitCode = sandbox.Status(r.Status), r.ExitCode
		c.result.ErrorCode, c.result.Message = r.ErrorCode, strings.ToValidUTF8(r.Message, "\uFFFD")
		c.result.StdoutTruncated = c.result.StdoutTruncated || r.Truncated
		c.result.StderrTruncated = c.result.StderrTruncated || r.TruncatedErr
		c.result.FilesTruncated = r.TruncatedFiles
		c.result.Usage.CPU, c.result.Usage.PeakMemory = r.CPU, r.Memory
		if c.bad != nil && c.result.Status == sandbox.OK && r.ExitCode == 0 {
			c.result.Status, c.result.ExitCode, c.result.ErrorCode, c.result.Message = sandbox.Error, 1, "result_not_json", c.bad.Error()
			r.ExitCode = 1
		}
		switch {
		case c.result.Status == sandbox.OK && r.ExitCode == 0, c.result.Status == sandbox.Error && r.ExitCode != 0:
			if w.in.Buffered() == 0 {
				return c.result, true
			}
		case c.result.Status == sandbox.Timeout, c.result.Status == sandbox.OutputLimit, c.result.Status == sandbox.OutOfMemory:
			c.result.Value, c.result.Files = nil, nil
			w.destroy()
			c.result.Usage.Wall = time.Since(start) // with its end, as below
			return c.result, false
		}
		err = fmt.Errorf("%w: status %.20q with exit code %d", protocol.ErrProtocol, r.Status, r.ExitCode)
	}
	c.result.Value, c.result.Files = nil, nil
	w.end(ctx, err, &c.result)
	c.result.Usage.Wall = time.Since(start)
	return c.result, false
}

// exchange speaks the protocol for one run.
func (w *Worker) exchange(ctx context.Context, spec sandbox.Spec, steps uint64, start time.Time, c *collector) error {
	channel := w.process.Control()
	if err := channel.SetDeadline(start.Add(writeTimeout)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	// A deadline in the past wakes whoever reads or writes. It must neither be
	// covered by the deadline of the run nor fall into the worker's next run.
	var mu sync.Mutex
	woken, ended := false, false
	stop := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		if !ended {
			woken = true
			_ = channel.SetDeadline(time.Unix(1, 0)) // fails only if the channel is closed
		}
	})
	defer func() {
		stop()
		mu.Lock()
		defer mu.Unlock()
		ended = true
	}()
	files := make([]protocol.Input, len(spec.Files))
	for i, f := range spec.Files {
		files[i] = protocol.Input{Path: f.Path, Content: f.Content}
	}
	err := protocol.WriteRequest(channel, protocol.Request{
		Code: spec.Code, Stdin: spec.Stdin, Files: files,
		Order: protocol.Order{
			Wall: spec.Limits.Wall, Output: spec.Limits.Output, Result: spec.Limits.Result,
			// Deep recursion ends before it takes the memory of all else.
			Stack: int(min(spec.Limits.Memory/4, 64<<20)), Steps: steps,
			Args: spec.Args, FileSize: spec.Limits.FileSize, Files: spec.Limits.Files,
		},
	})
	if err != nil {
		return err
	}
	mu.Lock()
	if !woken {
		err = channel.SetDeadline(time.Now().Add(spec.Limits.Wall + w.cfg.Grace))
	}
	mu.Unlock()
	if err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	for {
		kind, payload, err := protocol.Read(w.in, protocol.Stdout, protocol.Stderr, protocol.Value, protocol.Left, protocol.Done)
		if err != nil {
			return err
		}
		if done, err := c.take(kind, payload); done || err != nil {
			return err
		}
	}
}

// end destroys the worker after err and says in result what happened.
func (w *Worker) end(ctx context.Context, err error, result *sandbox.Result) {
	set := func(status sandbox.Status, exit int, message string) {
		result.Status, result.ExitCode, result.Message = status, exit, message
	}
	var exit jail.Exit
	var words string
	hungUp := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || isBroken(err)
	if hungUp && ctx.Err() == nil {
		exit, words = w.bury(deathTimeout)
	} else {
		exit, words = w.destroy()
	}
	result.Usage.CPU, result.Usage.PeakMemory = exit.Usage.CPU, exit.Usage.PeakMemory
	switch {
	case ctx.Err() != nil:
		set(sandbox.Cancelled, 130, "cancelled by the caller")
	case errors.Is(err, os.ErrDeadlineExceeded):
		set(sandbox.Timeout, 124, "the program reached its time limit")
	case errors.Is(err, errFlood):
		result.ErrorCode = "output_limit"
		set(sandbox.OutputLimit, 1, "the program printed far more than its output limit")
	case !hungUp:
		set(sandbox.Internal, 1, w.cfg.Name+" worker: "+err.Error())
	case outOfMemory(exit, words, w.Enforced):
		set(sandbox.OutOfMemory, 137, "the program reached its memory limit")
	case strings.Contains(words, "stack overflow"):
		const message = "the program recursed too deeply"
		result.ErrorCode = "language_error"
		set(sandbox.Error, 1, message)
		result.Stderr = append(result.Stderr, "Error: "+message+"\n"...)
	case exit.CPULimit:
		set(sandbox.Timeout, 124, "the program reached its processor time limit")
	case exit.Signal != 0:
		set(sandbox.Killed, 128+exit.Signal, fmt.Sprintf("the worker was ended by signal %d", exit.Signal))
	default:
		set(sandbox.Internal, 1, fmt.Sprintf("%s worker ended with exit code %d: %.200q", w.cfg.Name, exit.Code, words))
	}
}

var errFlood = errors.New("more output than the worker may send")

// collector gathers the frames of one run and distrusts all of them.
type collector struct {
	spec   sandbox.Spec
	result sandbox.Result
	report protocol.Report
	errs   int64 // bytes of stderr so far
	bytes  int64 // of output files so far
	bad    error // what is wrong with the value
}

func (c *collector) take(kind protocol.Kind, payload []byte) (done bool, err error) {
	limits := c.spec.Limits
	switch kind {
	case protocol.Stdout:
		if int64(len(c.result.Stdout)+len(payload)) > limits.Output {
			return false, errFlood
		}
		c.emit("stdout", int64(len(c.result.Stdout)), payload)
		c.result.Stdout = append(c.result.Stdout, payload...)
	case protocol.Stderr:
		if c.errs += int64(len(payload)); c.errs > maxStderr+limits.Output {
			return false, errFlood
		}
		keep := min(int64(len(payload)), limits.Output-int64(len(c.result.Stderr)))
		if keep < int64(len(payload)) {
			c.result.StderrTruncated = true
		}
		c.emit("stderr", int64(len(c.result.Stderr)), payload[:keep])
		c.result.Stderr = append(c.result.Stderr, payload[:keep]...)
	case protocol.Value:
		if c.result.Value != nil {
			return false, fmt.Errorf("%w: two values", protocol.ErrProtocol)
		}
		switch c.result.Value, err = sandbox.CheckValue(payload, limits.Result); {
		case errors.Is(err, sandbox.ErrValueText), errors.Is(err, sandbox.ErrValueNumber):
			c.bad = err // what the program wrote into a file; the worker passes it on
		case err != nil:
			return false, fmt.Errorf("%w: value of %d bytes: %w", protocol.ErrProtocol, len(payload), err)
		}
	case protocol.Left:
		return false, c.left(payload)
	case protocol.Done:
		c.report, err = protocol.ParseReport(payload)
		return true, err
	}
	return false, nil
}

// left takes a file that the program left.
func (c *collector) left(payload []byte) error {
	path, content, found := bytes.Cut(payload, []byte{0})
	f := sandbox.File{Path: string(path), Content: content}
	c.bytes += int64(len(content))
	switch {
	case !found || !wire.OutputPath(f.Path):
		return fmt.Errorf("%w: output file %.80q", protocol.ErrProtocol, path)
	case len(c.result.Files) == maxLeft || c.bytes > maxLeftBytes || int64(len(content)) > c.spec.Limits.FileSize:
		return fmt.Errorf("%w: too many or too large output files", protocol.ErrProtocol)
	case len(c.result.Files) > 0 && c.result.Files[len(c.result.Files)-1].Path >= f.Path:
		return fmt.Errorf("%w: output files are not sorted", protocol.ErrProtocol)
	}
	c.result.Files = append(c.result.Files, f)
	return nil
}

func (c *collector) emit(stream string, offset int64, data []byte) {
	if c.spec.Output != nil && len(data) > 0 {
		c.spec.Output(stream, offset, data)
	}
}
