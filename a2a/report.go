package a2a

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
)

// ReportArtifact is the id of the artifact that holds a task's [Report].
const ReportArtifact sdk.ArtifactID = "report"

// metaResult holds, in the report artifact's metadata under [ExecutionURI],
// the exact JSON text of a result that A2A's numbers (doubles) cannot carry.
const metaResult = "result"

// Terminal reports whether the execution has ended.
func (s Status) Terminal() bool {
	switch s {
	case Succeeded, Failed, Denied, Cancelled, TimedOut, Lost:
		return true
	}
	return false
}

// TaskState is the A2A state that the status appears as.
func (s Status) TaskState() sdk.TaskState {
	switch s {
	case Succeeded:
		return sdk.TaskStateCompleted
	case Failed, TimedOut, Lost:
		return sdk.TaskStateFailed
	case Denied:
		return sdk.TaskStateRejected
	case Cancelled:
		return sdk.TaskStateCanceled
	}
	return sdk.TaskStateWorking
}

// maxReport is the most JSON that a report may be, in bytes: the official
// client reads no event of a stream beyond 10 MiB.
const maxReport = 8 << 20

// maxReportStream is what stays of stdout and stderr, in bytes each, when a
// report is too large even without files; JSON may need six bytes for one.
const maxReportStream = 512 << 10

// Artifact is the report as the artifact that clients read it from; the
// inverse of [ReportOf]. A report beyond 8 MiB of JSON gives up its files,
// then the end of its output, then its result, and says so in Truncated.
func (r Report) Artifact() (*sdk.Artifact, error) {
	wired, err := r.wire()
	for _, shorten := range []func(*Report){(*Report).dropFiles, (*Report).cutOutput, (*Report).dropResult} {
		if err != nil || len(wired.report) <= maxReport {
			break
		}
		r.Truncated = slices.Clone(r.Truncated)
		shorten(&r)
		wired, err = r.wire()
	}
	if err != nil {
		return nil, Errorf(CodeInternal, "report: %v", err)
	}
	value, err := looseOf(wired.report)
	if err != nil {
		return nil, Errorf(CodeInternal, "report: %v", err)
	}
	part := sdk.NewDataPart(value)
	part.MediaType = "application/json"
	artifact := &sdk.Artifact{ID: ReportArtifact, Name: "report", Parts: sdk.ContentParts{part}}
	if wired.lossy {
		artifact.Extensions = []string{ExecutionURI}
		artifact.SetMeta(ExecutionURI, map[string]any{metaResult: string(bytes.TrimSpace(r.Result))})
	}
	return artifact, nil
}

// wiredReport is a report as JSON, with a result that A2A can carry.
type wiredReport struct {
	report []byte
	lossy  bool // the result has numbers that a double does not hold
}

func (r Report) wire() (out wiredReport, err error) {
	if len(r.Result) > 0 {
		if r.Result, out.lossy, err = portableNumbers(r.Result); err != nil {
			return out, fmt.Errorf("result: %w", err)
		}
	}
	out.report, err = json.Marshal(r)
	return out, err
}

func (r *Report) dropFiles() {
	if len(r.Files) > 0 {
		r.Files = nil
		r.truncated("files")
	}
}

func (r *Report) cutOutput() {
	for name, text := range map[string]*string{"stdout": &r.Stdout, "stderr": &r.Stderr} {
		if len(*text) > maxReportStream {
			*text = strings.ToValidUTF8((*text)[:maxReportStream], "")
			r.truncated(name)
		}
	}
}

func (r *Report) dropResult() {
	r.Result = nil
	r.truncated("result")
}

func (r *Report) truncated(what string) {
	if !slices.Contains(r.Truncated, what) {
		r.Truncated = append(r.Truncated, what)
		slices.Sort(r.Truncated)
	}
}

// ReportOf reads the report of a task that has ended. A task that has none is
// an [*Error] of code not_found.
func ReportOf(task *sdk.Task) (Report, error) {
	if task == nil {
		return Report{}, Errorf(CodeNotFound, "no task")
	}
	for _, artifact := range task.Artifacts {
		if artifact != nil && artifact.ID == ReportArtifact {
			return reportFrom(artifact)
		}
	}
	return Report{}, Errorf(CodeNotFound, "the task has no report")
}

func reportFrom(artifact *sdk.Artifact) (Report, error) {
	if len(artifact.Parts) != 1 || artifact.Parts[0] == nil {
		return Report{}, Errorf(CodeInvalidRequest, "the report has no data part")
	}
	data, ok := artifact.Parts[0].Content.(sdk.Data)
	if !ok {
		return Report{}, Errorf(CodeInvalidRequest, "the report is not data")
	}
	var raw bytes.Buffer
	enc := json.NewEncoder(&raw)
	enc.SetEscapeHTML(false) // the result is for people to read, too
	if err := enc.Encode(data.Value); err != nil {
		return Report{}, Errorf(CodeInvalidRequest, "report: %s", Clip(err.Error()))
	}
	var r Report
	if err := json.Unmarshal(raw.Bytes(), &r); err != nil {
		return Report{}, Errorf(CodeInvalidRequest, "report: %s", Clip(err.Error()))
	}
	if meta, ok := artifact.Metadata[ExecutionURI].(map[string]any); ok {
		if exact, ok := meta[metaResult].(string); ok && json.Valid([]byte(exact)) {
			r.Result = json.RawMessage(exact)
		}
	}
	return r, nil
}

// portableNumbers replaces numbers outside the range of a double by their text
// and reports whether any number is one that a double does not hold exactly.
func portableNumbers(raw json.RawMessage) (json.RawMessage, bool, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, false, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, false, errors.New("data after the value")
	}
	lossy := false
	v = portable(v, &lossy)
	if !lossy {
		return raw, false, nil
	}
	out, err := json.Marshal(v)
	return out, true, err
}

func portable(v any, lossy *bool) any {
	switch v := v.(type) {
	case json.Number:
		f, err := strconv.ParseFloat(v.String(), 64)
		if err != nil {
			*lossy = true
			return v.String()
		}
		if !strings.ContainsAny(v.String(), ".eE") && math.Abs(f) > maxSafeInteger {
			*lossy = true
		}
		return v
	case []any:
		for i := range v {
			v[i] = portable(v[i], lossy)
		}
	case map[string]any:
		for name := range v {
			v[name] = portable(v[name], lossy)
		}
	}
	return v
}
