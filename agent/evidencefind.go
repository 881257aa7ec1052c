package agent

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/identity"
)

// FoundEvidence is a part of a task's evidence with the digest that was looked for.
type FoundEvidence struct {
	Task  string      `json:"task"`
	Node  identity.ID `json:"node"` // that ran it and keeps the evidence
	Part  string      `json:"part"` // as in [EvidencePart]
	Bytes int         `json:"bytes"`
}

// EvidenceSearch is where content with a digest is kept. Nodes that could not be
// asked may have more.
type EvidenceSearch struct {
	SHA256  string          `json:"sha256"`
	Found   []FoundEvidence `json:"found"`
	Unasked []identity.ID   `json:"unasked"`
}

const (
	findWait    = 20 * time.Second
	findAtATime = 8 // nodes asked at the same time
)

// FindEvidence looks on all nodes for what has the SHA-256 digest, in lower-case
// hex, for a principal whom policy lets read evidence: here and, as each node
// judges itself, there. The log holds no such digest, so each node looks through
// what it keeps itself. What a node says counts if the log says that it ran the
// task; [Agent.ShowEvidence] holds the bytes against the log.
func (a *Agent) FindEvidence(ctx context.Context, digest string, by identity.Principal) (EvidenceSearch, error) {
	out := EvidenceSearch{SHA256: digest, Found: []FoundEvidence{}, Unasked: []identity.ID{}}
	if err := checkDigest(digest); err != nil {
		return out, err
	}
	a.cfg.Catchup(ctx)
	ctx, cancel := context.WithTimeout(ctx, findWait)
	defer cancel()
	own, err := a.FindOwnEvidence(ctx, digest)
	if err != nil {
		return out, err
	}
	out.Found = append(out.Found, own...)
	var work sync.WaitGroup
	var mu sync.Mutex // guards out
	slots := make(chan struct{}, findAtATime)
	for _, id := range a.cfg.Peers.Others() {
		work.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			found, err := a.cfg.Peers.FindEvidence(ctx, id, digest, by)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				a.log.DebugContext(ctx, "a node was not asked for evidence", "peer", id, "err", err)
				out.Unasked = append(out.Unasked, id)
				return
			}
			for _, one := range found[:min(len(found), maxFound)] {
				if executor, _, err := a.whereabouts(one.Task); err == nil && executor == id {
					one.Node = id
					out.Found = append(out.Found, one)
				}
			}
		})
	}
	work.Wait()
	slices.Sort(out.Unasked)
	slices.SortFunc(out.Found, func(a, b FoundEvidence) int {
		return cmp.Or(cmp.Compare(a.Task, b.Task), cmp.Compare(a.Part, b.Part))
	})
	switch {
	case len(out.Found) > 0:
		return out, nil
	case len(out.Unasked) > 0:
		return out, &a2a.Error{
			Code: a2a.CodeUnavailable, Message: "no node that could be asked keeps anything with that digest, and some could not be asked",
			Hint: "agenticraft nodes shows which are connected",
		}
	}
	return out, &a2a.Error{Code: a2a.CodeNotFound, Message: "no node keeps anything with that digest: it never ran, it was erased, or it is still running"}
}

func checkDigest(digest string) error {
	if !digestName.MatchString(digest) {
		return a2a.Errorf(a2a.CodeInvalidRequest, "a digest is the 64 lower-case hex digits of a SHA-256")
	}
	return nil
}

// FindOwnEvidence is what this node keeps with a digest, held against the log.
func (a *Agent) FindOwnEvidence(ctx context.Context, digest string) ([]FoundEvidence, error) {
	if err := checkDigest(digest); err != nil {
		return nil, err
	}
	tasks, err := a.cfg.Evidence.withDigest(ctx, digest)
	if err != nil {
		return nil, err
	}
	found := []FoundEvidence{}
	for _, task := range tasks {
		ev, err := a.cfg.Evidence.get(task)
		var parts []EvidencePart
		if err == nil {
			parts, err = a.provedParts(task, ev)
		}
		if err != nil { // erased meanwhile, not ended yet, or not what the log says
			a.log.DebugContext(ctx, "evidence passed over", "task", task, "err", err)
			continue
		}
		for _, p := range parts {
			if p.SHA256 == digest {
				found = append(found, FoundEvidence{Task: task, Node: a.cfg.Key.ID(), Part: p.Name, Bytes: p.Bytes})
			}
		}
	}
	return found, ctx.Err()
}
