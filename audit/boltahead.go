package audit

import (
	"iter"
	"sync"
)

const (
	aheadElems  = 512 // elements that go from one goroutine to the other at once
	aheadChunks = 4   // that wait for who reads them
)

// elemChunk is some elements of a bucket, in order.
type elemChunk struct {
	elems []boltElem
	fault error // of the file, behind the last element
}

// ahead gives the elements of a bucket from a key on one by one, as [iter.Pull2]
// of [boltFile.since] would, while a goroutine reads those that come next. stop
// waits for it; next must not be called afterwards.
func (f *boltFile) ahead(b boltBucketRef, first []byte) (next func() (boltElem, error, bool), stop func()) {
	chunks, done := make(chan elemChunk, aheadChunks), make(chan struct{})
	elems := f.another().since(b, first)
	var work sync.WaitGroup
	work.Go(func() {
		defer close(chunks)
		sendChunks(elems, chunks, done)
	})
	var here elemChunk
	next = func() (boltElem, error, bool) {
		for len(here.elems) == 0 {
			if fault := here.fault; fault != nil {
				here.fault = nil
				return boltElem{}, fault, true
			}
			var ok bool
			if here, ok = <-chunks; !ok {
				return boltElem{}, nil, false
			}
		}
		e := here.elems[0]
		here.elems = here.elems[1:]
		return e, nil, true
	}
	return next, func() {
		close(done)
		work.Wait()
	}
}

// sendChunks sends the elements, until done is closed.
func sendChunks(elems iter.Seq2[boltElem, error], to chan<- elemChunk, done <-chan struct{}) {
	send := func(c elemChunk) bool {
		select {
		case to <- c:
			return true
		case <-done:
			return false
		}
	}
	chunk := make([]boltElem, 0, aheadElems)
	for e, err := range elems {
		if err != nil {
			send(elemChunk{chunk, err})
			return
		}
		if chunk = append(chunk, e); len(chunk) < aheadElems {
			continue
		}
		if !send(elemChunk{elems: chunk}) {
			return
		}
		chunk = make([]boltElem, 0, aheadElems)
	}
	send(elemChunk{elems: chunk})
}

// another reads the same file, at the same time as the first. Nobody asks it
// which pages it came by.
func (f *boltFile) another() *boltFile {
	g := *f
	g.used, g.cache, g.cacheBytes = nil, make(map[uint64][]byte), 0
	return &g
}
