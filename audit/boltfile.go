package audit

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"
)

// boltFile reads a bbolt file (format version 2) that may be damaged or made
// up. bbolt itself trusts its files: over a bad one it panics, faults in its
// memory map or recurses for ever, and it falls back silently to the state
// before the last transaction when the newest meta page is bad. This reader
// checks every offset before it uses it, and every key against the branch that
// led to it, which is all that a reader through bbolt would rely on.
type boltFile struct {
	r        io.ReaderAt
	size     int64 // bytes of the file
	pageSize int64
	pages    uint64 // high-water mark
	root     uint64 // page of the bucket of buckets
	free     uint64 // page of the list of free pages

	used       []uint64          // the pages that walks came by, a bit each; nil: nobody asks
	cache      map[uint64][]byte // pages of look-ups
	cacheBytes int
}

// errDamaged is a file that is not what bbolt writes.
var errDamaged = fmt.Errorf("%w: file is damaged", ErrInvalid)

const (
	boltMagic    = 0xED0CDAED
	boltVersion  = 2
	boltHeader   = 16 // bytes of a page header, and of a bucket header
	boltElement  = 16 // bytes of a leaf or branch element
	boltMeta     = 64 // bytes of a meta without its header
	boltBranch   = 0x01
	boltLeaf     = 0x02
	boltMetaPage = 0x04
	boltFree     = 0x10
	boltBucket   = 0x01 // flag of a leaf element
	maxBoltDepth = 32
	maxBoltPage  = 64 << 20 // bytes, with overflow
	maxBoltCache = 64 << 20 // bytes
)

// byteOrder is that of the machine: bbolt maps its structs as they are.
var byteOrder = binary.NativeEndian

func openBoltFile(r io.ReaderAt, size int64) (*boltFile, error) {
	f := &boltFile{r: r, size: size, cache: make(map[uint64][]byte)}
	first, err := f.meta(0)
	if err != nil {
		return nil, fmt.Errorf("meta page 0: %w", err)
	}
	f.pageSize = int64(first.pageSize)
	second, err := f.meta(f.pageSize)
	if err != nil {
		return nil, fmt.Errorf("meta page 1: %w", err)
	}
	if second.pageSize != first.pageSize {
		return nil, fmt.Errorf("%w: page sizes differ", errDamaged)
	}
	newest := first
	if second.txid > first.txid {
		newest = second
	}
	f.pages, f.root, f.free = newest.pages, newest.root, newest.free
	f.used = make([]uint64, size/f.pageSize/64+1)
	return f, nil
}

// uncut checks that a bbolt file, if there is one, is as long as it says: bbolt
// maps what is missing, and faults when it gets there.
func uncut(name string) error {
	file, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	f := &boltFile{r: file, size: info.Size()}
	var newest boltMetaData
	for _, at := range []int64{0, int64(os.Getpagesize())} {
		// One of the two may be torn: bbolt then goes back to the other.
		if m, err := f.meta(at); err == nil && m.txid >= newest.txid {
			newest = m
		}
	}
	if want := newest.pages * uint64(newest.pageSize); uint64(info.Size()) < want {
		return fmt.Errorf("%w: the file has %d bytes of %d", ErrDamaged, info.Size(), want)
	}
	return nil
}

type boltMetaData struct {
	pageSize                uint32
	root, free, pages, txid uint64
}

func (f *boltFile) meta(at int64) (boltMetaData, error) {
	page := make([]byte, boltHeader+boltMeta)
	if _, err := f.r.ReadAt(page, at); err != nil {
		return boltMetaData{}, fmt.Errorf("%w: too short: %w", errDamaged, err)
	}
	id, flags, body := byteOrder.Uint64(page), byteOrder.Uint16(page[8:]), page[boltHeader:]
	sum := fnv.New64a()
	_, _ = sum.Write(body[:56]) // a hash never fails
	m := boltMetaData{
		pageSize: byteOrder.Uint32(body[8:]),
		root:     byteOrder.Uint64(body[16:]),
		free:     byteOrder.Uint64(body[32:]),
		pages:    byteOrder.Uint64(body[40:]),
		txid:     byteOrder.Uint64(body[48:]),
	}
	switch {
	case byteOrder.Uint32(body) != boltMagic, byteOrder.Uint32(body[4:]) != boltVersion:
		return m, fmt.Errorf("%w: not a bbolt file", errDamaged)
	case byteOrder.Uint64(body[56:]) != sum.Sum64():
		return m, fmt.Errorf("%w: checksum (a write torn by power loss, or a change)", errDamaged)
	case m.pageSize < 512 || m.pageSize > 1<<20 || m.pageSize&(m.pageSize-1) != 0:
		return m, fmt.Errorf("%w: page size", errDamaged)
	case flags != boltMetaPage || id > 1 || int64(id)*int64(m.pageSize) != at:
		return m, fmt.Errorf("%w: page header", errDamaged)
	}
	return m, nil
}

