package a2a

import (
	"encoding/json"
	"strings"

	"github.com/agenticraft/node/identity"
)

// Execution is what a request asks to be run: the value of the one data part
// of its message. Its JSON Schema is [ExecutionSchema]; unknown members are
// refused, for a limit that was misspelt must not be lost.
type Execution struct {
	Language  string   `json:"language"`             // "python", "starlark", …
	Runtime   string   `json:"runtime,omitempty"`    // name or digest of the runtime; "" for the language's default
	Code      string   `json:"code"`                 // source text, UTF-8; for "wasm" what [Execution.Needs] says
	Args      []string `json:"args,omitempty"`       // of the program
	Stdin     string   `json:"stdin,omitempty"`      // UTF-8 text
	Files     []File   `json:"files,omitempty"`      // placed in the working folder
	Sandbox   string   `json:"sandbox,omitempty"`    // "auto" (default), "process", "restricted", …
	Network   string   `json:"network,omitempty"`    // "none" (default) or "allow=HOST:PORT,…"
	DataClass string   `json:"data_class,omitempty"` // what the code and its data are, such as "internal"; policy's word
	On        string   `json:"on,omitempty"`         // "any" (default), "local" or a peer ID
	Mandate   string   `json:"mandate,omitempty"`    // on whose behalf; docs/mandate.md
	Limits    Limits   `json:"limits,omitzero"`
	Require   []string `json:"require,omitempty"` // limits without which the run must be refused
}

// digestPrefix begins the code of a WebAssembly run whose module is the node's.
const digestPrefix = "sha256:"

// Needs names the runtime without which a node cannot run this, by its name or
// digest; "" means any of the language. The code of a run in the language "wasm"
// is the path of one of its files, which is the module, or "sha256:" and the
// digest of a module that a node has.
func (e Execution) Needs() string {
	if e.Runtime == "" && e.Language == "wasm" && strings.HasPrefix(e.Code, digestPrefix) {
		return strings.TrimPrefix(e.Code, digestPrefix)
	}
	return strings.TrimPrefix(e.Runtime, digestPrefix)
}

// File is one file of a request, relative to the working folder.
type File struct {
	Path    string `json:"path"`
	Content []byte `json:"content"` // base64 in JSON
}

// OutFile is one file that a program left in its working folder. MediaType is what
// its name and content are taken for (RFC 6838): the program chose both.
type OutFile struct {
	Path      string `json:"path"`
	MediaType string `json:"media_type,omitempty"`
	Content   []byte `json:"content"` // base64 in JSON
}

// Limits that the caller asks for; zero means the node's default. Policy may
// narrow them, never widen.
type Limits struct {
	MemoryBytes   int64 `json:"memory_bytes,omitempty"`
	CPUPercent    int   `json:"cpu_percent,omitempty"` // of one core
	TimeoutMS     int64 `json:"timeout_ms,omitempty"`  // wall time
	OutputBytes   int64 `json:"output_bytes,omitempty"`
	FileSizeBytes int64 `json:"file_size_bytes,omitempty"`
	Processes     int   `json:"processes,omitempty"`
}

// Status is how an execution ended, or that it has not.
type Status string

// The statuses of the command line's contract, and Running before them.
const (
	Running   Status = "running"
	Succeeded Status = "succeeded"
	Failed    Status = "failed"
	Denied    Status = "denied"
	Cancelled Status = "cancelled"
	TimedOut  Status = "timed_out"
	Lost      Status = "lost"
)

// Report is the result of an execution: the value of the data part of the
// task's artifact "report". Stdout and Stderr are text with invalid UTF-8
// replaced; the raw bytes travel as artifacts of their own.
type Report struct {
	Task      string            `json:"task"`
	Node      identity.ID       `json:"node"` // the node that ran it
	Status    Status            `json:"status"`
	ExitCode  int               `json:"exit_code"`
	Result    json.RawMessage   `json:"result"` // null when the program set none
	Stdout    string            `json:"stdout"`
	Stderr    string            `json:"stderr"`
	Truncated []string          `json:"truncated,omitempty"` // "stdout", "stderr", "files", "result": not all of it is here
	Files     []OutFile         `json:"files"`
	Sandbox   string            `json:"sandbox"`
	Tier      string            `json:"tier,omitempty"`
	Runtime   string            `json:"runtime,omitempty"`
	Enforced  map[string]string `json:"enforced"` // limit -> mechanism
	Usage     Usage             `json:"usage"`
	Intent    *uint64           `json:"intent"`  // index of the intent entry; null if none was written
	Outcome   *uint64           `json:"outcome"` // index of the outcome entry
	Duration  float64           `json:"duration_ms"`
	Error     *ReportError      `json:"error"`
}

// Usage is what the execution consumed.
type Usage struct {
	WallMS          float64 `json:"wall_ms"`
	CPUMS           float64 `json:"cpu_ms"`
	PeakMemoryBytes int64   `json:"peak_memory_bytes"`
}

// ReportError says why an execution did not succeed.
type ReportError struct {
	Code    string `json:"code"` // snake_case, from a fixed set (docs/formats.md)
	Message string `json:"message"`
}
