package audit

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/bbolt"
)

const (
	defaultLimit = 100
	// MaxLimit is how many entries a page of a query can hold.
	MaxLimit = 1000
	scanStep = 512 // entries read in one transaction, which must stay short
)

// Filter selects entries. The zero value of a field selects all.
type Filter struct {
	Since    time.Time // by the time in the entry, inclusive
	Until    time.Time // exclusive
	Actor    string    // who asked, or on whose behalf
	OnBehalf string    // on whose behalf only
	Task     string
	Kinds    []Kind
	Resource string // one of [Entry.Resources], or what stands behind its colon
	Policy   string // digest of the policy that decided, or that was put in force
	Decision string // "allow" or "deny"
	Limit    int    // entries in a page; 0: 100, at most [MaxLimit]
	Cursor   string // Page.Next of the page before, with the same filter
	Newest   bool   // newest first
}

// Page is a part of a query's answer.
type Page struct {
	Entries []Indexed
	Next    string // cursor of the next page; "": nothing more as of Size
	After   string // oldest first: cursor behind all of this, for who follows
	Size    uint64 // of the log when the page was made
}

// Query returns the entries that match f, in log order or newest first. Pages
// are stable: an entry has its place by index, and new ones come at the end.
// Those that the index does not cover yet are looked at one by one. It gives up
// when ctx ends.
func (s *Store) Query(ctx context.Context, f Filter) (Page, error) {
	var err error
	if f.Cursor, err = s.ownCursor(f.Cursor); err != nil {
		return Page{}, err
	}
	page, err := s.query(ctx, f)
	if err != nil {
		return page, err
	}
	if page.Next != "" {
		page.Next += s.cursorMark()
	}
	if !f.Newest {
		if page.After = page.Next; page.After == "" {
			page.After = f.cursor(page.Size) + s.cursorMark()
		}
	}
	return page, nil
}

// cursorMarkDigits are the hex digits of the log's name in a cursor.
const cursorMarkDigits = 8

// cursorMark is what cursors of this log end with.
func (s *Store) cursorMark() string {
	_, name, _ := strings.Cut(s.origin, "/")
	return "-" + name[:cursorMarkDigits]
}

// ownCursor takes the mark off a cursor, and refuses that of another log. One
// without a mark is an index that somebody wrote down.
func (s *Store) ownCursor(cursor string) (string, error) {
	index, mark, marked := strings.Cut(cursor, "-")
	switch {
	case !marked || index == "": // a minus sign is for start to refuse
		return cursor, nil
	case "-"+mark != s.cursorMark():
		return "", fmt.Errorf("%w: cursor %q is of another log than this one", ErrInvalid, clip(cursor))
	}
	return index, nil
}

func (s *Store) query(ctx context.Context, f Filter) (Page, error) {
	if err := f.check(); err != nil {
		return Page{}, err
	}
	_ = s.flush() // if the disk is full, the answer is what is durable
	page := Page{Size: s.durableSize()}
	at, ok, err := f.start(page.Size)
	if err != nil || !ok {
		return page, err
	}
	if f.Task != "" {
		return s.queryTask(f, at, page)
	}
	groups, err := f.groups(s.taskIndexes)
	if err != nil {
		return Page{}, err
	}
	for more := true; more; {
		var entries []Indexed
		entries, at, more, err = s.candidates(ctx, f, groups, at, page.Size)
		if err != nil {
			return Page{}, err
		}
		for _, one := range entries {
			if page.add(f, one) {
				return page, nil
			}
		}
	}
	return page, nil
}

// candidates reads the next entries that may match, in the direction of f, from
// the entry at on, and says where to go on. groups are those of f.
func (s *Store) candidates(ctx context.Context, f Filter, groups []group, at, size uint64) (entries []Indexed, next uint64, more bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, false, err
	}
	// The index can narrow the filter down.
	if len(groups) > 0 || !f.Since.IsZero() || !f.Until.IsZero() {
		hits, next, more, ok, err := s.index.find(ctx, f, groups, at)
		if err != nil {
			return nil, 0, false, err
		}
		if ok {
			if f.Newest {
				slices.Reverse(hits)
			}
			if len(hits) > scanStep { // the rest is found again
				hits, next, more = hits[:scanStep], hits[scanStep], true
			}
			entries, err = s.pick(hits, size)
			return entries, next, more && next < size, err
		}
	}
	from, until := at, min(at+scanStep, size)
	if f.Newest {
		from, until = at-min(at, scanStep-1), at+1
	}
	entries, err = s.read(from, until)
	if f.Newest {
		slices.Reverse(entries)
		return entries, from - 1, from > 0, err
	}
	return entries, until, until < size, err
}

// pick reads the entries at the given indexes below size.
func (s *Store) pick(indexes []uint64, size uint64) (out []Indexed, err error) {
	err = s.viewDurable(func(tx *bbolt.Tx) error {
		for _, at := range indexes {
			if at >= size {
				continue
			}
			one, err := readEntry(tx, at)
			if err != nil {
				return err
			}
			out = append(out, one)
		}
		return nil
	})
	return out, err
}

