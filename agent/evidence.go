package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/internal/durable"
	"github.com/agenticraft/node/sandbox"
)

// Evidence keeps, on the node that ran a task, what the log holds only
// commitments to: the signed request, the outputs and the salts that open the
// commitments. What is large is a file of its own. Safe for concurrent use.
type Evidence struct {
	dir      string
	small    *evidenceLog
	indexing sync.Mutex // held over reading and writing the index of digests
}

// evidence is one task's.
type evidence struct {
	Version int               `json:"v"`
	Task    string            `json:"task"`
	Request json.RawMessage   `json:"request"` // as signed, ProtoJSON
	Digest  string            `json:"digest"`  // of the request without its claims
	Stdout  []byte            `json:"stdout"`
	Stderr  []byte            `json:"stderr"`
	Result  []byte            `json:"result"`
	Salts   map[string]string `json:"salts"` // commitment name -> salt
	// Report is what the door was told, without the outputs above and the index of
	// the outcome: after a crash the task is ended with it.
	Report json.RawMessage `json:"report,omitempty"`
}

const (
	evidenceVersion = 1
	evidencePerm    = 0o600
	// MaxEvidence is the most that is kept of one task, in bytes.
	MaxEvidence = 64 << 20
)

var taskName = regexp.MustCompile(`^[0-9a-f]{32}$`)

// OpenEvidence uses dir, which it makes if need be.
func OpenEvidence(dir string) (*Evidence, error) {
	if err := durable.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open evidence: %w", err)
	}
	small, err := openEvidenceLog(dir)
	if err != nil {
		return nil, err
	}
	return &Evidence{dir: dir, small: small}, nil
}

// Close ends it when nothing is put into it any more.
func (e *Evidence) Close() error {
	e.small.close()
	return nil
}

func newEvidence(req *request) *evidence {
	raw, err := a2a.MarshalRequest(req.signed)
	if err != nil {
		panic("internal error: verified request does not marshal: " + err.Error())
	}
	return &evidence{
		Version: evidenceVersion, Task: req.task, Request: raw, Digest: req.facts.Digest, Salts: map[string]string{},
	}
}

// hold takes over the outputs of a run.
func (ev *evidence) hold(res sandbox.Result) {
	ev.Stdout, ev.Stderr, ev.Result = res.Stdout, res.Stderr, res.Value
}

// end takes over the report of the run.
func (ev *evidence) end(rep a2a.Report) {
	rep.Stdout, rep.Stderr, rep.Result = "", "", nil
	raw, err := json.Marshal(rep)
	if err != nil {
		return // of a program's making; the log has how it ended
	}
	ev.Report = raw
}

// commit is the salted commitment to a digest, whose salt it keeps under name.
func (ev *evidence) commit(name, digest string) string {
	salt, ok := ev.Salts[name]
	if !ok {
		salt = audit.NewSalt()
		ev.Salts[name] = salt
	}
	return audit.Commit(salt, []byte(digest))
}

// digest is the SHA-256 of data in lower-case hex.
func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Put keeps a task's evidence durably.
func (e *Evidence) Put(task string, ev *evidence) error {
	text, err := ev.encode()
	if err != nil {
		return fmt.Errorf("keep evidence: %w", err)
	}
	if len(text) > MaxEvidence {
		return fmt.Errorf("keep evidence: it has %d bytes, more than %d are not kept", len(text), MaxEvidence)
	}
	name, err := e.name(task)
	if err != nil {
		return err
	}
	if len(text) <= maxRecord {
		return e.small.put(task, text, time.Now())
	}
	if err := durable.WriteFile(name, text, evidencePerm); err != nil {
		return fmt.Errorf("keep evidence: %w", err)
	}
	return nil
}

// encode is the JSON of it, without a walk over what is JSON already.
func (ev *evidence) encode() ([]byte, error) {
	request, report := ev.Request, ev.Report
	rest := *ev
	rest.Request, rest.Report = nil, nil
	text, err := json.Marshal(rest)
	if err != nil {
		return nil, err
	}
	const none = `"request":null`
	before, after, ok := bytes.Cut(text, []byte(none))
	if !ok || len(request) == 0 {
		return nil, errors.New("internal error: evidence without a request")
	}
	out := make([]byte, 0, len(text)+len(request)+len(report)+len(`,"report":`))
	out = append(append(append(out, before...), none[:len(none)-len("null")]...), request...)
	out = append(out, after[:len(after)-1]...)
	if len(report) > 0 {
		out = append(append(out, `,"report":`...), report...)
	}
	return append(out, '}'), nil
}

// get reads a task's evidence; [fs.ErrNotExist] if this node holds none.
func (e *Evidence) get(task string) (*evidence, error) {
	text, err := e.read(task)
	if err != nil {
		return nil, err
	}
	return decodeEvidence(text)
}

// read reads a task's evidence as it was written.
func (e *Evidence) read(task string) ([]byte, error) {
	name, err := e.name(task)
	if err != nil {
		return nil, err
	}
	if text, err := e.small.read(task); !errors.Is(err, fs.ErrNotExist) {
		return text, err
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("read evidence: %w", err)
	}
	if info.Size() > MaxEvidence {
		return nil, fmt.Errorf("read evidence: %s has %d bytes", name, info.Size())
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read evidence: %w", err)
	}
	return text, nil
}

func decodeEvidence(text []byte) (*evidence, error) {
	ev := new(evidence)
	if err := json.Unmarshal(text, ev); err != nil {
		return nil, fmt.Errorf("read evidence: %w", err)
	}
	if ev.Version != evidenceVersion {
		return nil, fmt.Errorf("read evidence: version %d is not known", ev.Version)
	}
	return ev, nil
}

// committed is the commitment to a digest with the salt that is kept under name.
func (ev *evidence) committed(name, digest string) string {
	return audit.Commit(ev.Salts[name], []byte(digest))
}

func (e *Evidence) name(task string) (string, error) {
	if !taskName.MatchString(task) {
		return "", errors.Join(fs.ErrNotExist, fmt.Errorf("%q is no task id", task))
	}
	return filepath.Join(e.dir, task+evidenceExt), nil
}
