package taskstore_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a/taskstore"
	"github.com/agenticraft/node/internal/leaktest"
)

func open(t testing.TB, dir string) *taskstore.Store {
	t.Helper()
	s, err := taskstore.Open(taskstore.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func task(n int, state sdk.TaskState) *sdk.Task {
	at := start.Add(time.Duration(n) * time.Millisecond)
	return &sdk.Task{
		ID: sdk.TaskID(fmt.Sprintf("task-%03d", n)), ContextID: fmt.Sprintf("context-%d", n%2),
		Status:    sdk.TaskStatus{State: state, Timestamp: &at},
		Artifacts: []*sdk.Artifact{{ID: "report", Parts: sdk.ContentParts{sdk.NewDataPart(map[string]any{"n": float64(n)})}}},
	}
}

func create(t testing.TB, s *taskstore.Store, n int, owner string) {
	t.Helper()
	v := task(n, sdk.TaskStateWorking)
	if _, err := s.Create(v, owner, *v.Status.Timestamp); err != nil {
		t.Fatal(err)
	}
}

func TestTaskSurvivesReopening(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	create(t, s, 1, "alice")
	done := task(1, sdk.TaskStateCompleted)
	if r, err := s.Update(done, start.Add(time.Second), taskstore.Change{}); err != nil || r.Generation != 2 {
		t.Fatalf("Update = %+v, %v", r, err)
	}
	create(t, s, 2, "bob")
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	r, err := s.Get("task-001")
	if err != nil || r.Owner != "alice" || r.Generation != 2 || r.Task.Status.State != sdk.TaskStateCompleted || r.Task.Artifacts[0].Parts[0].Data() == nil {
		t.Errorf("Get = %+v, %v", r, err)
	}
	if ids, err := s.Unfinished(); err != nil || len(ids) != 1 || ids[0] != "task-002" {
		t.Errorf("Unfinished = %v, %v", ids, err)
	}
}

// A node that stops closes the store under writers that still come.
func TestCloseUnderWriters(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	const writers = 8
	written := make([]int, writers)
	var work sync.WaitGroup
	began := make(chan struct{}, writers)
	for w := range writers {
		work.Go(func() {
			for ; ; written[w]++ {
				if _, err := s.Create(task(w*10_000+written[w], sdk.TaskStateWorking), "anna", time.Now()); err != nil {
					return
				}
				if written[w] == 2 {
					began <- struct{}{}
				}
			}
		})
	}
	for range writers {
		<-began
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	work.Wait()
	s = open(t, dir)
	for w, n := range written {
		for i := range n {
			if _, err := s.Get(task(w*10_000+i, sdk.TaskStateWorking).ID); err != nil {
				t.Errorf("acknowledged, and gone: %v", err)
			}
		}
	}
}

func TestStoreErrors(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	create(t, s, 1, "alice")
	if _, err := s.Create(task(1, sdk.TaskStateWorking), "bob", start); !errors.Is(err, taskstore.ErrExists) {
		t.Errorf("Create twice = %v", err)
	}
	if _, err := s.Create(task(9, sdk.TaskStateWorking), "al\x00ice", start); err == nil {
		t.Error("an owner with a zero byte is accepted")
	}
	if _, err := s.Update(task(2, sdk.TaskStateWorking), start, taskstore.Change{}); !errors.Is(err, taskstore.ErrNotFound) {
		t.Errorf("Update of nothing = %v", err)
	}
	if _, err := s.Get("task-404"); !errors.Is(err, taskstore.ErrNotFound) {
		t.Errorf("Get of nothing = %v", err)
	}
	for _, cursor := range []string{"!", "AAAA", strings.Repeat("A", 1000)} {
		if _, err := s.List(taskstore.Filter{Owner: "alice", Cursor: cursor}); !errors.Is(err, taskstore.ErrCursor) {
			t.Errorf("List with cursor %.10q = %v", cursor, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get("task-001"); err == nil {
		t.Error("Get of a closed store succeeded")
	}
	if err := os.WriteFile(filepath.Join(dir, taskstore.FileName), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := taskstore.Open(taskstore.Config{Dir: dir}); err == nil {
		t.Error("garbage opened")
	}
}

func TestListPagesNewestFirst(t *testing.T) {
	s := open(t, t.TempDir())
	for n := range 25 {
		owner := "alice"
		if n%5 == 0 {
			owner = "bob"
		}
		create(t, s, n, owner)
	}
	if _, err := s.Update(task(3, sdk.TaskStateCompleted), start.Add(time.Hour), taskstore.Change{}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		filter taskstore.Filter
		total  int
		first  sdk.TaskID
	}{
		"alice's":   {taskstore.Filter{Owner: "alice"}, 20, "task-003"},
		"bob's":     {taskstore.Filter{Owner: "bob"}, 5, "task-020"},
		"nobody's":  {taskstore.Filter{Owner: "ali"}, 0, ""},
		"everyone":  {taskstore.Filter{Any: true}, 25, "task-003"},
		"completed": {taskstore.Filter{Any: true, State: sdk.TaskStateCompleted}, 1, "task-003"},
		"context":   {taskstore.Filter{Owner: "alice", Context: "context-0"}, 10, "task-024"},
		"since":     {taskstore.Filter{Any: true, After: start.Add(20 * time.Millisecond)}, 6, "task-003"},
	} {
		for _, limit := range []int{1, 3, 100} {
			seen := map[sdk.TaskID]bool{}
			var last time.Time
			for f := c.filter; ; {
				f.Limit = limit
				page, err := s.List(f)
				if err != nil {
					t.Fatal(err)
				}
				if page.Total != c.total {
					t.Errorf("%s: total = %d, want %d", name, page.Total, c.total)
				}
				for _, r := range page.Records {
					if len(seen) == 0 && r.Task.ID != c.first {
						t.Errorf("%s: first = %s, want %s", name, r.Task.ID, c.first)
					}
					if seen[r.Task.ID] || (!last.IsZero() && r.Updated.After(last)) {
						t.Errorf("%s by %d: %s is out of order", name, limit, r.Task.ID)
					}
					seen[r.Task.ID], last = true, r.Updated
				}
				if f.Cursor = page.Next; f.Cursor == "" {
					break
				}
			}
			if len(seen) != c.total {
				t.Errorf("%s by %d: %d tasks, want %d", name, limit, len(seen), c.total)
			}
		}
	}
}

func TestLargeTasksMakeShortPages(t *testing.T) {
	s := open(t, t.TempDir())
	for n := range 5 {
		v := task(n, sdk.TaskStateCompleted)
		v.Artifacts[0].Parts = sdk.ContentParts{sdk.NewTextPart(strings.Repeat("x", 3<<20))}
		if _, err := s.Create(v, "alice", *v.Status.Timestamp); err != nil {
			t.Fatal(err)
		}
	}
	var sizes []int
	for f := (taskstore.Filter{Owner: "alice"}); ; {
		page, err := s.List(f)
		if err != nil || page.Total != 5 {
			t.Fatalf("List = %d of %d, %v", len(page.Records), page.Total, err)
		}
		sizes = append(sizes, len(page.Records))
		if f.Cursor = page.Next; f.Cursor == "" {
			break
		}
	}
	if len(sizes) != 2 || sizes[0] != 3 || sizes[1] != 2 {
		t.Errorf("pages of %v", sizes)
	}
}

// A cursor of one's own making reaches no other owner's tasks.
func TestCursorStaysWithItsOwner(t *testing.T) {
	s := open(t, t.TempDir())
	for n := range 6 {
		create(t, s, n, []string{"alice", "bob"}[n%2])
	}
	page, err := s.List(taskstore.Filter{Any: true, Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	page, err = s.List(taskstore.Filter{Owner: "alice", Limit: 100, Cursor: page.Next})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range page.Records {
		if r.Owner != "alice" {
			t.Errorf("alice's list has %s's task", r.Owner)
		}
	}
}

// TestMain is also the process that TestKilled kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("TASKSTORE_TEST_DIR"); dir != "" {
		write(dir)
	}
	os.Exit(leaktest.Run(m, "node/a2a/taskstore", "bbolt"))
}

// write creates tasks for ever and names each when the store says it is kept.
func write(dir string) {
	s, err := taskstore.Open(taskstore.Config{Dir: dir})
	if err != nil {
		panic(err)
	}
	for n := 0; ; n++ {
		v := task(n, sdk.TaskStateWorking)
		if _, err := s.Create(v, "alice", *v.Status.Timestamp); err != nil {
			panic(err)
		}
		if n%2 == 0 {
			if _, err := s.Update(task(n, sdk.TaskStateCompleted), start.Add(time.Hour), taskstore.Change{}); err != nil {
				panic(err)
			}
		}
		fmt.Println(n)
	}
}

func TestWhatWasAcknowledgedSurvivesKill9(t *testing.T) {
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), "TASKSTORE_TEST_DIR="+dir)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	last := -1
	lines := bufio.NewScanner(stdout)
	for last < 50 && lines.Scan() {
		if _, err := fmt.Sscan(lines.Text(), &last); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() { // acknowledged before the kill arrived
		if _, err := fmt.Sscan(lines.Text(), &last); err != nil {
			t.Fatal(err)
		}
	}
	cmd.Wait()
	s := open(t, dir)
	for n := range last + 1 {
		want := sdk.TaskStateWorking
		if n%2 == 0 {
			want = sdk.TaskStateCompleted
		}
		r, err := s.Get(sdk.TaskID(fmt.Sprintf("task-%03d", n)))
		if err != nil || r.Task.Status.State != want {
			t.Fatalf("task %d of %d: %+v, %v; want %s", n, last, r, err, want)
		}
	}
	page, err := s.List(taskstore.Filter{Owner: "alice", Limit: 1})
	if err != nil || page.Total < last+1 {
		t.Errorf("the index has %d tasks of at least %d, %v", page.Total, last+1, err)
	}
}

// What is forgotten is in no list, no count and not among what runs, ended or not.
func TestForget(t *testing.T) {
	s := open(t, t.TempDir())
	for n, state := range []sdk.TaskState{sdk.TaskStateWorking, sdk.TaskStateCompleted, sdk.TaskStateWorking} {
		if _, err := s.Create(task(n, state), "alice", start); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []sdk.TaskID{"task-000", "task-001", "task-001", "task-999"} {
		if err := s.Forget(id); err != nil {
			t.Errorf("Forget(%s) = %v", id, err)
		}
	}
	if _, err := s.Get("task-000"); !errors.Is(err, taskstore.ErrNotFound) {
		t.Errorf("Get of a forgotten task = %v", err)
	}
	for _, state := range []sdk.TaskState{"", sdk.TaskStateWorking} {
		page, err := s.List(taskstore.Filter{Owner: "alice", State: state})
		if err != nil || page.Total != 1 || len(page.Records) != 1 || page.Records[0].Task.ID != "task-002" {
			t.Errorf("List of state %q = %+v, %v", state, page, err)
		}
	}
	if ids, err := s.Unfinished(); err != nil || len(ids) != 1 || ids[0] != "task-002" {
		t.Errorf("Unfinished = %v, %v", ids, err)
	}
}
