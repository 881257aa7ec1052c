package audit

import (
	"slices"

	"github.com/agenticraft/node/identity"
)

// Ways of reading, as [ReadBody.Action].
const (
	ReadList        = "list"         // pages of entries
	ReadShow        = "show"         // one entry, or one task's
	ReadFollowStart = "follow_start" // entries as they come, from here on
	ReadFollowEnd   = "follow_end"
	ReadExport      = "export" // everything that fits a filter; written before the first byte is sent
	ReadState       = "state"  // the tables as of an index
	ReadProofs      = "proofs" // counted only
	ReadTiles       = "tiles"  // counted only
	ReadEvidence    = "evidence"
)

// ReadBody says what somebody read of the log: the entry's actor is who. Reads
// alike within a minute are one entry.
type ReadBody struct {
	Action  string      `json:"action"`
	Count   int         `json:"count"` // requests that this entry stands for
	Door    identity.ID `json:"door"`  // the node that was asked
	Entries int64       `json:"entries,omitempty"`
	Filter  *ReadFilter `json:"filter,omitempty"`
	Format  string      `json:"format,omitempty"` // of an export
	From    string      `json:"from"`             // of the first request, as Entry.Time
	Until   string      `json:"until"`            // of the last
}

// ReadFilter is what was looked for. Names that are no principal's stand there
// as "sha256:" and their digest: what somebody typed into a search may be a
// secret, and the log keeps none (I10).
type ReadFilter struct {
	Actor    string   `json:"actor,omitempty"`
	At       string   `json:"at,omitempty"` // index, of [ReadState]
	Decision string   `json:"decision,omitempty"`
	Kinds    []string `json:"kinds,omitempty"`
	OnBehalf string   `json:"on_behalf,omitempty"`
	Policy   string   `json:"policy,omitempty"`
	Resource string   `json:"resource,omitempty"`
	Since    string   `json:"since,omitempty"`
	Task     string   `json:"task,omitempty"`
	Until    string   `json:"until,omitempty"`
}

// Why evidence was erased, as [ErasureBody.Reason].
const (
	ErasedOnRequest = "request"   // the entry's actor asked for it
	ErasedByAge     = "retention" // it was older than its tenant keeps evidence
	ErasedForSpace  = "space"     // the store was full; the oldest went first
)

// ErasureBody says that the author erased its evidence of some tasks. Their
// entries, with the commitments to what was erased, stay.
type ErasureBody struct {
	Bytes  int64    `json:"bytes"` // that were freed
	Reason string   `json:"reason"`
	Tasks  []string `json:"tasks"` // from 1 to [MaxErased]
}

// MaxErased is how many tasks one erasure entry can name.
const MaxErased = 512

// Severities of alerts.
const (
	SeverityLow    = "low"
	SeverityMedium = "medium"
	SeverityHigh   = "high"
)

// AlertBody says that a rule of package audit/threat, or a keeper's own check,
// saw something. The entry's actor is whom it is about, if it is about somebody.
type AlertBody struct {
	Count    int64       `json:"count"`             // events that made it
	Entries  []uint64    `json:"entries,omitempty"` // indexes of some of them, ascending
	From     string      `json:"from"`              // of the first event, as Entry.Time
	Node     identity.ID `json:"node,omitempty"`    // which it is about
	Rule     string      `json:"rule"`              // snake_case
	Severity string      `json:"severity"`
	Until    string      `json:"until"`
}

// MaxAlertEntries is how many indexes an alert can name.
const MaxAlertEntries = 16

// Read is the body of a read entry.
func (e Entry) Read() (ReadBody, error) { return bodyOf[ReadBody](e, nil, KindRead) }

// Erasure is the body of an erasure entry.
func (e Entry) Erasure() (ErasureBody, error) { return bodyOf[ErasureBody](e, nil, KindErasure) }

// Alert is the body of an alert entry.
func (e Entry) Alert() (AlertBody, error) { return bodyOf[AlertBody](e, nil, KindAlert) }

func (b ReadBody) check() bool {
	actions := []string{
		ReadList, ReadShow, ReadFollowStart, ReadFollowEnd, ReadExport, ReadState, ReadProofs, ReadTiles, ReadEvidence,
	}
	return slices.Contains(actions, b.Action) && b.Count > 0 && exact(int64(b.Count)) && named(b.Door) &&
		b.Entries >= 0 && exact(b.Entries) && b.Filter.check() && plain(b.Format, maxID) && span(b.From, b.Until)
}

func (f *ReadFilter) check() bool {
	if f == nil {
		return true
	}
	ok := len(f.Kinds) <= len(Kinds())
	for _, s := range slices.Concat(f.Kinds, []string{f.Actor, f.At, f.Decision, f.OnBehalf, f.Policy, f.Resource, f.Since, f.Task, f.Until}) {
		ok = ok && plain(s, maxName)
	}
	return ok
}

func (b ErasureBody) check() bool {
	ok := slices.Contains([]string{ErasedOnRequest, ErasedByAge, ErasedForSpace}, b.Reason)
	for _, task := range b.Tasks {
		ok = ok && task != "" && plain(task, maxID)
	}
	return ok && len(b.Tasks) > 0 && len(b.Tasks) <= MaxErased && b.Bytes >= 0 && exact(b.Bytes)
}

func (b AlertBody) check() bool {
	ok := slices.Contains([]string{SeverityLow, SeverityMedium, SeverityHigh}, b.Severity)
	for i, index := range b.Entries {
		ok = ok && index <= maxNumber && (i == 0 || index > b.Entries[i-1])
	}
	return ok && b.Rule != "" && plain(b.Rule, maxID) && b.Count > 0 && exact(b.Count) &&
		len(b.Entries) <= MaxAlertEntries && (b.Node == "" || named(b.Node)) && span(b.From, b.Until)
}

// span reports whether both are times of entries.
func span(from, until string) bool {
	_, err1 := ParseTime(from)
	_, err2 := ParseTime(until)
	return err1 == nil && err2 == nil
}