// page reads a page with its overflow.
func (f *boltFile) page(id uint64) ([]byte, error) {
	if id < 2 || id >= f.pages || id > uint64(f.size/f.pageSize) {
		return nil, fmt.Errorf("%w: page %d does not exist", errDamaged, id)
	}
	at := int64(id) * f.pageSize
	page := make([]byte, min(f.pageSize, f.size-at))
	if _, err := f.r.ReadAt(page, at); err != nil || len(page) < boltHeader {
		return nil, fmt.Errorf("%w: page %d: %w", errDamaged, id, cmp.Or(err, io.ErrUnexpectedEOF))
	}
	length := (int64(byteOrder.Uint32(page[12:])) + 1) * f.pageSize
	if byteOrder.Uint64(page) != id || length > maxBoltPage || length > f.size-at {
		return nil, fmt.Errorf("%w: header of page %d", errDamaged, id)
	}
	if length == f.pageSize {
		return page, nil
	}
	page = make([]byte, length)
	if _, err := f.r.ReadAt(page, at); err != nil {
		return nil, fmt.Errorf("%w: page %d: %w", errDamaged, id, err)
	}
	return page, nil
}

// boltElem is a key with its value, or with its child page in a branch.
type boltElem struct {
	key, value []byte
	bucket     bool
	child      uint64
}

// elements takes a page apart, into the memory of room if that is enough.
func elements(page []byte, room []boltElem) (elems []boltElem, branch bool, err error) {
	branch, count, err := pageKind(page)
	if err != nil {
		return nil, false, err
	}
	elems = slices.Grow(room[:0], count)[:count]
	for i := range elems {
		if elems[i], err = element(page, branch, count, i); err != nil {
			return nil, false, err
		}
		if i > 0 && bytes.Compare(elems[i-1].key, elems[i].key) >= 0 {
			return nil, false, fmt.Errorf("%w: keys of a page are not in order", errDamaged)
		}
	}
	return elems, branch, nil
}

func pageKind(page []byte) (branch bool, count int, err error) {
	if len(page) < boltHeader {
		return false, 0, fmt.Errorf("%w: page is too short", errDamaged)
	}
	flags := byteOrder.Uint16(page[8:])
	branch, count = flags == boltBranch, int(byteOrder.Uint16(page[10:]))
	if !branch && flags != boltLeaf || branch && count == 0 || boltHeader+count*boltElement > len(page) {
		return false, 0, fmt.Errorf("%w: page header", errDamaged)
	}
	return branch, count, nil
}

// element reads the i-th element of a page.
func element(page []byte, branch bool, count, i int) (e boltElem, err error) {
	at := boltHeader + i*boltElement
	raw := page[at : at+boltElement]
	var flag, pos, keyLen, valueLen uint32
	if branch {
		pos, keyLen, e.child = byteOrder.Uint32(raw), byteOrder.Uint32(raw[4:]), byteOrder.Uint64(raw[8:])
	} else {
		flag, pos = byteOrder.Uint32(raw), byteOrder.Uint32(raw[4:])
		keyLen, valueLen = byteOrder.Uint32(raw[8:]), byteOrder.Uint32(raw[12:])
	}
	from := int64(at) + int64(pos)
	mid := from + int64(keyLen)
	end := mid + int64(valueLen)
	if flag > boltBucket || end > int64(len(page)) || from < int64(boltHeader+count*boltElement) {
		return boltElem{}, fmt.Errorf("%w: element %d of a page", errDamaged, i)
	}
	e.key, e.value, e.bucket = page[from:mid], page[mid:end], flag == boltBucket
	return e, nil
}

// boltBucketRef is where a bucket is: a page, or inline.
type boltBucketRef struct {
	root     uint64
	sequence uint64 // what bbolt's NextSequence gave last
	inline   []byte
}

