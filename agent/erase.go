package agent

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/internal/durable"
)

const (
	// DefaultRetention is how long evidence is kept of tenants that say nothing:
	// six months, which is what the EU's AI Act asks of logs at least.
	DefaultRetention = 184 * 24 * time.Hour
	// DefaultEvidenceBytes is how much evidence a node keeps in all.
	DefaultEvidenceBytes = 4 << 30

	evidenceExt    = ".json"
	erasingExt     = ".erasing" // what is no evidence any more, and not yet erased
	retentionEvery = 10 * time.Minute
	retentionStart = 30 * time.Second
	erasureWait    = 10 * time.Second
	spaceLeft      = 10 // a full store is emptied to its size less this part
)

// EraseEvidence erases what a node keeps of a task beyond the log, for
// somebody whom policy lets do that: here, or at the node that ran the task. It
// returns the index of the entry that says so.
func (a *Agent) EraseEvidence(ctx context.Context, task string, by identity.Principal) (uint64, error) {
	a.cfg.Catchup(ctx)
	executor, _, err := a.whereabouts(task)
	if err != nil {
		return 0, &a2a.Error{Code: a2a.CodeNotFound, Message: "no such task was ever begun"}
	}
	if executor == a.cfg.Key.ID() {
		return a.EraseOwnEvidence(ctx, task, by)
	}
	index, err := a.cfg.Peers.EraseEvidence(ctx, executor, task, by)
	if known := new(a2a.Error); err != nil && !errors.As(err, &known) {
		a.log.WarnContext(ctx, "evidence not erased", "task", task, "executor", executor, "err", err)
		return 0, a2a.Errorf(a2a.CodeUnavailable, "the node that ran the task, %s, cannot be reached", executor)
	}
	if err == nil {
		a.cfg.Reported(index) // who is told of it finds it here
	}
	return index, err
}

// EraseOwnEvidence erases what this node keeps of a task that it ran.
func (a *Agent) EraseOwnEvidence(ctx context.Context, task string, by identity.Principal) (uint64, error) {
	if !a.cfg.Evidence.holds(task) {
		return 0, &a2a.Error{Code: a2a.CodeNotFound, Message: "this node has no evidence of that task"}
	}
	if a.holds(task) {
		return 0, a2a.Errorf(a2a.CodeConflict, "the task still runs")
	}
	index, err := a.erase(ctx, erasure{tasks: []string{task}, tenant: a.tenantOf(task), by: by.String(), reason: audit.ErasedOnRequest})
	if err == nil {
		a.indexEvidence(ctx) // else the next sweep has the index forget it
	}
	return index, err
}

// indexEvidence has the index of digests hold what is kept, and nothing else.
func (a *Agent) indexEvidence(ctx context.Context) {
	if err := a.cfg.Evidence.indexDigests(ctx); err != nil && ctx.Err() == nil {
		a.log.WarnContext(ctx, "digests of evidence not indexed", "err", err)
	}
}

// erasure is what one entry of the log will say.
type erasure struct {
	tasks  []string
	tenant string // if they are of one
	by     string
	reason string
}

// erase makes evidence unreadable, writes the entry that says so, and removes
// it. If we crash after the entry, the next sweep removes what is left; if the
// entry cannot be written, the evidence is back.
func (a *Agent) erase(ctx context.Context, e erasure) (uint64, error) {
	var bytes int64
	for i, task := range e.tasks {
		n, err := a.cfg.Evidence.hide(task)
		if err != nil {
			return 0, errors.Join(err, a.cfg.Evidence.unhide(e.tasks[:i]))
		}
		bytes += n
	}
	index, err := a.recordErasure(ctx, e, bytes)
	if err != nil {
		return 0, errors.Join(&a2a.Error{Code: a2a.CodeUnavailable, Message: "an erasure is written down before it is done, and no quorum of keepers could do that; try again later"}, err, a.cfg.Evidence.unhide(e.tasks))
	}
	return index, a.cfg.Evidence.remove(e.tasks)
}

func (a *Agent) recordErasure(ctx context.Context, e erasure, bytes int64) (uint64, error) {
	body, err := audit.MarshalBody(audit.ErasureBody{Bytes: bytes, Reason: e.reason, Tasks: e.tasks})
	if err != nil {
		return 0, err
	}
	// The id is made of what is erased: to write it again is to write it once.
	sum := sha256.Sum256([]byte("agenticraft erasure v1\x00" + strings.Join(e.tasks, "\x00")))
	entry := audit.Entry{ID: hex.EncodeToString(sum[:16]), Kind: audit.KindErasure, Actor: e.by, Tenant: e.tenant, Body: body}
	if len(e.tasks) == 1 {
		entry.Task = e.tasks[0]
	}
	ctx, cancel := context.WithTimeout(ctx, erasureWait)
	defer cancel()
	ack, err := a.cfg.Recorder.Record(ctx, entry)
	return ack.Index, err
}

