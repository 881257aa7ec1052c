package audit

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/agenticraft/node/identity"
)

// EpochBody begins an epoch: from the next size on, checkpoints are these
// keepers' to sign. A quorum of the keepers before signed that, so that whoever
// trusts those can follow.
type EpochBody struct {
	Epoch      uint64           `json:"epoch"`      // from 2 on; the first begins with entry 0
	Keepers    []identity.ID    `json:"keepers"`    // sorted
	Signatures []EpochSignature `json:"signatures"` // sorted by signer
}

// EpochSignature is one old keeper's word for an epoch.
type EpochSignature struct {
	By  identity.ID `json:"by"`
	Sig []byte      `json:"sig"`
}

const (
	epochDomain     = "agenticraft epoch v1"
	maxEpochKeepers = 32
)

// epochMessage is what the old keepers sign: which log, which epoch, who.
func epochMessage(origin string, epoch uint64, keepers []identity.ID) []byte {
	out := fmt.Appendf(nil, "%s\n%d\n", origin, epoch)
	for _, id := range keepers {
		out = append(append(out, id...), '\n')
	}
	return out
}

// SignEpoch gives a keeper's word that the epoch begins with these keepers.
func SignEpoch(key *identity.Key, origin string, epoch uint64, keepers []identity.ID) EpochSignature {
	return EpochSignature{By: key.ID(), Sig: key.Sign(epochDomain, epochMessage(origin, epoch, keepers))}
}

func (b EpochBody) check() bool {
	ok := b.Epoch > 1 && b.Epoch < maxNumber && len(b.Keepers) > 0 && len(b.Keepers) <= maxEpochKeepers &&
		len(b.Signatures) > 0 && len(b.Signatures) <= maxEpochKeepers
	for i, id := range b.Keepers {
		ok = ok && named(id) && (i == 0 || b.Keepers[i-1] < id)
	}
	for i, s := range b.Signatures {
		ok = ok && named(s.By) && len(s.Sig) == signature && (i == 0 || b.Signatures[i-1].By < s.By)
	}
	return ok
}

// Verify checks that at least quorum of the old keepers signed the epoch for
// the log named origin, and nobody else.
func (b EpochBody) Verify(origin string, old []identity.ID, quorum int) error {
	if origin == "" || !b.check() {
		return fmt.Errorf("%w: malformed epoch", ErrInvalid)
	}
	msg := epochMessage(origin, b.Epoch, b.Keepers)
	for _, s := range b.Signatures {
		if !slices.Contains(old, s.By) || !s.By.Verify(epochDomain, msg, s.Sig) {
			return fmt.Errorf("%w: epoch %d: signature of %s", ErrInvalid, b.Epoch, s.By)
		}
	}
	if len(b.Signatures) < quorum {
		return fmt.Errorf("%w: epoch %d: %d of the keepers before signed it, needed are %d", ErrInvalid, b.Epoch, len(b.Signatures), quorum)
	}
	return nil
}

// Epoch is the body of an epoch entry.
func (e Entry) Epoch() (EpochBody, error) { return bodyOf[EpochBody](e, nil, KindEpoch) }

// Step is an epoch entry and the proof of its place in a log: what leads from
// the trust in some keepers to the trust in the next.
type Step struct {
	Index uint64 `json:"index"`
	Leaf  string `json:"leaf"`  // as stored
	Proof []Hash `json:"proof"` // against the checkpoint that it comes with
}

// Next is the trust after a change of keepers: the new ones sign checkpoints of
// size from and larger.
func (t Trust) Next(from uint64, keepers []identity.ID) (Trust, error) {
	next, err := NewTrust(t.Origin, t.Epoch+1, keepers)
	if err != nil {
		return Trust{}, err
	}
	next.Witnesses = t.Witnesses
	began := uint64(0)
	if n := len(t.Past); n > 0 {
		began = t.Past[n-1].Until
	}
	next.Past = append(slices.Clip(slices.Clone(t.Past)), PastTrust{From: began, Until: from, Quorum: t.Quorum, Keys: t.Keys})
	return next, next.check()
}

