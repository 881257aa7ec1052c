package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/agenticraft/node/identity"
)

// checkpoint verifies the stored checkpoint of a size, by those who were
// keepers then, and returns the root that they signed.
func (v *dirCheck) checkpoint(size uint64, text []byte) (Hash, error) {
	fail := func(why any) (Hash, error) {
		return Hash{}, bad(size-min(size, 1), fmt.Sprintf("the checkpoint that covers it: %v", why))
	}
	claimed, n, _, err := openNote(text, nil)
	if err != nil {
		return fail(err)
	}
	var c Checkpoint
	var by []identity.ID
	if v.trust != nil {
		c, n, by, err = v.trust.verify(text)
	} else {
		// Every signer's name is its key: the signatures can be checked, though
		// not whether these are the right signers.
		var ids []identity.ID
		for _, sig := range n.UnverifiedSigs {
			ids = append(ids, identity.ID(sig.Name))
		}
		c, n, by, err = openNote(text, ids)
	}
	switch {
	case err != nil:
		return fail(err)
	case c != claimed || c.Origin != v.report.Origin || c.Size != size || size == 0:
		return fail("it is of another log or size")
	case !exactNote(text, n) || len(by) == 0:
		return fail("it holds more than valid signatures")
	}
	v.report.Checkpoint = &c
	v.report.Checkpoints++
	if v.trust != nil {
		v.report.SignedBy = by
	}
	return c.Root, nil
}

// signedRoot compares the root with what was signed for this size.
func (v *dirCheck) signedRoot(size uint64) error {
	pledged := v.pledge.Size == size
	text, noted := v.notes[size]
	accused := v.accuser != nil && v.against.Size == size
	if !pledged && !noted && !accused {
		return nil
	}
	var signed Hash
	if noted {
		var err error
		if signed, err = v.checkpoint(size, text); err != nil {
			return err
		}
		delete(v.notes, size)
	}
	h, err := tlog.TreeHash(int64(size), v)
	if err != nil {
		return bad(size-1, err.Error())
	}
	if accused {
		if _, err := v.checkpoint(size, v.accuser); err != nil {
			return err
		}
		if Hash(h) != v.against.Root {
			return badHash(size-1, "it, or one before, is not what a quorum of keepers signed ("+contradictionFile+"): root", Hash(h), v.against.Root)
		}
	}
	if noted && Hash(h) != signed {
		return badHash(size-1, "it, or one since the checkpoint before, is not what the keepers signed: root", Hash(h), signed)
	}
	if pledged && Hash(h) != v.pledge.Root {
		return badHash(size-1, "it, or one before, is not what this node signed ("+cosignedFile+"): root", Hash(h), v.pledge.Root)
	}
	return nil
}

// end checks that nothing is missing after the last entry and nothing is left
// over.
func (v *dirCheck) end() error {
	if err := v.complete(); err != nil {
		return err
	}
	size := v.report.Size
	if len(v.notes) > 0 {
		signed := slices.Min(slices.Collect(maps.Keys(v.notes)))
		if _, err := v.checkpoint(signed, v.notes[signed]); err != nil || signed <= size {
			return errors.Join(err, bad(0, "a checkpoint has no size"))
		}
		return bad(size, fmt.Sprintf("the entry is missing, a log of %d entries was signed", signed))
	}
	return v.conclude()
}

// complete checks that the entries end where the store says, and everything
// that comes with them there, too.
func (v *dirCheck) complete() error {
	v.check = "end"
	size := v.report.Size
	if size != v.applied.size {
		return v.missing(size, fmt.Sprintf("the entry is missing, the store should have %d", v.applied.size))
	}
	if v.batch != nil && len(v.batch.rest) > 0 {
		return v.missing(size, "the entry is missing, its author signed it with the one before")
	}
	if _, err, ok := v.tree(); err != nil || ok {
		return bad(size, "tree hashes go on after the last entry")
	}
	if _, err, ok := v.batches(); !v.hashesOnly && (err != nil || ok) {
		return bad(size, "signatures go on after the last entry")
	}
	if v.accuser != nil && v.against.Size > size {
		return bad(size, fmt.Sprintf("the entry is missing, a quorum of keepers signed a log of %d entries (%s)", v.against.Size, contradictionFile))
	}
	if v.pledge.Size > size {
		return bad(size, fmt.Sprintf("the entry is missing, a log of %d entries was signed", v.pledge.Size))
	}
	return nil
}

// conclude fills in the report of a log in which all entries are in order.
func (v *dirCheck) conclude() error {
	size := v.report.Size
	root, err := tlog.TreeHash(int64(size), v)
	if err != nil {
		return bad(size-1, err.Error())
	}
	v.report.Root, v.report.Unsigned = Hash(root), size
	if c := v.report.Checkpoint; c != nil {
		v.report.Unsigned = size - c.Size
	}
	return nil
}

// derived checks that look-ups hold nothing but the entries, and that the rest
// of the file can be read.
func (v *dirCheck) derived() error {
	for _, name := range slices.Sorted(maps.Keys(v.buckets)) {
		if err := v.keys(name); err != nil {
			return err
		}
	}
	if err := v.file.checkFree(); err != nil {
		return bad(v.report.Size-1, err.Error())
	}
	v.check = "state"
	return v.replayed()
}

// keys walks a whole bucket. If it is a look-up it has a key for everything that
// is looked up in it, and no more.
func (v *dirCheck) keys(name string) error {
	n := 0
	for e, err := range v.file.all(v.buckets[name]) {
		if err != nil {
			return v.unreadable(name, err)
		}
		if name == string(bucketOpen) && (len(e.value) > 0 || len(e.key) != 8 || !v.open[binary.BigEndian.Uint64(e.key)]) {
			return bad(v.report.Size-1, "the list of open intents is wrong")
		}
		n++
	}
	return v.counted(name, n)
}

func (v *dirCheck) unreadable(name string, err error) error {
	return bad(v.report.Size-1, fmt.Sprintf("bucket %q: %v", clip(name), err))
}

// counted compares the number of keys that a look-up has with what it should be.
func (v *dirCheck) counted(name string, n int) error {
	counts := map[string]int{
		string(bucketIDs): int(v.report.Size), string(bucketOnce): v.counts.once,
		string(bucketTasks): v.counts.tasks, string(bucketOpen): len(v.open),
	}
	if want, ok := counts[name]; ok && n != want {
		return bad(v.report.Size-1, fmt.Sprintf("look-up by %s has %d keys, not %d", name, n, want))
	}
	return nil
}
