package http

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/identity"
)

// TaskSummary is one line of a task list.
type TaskSummary struct {
	Task    string     `json:"task"`
	Status  a2a.Status `json:"status"`
	Updated string     `json:"updated,omitempty"`
}

// run is the short way for HTTP clients: an Execution in, its Report out. What a
// client repeats by a key is one task, whichever node of the cluster he asks.
func (d *door) run(ctx context.Context, _ identity.Principal, r *http.Request) (any, error) {
	key, err := idempotencyKey(r.Header)
	if err != nil {
		return nil, err
	}
	var exec a2a.Execution
	if err := decode(r.Body, &exec); err != nil {
		return nil, err
	}
	req, err := a2a.NewRequest(exec)
	if err != nil {
		return nil, err
	}
	if key != "" {
		once := a2a.OnceOf(key)
		req.Message.ID = once // so that the request is the same, too
		ctx = server.WithOnce(ctx, once)
	}
	res, err := d.cfg.Tasks.SendMessage(ctx, req)
	if err != nil {
		return nil, reused(key, a2a.FromWire(err))
	}
	task, ok := res.(*sdk.Task)
	if !ok {
		return nil, &a2a.Error{Code: "internal", Message: "the node answered with something that is no task"}
	}
	rep, err := a2a.Describe(task)
	if err == nil && rep.Status == a2a.Denied {
		return nil, &denial{&a2a.Error{Code: rep.Error.Code, Message: rep.Error.Message}}
	}
	return rep, err
}

func (d *door) tasks(ctx context.Context, _ identity.Principal, r *http.Request) (any, error) {
	q, err := parameters(r, "limit", "cursor")
	if err != nil {
		return nil, err
	}
	req := &sdk.ListTasksRequest{PageToken: q.Get("cursor")}
	if limit := q.Get("limit"); limit != "" {
		n, err := strconv.Atoi(limit)
		if err != nil || n < 1 || n > 100 {
			return nil, &a2a.Error{Code: "invalid_request", Message: "limit is not a number from 1 to 100"}
		}
		req.PageSize = n
	}
	res, err := d.cfg.Tasks.ListTasks(ctx, req)
	if err != nil {
		return nil, a2a.FromWire(err)
	}
	out := struct {
		Tasks []TaskSummary `json:"tasks"`
		Next  string        `json:"next"`
	}{Tasks: []TaskSummary{}, Next: res.NextPageToken}
	for _, t := range res.Tasks {
		s := TaskSummary{Task: string(t.ID), Status: a2a.StatusOf(t)}
		if t.Status.Timestamp != nil {
			s.Updated = t.Status.Timestamp.UTC().Format("2006-01-02T15:04:05.000Z07:00")
		}
		out.Tasks = append(out.Tasks, s)
	}
	return out, nil
}

func (d *door) task(ctx context.Context, _ identity.Principal, r *http.Request) (any, error) {
	t, err := d.cfg.Tasks.GetTask(ctx, &sdk.GetTaskRequest{ID: sdk.TaskID(r.PathValue("id"))})
	if err != nil {
		return nil, a2a.FromWire(err)
	}
	return a2a.Describe(t)
}

func (d *door) cancel(ctx context.Context, _ identity.Principal, r *http.Request) (any, error) {
	t, err := d.cfg.Tasks.CancelTask(ctx, &sdk.CancelTaskRequest{ID: sdk.TaskID(r.PathValue("id"))})
	if err != nil {
		return nil, a2a.FromWire(err)
	}
	return a2a.Describe(t)
}

func (d *door) receipt(ctx context.Context, caller identity.Principal, r *http.Request) (any, error) {
	text, err := d.cfg.Cluster.Receipt(ctx, r.PathValue("id"), caller)
	return json.RawMessage(text), err
}
