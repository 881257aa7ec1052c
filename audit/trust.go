package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/agenticraft/node/identity"
)

const (
	trustVersion = 1
	maxTrust     = 1 << 20 // bytes of a trust file
	maxKeys      = 100     // package note reads no more signatures
	maxPast      = 10_000  // epochs
)

// Trust says whose signatures make a checkpoint of one log valid: what an
// offline verifier has to be given by somebody it believes.
type Trust struct {
	V         int         `json:"v"`
	Origin    string      `json:"origin"` // of the log; binds entry 0
	Epoch     uint64      `json:"epoch"`  // counts changes of keepers
	Quorum    int         `json:"quorum"` // signatures of Keys that make a checkpoint valid
	Keys      []string    `json:"keys"`   // vkeys of the keepers, named by their peer IDs
	Witnesses []string    `json:"witnesses"`
	Past      []PastTrust `json:"past"` // earlier keepers, oldest first
}

// PastTrust is who signed checkpoints of sizes From to Until, which is exclusive.
type PastTrust struct {
	From   uint64   `json:"from"`
	Until  uint64   `json:"until"`
	Quorum int      `json:"quorum"`
	Keys   []string `json:"keys"`
}

// NewTrust makes the trust in a majority of keepers.
func NewTrust(origin string, epoch uint64, keepers []identity.ID) (Trust, error) {
	t := Trust{
		V: trustVersion, Origin: origin, Epoch: epoch, Quorum: len(keepers)/2 + 1,
		Keys: []string{}, Witnesses: []string{}, Past: []PastTrust{},
	}
	for _, id := range slices.Sorted(slices.Values(keepers)) {
		vkey, err := VerifierKey(id)
		if err != nil {
			return Trust{}, err
		}
		t.Keys = append(t.Keys, vkey)
	}
	return t, t.check()
}

// ParseTrust reads a trust file strictly.
func ParseTrust(text []byte) (Trust, error) {
	var t Trust
	if len(text) > maxTrust || depth(text) > maxDepth {
		return Trust{}, fmt.Errorf("%w: trust file is too large", ErrInvalid)
	}
	if err := decodeStrict(text, &t); err != nil {
		return Trust{}, fmt.Errorf("trust file: %w", err)
	}
	if err := sameJSON(text, t); err != nil {
		return Trust{}, fmt.Errorf("trust file: %w", err)
	}
	return t, t.check()
}

// Encode writes the trust file.
func (t Trust) Encode() ([]byte, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(t, "", "  ")
	return append(text, '\n'), err
}

// sameJSON refuses text that says more, or says it otherwise, than value does:
// repeated or misspelt members, nulls, numbers that were rounded.
func sameJSON(text []byte, value any) error {
	given, err := canonical(text)
	if err != nil {
		return err
	}
	again, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if again, err = canonical(again); err != nil {
		return err
	}
	if !bytes.Equal(given, again) {
		return fmt.Errorf("%w: members are missing, repeated or misspelt", ErrInvalid)
	}
	return nil
}

func (t Trust) check() error {
	fail := func(what string) error { return fmt.Errorf("%w: trust: %s", ErrInvalid, what) }
	name, digest, _ := strings.Cut(t.Origin, "/")
	switch {
	case t.V != trustVersion:
		return fail(fmt.Sprintf("version %d is not known", t.V))
	case name != "agenticraft" || !isDigest(digest):
		return fail("origin is not the name of a log")
	case t.Witnesses == nil || t.Past == nil || t.Epoch > maxNumber:
		return fail("witnesses, past or epoch is malformed")
	case len(t.Witnesses) > maxKeys || len(t.Past) > maxPast:
		return fail("too many witnesses or epochs")
	}
	for _, w := range t.Witnesses {
		if w == "" || !plain(w, maxName) {
			return fail("a witness is malformed")
		}
	}
	if _, err := keepersOf(t.Keys, t.Quorum); err != nil {
		return err
	}
	var until uint64
	for _, p := range t.Past {
		if p.From < until || p.Until <= p.From || p.Until > maxNumber {
			return fail("past epochs are not in order")
		}
		if _, err := keepersOf(p.Keys, p.Quorum); err != nil {
			return err
		}
		until = p.Until
	}
	return nil
}

// keepersOf reads the keys of an epoch. A quorum of less than a majority could
// sign two histories.
func keepersOf(vkeys []string, quorum int) ([]identity.ID, error) {
	if len(vkeys) == 0 || len(vkeys) > maxKeys || quorum <= len(vkeys)/2 || quorum > len(vkeys) {
		return nil, fmt.Errorf("%w: trust: %d of %d keys is not a quorum", ErrInvalid, quorum, len(vkeys))
	}
	ids := make([]identity.ID, 0, len(vkeys))
	for _, vkey := range vkeys {
		id, err := ParseVerifierKey(vkey)
		if err != nil {
			return nil, fmt.Errorf("trust: %w", err)
		}
		if slices.Contains(ids, id) {
			return nil, fmt.Errorf("%w: trust: key of %s is repeated", ErrInvalid, id)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// Keepers are those whose signatures count now.
func (t Trust) Keepers() ([]identity.ID, error) { return keepersOf(t.Keys, t.Quorum) }

// Verify checks that text is a checkpoint of this log with valid signatures of
// a quorum of those who were keepers at its size, and says who signed.
func (t Trust) Verify(text []byte) (Checkpoint, []identity.ID, error) {
	c, _, by, err := t.verify(text)
	return c, by, err
}

func (t Trust) verify(text []byte) (Checkpoint, *note.Note, []identity.ID, error) {
	claimed, _, _, err := openNote(text, nil)
	if err != nil {
		return Checkpoint{}, nil, nil, err
	}
	keepers, quorum, err := t.At(claimed.Size)
	if err != nil {
		return Checkpoint{}, nil, nil, err
	}
	c, n, by, err := openNote(text, keepers)
	switch {
	case err != nil:
		return Checkpoint{}, nil, nil, err
	case c.Origin != t.Origin:
		return Checkpoint{}, nil, nil, fmt.Errorf("%w: checkpoint is of another log, %q", ErrInvalid, clip(c.Origin))
	case len(by) < quorum:
		return Checkpoint{}, nil, nil, fmt.Errorf("%w: %d of %d keepers signed the checkpoint, needed are %d", ErrInvalid, len(by), len(keepers), quorum)
	}
	return c, n, by, nil
}
