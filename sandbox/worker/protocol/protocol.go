// Package protocol is what the node and a jailed worker say to each other over
// the worker's control descriptor.
//
// Both directions are frames: one byte kind, four bytes big-endian length, the
// payload. The worker says Hello once. For each run the node sends the code and
// what else the program sees, then Go; the worker answers with output as it
// comes, its result and the files it left if there are any, and Done. The node treats every
// byte of the worker as hostile: each kind has a cap, and any breach of the
// order ends the worker. Node and worker come from one build, so frames carry
// no version.
package protocol

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Kind tells frames apart.
type Kind byte

// Frames to the worker.
const (
	Code  Kind = 'c' // source text; once
	Stdin Kind = 'i' // at most once
	File  Kind = 'f' // path, NUL, content; any number
	Go    Kind = 'g' // [Order] as JSON; starts the run
)

// Frames from the worker.
const (
	Hello  Kind = 'h' // version of the language; the worker is ready for its first run
	Stdout Kind = 'o'
	Stderr Kind = 'e'
	Value  Kind = 'v' // the program's result as JSON; at most once
	Left   Kind = 'l' // path, NUL, content of a file that the program left; sorted by path
	Done   Kind = 'd' // [Report] as JSON; ends the run
)

// MaxChunk is the longest payload of Stdout and Stderr, in bytes.
const MaxChunk = 64 << 10

// most bounds payloads, in bytes.
var most = map[Kind]uint32{
	Code: 1 << 20, Stdin: 16 << 20, File: 16<<20 + 1024, Go: 256 << 10,
	Hello: 256, Stdout: MaxChunk, Stderr: MaxChunk, Value: 16 << 20, Left: 8<<20 + 1024, Done: 64 << 10,
}

// maxRequest bounds all frames of one run together, on the worker's side.
const maxRequest = 40 << 20

// ErrProtocol: the other side broke the protocol.
var ErrProtocol = errors.New("protocol fault")

// Order starts a run and says what it may use.
type Order struct {
	Wall   time.Duration `json:"wall"`   // the worker stops the program by itself after this
	Output int64         `json:"output"` // bytes of stdout
	Result int64         `json:"result"` // bytes of the JSON value
	Stack  int           `json:"stack"`  // bytes
	Steps  uint64        `json:"steps"`  // of the interpreter; 0 for no limit

	Args     []string `json:"args,omitempty"`      // of the program
	FileSize int64    `json:"file_size,omitempty"` // bytes of one file
	Files    int      `json:"files,omitempty"`     // files and folders it may make
}

// Report ends a run.
type Report struct {
	Status    string        `json:"status"` // as sandbox.Status
	ExitCode  int           `json:"exit_code"`
	ErrorCode string        `json:"error_code,omitempty"`
	Message   string        `json:"message,omitempty"`
	Truncated bool          `json:"truncated,omitempty"` // stdout
	CPU       time.Duration `json:"cpu"`                 // of this run
	Memory    int64         `json:"memory"`              // bytes the worker holds at the end

	TruncatedErr   bool `json:"truncated_err,omitempty"` // stderr
	TruncatedFiles bool `json:"truncated_files,omitempty"`
}

// Input is one file that a program sees.
type Input struct {
	Path    string
	Content []byte
}

// Request is one run as the worker receives it.
type Request struct {
	Code  []byte
	Stdin []byte
	Files []Input
	Order Order
}

// Write writes one frame in one call of w.Write.
func Write(w io.Writer, kind Kind, payload []byte) error {
	limit, known := most[kind]
	if !known || uint64(len(payload)) > uint64(limit) {
		return fmt.Errorf("%w: frame %q of %d bytes", ErrProtocol, kind, len(payload))
	}
	frame := make([]byte, 5, 5+len(payload))
	frame[0] = byte(kind)
	binary.BigEndian.PutUint32(frame[1:], uint32(len(payload)))
	if _, err := w.Write(append(frame, payload...)); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}

