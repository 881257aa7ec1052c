// Package sandbox runs untrusted programs within limits, on one of several
// backends, behind one manager.
//
// A backend turns a [Spec] into a [Result]. Whatever the program does (fails,
// loops, eats memory, floods its output) is a Result; an error means that the
// backend could not run it at all.
package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// Backend runs one program in isolation. Run may be called concurrently. It
// returns only after every process of the run is gone. Cancelling ctx kills
// the run, whose Result then has [Cancelled].
//
// INVARIANT: I6, a limit that cannot be enforced refuses the run (an error
// wrapping [ErrUnenforceable]) if the spec requires it, and is otherwise
// reported as not enforced; it is never weakened silently.
type Backend interface {
	// Run calls ready, if not nil, once everything that does not need the code
	// is prepared, and puts the code into the jail only after ready returned
	// nil; an error of ready ends the run with that error and nothing ran.
	Run(ctx context.Context, spec Spec, ready func(context.Context) error) (Result, error)
	Describe() Description
	// Close kills what still runs, waits for it and releases everything.
	Close() error
}

// Description says what a backend offers on this machine, found by probing.
type Description struct {
	Name      string            `json:"name"`      // "process", "restricted", …
	Available bool              `json:"available"` // false: Reason says why and Hint what mends it
	Reason    string            `json:"reason,omitempty"`
	Hint      string            `json:"hint,omitempty"`
	Tier      string            `json:"tier,omitempty"`      // "T1" (strongest) to "T4"
	Languages []string          `json:"languages,omitempty"` // sorted
	Enforces  map[string]string `json:"enforces,omitempty"`  // limit -> mechanism, as in Result.Enforced
	Runtimes  map[string]string `json:"runtimes,omitempty"`  // language -> runtime digest
	Egress    bool              `json:"egress,omitempty"`    // programs may be given a way to named destinations
	Named     []string          `json:"named,omitempty"`     // further runtimes that a run may name
	// Bare: a run holds nothing of the machine while it waits for its ready, so that
	// others may have its slot meanwhile.
	Bare bool `json:"-"`
}

// Spec is one program and the limits it runs under.
type Spec struct {
	ID       string // names the run in cgroups and logs; unique per node; [a-z0-9-]
	Owner    string // the principal: workers are never shared across owners
	Language string // "python", "starlark", …
	// Runtime names the language tree, by its name or digest; "" is the newest of
	// the language.
	Runtime string
	// Code is the program's text. Where Language is [WASM] it names the module
	// instead: "sha256:HEX" is one that the node has, anything else the path of
	// one of Files.
	Code   []byte
	Args   []string // of the program, after its name
	Stdin  []byte
	Files  []File // placed in the working folder before the program starts
	Limits Limits
	// Required names the limits ([LimitMemory], …) without which the run must be refused.
	Required []string
	// Network is what the program may connect to, as [ParseNetwork] gives it;
	// nothing by default.
	Network []Destination
	// Connected is told of each connection that the program asked for, when it is
	// over; nil: nobody is. It may be called concurrently, before Run returns.
	Connected func(Connection)
	// Progress is told, in a line each, of what takes long before the program
	// starts, such as an image that is pulled or made; nil: nobody is.
	Progress func(line string)
	// Output receives stdout and stderr as they come; nil: only collected.
	Output func(stream string, offset int64, data []byte)
}

// WASM is the language of modules that speak WASI preview 1.
const WASM = "wasm"

// Module returns the file that is the program itself, and the others, where
// the language is [WASM] and the module comes with the run.
func (s Spec) Module() (module *File, others []File) {
	if s.Language != WASM {
		return nil, s.Files
	}
	for i := range s.Files {
		if s.Files[i].Path == string(s.Code) {
			others = append(append(others, s.Files[:i]...), s.Files[i+1:]...)
			return &s.Files[i], others
		}
	}
	return nil, s.Files
}

// File is a regular file below the working folder. Path is relative, clean
// and slash-separated.
type File struct {
	Path    string
	Content []byte
}

// Limits of one run. Zero means the manager's default; see [Manager].
type Limits struct {
	Memory     int64         `json:"memory_bytes"`
	CPUPercent int           `json:"cpu_percent"`  // of one core; 100 is a whole core
	Wall       time.Duration `json:"wall_ns"`      // from the start of the program
	Output     int64         `json:"output_bytes"` // stdout and stderr each
	FileSize   int64         `json:"file_size_bytes"`
	Files      int           `json:"files"`     // files and folders it may create
	Processes  int           `json:"processes"` // processes and threads
	Result     int64         `json:"result_bytes"`
}

// Names of limits, as Spec.Required and Result.Enforced use them.
const (
	LimitMemory     = "memory"
	LimitCPUPercent = "cpu_percent"
	LimitWall       = "wall"
	LimitOutput     = "output"
	LimitFileSize   = "file_size"
	LimitProcesses  = "processes"
	LimitNetwork    = "network"
	LimitFiles      = "filesystem"
	LimitSyscalls   = "syscalls"
)

// Status is how a run ended.
type Status string

// The ways a run can end.
const (
	OK          Status = "ok"           // exit code 0
	Error       Status = "error"        // the program's own non-zero exit code, or a language error (code 1)
	Timeout     Status = "timeout"      // wall or CPU time
	OutOfMemory Status = "oom"          // however the limit answered
	OutputLimit Status = "output_limit" // flooded stdout or stderr
	Killed      Status = "killed"       // by a signal of its own making or a forbidden call
	Cancelled   Status = "cancelled"    // by the caller
	Internal    Status = "internal"     // the sandbox failed; Message says how
)

// Result is what came of one run. Everything in it that the program wrote is
// hostile and capped.
type Result struct {
	Status          Status
	ExitCode        int
	Value           json.RawMessage // value of the variable "result"; nil if it was never set
	ErrorCode       string          // "", "language_error", "result_not_json", "result_too_large", …
	Message         string          // for people; never a secret
	Stdout          []byte
	Stderr          []byte
	StdoutTruncated bool
	StderrTruncated bool
	FilesTruncated  bool              // Message says why not all that the program left is in Files
	Files           []File            // regular files left in the working folder
	Enforced        map[string]string // limit -> mechanism that held it ("memory": "cgroup1"); absent: not enforced
	Usage           Usage
	Tier            string
	Runtime         string // digest of the language tree, or version of the built-in language
}

// Usage is what a run consumed, as far as the mechanism in force can tell.
type Usage struct {
	Wall       time.Duration `json:"wall_ns"`
	CPU        time.Duration `json:"cpu_ns"`
	PeakMemory int64         `json:"peak_memory_bytes"`
}

// Errors of a backend or the manager. Callers act on them by errors.Is.
var (
	// ErrUnenforceable: a required limit cannot be enforced on this machine.
	ErrUnenforceable = errors.New("limit cannot be enforced here")
	// ErrUnavailable: the backend or language does not exist on this machine.
	ErrUnavailable = errors.New("sandbox unavailable")
	// ErrBusy: every slot is taken and the queue is full; retry later.
	ErrBusy = errors.New("sandbox busy")
	// ErrClosed: the manager or backend is closed.
	ErrClosed = errors.New("sandbox closed")
	// ErrSpec: the spec itself is wrong; the message says where.
	ErrSpec = errors.New("bad run")
)
