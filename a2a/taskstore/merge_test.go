package taskstore_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a/taskstore"
)

// Several stores give one list: in order, each task once, whatever the size of
// a page, and of a placed task either its door's copy or the other.
func TestMergedPagesAreOneList(t *testing.T) {
	stores := []*taskstore.Store{open(t, t.TempDir()), open(t, t.TempDir()), open(t, t.TempDir())}
	var want []string
	for n := range 40 {
		v := task(n, sdk.TaskStateWorking)
		door, at := n%3, start.Add(time.Duration(n*n%17)*time.Second)
		if _, err := stores[door].Create(v, "alice", at); err != nil {
			t.Fatal(err)
		}
		if n%2 == 0 { // it runs on the next node
			if _, err := stores[(door+1)%3].CreatePlaced(v, "alice", fmt.Sprint(door), at.Add(time.Millisecond), false); err != nil {
				t.Fatal(err)
			}
		}
		want = append(want, string(v.ID))
	}
	slices.Sort(want)
	for _, limit := range []int{1, 3, 7, 100} {
		for absent := range 4 { // 3: nobody
			var present []string
			for n := range stores {
				if n != absent {
					present = append(present, fmt.Sprint(n))
				}
			}
			var got []string
			last := time.Time{}
			for cursor := ""; ; {
				var pages []taskstore.Page
				for n, s := range stores {
					if n == absent {
						continue
					}
					page, err := s.List(taskstore.Filter{Owner: "alice", Limit: limit, Cursor: cursor, Present: present})
					if err != nil {
						t.Fatal(err)
					}
					pages = append(pages, page)
				}
				page := taskstore.Merge(pages, limit)
				for _, r := range page.Records {
					if !last.IsZero() && r.Updated.After(last) {
						t.Errorf("limit %d: %s is out of order", limit, r.Task.ID)
					}
					last = r.Updated
					got = append(got, string(r.Task.ID))
				}
				if len(page.Records) > limit {
					t.Fatalf("limit %d: a page of %d", limit, len(page.Records))
				}
				if cursor = page.Next; cursor == "" {
					if page.Total != len(got) {
						t.Errorf("limit %d: %d in all, %d came", limit, page.Total, len(got))
					}
					break
				}
			}
			slices.Sort(got)
			if len(slices.Compact(slices.Clone(got))) != len(got) {
				t.Errorf("limit %d without %d: a task came twice", limit, absent)
			}
			if absent == 3 && !slices.Equal(got, want) {
				t.Errorf("limit %d: %v", limit, got)
			}
			// Without a node its own tasks are gone, but for those that it placed.
			for n := range 40 {
				id, there := want[n], n%3 != absent || n%2 == 0
				if slices.Contains(got, id) != there {
					t.Errorf("limit %d without %d: %s listed: %v", limit, absent, id, !there)
				}
			}
		}
	}
	nothing := taskstore.Merge([]taskstore.Page{{Next: "x"}, {Records: []taskstore.Record{{}}, Next: "y", Total: 1}}, 10)
	if len(nothing.Records) != 0 || nothing.Next != "" {
		t.Errorf("pages without tasks: %+v", nothing)
	}
}

// A task that came in by two doors at once is listed once, as the later has it.
func TestMergeListsATaskOnce(t *testing.T) {
	stores := []*taskstore.Store{open(t, t.TempDir()), open(t, t.TempDir())}
	for n, s := range stores {
		v := task(1, []sdk.TaskState{sdk.TaskStateWorking, sdk.TaskStateCompleted}[n])
		if _, err := s.Create(v, "alice", start.Add(time.Duration(n)*time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Create(task(2+n, sdk.TaskStateWorking), "alice", start); err != nil {
			t.Fatal(err)
		}
	}
	var pages []taskstore.Page
	for _, s := range stores {
		page, err := s.List(taskstore.Filter{Owner: "alice"})
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, page)
	}
	page := taskstore.Merge(pages, 10)
	if page.Total != 3 || len(page.Records) != 3 || page.Records[0].Task.ID != "task-001" || page.Records[0].Task.Status.State != sdk.TaskStateCompleted {
		t.Errorf("Merge = %+v, want three tasks, of the first its end", page)
	}
}
