package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.etcd.io/bbolt"
)

// part is a part of the log that was fetched, taken apart and found to be signed
// by its authors. That it belongs to the log which is asked for shows when it is
// applied.
type part struct {
	batches []batch
	proof   []Hash
	next    uint64 // the index behind its last entry
	bytes   int    // of the batches
}

// commitBytes is how many bytes of batches are enough for a transaction. Keys of
// look-ups are spread over all of a bucket's pages, so that many parts write not
// many more pages than one. They must not be many beside what there is (commitShare
// of it at most, once they are more than commitLeast): a page is split at the end of
// its transaction only, and until then each key that comes into it moves those
// behind it.
const (
	commitBytes = 32 << 20
	commitShare = 4
	commitLeast = 1 << 10 // entries
)

// fetchParts fetches and applies parts until the log has the described size.
// While one is applied the next one is taken apart and the one behind that is
// fetched, so that beside those of one transaction at most two are in memory. After
// an error all parts before the one that could not be used are applied. The caller
// holds s.applying.
func (s *Store) fetchParts(ctx context.Context, at applied, to snapshotMeta) (err error) {
	if s.fetch == nil {
		return fmt.Errorf("%w: nobody to catch up from", ErrUnavailable)
	}
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	fetched, decoded := make(chan Batches), make(chan part)
	from := make(chan uint64, 1) // where the next part begins
	from <- at.size
	faults := make(chan error, 2) // has room for one of each goroutine
	work.Go(func() {
		defer close(fetched)
		for next := range from {
			one, err := s.fetch.Batches(ctx, next, to.Size)
			if err != nil {
				faults <- err
				return
			}
			select {
			case fetched <- one:
			case <-ctx.Done():
				return
			}
		}
	})
	work.Go(func() {
		defer close(decoded)
		defer close(from)
		next := at.size
		for one := range fetched {
			p, err := s.decodePart(one, next, to.Size, from)
			if err != nil {
				faults <- err
				return
			}
			select {
			case decoded <- p:
			case <-ctx.Done():
				return
			}
			if next = p.next; next == to.Size {
				return
			}
		}
	})
	for p := range decoded {
		if at, err = s.applyParts(p, decoded, at, to); err != nil {
			break
		}
	}
	cancel() // what is still being fetched is of no use
	work.Wait()
	if err != nil || at.size >= to.Size {
		return err
	}
	select {
	case err = <-faults:
	default: // ctx ended
		err = context.Canceled
	}
	return err
}

// decodePart takes a part apart that begins at the index next. As soon as it
// knows where the part ends, it says so to who fetches the one behind it.
func (s *Store) decodePart(b Batches, next, size uint64, behind chan<- uint64) (part, error) {
	p := part{batches: make([]batch, 0, len(b.Batches)), proof: b.Proof, next: next}
	for _, cmd := range b.Batches {
		one, err := decodeBatch(cmd)
		if err != nil {
			return part{}, err
		}
		for _, leaf := range one.leaves {
			if leaf != nil {
				p.next++
			}
		}
		p.batches = append(p.batches, one)
		p.bytes += len(cmd)
	}
	if p.next == next || p.next > size {
		return part{}, fmt.Errorf("%w: the part ends at %d", ErrInvalid, p.next)
	}
	if p.next < size {
		behind <- p.next // it has room: whoever fetched this one took what was in it
	}
	for i := range p.batches {
		one := &p.batches[i]
		if !one.Verify(s.origin) {
			return part{}, fmt.Errorf("%w: signature of a batch from index %d on", ErrInvalid, next)
		}
		one.entries = make([]decodedEntry, len(one.leaves))
		for j, leaf := range one.leaves {
			if leaf != nil {
				one.entries[j] = decodeLeaf(leaf)
			}
		}
	}
	return p, nil
}

// applyParts applies a part, and those of the ones behind it that are there by
// then, in one transaction. Those before a part that cannot be used are written
// all the same, and of that one nothing is.
func (s *Store) applyParts(first part, behind <-chan part, at applied, to snapshotMeta) (applied, error) {
	var good []part
	var fault error // of the part behind the good ones
	after, err := s.writeParts(at, func(a *applier) error {
		bytes := 0
		for p, ok := first, true; ok; {
			if fault = a.replay(p, to); fault != nil {
				return fault
			}
			good, ok = append(good, p), false
			if bytes += p.bytes; bytes < commitBytes && p.next-at.size < max(at.size/commitShare, commitLeast) {
				select {
				case p, ok = <-behind:
				default: // the disk need not wait for it
				}
			}
		}
		return nil
	})
	if fault == nil || len(good) == 0 {
		return after, err
	}
	after, err = s.writeParts(at, func(a *applier) error {
		for _, p := range good {
			if err := a.replay(p, to); err != nil {
				return err
			}
		}
		return nil
	})
	return after, errors.Join(fault, err)
}

// writeParts has parts applied in one transaction. Either all of them are written
// or none.
func (s *Store) writeParts(at applied, do func(*applier) error) (applied, error) {
	// Up to raft index at.index everything is applied; what comes now belongs
	// to later ones, and the index moves when all of it is here.
	after := at
	var added []*indexable
	err := guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error {
			a, err := newApplier(tx, s.admit, s.attested, at.size)
			if err != nil {
				return err
			}
			if err := do(a); err != nil {
				return err
			}
			after.size, added = a.size, a.added
			return tx.Bucket(bucketMeta).Put(keyApplied, after.encode())
		})
	})
	if err != nil {
		return at, err
	}
	s.index.offer(added)
	s.advance(after)
	s.settle(after, 0)
	s.metrics.applied(after.size, after.size-at.size, 0)
	return after, nil
}

// replay applies a part and checks that it belongs to the described log.
func (a *applier) replay(p part, to snapshotMeta) error {
	for _, b := range p.batches {
		results, err := a.batch(b)
		if err != nil {
			return err
		}
		for i, r := range results {
			if b.leaves[i] != nil && r.code != codeAppended {
				return fmt.Errorf("%w: the entry at index %d would not be admitted here", ErrFork, a.size)
			}
		}
	}
	root, err := rootAt(a.tx, a.size)
	if err != nil {
		return err
	}
	return CheckGrowth(p.proof, a.size, root, to.Size, to.Root)
}
