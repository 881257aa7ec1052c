package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
)

// Tasks are the door's tasks that have no end yet.
type Tasks interface {
	Unfinished() []server.Unfinished
	Finish(ctx context.Context, task string, rep a2a.Report) error
}

const (
	sweepEvery = time.Second
	// goneFor is how long an executor must be out of reach before the leader
	// gives its executions up.
	goneFor    = 5 * time.Second
	leaseSlack = 10 * time.Second // beyond the wall limit
	sweepWait  = 5 * time.Second
)

// sweep gives every intent its outcome and every task its end.
//
// INVARIANT: I2, every intent gets exactly one outcome.
func (a *Agent) sweep(ctx context.Context, tasks Tasks) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	gone := map[identity.ID]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		a.sweepIntents(ctx, gone)
		a.sweepTasks(ctx, tasks)
	}
}

// sweepIntents ends the executions that nobody works on any more: our own from
// before a crash, and, if we lead, those of nodes that are gone.
func (a *Agent) sweepIntents(ctx context.Context, gone map[identity.ID]time.Time) {
	open, err := a.cfg.Log.OpenIntents()
	if err != nil {
		a.log.ErrorContext(ctx, "open intents not read", "err", err)
		return
	}
	lead := a.cfg.Lead()
	for _, intent := range open {
		body, err := intent.Entry.Intent()
		if err != nil || !a.abandoned(intent.Entry, body, lead, gone) {
			continue
		}
		wait, cancel := context.WithTimeout(ctx, sweepWait)
		// The copy of the log here may be older than what this node has done.
		a.cfg.Catchup(wait)
		if rec, err := a.cfg.Log.Task(intent.Entry.Task); err == nil && rec.Outcome != nil {
			cancel()
			continue
		}
		_, err = a.lose(wait, intent.Entry.Task)
		cancel()
		if err != nil {
			a.log.WarnContext(ctx, "lost execution not ended yet", "task", intent.Entry.Task, "err", err)
			return // no quorum: the rest would fail alike
		}
		a.log.InfoContext(ctx, "execution lost", "task", intent.Entry.Task, "executor", body.Executor)
	}
}

func (a *Agent) abandoned(e audit.Entry, body audit.IntentBody, lead bool, gone map[identity.ID]time.Time) bool {
	if body.Executor == a.cfg.Key.ID() {
		return !a.holds(e.Task)
	}
	if !lead {
		return false
	}
	if a.cfg.Peers.Connected(body.Executor) {
		delete(gone, body.Executor)
		return leaseOver(e, body)
	}
	since, seen := gone[body.Executor]
	if !seen {
		gone[body.Executor] = time.Now()
		return false
	}
	return time.Since(since) >= goneFor
}

func leaseOver(e audit.Entry, body audit.IntentBody) bool {
	began, err := time.Parse(time.RFC3339, e.Time)
	return err == nil && time.Since(began) > time.Duration(body.LeaseMS)*time.Millisecond+outcomeWait
}

// sweepTasks ends the tasks of this door that a crash interrupted, once the
// log says what became of them.
func (a *Agent) sweepTasks(ctx context.Context, tasks Tasks) {
	for _, open := range tasks.Unfinished() {
		if a.holds(open.Execution) {
			continue
		}
		wait, cancel := context.WithTimeout(ctx, sweepWait)
		rep, err := a.resolveTask(wait, open.Execution)
		if err == nil {
			err = tasks.Finish(wait, open.Task, rep)
		}
		cancel()
		if err != nil && !errors.Is(err, errStillRunning) {
			a.log.WarnContext(ctx, "interrupted task not ended yet", "task", open.Task, "err", err)
		}
	}
}

// abandonedCode marks the denial that bars a request from ever running.
const abandonedCode = "abandoned"

var errStillRunning = errors.New("still running")

// resolveTask is the end of an interrupted task: the executor's report, or
// what the log knows. A request that never got its intent is barred from ever
// getting one.
func (a *Agent) resolveTask(ctx context.Context, task string) (a2a.Report, error) {
	rec, err := a.cfg.Log.Task(task)
	switch {
	case errors.Is(err, audit.ErrNotFound):
		body, err := audit.MarshalBody(audit.DenialBody{Code: abandonedCode})
		if err != nil {
			return a2a.Report{}, err
		}
		entry := audit.Entry{
			Kind: audit.KindDenial, Task: task, Body: body,
			Once: &audit.Once{Key: onceKey(task), Digest: barred(task)},
		}
		ack, err := a.cfg.Recorder.Record(ctx, entry)
		if errors.Is(err, audit.ErrConflict) || (err == nil && ack.Existing) {
			return a2a.Report{}, errStillRunning // its intent is in the log after all; look again
		}
		if err != nil {
			return a2a.Report{}, err
		}
		rep := a.failedReport(&request{task: task}, "lost", "the node stopped before the execution began; nothing ran")
		rep.Status = a2a.Lost
		return rep, nil
	case err != nil:
		return a2a.Report{}, err
	case rec.Intent != nil && rec.Outcome == nil:
		return a2a.Report{}, errStillRunning
	}
	return a.recall(ctx, task, rec)
}