// buckets lists the buckets of the file by name.
func (f *boltFile) buckets() (map[string]boltBucketRef, error) {
	out := make(map[string]boltBucketRef)
	err := f.walk(boltBucketRef{root: f.root}, func(e boltElem) error {
		if !e.bucket || len(e.value) < boltHeader {
			return fmt.Errorf("%w: bucket list", errDamaged)
		}
		ref := boltBucketRef{root: byteOrder.Uint64(e.value), sequence: byteOrder.Uint64(e.value[8:])}
		if ref.root == 0 {
			ref.inline = e.value[boltHeader:]
		}
		out[string(e.key)] = ref
		return nil
	})
	return out, err
}

// walk calls fn for every element of a bucket, in the order of keys.
func (f *boltFile) walk(b boltBucketRef, fn func(boltElem) error) error {
	return f.walkFrom(b, nil, fn)
}

// walkFrom calls fn for the elements of a bucket from a key on, and checks no
// page that holds none of them.
func (f *boltFile) walkFrom(b boltBucketRef, first []byte, fn func(boltElem) error) error {
	w := &boltWalk{first: first, fn: fn}
	if b.inline != nil {
		return f.walkPage(b.inline, nil, nil, 0, w)
	}
	return f.walkID(b.root, nil, nil, 0, w)
}

// boltWalk is what a walk is for, and what it has read ahead: most pages of a
// bucket that only grows lie one behind the other.
type boltWalk struct {
	first []byte // nil: all
	fn    func(boltElem) error

	ahead []byte // of the file, from the offset at on; elements share its memory
	at    int64
	elems [maxBoltDepth + 1][]boltElem // of the page that it is in, by level
}

// boltAhead is how much a walk reads at once, in bytes.
const boltAhead = 256 << 10

// page is [boltFile.page] for the next page of a walk.
func (w *boltWalk) page(f *boltFile, id uint64) ([]byte, error) {
	if id < 2 || id >= f.pages || id > uint64(f.size/f.pageSize) {
		return f.page(id) // says what is wrong
	}
	at := int64(id) * f.pageSize
	if page := w.read(f, id, at); page != nil {
		return page, nil
	}
	// Where the walk jumps far, what lies behind is likely not its own.
	end := w.at + int64(len(w.ahead))
	if at < end-boltAhead || at > end+boltAhead {
		w.ahead, w.at = nil, at
		return f.page(id)
	}
	w.ahead, w.at = make([]byte, min(boltAhead, f.size-at)), at
	if _, err := f.r.ReadAt(w.ahead, at); err != nil {
		w.ahead = nil
		return f.page(id)
	}
	if page := w.read(f, id, at); page != nil {
		return page, nil
	}
	return f.page(id)
}

// read is the page at an offset, if all of it was read ahead.
func (w *boltWalk) read(f *boltFile, id uint64, at int64) []byte {
	from := at - w.at
	if from < 0 || from+boltHeader > int64(len(w.ahead)) {
		return nil
	}
	page := w.ahead[from:]
	length := (int64(byteOrder.Uint32(page[12:])) + 1) * f.pageSize
	if byteOrder.Uint64(page) != id || length > int64(len(page)) {
		return nil
	}
	return page[:length:length]
}

func (f *boltFile) walkID(id uint64, from, until []byte, level int, w *boltWalk) error {
	page, err := w.page(f, id)
	if err != nil {
		return err
	}
	if f.used != nil {
		for at := id; at < id+uint64(int64(len(page))/f.pageSize); at++ {
			f.used[at/64] |= 1 << (at % 64) // a page that was read lies in the file
		}
	}
	return f.walkPage(page, from, until, level, w)
}

// walkPage walks a page whose keys must be at least from and less than until.
func (f *boltFile) walkPage(page, from, until []byte, level int, w *boltWalk) error {
	if level > maxBoltDepth {
		return fmt.Errorf("%w: tree is too deep", errDamaged)
	}
	elems, branch, err := elements(page, w.elems[level])
	if err != nil {
		return err
	}
	w.elems[level] = elems
	for i, e := range elems {
		if from != nil && bytes.Compare(e.key, from) < 0 || until != nil && bytes.Compare(e.key, until) >= 0 {
			return fmt.Errorf("%w: a key is not where it is looked for", errDamaged)
		}
		if !branch {
			if w.first != nil && bytes.Compare(e.key, w.first) < 0 {
				continue
			}
			if err := w.fn(e); err != nil {
				return err
			}
			continue
		}
		next := until
		if i+1 < len(elems) {
			next = elems[i+1].key
		}
		if w.first != nil && next != nil && bytes.Compare(next, w.first) <= 0 {
			continue
		}
		if err := f.walkID(e.child, e.key, next, level+1, w); err != nil {
			return err
		}
	}
	return nil
}

