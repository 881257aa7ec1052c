package agent

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/agenticraft/node/internal/durable"
)

// SweepEvidence does what the background work does of itself.
func (a *Agent) SweepEvidence(ctx context.Context, now time.Time) error {
	return a.sweepEvidence(ctx, now)
}

// StopPatiently gives a slow machine time to write what is left at the end.
func (a *Agent) StopPatiently() { a.denials.last = time.Minute }

// Kept lists the tasks whose evidence is kept, oldest first.
func (e *Evidence) Kept() ([]string, error) {
	kept, _, err := e.list()
	var tasks []string
	for _, one := range kept {
		tasks = append(tasks, one.task)
	}
	return tasks, err
}

// InFile moves a task's evidence to where it would be if it were large.
func (e *Evidence) InFile(task string) (string, error) {
	text, err := e.read(task)
	if err != nil {
		return "", err
	}
	_, _, err = e.small.mark(task, recordKept, recordErasing)
	if err = errors.Join(err, e.small.remove(task)); err != nil {
		return "", err
	}
	name := filepath.Join(e.dir, task+evidenceExt)
	return name, durable.WriteFile(name, text, evidencePerm)
}