// recall is the report of an ended task: whole from the node that ran it if it
// can be reached, else as much as the log holds.
func (a *Agent) recall(ctx context.Context, task string, rec audit.TaskRecord) (a2a.Report, error) {
	executor, _, err := a.whereabouts(task)
	if err == nil && executor == a.cfg.Key.ID() {
		if rep, ok := a.kept(task, rec); ok {
			return rep, nil
		}
	}
	if err == nil && executor != a.cfg.Key.ID() {
		if t, err := a.cfg.Peers.Task(ctx, executor, task); err == nil {
			if rep, err := a2a.ReportOf(t); err == nil {
				return rep, nil
			}
		}
	}
	return a.fromLog(task, rec)
}

// kept is the report of a task that this node ran, as it stood when it was
// about to be answered: from the evidence, if that is what the log has.
func (a *Agent) kept(task string, rec audit.TaskRecord) (a2a.Report, bool) {
	var rep a2a.Report
	if rec.Outcome == nil {
		return rep, false
	}
	ev, err := a.cfg.Evidence.get(task)
	if err != nil || json.Unmarshal(ev.Report, &rep) != nil {
		return rep, false
	}
	outcome, _, err := a.cfg.Log.Entry(*rec.Outcome)
	if err != nil || outcome.Author != a.cfg.Key.ID() {
		return rep, false
	}
	if body, err := outcome.Outcome(); err != nil || body.Status != string(rep.Status) {
		return rep, false // somebody ended it first; ours is in the log as late
	}
	if _, err := a.provedParts(task, ev); err != nil {
		a.log.Warn("evidence is not what this node committed to", "task", task, "err", err)
		return rep, false
	}
	rep.Stdout, rep.Stderr = text(ev.Stdout), text(ev.Stderr)
	if len(ev.Result) > 0 {
		rep.Result = ev.Result
	}
	rep.Intent, rep.Outcome = rec.Intent, rec.Outcome
	return rep, true
}

// fromLog is what the replicated log knows of a task: how it ended, never what
// it wrote.
func (a *Agent) fromLog(task string, rec audit.TaskRecord) (a2a.Report, error) {
	rep := a.blank(&request{task: task})
	rep.Intent, rep.Outcome = rec.Intent, rec.Outcome
	if rec.Intent != nil {
		e, _, err := a.cfg.Log.Entry(*rec.Intent)
		if err != nil {
			return a2a.Report{}, fmt.Errorf("read intent of %s: %w", task, err)
		}
		body, err := e.Intent()
		if err != nil {
			return a2a.Report{}, fmt.Errorf("read intent of %s: %w", task, err)
		}
		rep.Node, rep.Sandbox, rep.Runtime = body.Executor, body.Sandbox, body.Runtime
	}
	if rec.Outcome == nil {
		rep.Status, rep.ExitCode = a2a.Failed, exitFailed
		rep.Error = &a2a.ReportError{Code: abandonedCode, Message: "the request was given up before it began; nothing ran"}
		return rep, nil
	}
	e, _, err := a.cfg.Log.Entry(*rec.Outcome)
	if err != nil {
		return a2a.Report{}, fmt.Errorf("read outcome of %s: %w", task, err)
	}
	body, err := e.Outcome()
	if err != nil {
		return a2a.Report{}, fmt.Errorf("read outcome of %s: %w", task, err)
	}
	rep.Status, rep.ExitCode = a2a.Status(body.Status), body.ExitCode
	rep.Usage = a2a.Usage{WallMS: float64(body.WallMS), CPUMS: float64(body.CPUMS), PeakMemoryBytes: body.PeakMemory}
	if body.Enforced != nil {
		rep.Enforced = body.Enforced
	}
	if rep.Status != a2a.Succeeded {
		rep.Error = &a2a.ReportError{Code: body.ErrorCode, Message: "as the log has it; the output stays on the node that ran it"}
	}
	return rep, nil
}

