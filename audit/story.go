package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/agenticraft/node/identity"
)

// Story is everything that the log tells of one task, in one piece.
type Story struct {
	Task     string         `json:"task"`
	Actor    string         `json:"actor,omitempty"`     // who asked
	OnBehalf string         `json:"on_behalf,omitempty"` // for whom
	Tenant   string         `json:"tenant,omitempty"`
	Request  *StoryRequest  `json:"request"` // nil: nothing but denials is known
	Mandate  []MandateUse   `json:"mandate"` // from the root down
	Denials  []StoryDenial  `json:"denials"`
	Attempts []StoryAttempt `json:"attempts"`
	Erasures []StoryErasure `json:"erasures"`
	Receipt  StoryReceipt   `json:"receipt"`
	Entries  []StoryEntry   `json:"entries"` // all of them, as they are in the log
}

// StoryEntry is an entry of the story, the leaf verbatim.
type StoryEntry struct {
	Index uint64          `json:"index"`
	Entry json.RawMessage `json:"entry"`
}

// StoryRequest is what was asked for.
type StoryRequest struct {
	Commitment string           `json:"commitment"` // to the signed request's digest
	Door       identity.ID      `json:"door"`       // that took it in
	Language   string           `json:"language"`
	Network    string           `json:"network"`
	Limits     map[string]int64 `json:"limits,omitempty"`
	Required   []string         `json:"required,omitempty"`
}

// StoryDenial is a refusal.
type StoryDenial struct {
	Index    uint64    `json:"index"`
	Time     string    `json:"time"`
	Code     string    `json:"code"`
	Decision *Decision `json:"decision,omitempty"`
}

// StoryAttempt is one run: its intent, its outcome, and what came late.
type StoryAttempt struct {
	Attempt      int           `json:"attempt"`
	Intent       uint64        `json:"intent"` // index
	Time         string        `json:"time"`
	Executor     identity.ID   `json:"executor"`
	Sandbox      string        `json:"sandbox"`
	Runtime      string        `json:"runtime,omitempty"`
	Decision     *Decision     `json:"decision,omitempty"`      // the executor's
	DoorDecision *Decision     `json:"door_decision,omitempty"` // if the door is another node
	Outcome      *StoryOutcome `json:"outcome"`                 // nil: it still runs
	Late         []uint64      `json:"late,omitempty"`          // indexes
	// Connections are what its program asked its proxy for, in log order.
	Connections []StoryConnection `json:"connections,omitempty"`
}

// StoryConnection is a connection that a run opened, or was refused.
type StoryConnection struct {
	Index uint64 `json:"index"`
	Time  string `json:"time"`
	ConnectionBody
}

// StoryOutcome is how a run ended.
type StoryOutcome struct {
	Index  uint64      `json:"index"`
	Time   string      `json:"time"`
	Author identity.ID `json:"author"` // the executor, or who declared it lost
	OutcomeBody
}

// StoryErasure says that evidence of the task was erased.
type StoryErasure struct {
	Index  uint64      `json:"index"`
	Time   string      `json:"time"`
	Node   identity.ID `json:"node"`
	Reason string      `json:"reason"`
	By     string      `json:"by,omitempty"` // who asked for it
}

// StoryReceipt says whether the task's receipt can be had, as far as the log
// tells.
type StoryReceipt struct {
	Available bool        `json:"available"`
	Node      identity.ID `json:"node,omitempty"` // that keeps the evidence it is made of
	Why       string      `json:"why,omitempty"`  // if it is not available
}

// maxStory is how many entries of a task a story is made of.
const maxStory = MaxLimit