// queryTask reads only the entries of one task.
func (s *Store) queryTask(f Filter, at uint64, page Page) (Page, error) {
	indexes, err := s.taskIndexes(f.Task)
	if err != nil {
		return Page{}, err
	}
	if f.Newest {
		slices.Reverse(indexes)
	}
	indexes = slices.DeleteFunc(indexes, func(i uint64) bool {
		return i >= page.Size || f.Newest && i > at || !f.Newest && i < at
	})
	for chunk := range slices.Chunk(indexes, scanStep) {
		entries, err := s.pick(chunk, page.Size)
		if err != nil {
			return Page{}, err
		}
		for _, one := range entries {
			if page.add(f, one) {
				return page, nil
			}
		}
	}
	return page, nil
}

// taskIndexes are the indexes of a task's durable entries, in order.
func (s *Store) taskIndexes(task string) (out []uint64, err error) {
	err = s.viewDurable(func(tx *bbolt.Tx) error {
		prefix := append([]byte(task), 0)
		c := tx.Bucket(bucketTasks).Cursor()
		for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
			if len(k) == len(prefix)+4+1+8 {
				out = append(out, binary.BigEndian.Uint64(k[len(k)-8:]))
			}
		}
		return nil
	})
	slices.Sort(out)
	return out, err
}

// add takes a matching entry and reports whether the page was full before it.
func (p *Page) add(f Filter, one Indexed) (full bool) {
	if !f.match(one.Entry) {
		return false
	}
	if len(p.Entries) == f.limit() {
		p.Next = f.cursor(one.Index)
		return true
	}
	p.Entries = append(p.Entries, one)
	return false
}

// Check says, with [ErrInvalid], what is wrong with the filter.
func (f Filter) Check() error { return f.check() }

// Matches reports whether an entry fits the filter, whatever it says of paging.
func (f Filter) Matches(e Entry) bool { return f.match(e) }

func (f Filter) check() error {
	if f.Decision != "" && f.Decision != "allow" && f.Decision != "deny" {
		return fmt.Errorf("%w: decision is %q, not allow or deny", ErrInvalid, clip(f.Decision))
	}
	if f.Limit < 0 || f.Limit > MaxLimit {
		return fmt.Errorf("%w: limit is not between 1 and %d", ErrInvalid, MaxLimit)
	}
	for what, name := range map[string]string{"actor": f.Actor, "on_behalf": f.OnBehalf, "resource": f.Resource, "policy": f.Policy} {
		if !plain(name, maxName) {
			return fmt.Errorf("%w: %s is not a name: no entry has such a one", ErrInvalid, what)
		}
	}
	if !plain(f.Task, maxID) {
		return fmt.Errorf("%w: task is not a task id", ErrInvalid)
	}
	for _, k := range f.Kinds {
		if !k.known() {
			return fmt.Errorf("%w: kind %q is not known; kinds are %v", ErrInvalid, clip(string(k)), Kinds())
		}
	}
	return nil
}

func (f Filter) limit() int {
	if f.Limit == 0 {
		return defaultLimit
	}
	return f.Limit
}

// cursor names the next entry to look at and the direction.
func (f Filter) cursor(index uint64) string {
	if f.Newest {
		return "n" + strconv.FormatUint(index, 10)
	}
	return "o" + strconv.FormatUint(index, 10)
}

// start is the first index to look at; not ok: there is none.
func (f Filter) start(size uint64) (at uint64, ok bool, err error) {
	if f.Cursor == "" {
		if f.Newest {
			return size - 1, size > 0, nil
		}
		return 0, size > 0, nil
	}
	index, err := strconv.ParseUint(strings.TrimLeft(f.Cursor, "no"), 10, 63)
	if err != nil || f.cursor(index) != f.Cursor {
		return 0, false, fmt.Errorf("%w: cursor %q is not of this query: it is the \"next\" of an earlier page, with the same filter and order", ErrInvalid, clip(f.Cursor))
	}
	if index > size || index == size && f.Newest {
		return 0, false, fmt.Errorf("%w: cursor %q is beyond the %d entries here: it is of another log, or this node is behind", ErrInvalid, clip(f.Cursor), size)
	}
	return index, index < size, nil
}

func (f Filter) match(e Entry) bool {
	if f.Actor != "" && e.Actor != f.Actor && e.OnBehalf != f.Actor {
		return false
	}
	if f.OnBehalf != "" && e.OnBehalf != f.OnBehalf {
		return false
	}
	if f.Task != "" && e.Task != f.Task || len(f.Kinds) > 0 && !slices.Contains(f.Kinds, e.Kind) {
		return false
	}
	if f.Decision != "" && (e.Decision == nil || e.Decision.Allow != (f.Decision == "allow")) {
		return false
	}
	// Entry times have a fixed width and sort as text.
	if !f.Since.IsZero() && e.Time < FormatTime(ceil(f.Since)) || !f.Until.IsZero() && e.Time >= FormatTime(ceil(f.Until)) {
		return false
	}
	// The last two may read the body.
	return (f.Policy == "" || e.decidedBy(f.Policy)) && (f.Resource == "" || e.concerns(f.Resource))
}

// The first and the last time that the form of entries can state, which a time
// of another zone can be beyond.
var (
	firstTime = time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)
	lastTime  = time.Date(9999, 12, 31, 23, 59, 59, 999_000_000, time.UTC)
)

// ceil is the first time that an entry can have, not before t, or the last one.
func ceil(t time.Time) time.Time {
	switch {
	case t.Before(firstTime):
		return firstTime
	case t.After(lastTime):
		return lastTime
	}
	if down := t.Truncate(time.Millisecond); down.Before(t) {
		return down.Add(time.Millisecond)
	}
	return t
}