// get finds the value of a key as bbolt would; nil if there is none. That the
// keys are in order, on which it relies, is for a walk to check.
func (f *boltFile) get(b boltBucketRef, key []byte) ([]byte, error) {
	page, id := b.inline, b.root
	for range maxBoltDepth {
		var err error
		if page == nil {
			if page, err = f.cached(id); err != nil {
				return nil, err
			}
		}
		branch, count, err := pageKind(page)
		if err != nil {
			return nil, err
		}
		e, found, err := search(page, branch, count, key)
		switch {
		case err != nil:
			return nil, err
		case branch:
			page, id = nil, e.child
		case found:
			return e.value, nil
		default:
			return nil, nil
		}
	}
	return nil, fmt.Errorf("%w: tree is too deep", errDamaged)
}

// search finds the last element of a page whose key is not after key, or the
// first one if there is none, and says whether it is the key's own.
func search(page []byte, branch bool, count int, key []byte) (e boltElem, found bool, err error) {
	low, high := 0, count // the keys before low are not after key, those from high on are
	for low < high {
		mid := (low + high) / 2
		one, err := element(page, branch, count, mid)
		if err != nil {
			return boltElem{}, false, err
		}
		if bytes.Compare(one.key, key) <= 0 {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if count == 0 {
		return boltElem{}, false, nil
	}
	e, err = element(page, branch, count, max(low-1, 0))
	return e, bytes.Equal(e.key, key), err
}

// cached reads a page that is likely to be asked for again.
func (f *boltFile) cached(id uint64) ([]byte, error) {
	if page, ok := f.cache[id]; ok {
		return page, nil
	}
	page, err := f.page(id)
	if err != nil {
		return nil, err
	}
	if f.cacheBytes += len(page); f.cacheBytes > maxBoltCache {
		clear(f.cache)
		f.cacheBytes = len(page)
	}
	f.cache[id] = page
	return page, nil
}

// checkFree checks the list of free pages, after every bucket was walked: bbolt
// will write over what it names.
func (f *boltFile) checkFree() error {
	page, err := f.page(f.free)
	if err != nil {
		return err
	}
	const noCount = 0xFFFF // the number does not fit and comes first
	list := page[boltHeader:]
	count := uint64(byteOrder.Uint16(page[10:]))
	if count == noCount {
		count, list = byteOrder.Uint64(list), list[8:]
	}
	if byteOrder.Uint16(page[8:]) != boltFree || count > uint64(len(list)/8) {
		return fmt.Errorf("%w: list of free pages", errDamaged)
	}
	var last uint64
	for i := range count {
		id := byteOrder.Uint64(list[i*8:])
		if id <= max(last, 1) || id >= f.pages || id == f.free || f.walked(id) {
			return fmt.Errorf("%w: page %d is in use, yet listed as free", errDamaged, id)
		}
		last = id
	}
	return nil
}

// walked reports whether a walk came by a page.
func (f *boltFile) walked(id uint64) bool {
	return id/64 < uint64(len(f.used)) && f.used[id/64]>>(id%64)&1 == 1
}

// errStop ends a walk early.
var errStop = errors.New("stop")

// all yields the elements of a bucket; a fault comes as the last pair.
func (f *boltFile) all(b boltBucketRef) iter.Seq2[boltElem, error] { return f.since(b, nil) }

// since is all from a key on.
func (f *boltFile) since(b boltBucketRef, first []byte) iter.Seq2[boltElem, error] {
	return func(yield func(boltElem, error) bool) {
		err := f.walkFrom(b, first, func(e boltElem) error {
			if e.bucket {
				return fmt.Errorf("%w: a bucket within a bucket", errDamaged)
			}
			if !yield(e, nil) {
				return errStop
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(boltElem{}, err)
		}
	}
}
