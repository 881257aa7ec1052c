package audit

import (
	"bytes"
	"iter"
	"runtime"
	"sync"
)

// verifyChunk is how many entries a worker reads at a time.
const verifyChunk = 256

// verifiedLeaf is an element of the bucket of entries, with what can be told of
// it without its neighbours.
type verifiedLeaf struct {
	key, leaf []byte
	hash      Hash
	entry     *Entry // nil if only hashes are checked, unless it begins an epoch
	err       error  // why leaf is no entry
}

// leafChunk is some of them; they are read once done is closed.
type leafChunk struct {
	leaves []verifiedLeaf
	fault  error // of the file, behind the last leaf
	done   chan struct{}
}

func newLeafChunk() *leafChunk {
	return &leafChunk{leaves: make([]verifiedLeaf, 0, verifyChunk), done: make(chan struct{})}
}

// epochMark is in the leaf of every entry that begins an epoch, whose members
// stand in one order only.
var epochMark = []byte(`"kind":"` + string(KindEpoch) + `"`)

// epochShift is, by the byte of a leaf that lies under the mark's last one, how far
// the mark can move on before the two may be the same (Horspool 1980).
var epochShift = func() (shift [256]int) {
	last := len(epochMark) - 1
	for i := range shift {
		shift[i] = last + 1
	}
	for i, c := range epochMark[:last] {
		shift[c] = last - i
	}
	return shift
}()

// mayBeginEpoch reports whether a leaf contains the mark. It looks at every tenth
// byte or so: [bytes.Contains] took as long as a fifth of the leaf's hash.
func mayBeginEpoch(leaf []byte) bool {
	last := len(epochMark) - 1
	for at := last; at < len(leaf); at += epochShift[leaf[at]] {
		if leaf[at] == epochMark[last] && bytes.Equal(leaf[at-last:at+1], epochMark) {
			return true
		}
	}
	return false
}

func (c *leafChunk) read(hashesOnly bool) {
	defer close(c.done)
	for i := range c.leaves {
		l := &c.leaves[i]
		l.hash = LeafHash(l.leaf)
		if !hashesOnly || mayBeginEpoch(l.leaf) {
			var e Entry
			e, l.err = DecodeEntry(l.leaf)
			l.entry = &e
		}
	}
}

// readAhead yields the elements of the bucket of entries in their order, those
// with indexes from the first up to but without the last, while all processors
// hash and decode those that come next. A fault of the file comes as the last
// pair.
func (v *dirCheck) readAhead(b boltBucketRef, first, last uint64) iter.Seq2[*verifiedLeaf, error] {
	return func(yield func(*verifiedLeaf, error) bool) {
		workers := runtime.GOMAXPROCS(0)
		file := v.file.another()
		todo, ordered := make(chan *leafChunk, 2*workers), make(chan *leafChunk, 2*workers)
		stop := make(chan struct{})
		var work sync.WaitGroup
		defer work.Wait()
		defer close(stop)
		work.Go(func() {
			defer close(ordered)
			defer close(todo)
			send := func(c *leafChunk) bool {
				for _, to := range []chan *leafChunk{todo, ordered} {
					select {
					case to <- c:
					case <-stop:
						return false
					}
				}
				return true
			}
			next := newLeafChunk()
			for e, err := range file.since(b, key64(first)) {
				if err != nil {
					next.fault = err
					break
				}
				if bytes.Compare(e.key, key64(last)) >= 0 {
					break
				}
				next.leaves = append(next.leaves, verifiedLeaf{key: e.key, leaf: e.value})
				if len(next.leaves) < verifyChunk {
					continue
				}
				if !send(next) {
					return
				}
				next = newLeafChunk()
			}
			send(next)
		})
		for range workers {
			work.Go(func() {
				for c := range todo {
					c.read(v.hashesOnly)
				}
			})
		}
		for c := range ordered {
			<-c.done
			for i := range c.leaves {
				if !yield(&c.leaves[i], nil) {
					return
				}
			}
			if c.fault != nil {
				yield(nil, c.fault)
				return
			}
		}
	}
}
