package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
)

// receiptWait bounds the wait for a checkpoint that covers the outcome.
const receiptWait = 5 * time.Second

// Receipt is the receipt of an ended task, for a caller who may see the task:
// made here if this node ran it, else fetched from the node that did.
func (a *Agent) Receipt(ctx context.Context, task string, caller identity.Principal) ([]byte, error) {
	a.cfg.Catchup(ctx)
	executor, intent, err := a.whereabouts(task)
	if err != nil || !server.MaySee(caller, intent.Actor) {
		return nil, &a2a.Error{Code: a2a.CodeNotFound, Message: "no such task was ever begun"}
	}
	ctx, cancel := context.WithTimeout(ctx, receiptWait)
	defer cancel()
	if executor == a.cfg.Key.ID() {
		return a.OwnReceipt(ctx, task)
	}
	text, err := a.cfg.Peers.Receipt(ctx, executor, task)
	if known := new(a2a.Error); err != nil && !errors.As(err, &known) {
		a.log.WarnContext(ctx, "receipt not fetched", "task", task, "executor", executor, "err", err)
		return nil, a2a.Errorf(a2a.CodeUnavailable, "the node that ran the task, %s, cannot be reached", executor)
	}
	return text, err
}

// OwnReceipt is the receipt of a task that this node ran.
func (a *Agent) OwnReceipt(ctx context.Context, task string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, receiptWait)
	defer cancel()
	a.cfg.Catchup(ctx)
	ev, err := a.cfg.Evidence.get(task)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &a2a.Error{Code: a2a.CodeNotFound, Message: "this node has no evidence of that task"}
	}
	if err != nil {
		return nil, err
	}
	text, err := a.cfg.BuildReceipt(ctx, task, ev.extra())
	switch {
	case errors.Is(err, audit.ErrNotFound):
		return nil, &a2a.Error{Code: a2a.CodeNotFound, Message: "the task has no outcome yet"}
	case errors.Is(err, context.DeadlineExceeded):
		return nil, &a2a.Error{Code: a2a.CodeUnavailable, Message: "no quorum of keepers has cosigned the outcome yet; try again later"}
	case err != nil:
		return nil, fmt.Errorf("receipt of %s: %w", task, err)
	}
	return text, nil
}

// extra opens the commitments of the log to what this node kept.
func (ev *evidence) extra() audit.ReceiptExtra {
	extra := audit.ReceiptExtra{Request: ev.Request, Openings: map[string]audit.Opening{}}
	for name, value := range map[string]string{
		"request": ev.Digest, "stdout": digest(ev.Stdout), "stderr": digest(ev.Stderr), "result": digest(ev.Result),
	} {
		extra.Openings[name] = audit.Opening{Salt: ev.Salts[name], Value: value}
	}
	return extra
}
