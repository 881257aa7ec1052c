package server

import (
	"context"
	"errors"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2apb/v1"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/taskstore"
)

// Query asks one node for tasks.
type Query struct {
	taskstore.Filter
	History   *int `json:"history,omitempty"` // messages of each, at most
	Artifacts bool `json:"artifacts,omitempty"`
}

// Page is what one node has.
type Page = taskstore.Page

// Lister is a [Path] that reaches the task lists of other nodes.
type Lister interface {
	Path
	// Connected are the nodes that can be asked, and this one.
	Connected() []string
	// Lists asks the other connected nodes, and gives the pages of those that
	// answered, by node.
	Lists(ctx context.Context, q Query) (map[string]Page, error)
}

const maxPage, defaultPage = 100, 50

// ListTasks implements the SDK's RequestHandler: the tasks of the cluster, last
// changed first. A task is listed by the node that took it in; if that is out
// of reach, by the one that runs it.
func (h *Handler) ListTasks(ctx context.Context, req *sdk.ListTasksRequest) (*sdk.ListTasksResponse, error) {
	caller, err := known(ctx)
	if err != nil {
		return nil, err
	}
	q, err := queryOf(req, caller)
	if err != nil {
		return nil, err
	}
	page, err := h.listAll(ctx, q, caller)
	if errors.Is(err, taskstore.ErrCursor) {
		return nil, a2a.Errorf(a2a.CodeInvalidRequest, "pageToken is not one that this cluster gave")
	}
	if err != nil {
		return nil, err
	}
	tasks := make([]*sdk.Task, len(page.Records))
	for i, r := range page.Records {
		tasks[i] = r.Task
	}
	return &sdk.ListTasksResponse{Tasks: tasks, TotalSize: page.Total, PageSize: q.Limit, NextPageToken: page.Next}, nil
}

func queryOf(req *sdk.ListTasksRequest, caller Caller) (Query, error) {
	size := req.PageSize
	if size == 0 {
		size = defaultPage
	}
	if size < 1 || size > maxPage {
		return Query{}, a2a.Errorf(a2a.CodeInvalidRequest, "pageSize must be 1 to %d", maxPage)
	}
	if req.HistoryLength != nil && *req.HistoryLength < 0 {
		return Query{}, errHistory
	}
	state := req.Status
	switch {
	case state == sdk.TaskState(a2apb.TaskState_TASK_STATE_UNSPECIFIED.String()):
		state = ""
	case state != "" && !knownState(string(state)):
		return Query{}, errState
	}
	q := Query{
		Filter: taskstore.Filter{
			Owner:   caller.Principal.String(),
			Any:     MaySee(caller.Principal, ""),
			Context: req.ContextID,
			State:   state,
			Limit:   size,
			Cursor:  req.PageToken,
		},
		History: req.HistoryLength, Artifacts: req.IncludeArtifacts,
	}
	if req.StatusTimestampAfter != nil {
		q.After = *req.StatusTimestampAfter
	}
	return q, nil
}

// listAll is one page of what all nodes have that can be asked.
func (h *Handler) listAll(ctx context.Context, q Query, caller Caller) (Page, error) {
	path, ok := h.path.(Lister)
	if !ok || caller.Door == DoorMesh {
		return h.ListLocal(q)
	}
	q.Present = path.Connected()
	if len(q.Present) == 1 {
		return h.ListLocal(q)
	}
	own, err := h.ListLocal(q) // also finds out whether the cursor is one
	if err != nil {
		return Page{}, err
	}
	others, err := path.Lists(ctx, q)
	if err != nil {
		return Page{}, err
	}
	pages := []Page{own}
	for _, page := range others {
		pages = append(pages, page)
	}
	return taskstore.Merge(pages, q.Limit), nil
}

// land waits until the tasks that somebody was told the end of are in the store.
func (h *Handler) land() {
	h.mu.Lock()
	var landing []<-chan struct{}
	for _, r := range h.runs {
		if stored := r.landing(); stored != nil {
			landing = append(landing, stored)
		}
	}
	h.mu.Unlock()
	for _, stored := range landing {
		h.landed(stored)
	}
}

// ListLocal is one page of what this node's store has. The caller has checked
// who asks.
func (h *Handler) ListLocal(q Query) (Page, error) {
	h.land()
	page, err := h.store.List(q.Filter)
	if err != nil {
		return Page{}, err
	}
	for i := range page.Records {
		r := &page.Records[i]
		if !q.Artifacts {
			r.Task.Artifacts = nil
		}
		r.Task = trimHistory(r.Task, q.History)
	}
	return page, nil
}