// Story tells a task's story, or [ErrNotFound] if the log has nothing of it.
func (s *Store) Story(ctx context.Context, task string) (Story, error) {
	if task == "" {
		return Story{}, fmt.Errorf("story: %w", ErrNotFound)
	}
	page, err := s.Query(ctx, Filter{Task: task, Limit: maxStory})
	if err != nil {
		return Story{}, err
	}
	if len(page.Entries) == 0 {
		return Story{}, fmt.Errorf("story of the task: %w", ErrNotFound)
	}
	erased, err := s.Query(ctx, Filter{Kinds: []Kind{KindErasure}, Resource: "task:" + task, Limit: maxStory})
	if err != nil {
		return Story{}, err
	}
	entries := append(page.Entries, erased.Entries...)
	slices.SortFunc(entries, func(a, b Indexed) int { return int(int64(a.Index) - int64(b.Index)) })
	entries = slices.CompactFunc(entries, func(a, b Indexed) bool { return a.Index == b.Index })
	story := Story{
		Task: task, Mandate: []MandateUse{}, Denials: []StoryDenial{}, Attempts: []StoryAttempt{}, Erasures: []StoryErasure{}, Entries: []StoryEntry{},
	}
	for _, one := range entries {
		story.Entries = append(story.Entries, StoryEntry{one.Index, one.Leaf})
		if err := story.take(one); err != nil {
			return Story{}, fmt.Errorf("entry %d: %w", one.Index, err)
		}
	}
	at, _, err := s.Checkpoint()
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Story{}, err
	}
	story.receipt(at.Size)
	return story, nil
}

func (s *Story) take(one Indexed) error {
	e := one.Entry
	if s.Actor == "" && e.Kind != KindErasure {
		s.Actor, s.OnBehalf, s.Tenant = e.Actor, e.OnBehalf, e.Tenant
	}
	switch e.Kind {
	case KindIntent:
		b, err := e.Intent()
		if err != nil {
			return err
		}
		s.Request = &StoryRequest{
			Commitment: b.Request, Door: b.Door, Language: b.Language, Network: b.Network, Limits: b.Limits, Required: b.Required,
		}
		s.Mandate = slices.Concat(s.Mandate[:0], b.Mandate)
		s.Attempts = append(s.Attempts, StoryAttempt{
			Attempt: e.Attempt, Intent: one.Index, Time: e.Time, Executor: b.Executor, Sandbox: b.Sandbox, Runtime: b.Runtime,
			Decision: e.Decision, DoorDecision: b.DoorDecision,
		})
	case KindOutcome, KindLate:
		b, err := e.Outcome()
		if err != nil {
			return err
		}
		for i := range s.Attempts {
			switch a := &s.Attempts[i]; {
			case a.Attempt != e.Attempt:
			case e.Kind == KindLate:
				a.Late = append(a.Late, one.Index)
			default:
				a.Outcome = &StoryOutcome{Index: one.Index, Time: e.Time, Author: e.Author, OutcomeBody: b}
			}
		}
	case KindConnection:
		b, err := e.Connection()
		if err != nil {
			return err
		}
		for i := range s.Attempts {
			if a := &s.Attempts[i]; a.Attempt == e.Attempt {
				a.Connections = append(a.Connections, StoryConnection{Index: one.Index, Time: e.Time, ConnectionBody: b})
			}
		}
	case KindDenial:
		b, err := e.Denial()
		if err != nil {
			return err
		}
		s.Denials = append(s.Denials, StoryDenial{Index: one.Index, Time: e.Time, Code: b.Code, Decision: e.Decision})
	case KindErasure:
		b, err := e.Erasure()
		if err != nil {
			return err
		}
		s.Erasures = append(s.Erasures, StoryErasure{Index: one.Index, Time: e.Time, Node: e.Author, Reason: b.Reason, By: e.Actor})
	}
	return nil
}

// receipt says whether there can be a receipt, under a checkpoint of this size.
func (s *Story) receipt(size uint64) {
	if len(s.Attempts) == 0 {
		s.Receipt.Why = "nothing ran"
		return
	}
	last := s.Attempts[len(s.Attempts)-1]
	s.Receipt.Node = last.Executor
	switch {
	case last.Outcome == nil:
		s.Receipt.Why = "it still runs"
	case last.Outcome.Index >= size:
		s.Receipt.Why = "no quorum of keepers has cosigned the outcome yet"
	case slices.ContainsFunc(s.Erasures, func(e StoryErasure) bool { return e.Node == last.Executor }):
		s.Receipt.Why = "its evidence was erased"
	default:
		s.Receipt.Available = true
	}
}
