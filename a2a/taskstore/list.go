package taskstore

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"go.etcd.io/bbolt"
)

// Filter says which tasks to list. Zero fields leave nothing out.
type Filter struct {
	Owner   string        `json:"owner"`         // only his; ignored if Any
	Any     bool          `json:"any,omitempty"` // of every owner: the caller has checked that he may
	Context string        `json:"context,omitempty"`
	State   sdk.TaskState `json:"state,omitempty"`
	After   time.Time     `json:"after"`            // changed at this time or later
	Limit   int           `json:"limit"`            // at most so many; required
	Cursor  string        `json:"cursor,omitempty"` // Page.Next of the page before
	// Present are the doors that list their tasks themselves: tasks that one of
	// them placed here are left out. Nil leaves none out.
	Present []string `json:"present,omitempty"`
}

// Page is one page of a list, last changed first.
type Page struct {
	Records []Record `json:"records"`
	Next    string   `json:"next"`  // "" on the last page
	Total   int      `json:"total"` // of all pages
}

// Merge is one page of several stores' pages, all from the same cursor. A task that
// came in by several doors at once is listed once, as it stands where it changed last.
func Merge(pages []Page, limit int) Page {
	var out Page
	more := false
	for _, p := range pages {
		out.Records = append(out.Records, p.Records...)
		out.Total += p.Total
		more = more || p.Next != ""
	}
	out.Records = slices.DeleteFunc(out.Records, func(r Record) bool { return r.Task == nil }) // another node may send that
	slices.SortFunc(out.Records, func(a, b Record) int { return bytes.Compare(orderOf(a), orderOf(b)) })
	// What comes after the last record of a page that was cut short is unknown.
	for _, p := range pages {
		if p.Next == "" || len(p.Records) == 0 || p.Records[len(p.Records)-1].Task == nil {
			continue
		}
		last := orderOf(p.Records[len(p.Records)-1])
		if cut := slices.IndexFunc(out.Records, func(r Record) bool { return bytes.Compare(orderOf(r), last) > 0 }); cut >= 0 {
			out.Records = out.Records[:cut]
		}
	}
	listed := make(map[sdk.TaskID]bool, len(out.Records))
	out.Records = slices.DeleteFunc(out.Records, func(r Record) bool {
		if listed[r.Task.ID] {
			out.Total--
			return true
		}
		listed[r.Task.ID] = true
		return false
	})
	if len(out.Records) > limit {
		out.Records, more = out.Records[:limit], true
	}
	if more && len(out.Records) > 0 {
		out.Next = encodeCursor(orderOf(out.Records[len(out.Records)-1]))
	}
	return out
}

// List reads one page. It sees one moment: a task that changes between two
// pages moves to the front and may be missed by the later page.
func (s *Store) List(f Filter) (Page, error) {
	if f.Limit < 1 {
		f.Limit = defaultLimit
	}
	from, err := decodeCursor(f.Cursor)
	if err != nil {
		return Page{}, err
	}
	var page Page
	err = s.db.View(func(tx *bbolt.Tx) error {
		page, err = list(tx, f, from)
		return err
	})
	if err != nil {
		return Page{}, fmt.Errorf("list tasks: %w", err)
	}
	return page, nil
}

func list(tx *bbolt.Tx, f Filter, from []byte) (Page, error) {
	index, prefix := f.narrowest(tx)
	var page Page
	start, counted := prefix, f.counted()
	if counted {
		n, err := f.total(tx)
		if err != nil {
			return Page{}, err
		}
		page.Total, start = n, slices.Concat(prefix, from)
	}
	size := 0 // bytes of the page's records
	for k, v := index.Seek(start); k != nil && bytes.HasPrefix(k, prefix); k, v = index.Next() {
		order := k[len(prefix):]
		if len(order) <= orderBytes {
			return Page{}, fmt.Errorf("bad index key %x", k)
		}
		if !f.After.IsZero() && binary.BigEndian.Uint64(order) > timeOrder(f.After) {
			break // the rest is older
		}
		match, err := f.match(v)
		if err != nil {
			return Page{}, err
		}
		if !match {
			continue
		}
		if !counted {
			page.Total++
		}
		if bytes.Compare(order, from) <= 0 {
			continue // on a page before
		}
		if n := len(page.Records); n == f.Limit || size >= maxPageBytes {
			if page.Next == "" {
				page.Next = encodeCursor(orderOf(page.Records[n-1]))
			}
			if counted {
				break
			}
			continue // only counted
		}
		id := order[orderBytes:]
		r, err := get(tx, sdk.TaskID(id))
		if err != nil {
			return Page{}, err
		}
		size += len(tx.Bucket(bucketTasks).Get(id))
		page.Records = append(page.Records, r)
	}
	return page, nil
}

// doorMember is in each summary that names a door, and in no string of one.
var doorMember = []byte(`"door":`)

// match reports whether a task of the narrowest index is one to list.
func (f Filter) match(raw []byte) (bool, error) {
	switch {
	case f.Present == nil && f.Context == "" && (f.State == "" || !f.Any):
		return true, nil // the index has no others
	case f.State != "" && !bytes.HasPrefix(raw, []byte(`{"state":"`+string(f.State)+`"`)):
		return false, nil // without reading on: of the states, an index by time alone leaves out none
	case f.Context == "" && !bytes.Contains(raw, doorMember):
		return true, nil // without reading it all: most tasks came in here
	}
	var s summary
	if err := json.Unmarshal(raw, &s); err != nil {
		return false, err
	}
	return (f.Any || f.Context == "" || s.Owner == f.Owner) && (s.Door == "" || !slices.Contains(f.Present, s.Door)) && (f.State == "" || f.State == s.State) && (f.Context == "" || f.Context == s.Context), nil
}

const (
	defaultLimit = 50
	maxCursor    = 512     // bytes
	maxPageBytes = 8 << 20 // of records, after which a page takes no more
)

func encodeCursor(order []byte) string { return base64.RawURLEncoding.EncodeToString(order) }

// decodeCursor gives the place after which to go on. A made-up cursor can only
// move within what the filter admits.
func decodeCursor(s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(s) > maxCursor || len(raw) <= orderBytes {
		return nil, ErrCursor
	}
	return raw, nil
}
