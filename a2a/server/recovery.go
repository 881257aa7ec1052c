package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/taskstore"
)

// Unfinished is a task that was at work when the process died, and the id under
// which the log has what it ran.
type Unfinished struct{ Task, Execution string }

// Unfinished lists the tasks of this node's store that have not ended, do not run
// and wait for nobody: after a restart, those that died with the process. Those
// that nobody came to answer, it ends.
func (h *Handler) Unfinished() []Unfinished {
	h.endForgotten(time.Now())
	ids, err := h.store.Unfinished()
	if err != nil {
		h.log.Error("list unfinished tasks", "err", err)
		return nil
	}
	out := make([]Unfinished, 0, len(ids))
	for _, id := range ids {
		if h.running(id) != nil {
			continue
		}
		record, err := h.store.Get(id)
		if err != nil {
			h.log.Error("read unfinished task", "task", id, "err", err)
			continue
		}
		if record.Task.Status.State.Terminal() {
			continue // it ended meanwhile
		}
		out = append(out, Unfinished{string(id), a2a.ExecutionOf(record.Task)})
	}
	return out
}

// Finish ends a task that died with an earlier process. A task that has ended
// stays as it is; one that is not held here or runs is an error.
func (h *Handler) Finish(ctx context.Context, task string, report a2a.Report) error {
	id := sdk.TaskID(task)
	if h.running(id) != nil {
		return fmt.Errorf("finish task %s: it runs", task)
	}
	record, err := h.store.Get(id)
	if err != nil {
		if errors.Is(err, taskstore.ErrNotFound) {
			return fmt.Errorf("finish task %s: %w", task, a2a.ErrNoTask)
		}
		return fmt.Errorf("finish task: %w", err)
	}
	if record.Task.Status.State.Terminal() {
		return nil
	}
	if !report.Status.Terminal() {
		report.Status = a2a.Lost
	}
	last, err := ended(record.Task, report, nil)
	if err != nil {
		return fmt.Errorf("finish task %s: %w", task, err)
	}
	if err := h.keep(last, record.Owner, taskstore.Change{Notices: h.notices(id, lastWords(last)...)}); err != nil {
		return fmt.Errorf("finish task: %w", err)
	}
	h.log.InfoContext(ctx, "task of an earlier process ended", "task", task, "status", report.Status)
	return nil
}