// lose commits the outcome "lost" for a task's open intent and gives the
// report of whichever outcome stands.
func (a *Agent) lose(ctx context.Context, task string) (a2a.Report, error) {
	rec, err := a.waitIntent(ctx, task)
	if err != nil {
		return a2a.Report{}, err
	}
	if rec.Outcome == nil && rec.Intent != nil {
		intent, _, err := a.cfg.Log.Entry(*rec.Intent)
		if err != nil {
			return a2a.Report{}, fmt.Errorf("read intent of %s: %w", task, err)
		}
		body, err := audit.MarshalBody(audit.OutcomeBody{Status: string(a2a.Lost), ExitCode: exitLost, ErrorCode: "lost"})
		if err != nil {
			return a2a.Report{}, err
		}
		ack, err := a.cfg.Recorder.Record(ctx, audit.Entry{
			Kind: audit.KindOutcome, Actor: intent.Actor, OnBehalf: intent.OnBehalf, Tenant: intent.Tenant, Task: task, Attempt: intent.Attempt,
			Ref: rec.Intent, Body: body,
		})
		if err != nil {
			return a2a.Report{}, err
		}
		rec.Outcome = &ack.Index
		if err := a.waitEntry(ctx, ack.Index); err != nil {
			return a2a.Report{}, err
		}
	}
	return a.fromLog(task, rec)
}

// adopt waits for the end of an execution that another node began.
func (a *Agent) adopt(ctx context.Context, req *request) a2a.Report {
	ctx, cancel := context.WithTimeout(ctx, a.spec(req, discard{}).Limits.Wall+leaseSlack+outcomeWait)
	defer cancel()
	for ctx.Err() == nil {
		if rep, err := a.resolveTask(ctx, req.task); err == nil {
			return rep
		}
		sleep(ctx, settlePoll)
	}
	return a.failedReport(req, "unavailable", "the same request runs on another node, which gave no answer in time")
}

// waitIntent waits until this node's copy of the log holds the task, which the
// leader already acknowledged.
func (a *Agent) waitIntent(ctx context.Context, task string) (audit.TaskRecord, error) {
	for {
		rec, err := a.cfg.Log.Task(task)
		if !errors.Is(err, audit.ErrNotFound) || ctx.Err() != nil {
			return rec, err
		}
		sleep(ctx, settlePoll)
	}
}

func (a *Agent) waitEntry(ctx context.Context, index uint64) error {
	for {
		_, _, err := a.cfg.Log.Entry(index)
		if !errors.Is(err, audit.ErrNotFound) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		sleep(ctx, settlePoll)
	}
}

// whereabouts are the executor of a task and its intent, from the log.
func (a *Agent) whereabouts(task string) (identity.ID, audit.Entry, error) {
	rec, err := a.cfg.Log.Task(task)
	if err != nil {
		return "", audit.Entry{}, err
	}
	if rec.Intent == nil {
		return "", audit.Entry{}, audit.ErrNotFound
	}
	e, _, err := a.cfg.Log.Entry(*rec.Intent)
	if err != nil {
		return "", audit.Entry{}, err
	}
	body, err := e.Intent()
	if err != nil {
		return "", audit.Entry{}, fmt.Errorf("read intent of %s: %w", task, err)
	}
	return body.Executor, e, nil
}

// Fetch finds a task that this door does not hold: at the node that ran it, or
// as much of it as the log has. A task of somebody else is not found.
func (a *Agent) Fetch(ctx context.Context, task string, caller identity.Principal) (*sdk.Task, error) {
	a.cfg.Catchup(ctx)
	executor, intent, err := a.whereabouts(task)
	if errors.Is(err, audit.ErrNotFound) {
		return a.askAround(ctx, task, caller)
	}
	if err != nil || !server.MaySee(caller, intent.Actor) {
		return nil, a2a.ErrNoTask
	}
	if executor != a.cfg.Key.ID() {
		if t, err := a.cfg.Peers.Task(ctx, executor, task); err == nil {
			// Who learns of an outcome here finds it in this node's log, too.
			if rep, err := a2a.ReportOf(t); err == nil && rep.Outcome != nil {
				a.cfg.Reported(*rep.Outcome)
			}
			return t, nil
		}
	}
	rec, err := a.cfg.Log.Task(task)
	if err != nil {
		return nil, a2a.ErrNoTask
	}
	if rec.Outcome == nil {
		rep := a.blank(&request{task: task})
		rep.Status, rep.Node, rep.Intent = a2a.Running, executor, rec.Intent
		return a2a.TaskOf(rep)
	}
	rep, err := a.fromLog(task, rec)
	if err != nil {
		return nil, a2a.ErrNoTask
	}
	return a2a.TaskOf(rep)
}

// holds reports whether this process works on the task.
func (a *Agent) holds(task string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.running[task]
	return ok
}