// retain keeps evidence within its time and its space until ctx is done.
func (a *Agent) retain(ctx context.Context) {
	for wait := retentionStart; ; wait = retentionEvery {
		if sleep(ctx, wait); ctx.Err() != nil {
			return
		}
		if err := a.sweepEvidence(ctx, time.Now()); err != nil && ctx.Err() == nil {
			a.log.WarnContext(ctx, "evidence not swept", "err", err)
		}
		a.indexEvidence(ctx)
	}
}

// sweepEvidence erases what is older than its tenant keeps it, then the oldest
// until the rest has room.
func (a *Agent) sweepEvidence(ctx context.Context, now time.Time) error {
	kept, left, err := a.cfg.Evidence.list()
	if err != nil {
		return err
	}
	for _, task := range left { // of an erasure that a crash interrupted
		if _, err := a.recordErasure(ctx, erasure{tasks: []string{task}, reason: audit.ErasedOnRequest}, 0); err != nil {
			return err
		}
		if err := a.cfg.Evidence.remove([]string{task}); err != nil {
			return err
		}
	}
	var old, full []string
	var total int64
	for _, one := range kept {
		if now.Sub(one.since) > a.cfg.Retention(a.tenantOf(one.task)) && !a.holds(one.task) {
			old = append(old, one.task)
			continue
		}
		total += one.size
	}
	limit := a.cfg.EvidenceBytes
	for _, one := range kept {
		if total <= limit-limit/spaceLeft && len(full) > 0 || total <= limit {
			break
		}
		if !slices.Contains(old, one.task) && !a.holds(one.task) {
			full = append(full, one.task)
			total -= one.size
		}
	}
	for _, batch := range []erasure{{tasks: old, reason: audit.ErasedByAge}, {tasks: full, reason: audit.ErasedForSpace}} {
		for tasks := range slices.Chunk(batch.tasks, audit.MaxErased) {
			if _, err := a.erase(ctx, erasure{tasks: tasks, reason: batch.reason}); err != nil {
				return err
			}
			a.log.InfoContext(ctx, "evidence erased", "reason", batch.reason, "tasks", len(tasks))
		}
	}
	return nil
}

// tenantOf is the tenant of a task, by its intent; "" if the log has none.
func (a *Agent) tenantOf(task string) string {
	_, intent, err := a.whereabouts(task)
	if err != nil {
		return ""
	}
	return intent.Tenant
}

// stored is one task's evidence as its folder shows it.
type stored struct {
	task  string
	since time.Time
	size  int64
}

// list is what is kept, oldest first, and what is being erased.
func (e *Evidence) list() (kept []stored, erasing []string, err error) {
	entries, err := os.ReadDir(e.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("list evidence: %w", err)
	}
	for _, entry := range entries {
		task, ext := strings.TrimSuffix(entry.Name(), filepath.Ext(entry.Name())), filepath.Ext(entry.Name())
		if !taskName.MatchString(task) {
			continue
		}
		switch ext {
		case erasingExt:
			erasing = append(erasing, task)
		case evidenceExt:
			info, err := entry.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, nil, fmt.Errorf("list evidence: %w", err)
			}
			kept = append(kept, stored{task, info.ModTime(), info.Size()})
		}
	}
	kept, erasing = e.small.list(kept, erasing)
	slices.SortFunc(kept, func(a, b stored) int { return cmp.Or(a.since.Compare(b.since), strings.Compare(a.task, b.task)) })
	return kept, erasing, nil
}

func (e *Evidence) holds(task string) bool {
	name, err := e.name(task)
	if err != nil {
		return false
	}
	if _, ok := e.small.find(task, recordKept); ok {
		return true
	}
	_, err = os.Stat(name)
	return err == nil
}

// hide makes a task's evidence unreadable, and says how large it is.
func (e *Evidence) hide(task string) (int64, error) {
	name, err := e.name(task)
	if err != nil {
		return 0, err
	}
	if n, ok, err := e.small.mark(task, recordKept, recordErasing); ok {
		return n, err
	}
	info, err := os.Stat(name)
	if err != nil {
		return 0, fmt.Errorf("erase evidence: %w", err)
	}
	if err := os.Rename(name, e.erasing(task)); err != nil {
		return 0, fmt.Errorf("erase evidence: %w", err)
	}
	return info.Size(), durable.SyncDir(e.dir)
}

// unhide takes back what hide did.
func (e *Evidence) unhide(tasks []string) error {
	var errs []error
	for _, task := range tasks {
		if _, ok, err := e.small.mark(task, recordErasing, recordKept); ok {
			errs = append(errs, err)
			continue
		}
		name, err := e.name(task)
		errs = append(errs, err, os.Rename(e.erasing(task), name))
	}
	return errors.Join(append(errs, durable.SyncDir(e.dir))...)
}

// remove erases what was hidden.
func (e *Evidence) remove(tasks []string) error {
	var errs []error
	for _, task := range tasks {
		if err := e.small.remove(task); err != nil {
			errs = append(errs, err)
		}
		if err := os.Remove(e.erasing(task)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("erase evidence: %w", err))
		}
	}
	return errors.Join(append(errs, durable.SyncDir(e.dir))...)
}

func (e *Evidence) erasing(task string) string { return filepath.Join(e.dir, task+erasingExt) }
