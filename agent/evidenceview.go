package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/identity"
)

// EvidencePart is one piece of a task's evidence.
type EvidencePart struct {
	Name   string `json:"name"` // request code stdin file:PATH stdout stderr result
	SHA256 string `json:"sha256"`
	Bytes  int    `json:"bytes"`
	Data   []byte `json:"-"`
}

// EvidenceView is a task's evidence, each part of which is what the log
// committed to.
type EvidenceView struct {
	Task  string         `json:"task"`
	Node  identity.ID    `json:"node"` // that ran it and keeps the evidence
	Parts []EvidencePart `json:"parts"`
}

// ShowEvidence gives a task's evidence, from here or from the node that ran it,
// held against the commitments in this node's own log, for a principal whom
// policy lets see it.
func (a *Agent) ShowEvidence(ctx context.Context, task string, by identity.Principal) (EvidenceView, error) {
	a.cfg.Catchup(ctx)
	executor, _, err := a.whereabouts(task)
	if err != nil {
		return EvidenceView{}, &a2a.Error{Code: a2a.CodeNotFound, Message: "no such task was ever begun"}
	}
	var text []byte
	if executor == a.cfg.Key.ID() {
		text, err = a.OwnEvidence(task)
	} else {
		text, err = a.cfg.Peers.Evidence(ctx, executor, task, by)
	}
	if known := new(a2a.Error); err != nil && !errors.As(err, &known) {
		a.log.WarnContext(ctx, "evidence not fetched", "task", task, "executor", executor, "err", err)
		return EvidenceView{}, a2a.Errorf(a2a.CodeUnavailable, "the evidence of the task cannot be had from the node that ran it, %s", executor)
	}
	if err != nil {
		return EvidenceView{}, err
	}
	ev, err := decodeEvidence(text)
	if err != nil {
		return EvidenceView{}, a2a.Errorf(a2a.CodeInternal, "node %s sent what is no evidence", executor)
	}
	view := EvidenceView{Task: task, Node: executor}
	if view.Parts, err = a.provedParts(task, ev); err != nil {
		return EvidenceView{}, a2a.Errorf("unverified", "the evidence that node %s keeps is not what it committed to in the log: %v", executor, err)
	}
	return view, nil
}

// OwnEvidence is the evidence of a task that this node ran, as it is kept.
func (a *Agent) OwnEvidence(task string) ([]byte, error) {
	text, err := a.cfg.Evidence.read(task)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &a2a.Error{Code: a2a.CodeNotFound, Message: "the node that ran the task has no evidence of it: it was erased, or it is still to come"}
	}
	return text, err
}

// provedParts takes evidence apart once it has been held against the log.
func (a *Agent) provedParts(task string, ev *evidence) ([]EvidencePart, error) {
	rec, err := a.cfg.Log.Task(task)
	if err != nil || rec.Intent == nil || rec.Outcome == nil {
		return nil, errors.New("the task has no end yet")
	}
	intent, _, err := a.cfg.Log.Entry(*rec.Intent)
	if err != nil {
		return nil, err
	}
	asked, err := intent.Intent()
	if err != nil {
		return nil, err
	}
	outcome, _, err := a.cfg.Log.Entry(*rec.Outcome)
	if err != nil {
		return nil, err
	}
	ended, err := outcome.Outcome()
	if err != nil {
		return nil, err
	}
	signed, err := a2a.VerifyRaw(ev.Request)
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	if ev.Task != task || signed.Digest != ev.Digest || ev.committed("request", signed.Digest) != asked.Request {
		return nil, errors.New("the request is another")
	}
	parts, err := ev.parts()
	if err != nil {
		return nil, err
	}
	for _, p := range parts {
		commitment, ok := ended.Output[p.Name]
		if ok && ev.committed(p.Name, p.SHA256) != commitment {
			return nil, fmt.Errorf("%s is another", p.Name)
		}
	}
	return slices.DeleteFunc(parts, func(p EvidencePart) bool {
		_, committed := ended.Output[p.Name]
		return isOutput(p.Name) && !committed // lost: nobody committed to what it wrote
	}), nil
}

func isOutput(part string) bool { return part == "stdout" || part == "stderr" || part == "result" }

// parts takes evidence apart, held against nothing.
func (ev *evidence) parts() ([]EvidencePart, error) {
	req, err := a2a.ParseRequest(ev.Request)
	if err != nil {
		return nil, err
	}
	exec, err := a2a.DecodeExecution(req)
	if err != nil {
		return nil, err
	}
	var parts []EvidencePart
	add := func(name string, data []byte) {
		parts = append(parts, EvidencePart{Name: name, SHA256: digest(data), Bytes: len(data), Data: data})
	}
	add("request", ev.Request)
	add("code", []byte(exec.Code))
	if exec.Stdin != "" {
		add("stdin", []byte(exec.Stdin))
	}
	for _, f := range exec.Files {
		add("file:"+f.Path, f.Content)
	}
	add("stdout", ev.Stdout)
	add("stderr", ev.Stderr)
	add("result", ev.Result)
	return parts, nil
}
