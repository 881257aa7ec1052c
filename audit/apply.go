package audit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/agenticraft/node/identity"
)

// applier writes entries into one transaction. It has no clock, no randomness
// and no I/O but the transaction's.
type applier struct {
	tx    *bbolt.Tx
	admit Admission
	known *attested // of the log that it writes
	size  uint64
	edge  [64]tlog.Hash // by level, where size has that bit: the hash of the full subtree that waits for one beside it
	added []*indexable
	memo  map[string]any // of the admission rules; see [Memo]

	entries, hashes, batches, ids, once, tasks, open, state *bbolt.Bucket
}

func newApplier(tx *bbolt.Tx, admit Admission, known *attested, size uint64) (*applier, error) {
	a := &applier{
		tx: tx, admit: admit, known: known, size: size, memo: map[string]any{},
		entries: tx.Bucket(bucketEntries), hashes: tx.Bucket(bucketTree),
		batches: tx.Bucket(bucketBatches), ids: tx.Bucket(bucketIDs), once: tx.Bucket(bucketOnce),
		tasks: tx.Bucket(bucketTasks), open: tx.Bucket(bucketOpen),
		state: tx.Bucket(bucketState),
	}
	// Keys of these only ever grow, so full pages are never split later.
	a.entries.FillPercent, a.hashes.FillPercent, a.batches.FillPercent = 1, 1, 1
	stored := &prover{stored: a.hashes.Cursor()}
	for rest := size; rest > 0; rest &= rest - 1 {
		level := bits.TrailingZeros64(rest)
		var err error
		if a.edge[level], err = stored.read(level, rest>>level-1); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// command applies one command and encodes the answer for its proposer. An
// error stops the keeper.
func (a *applier) command(cmd []byte) ([]byte, error) {
	b, err := decodeBatch(cmd)
	switch {
	case errors.Is(err, errVersion):
		return nil, err
	case err != nil:
		return refuseAll(1, "bad_command", "the command is malformed"), nil
	case b.withheld():
		return refuseAll(len(b.leaves), "bad_command", "an entry is missing"), nil
	case !a.known.verify(b.Attestation):
		return refuseAll(len(b.leaves), "bad_signature", "the command is not signed by its author for this log"), nil
	}
	results, err := a.batch(b)
	if err != nil {
		return nil, err
	}
	return encodeResults(results), nil
}

func refuseAll(n int, code, message string) []byte {
	results := make([]result, n)
	for i := range results {
		results[i] = refused(code, message)
	}
	return encodeResults(results)
}

func refused(code, message string) result {
	return result{code: codeRefused, refusal: &Refusal{Code: code, Message: message}}
}

func (b batch) withheld() bool {
	for _, leaf := range b.leaves {
		if leaf == nil {
			return true
		}
	}
	return false
}

// batch applies the entries of a verified batch and keeps its attestation if
// any was admitted. Withheld entries are left out.
func (a *applier) batch(b batch) ([]result, error) {
	first := a.size
	results := make([]result, len(b.leaves))
	admitted := make([]bool, len(b.leaves))
	for i, leaf := range b.leaves {
		if leaf == nil {
			continue
		}
		var d decodedEntry
		if b.entries != nil {
			d = b.entries[i]
		} else {
			d = decodeLeaf(leaf)
		}
		r, err := a.one(b.Author, leaf, b.Hashes[i], d)
		if err != nil {
			return nil, err
		}
		results[i], admitted[i] = r, r.code == codeAppended
	}
	if a.size == first {
		return results, nil
	}
	return results, a.batches.Put(key64(first), encodeRecord(b.Attestation, admitted))
}

// decodedEntry is what [decodeEntry] gives of a leaf.
type decodedEntry struct {
	entry Entry
	body  any
	err   error
}

func decodeLeaf(leaf []byte) decodedEntry {
	e, body, err := decodeEntry(leaf)
	return decodedEntry{e, body, err}
}

// one applies one entry.
func (a *applier) one(author identity.ID, leaf []byte, hash Hash, d decodedEntry) (result, error) {
	e, body := d.entry, d.body
	switch {
	case d.err != nil:
		return refused("invalid", d.err.Error()), nil
	case e.Author != author:
		return refused("author", "the entry names another author than the one who signed it"), nil
	case e.Kind == KindGenesis:
		return refused("invalid", "only entry 0 is a genesis entry"), nil
	}
	if r, done := a.seen(e); done {
		return r, nil
	}
	if r, done := a.rules(e, body); done {
		return r, nil
	}
	if err := a.admitted(e, author); err != nil {
		if refusal, ok := errors.AsType[*Refusal](err); ok {
			return result{code: codeRefused, refusal: refusal}, nil
		}
		return result{}, fmt.Errorf("admission of entry %d: %w", a.size, err)
	}
	if err := a.append(e, leaf, hash); err != nil {
		return result{}, fmt.Errorf("write entry %d: %w", a.size, err)
	}
	return result{code: codeAppended, index: a.size - 1}, nil
}

// seen answers entries that were written before, by id or at-most-once key.
func (a *applier) seen(e Entry) (result, bool) {
	if at := a.ids.Get(idKey(e)); at != nil {
		return result{code: codeExisting, index: binary.BigEndian.Uint64(at)}, true
	}
	if e.Once == nil {
		return result{}, false
	}
	at, digest, ok := splitOnce(a.once.Get([]byte(e.Once.Key)))
	switch {
	case !ok:
		return result{}, false
	case digest != e.Once.Digest:
		return result{code: codeConflict, index: at}, true
	}
	return result{code: codeExisting, index: at}, true
}

// rules are those that tie the entries of a task together.
//
// INVARIANT: I2, every intent gets exactly one outcome; a late result is kept
// as late, never erased. I8, at most one run per task and attempt, and a later
// attempt only after the earlier outcome.
func (a *applier) rules(e Entry, body any) (result, bool) {
	switch body := body.(type) {
	case IntentBody:
		return a.intentRules(e, body)
	case OutcomeBody:
		return a.outcomeRules(e, body)
	case ConnectionBody:
		return a.connectionRules(e)
	}
	return result{}, false
}

// connectionRules: who runs a task says what its program connected to.
func (a *applier) connectionRules(e Entry) (result, bool) {
	intent, author, ok := a.taskEntry(e.Task, e.Attempt, roleIntent)
	if !ok || *e.Ref != intent || author != e.Author {
		return refused("executor", "only the executor of a task may write what its program connected to"), true
	}
	return result{}, false
}

func (a *applier) intentRules(e Entry, body IntentBody) (result, bool) {
	if at, _, ok := a.taskEntry(e.Task, e.Attempt, roleIntent); ok {
		return result{code: codeConflict, index: at}, true
	}
	if body.Executor != e.Author {
		return refused("executor", "an intent is written by the node that runs it"), true
	}
	if e.Attempt > 1 {
		if _, _, ok := a.taskEntry(e.Task, e.Attempt-1, roleOutcome); !ok {
			return refused("attempt", "the earlier attempt has no outcome yet"), true
		}
	}
	return result{}, false
}

func (a *applier) outcomeRules(e Entry, body OutcomeBody) (result, bool) {
	intent, author, ok := a.taskEntry(e.Task, e.Attempt, roleIntent)
	if !ok || *e.Ref != intent {
		return refused("no_intent", "it does not refer to the intent of its task and attempt"), true
	}
	// Only the executor can know how its run ended; that it was never heard of
	// again, others can say (who may, is for the admission rules).
	declaredLost := e.Kind == KindOutcome && body.Status == StatusLost
	if author != e.Author && !declaredLost {
		return refused("executor", "only the executor of a task may write how it ended"), true
	}
	outcome, _, ended := a.taskEntry(e.Task, e.Attempt, roleOutcome)
	switch {
	case e.Kind == KindOutcome && ended:
		return result{code: codeExisting, index: outcome}, true
	case e.Kind == KindLate && !ended:
		return refused("no_outcome", "a late result comes after an outcome"), true
	}
	return result{}, false
}

// admitted asks the admission rules and undoes what they wrote if they refuse.
func (a *applier) admitted(e Entry, author identity.ID) error {
	if a.admit == nil {
		return nil
	}
	state := &stateTx{bucket: a.state, writable: true, memo: a.memo}
	err := a.admit.Admit(state, a.size, author, e)
	if err == nil {
		return nil
	}
	return errors.Join(err, state.undo())
}

// append writes the entry, its hashes and what is derived from it.
func (a *applier) append(e Entry, leaf []byte, hash Hash) error {
	at := key64(a.size)
	if err := a.appendHashes(tlog.Hash(hash)); err != nil {
		return err
	}
	if err := errors.Join(a.entries.Put(at, leaf), a.ids.Put(idKey(e), at)); err != nil {
		return err
	}
	if e.Once != nil {
		if err := a.once.Put([]byte(e.Once.Key), append(key64(a.size), e.Once.Digest...)); err != nil {
			return err
		}
	}
	if err := a.appendTask(e, at); err != nil {
		return err
	}
	if e.Kind == KindEpoch {
		if err := noteEpoch(a.tx, a.size); err != nil {
			return err
		}
	}
	a.added = append(a.added, &indexable{a.size, hash, e})
	a.size++
	return nil
}

// appendHashes writes the hashes of all subtrees that the entry completes, its own
// first, as tlog numbers them.
func (a *applier) appendHashes(hash tlog.Hash) error {
	index := uint64(tlog.StoredHashIndex(0, int64(a.size)))
	for level := 0; ; level++ {
		if err := a.hashes.Put(key64(index+uint64(level)), bytes.Clone(hash[:])); err != nil {
			return err
		}
		if a.size>>level&1 == 0 {
			a.edge[level] = hash
			return nil
		}
		hash = tlog.NodeHash(a.edge[level], hash)
	}
}

// appendTask keeps which entries a task has and which intents await an outcome.
func (a *applier) appendTask(e Entry, at []byte) error {
	if e.Task == "" {
		return nil
	}
	if err := a.tasks.Put(taskKey(e.Task, e.Attempt, roleOf(e.Kind), a.size), []byte(e.Author)); err != nil {
		return err
	}
	switch e.Kind {
	case KindIntent:
		return a.open.Put(at, []byte{})
	case KindOutcome:
		return a.open.Delete(key64(*e.Ref))
	}
	return nil
}

// taskEntry finds the first entry with that role.
func (a *applier) taskEntry(task string, attempt int, role byte) (at uint64, author identity.ID, ok bool) {
	prefix := taskPrefix(task, attempt, role)
	key, value := a.tasks.Cursor().Seek(prefix)
	if !bytes.HasPrefix(key, prefix) || len(key) != len(prefix)+8 {
		return 0, "", false
	}
	return binary.BigEndian.Uint64(key[len(prefix):]), identity.ID(value), true
}

// The roles of entries in a task, as the keys of bucketTasks hold them.
const (
	roleIntent  = 'i'
	roleOutcome = 'o'
	roleLate    = 'l'
	roleDenial  = 'd'
	roleOther   = 'x'
)

func roleOf(k Kind) byte {
	switch k {
	case KindIntent:
		return roleIntent
	case KindOutcome:
		return roleOutcome
	case KindLate:
		return roleLate
	case KindDenial:
		return roleDenial
	}
	return roleOther
}

func taskKey(task string, attempt int, role byte, index uint64) []byte {
	return binary.BigEndian.AppendUint64(taskPrefix(task, attempt, role), index)
}

func taskPrefix(task string, attempt int, role byte) []byte {
	key := append([]byte(task), 0)
	key = binary.BigEndian.AppendUint32(key, uint32(attempt))
	return append(key, role)
}

func idKey(e Entry) []byte {
	key := append([]byte(e.Author), 0)
	return append(key, e.ID...)
}

func splitOnce(value []byte) (at uint64, digest string, ok bool) {
	if len(value) < 8 {
		return 0, "", false
	}
	return binary.BigEndian.Uint64(value), string(value[8:]), true
}
