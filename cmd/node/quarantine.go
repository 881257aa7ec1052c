package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
)

// quarantine is the state of a node whose log contradicts what a quorum of
// keepers signed. It signs, serves and runs nothing, and takes no part in raft:
// what it would answer comes from a log that is not the cluster's. It is
// decided at the start; a node that finds out while it runs starts again.
type quarantine struct {
	dir  string
	log  *slog.Logger
	why  *a2a.Error // nil: the node is sound
	once sync.Once
	seal context.CancelCauseFunc // ends this run of the node
}

// errOdd ends a run of a node that has found that it is the odd one.
var errOdd = errors.New("this node's log contradicts what a quorum of keepers signed")

// openQuarantine looks for the mark that an earlier run left.
func openQuarantine(dir string, seal context.CancelCauseFunc, log *slog.Logger) (*quarantine, error) {
	q := &quarantine{dir: dir, log: log, seal: seal}
	at, _, err := audit.Contradiction(dir)
	if errors.Is(err, audit.ErrNotFound) {
		return q, nil
	}
	if err != nil {
		return nil, err
	}
	q.why = &a2a.Error{
		Code:    a2a.CodeUnavailable,
		Message: fmt.Sprintf("this node is quarantined: its log is not the one of %d entries that a quorum of keepers signed", at.Size),
		Hint:    "stop it and run agenticraft audit repair --data DIR; the bad log is kept as evidence",
	}
	log.Error("quarantined", "size", at.Size, "root", at.Root.String(), "hint", q.why.Hint)
	return q, nil
}

// err says why the node takes no part; nil: it does.
func (q *quarantine) err() error {
	if q.why == nil {
		return nil
	}
	return q.why
}

// contradicted keeps the evidence and ends this run.
func (q *quarantine) contradicted(at audit.Checkpoint, text []byte) {
	q.once.Do(func() {
		if err := audit.KeepContradiction(q.dir, text); err != nil {
			q.log.Error("contradiction not kept", "size", at.Size, "err", err)
			q.seal(errors.Join(errOdd, err))
			return
		}
		q.seal(errOdd)
	})
}

// guard refuses the requests of other nodes for the log while the node is
// quarantined.
func (q *quarantine) guard(h http.Handler) http.Handler {
	if q.why == nil {
		return h
	}
	return audit.ForkedHandler(q.why.Message)
}