// Read reads one frame of an allowed kind. Memory grows with what arrives, not
// with what the header claims. The end of the stream before a frame is [io.EOF].
func Read(r io.Reader, allowed ...Kind) (Kind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return 0, nil, io.EOF
		}
		return 0, nil, fmt.Errorf("read frame: %w", err)
	}
	kind, size := Kind(head[0]), binary.BigEndian.Uint32(head[1:])
	limit, known := most[kind]
	if !known || !contains(allowed, kind) {
		return 0, nil, fmt.Errorf("%w: unexpected frame %q", ErrProtocol, kind)
	}
	if size > limit {
		return 0, nil, fmt.Errorf("%w: frame %q of %d bytes", ErrProtocol, kind, size)
	}
	if size <= MaxChunk {
		payload := make([]byte, size)
		if _, err := io.ReadFull(r, payload); err != nil {
			return 0, nil, fmt.Errorf("read frame: %w", noEOF(err))
		}
		return kind, payload, nil
	}
	var payload bytes.Buffer
	if _, err := io.CopyN(&payload, r, int64(size)); err != nil {
		return 0, nil, fmt.Errorf("read frame: %w", noEOF(err))
	}
	return kind, payload.Bytes(), nil
}

// WriteRequest writes all frames of one run.
func WriteRequest(w io.Writer, q Request) error {
	order, err := json.Marshal(q.Order)
	if err != nil {
		return fmt.Errorf("encode order: %w", err)
	}
	var all bytes.Buffer
	err = Write(&all, Code, q.Code)
	if len(q.Stdin) > 0 {
		err = errors.Join(err, Write(&all, Stdin, q.Stdin))
	}
	for _, f := range q.Files {
		err = errors.Join(err, Write(&all, File, append(append([]byte(f.Path), 0), f.Content...)))
	}
	if err := errors.Join(err, Write(&all, Go, order)); err != nil {
		return err
	}
	if _, err := w.Write(all.Bytes()); err != nil {
		return fmt.Errorf("write run: %w", err)
	}
	return nil
}

// ReadRequest reads all frames of one run. The end of the stream before the
// first is [io.EOF].
func ReadRequest(r io.Reader) (Request, error) {
	var q Request
	seen := make(map[Kind]bool)
	for total := 0; ; {
		kind, payload, err := Read(r, Code, Stdin, File, Go)
		if err != nil {
			if len(seen) > 0 {
				err = noEOF(err)
			}
			return Request{}, err
		}
		if total += len(payload); total > maxRequest {
			return Request{}, fmt.Errorf("%w: a run of more than %d bytes", ErrProtocol, maxRequest)
		}
		if seen[kind] && kind != File {
			return Request{}, fmt.Errorf("%w: frame %q twice", ErrProtocol, kind)
		}
		seen[kind] = true
		switch kind {
		case Code:
			q.Code = payload
		case Stdin:
			q.Stdin = payload
		case File:
			path, content, found := bytes.Cut(payload, []byte{0})
			if !found {
				return Request{}, fmt.Errorf("%w: file without a path", ErrProtocol)
			}
			q.Files = append(q.Files, Input{Path: string(path), Content: content})
		case Go:
			if !seen[Code] {
				return Request{}, fmt.Errorf("%w: go without code", ErrProtocol)
			}
			if err := json.Unmarshal(payload, &q.Order); err != nil {
				return Request{}, fmt.Errorf("%w: %w", ErrProtocol, err)
			}
			return q, nil
		}
	}
}

// ParseReport reads the payload of Done.
func ParseReport(payload []byte) (Report, error) {
	var r Report
	if err := json.Unmarshal(payload, &r); err != nil {
		return Report{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if r.ExitCode < 0 || r.ExitCode > 255 || r.CPU < 0 || r.Memory < 0 {
		return Report{}, fmt.Errorf("%w: report out of range", ErrProtocol)
	}
	return r, nil
}

func contains(kinds []Kind, kind Kind) bool {
	return slices.Contains(kinds, kind)
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