// step extends the trust by an epoch entry if that is the next one. An entry of
// an epoch that the trust knows already must begin where the trust says.
func (t Trust) step(index uint64, leaf []byte) (Trust, error) {
	e, err := DecodeEntry(leaf)
	if err != nil {
		return Trust{}, err
	}
	b, err := e.Epoch()
	if err != nil {
		return Trust{}, err
	}
	switch {
	case b.Epoch > t.Epoch+1:
		return Trust{}, fmt.Errorf("%w: the step to epoch %d is missing", ErrInvalid, t.Epoch+1)
	case b.Epoch <= t.Epoch:
		// Past holds the epochs before the one in force, the newest last.
		if at := len(t.Past) - int(t.Epoch-b.Epoch) - 1; at >= 0 && t.Past[at].Until != index+1 {
			return Trust{}, fmt.Errorf("%w: epoch %d begins elsewhere than the trusted one", ErrInvalid, b.Epoch)
		}
		return t, nil
	}
	old, err := t.Keepers()
	if err != nil {
		return Trust{}, err
	}
	if err := b.Verify(t.Origin, old, t.Quorum); err != nil {
		return Trust{}, err
	}
	return t.Next(index+1, b.Keepers)
}

// Follow verifies a checkpoint under the trust as the steps extend it, and each
// step's place in the log of that checkpoint. It returns the extended trust,
// the checkpoint and who signed it.
func (t Trust) Follow(steps []Step, text []byte) (Trust, Checkpoint, []identity.ID, error) {
	var err error
	if len(steps) > maxPast {
		return Trust{}, Checkpoint{}, nil, fmt.Errorf("%w: %d steps between epochs", ErrInvalid, len(steps))
	}
	for _, s := range steps {
		if t, err = t.step(s.Index, []byte(s.Leaf)); err != nil {
			return Trust{}, Checkpoint{}, nil, fmt.Errorf("step to another epoch at entry %d: %w", s.Index, err)
		}
	}
	at, by, err := t.Verify(text)
	if err != nil {
		return Trust{}, Checkpoint{}, nil, err
	}
	for _, s := range steps {
		if err := CheckEntry(s.Proof, s.Index, at.Size, LeafHash([]byte(s.Leaf)), at.Root); err != nil {
			return Trust{}, Checkpoint{}, nil, fmt.Errorf("step to another epoch: %w", err)
		}
	}
	return t, at, by, nil
}

// At are the keepers who sign checkpoints of that size, and how many must.
func (t Trust) At(size uint64) (keepers []identity.ID, quorum int, err error) {
	keys, quorum := t.at(size)
	keepers, err = keepersOf(keys, quorum)
	return keepers, quorum, err
}

func (t Trust) at(size uint64) (vkeys []string, quorum int) {
	for _, p := range t.Past {
		if p.From <= size && size < p.Until {
			return p.Keys, p.Quorum
		}
	}
	return t.Keys, t.Quorum
}

// Steps are the epoch entries of the log of the given size, with their proofs.
func (s *Store) Steps(size uint64) ([]Step, error) {
	var steps []Step
	err := s.view(func(tx *bbolt.Tx) error {
		for _, index := range epochsIn(tx) {
			if index >= size {
				break
			}
			one, err := readEntry(tx, index)
			if err != nil {
				return err
			}
			steps = append(steps, Step{Index: index, Leaf: string(one.Leaf)})
		}
		return nil
	})
	for i := range steps {
		if err != nil {
			break
		}
		steps[i].Proof, err = s.ProveEntry(steps[i].Index, size)
	}
	if err != nil {
		return nil, fmt.Errorf("steps between epochs: %w", err)
	}
	return steps, nil
}

// epochsIn lists where epochs begin, oldest first.
func epochsIn(tx *bbolt.Tx) []uint64 {
	raw := tx.Bucket(bucketMeta).Get(keyEpochs)
	out := make([]uint64, 0, len(raw)/8)
	for ; len(raw) >= 8; raw = raw[8:] {
		out = append(out, binary.BigEndian.Uint64(raw))
	}
	return out
}

// noteEpoch remembers that an epoch begins with the entry at index.
func noteEpoch(tx *bbolt.Tx, index uint64) error {
	meta := tx.Bucket(bucketMeta)
	return meta.Put(keyEpochs, append(bytes.Clone(meta.Get(keyEpochs)), key64(index)...))
}
