package server

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/taskstore"
)

// Notifier delivers push notifications that wait in the task store. Its methods
// may be called concurrently and do not block on a receiver.
type Notifier interface {
	// Check refuses a URL that would never be called, with an error fit for the
	// caller.
	Check(url string) error
	// Wake says that something was queued for a task.
	Wake(task sdk.TaskID)
}

const (
	maxPushID     = 128       // bytes
	maxPushSecret = 4 << 10   // bytes of a token, or of credentials
	maxNotice     = 256 << 10 // bytes of an artifact that is pushed; a larger one can be got
)

var (
	errNoPush   = a2a.Errorf(a2a.CodeNotFound, "there is no such push configuration")
	errNoPushID = a2a.Errorf(a2a.CodeInvalidRequest, "the id of the push configuration is missing")
)

// CreateTaskPushConfig implements the SDK's RequestHandler. Token and
// credentials are for the receiver only: no answer of this node holds them.
func (h *Handler) CreateTaskPushConfig(ctx context.Context, req *sdk.PushConfig) (*sdk.PushConfig, error) {
	if err := h.checkPush(req); err != nil {
		return nil, err
	}
	id, away, err := h.pushTask(ctx, req.TaskID)
	if err != nil {
		return nil, err
	}
	if away != nil {
		return away.CreatePush(ctx, req)
	}
	cfg := *req
	cfg.TaskID, cfg.Tenant = id, ""
	return h.savePush(&cfg)
}

func (h *Handler) savePush(cfg *sdk.PushConfig) (*sdk.PushConfig, error) {
	if cfg.ID == "" {
		cfg.ID = a2a.NewJTI()
	}
	switch err := h.store.SavePush(cfg); {
	case errors.Is(err, taskstore.ErrTooMany):
		return nil, a2a.Errorf(a2a.CodeTooLarge, "the task has %d push configurations already", taskstore.MaxPushes)
	case errors.Is(err, taskstore.ErrNotFound):
		return nil, a2a.ErrNoTask
	case err != nil:
		return nil, err
	}
	return shown(cfg), nil
}

// GetTaskPushConfig implements the SDK's RequestHandler.
func (h *Handler) GetTaskPushConfig(ctx context.Context, req *sdk.GetTaskPushConfigRequest) (*sdk.PushConfig, error) {
	id, away, err := h.pushTask(ctx, req.TaskID)
	switch {
	case err != nil:
		return nil, err
	case req.ID == "":
		return nil, errNoPushID
	case !validPushID(req.ID):
		return nil, errNoPush
	case away != nil:
		return away.GetPush(ctx, string(id), req.ID)
	}
	cfg, err := h.store.Push(taskstore.Queue{Task: id, ID: req.ID})
	if errors.Is(err, taskstore.ErrNotFound) {
		return nil, errNoPush
	}
	if err != nil {
		return nil, err
	}
	return shown(cfg), nil
}

// ListTaskPushConfigs implements the SDK's RequestHandler. A page's token is the
// last id on it.
func (h *Handler) ListTaskPushConfigs(ctx context.Context, req *sdk.ListTaskPushConfigRequest) (*sdk.ListTaskPushConfigResponse, error) {
	id, away, err := h.pushTask(ctx, req.TaskID)
	if err != nil {
		return nil, err
	}
	var all []*sdk.PushConfig
	if away != nil {
		all, err = away.ListPushes(ctx, string(id))
	} else {
		all, err = h.store.Pushes(id)
	}
	if err != nil {
		return nil, err
	}
	out := &sdk.ListTaskPushConfigResponse{Configs: []*sdk.PushConfig{}}
	for _, cfg := range all {
		if cfg.ID <= req.PageToken && req.PageToken != "" {
			continue
		}
		if n := len(out.Configs); req.PageSize > 0 && n == req.PageSize {
			out.NextPageToken = out.Configs[n-1].ID
			break
		}
		out.Configs = append(out.Configs, shown(cfg))
	}
	return out, nil
}

// DeleteTaskPushConfig implements the SDK's RequestHandler. To delete what is
// not there is no error.
func (h *Handler) DeleteTaskPushConfig(ctx context.Context, req *sdk.DeleteTaskPushConfigRequest) error {
	id, away, err := h.pushTask(ctx, req.TaskID)
	switch {
	case err != nil:
		return err
	case req.ID == "":
		return errNoPushID
	case !validPushID(req.ID):
		return nil
	case away != nil:
		return away.DeletePush(ctx, string(id), req.ID)
	}
	return h.store.DeletePush(taskstore.Queue{Task: id, ID: req.ID})
}

// pushTask finds the task of an operation on push configurations, for one who
// may change it: here, or at the node that took it in.
func (h *Handler) pushTask(ctx context.Context, id sdk.TaskID) (sdk.TaskID, Pushes, error) {
	if h.push == nil {
		return "", nil, errPush
	}
	caller, err := known(ctx)
	if err != nil {
		return "", nil, err
	}
	task, err := h.lookUp(ctx, id, caller)
	if err != nil {
		return "", nil, err
	}
	if owner := a2a.OwnerOf(task); owner != "" && !MayHandle(caller.Principal, owner) {
		return "", nil, a2a.ErrNoTask // may see it, but not where it is told
	}
	path, ok := h.path.(Mesh)
	if !ok || caller.Door == DoorMesh {
		return id, nil, nil
	}
	away, err := path.Pushes(ctx, string(id), caller.Principal)
	if err != nil && h.holds(id) { // it is only about to be in the log
		return id, nil, nil
	}
	return id, away, err
}

// holds reports whether the task is of this node's store.
func (h *Handler) holds(id sdk.TaskID) bool {
	if h.running(id) != nil {
		return true
	}
	_, err := h.store.Get(id)
	return err == nil
}

// checkPush refuses a configuration that could not be acted on.
func (h *Handler) checkPush(cfg *sdk.PushConfig) error {
	switch {
	case h.push == nil:
		return errPush
	case !validPushID(cfg.ID) && cfg.ID != "":
		return a2a.Errorf(a2a.CodeInvalidRequest, "the id of a push configuration is longer than %d bytes, holds control characters, or is one that no path can hold", maxPushID)
	case !validHeader(cfg.Token):
		return a2a.Errorf(a2a.CodeInvalidRequest, "the token of a push configuration is longer than %d bytes, or no HTTP header can hold it", maxPushSecret)
	}
	if a := cfg.Auth; a != nil {
		switch {
		case !validToken(a.Scheme):
			return a2a.Errorf(a2a.CodeInvalidRequest, "the authentication of a push configuration has no scheme of HTTP, such as Bearer")
		case !validHeader(a.Credentials):
			return a2a.Errorf(a2a.CodeInvalidRequest, "the credentials of a push configuration are longer than %d bytes, or no HTTP header can hold them", maxPushSecret)
		}
	}
	return h.push.Check(cfg.URL)
}

// inlinePush takes the push configuration out of a request to send a message.
// One that another node placed here has none for us: its door tells the receiver.
//
// INVARIANT: I10, no secret reaches a receipt: what is signed is kept as
// evidence, so a signed request may name a receiver, but hold no secret of his.
func (h *Handler) inlinePush(req *sdk.SendMessageRequest, placed bool) (*sdk.SendMessageRequest, *sdk.PushConfig, error) {
	if req.Config == nil || req.Config.PushConfig == nil || placed {
		return req, nil, nil
	}
	cfg := *req.Config.PushConfig
	if err := h.checkPush(&cfg); err != nil {
		return nil, nil, err
	}
	if a2a.IsSigned(req) {
		if cfg.Token != "" || cfg.Auth != nil && cfg.Auth.Credentials != "" {
			return nil, nil, &a2a.Error{
				Code:    a2a.CodeInvalidRequest,
				Message: "a signed request is kept as evidence and may hold no secret of a push configuration",
				Hint:    "send the request without it, then call CreateTaskPushNotificationConfig",
			}
		}
		return req, &cfg, nil
	}
	bare, config := *req, *req.Config
	config.PushConfig = nil
	bare.Config = &config
	return &bare, &cfg, nil
}

// register keeps the configuration that came with a request. Its form was
// checked; that the store fails must not fail a request that was admitted.
func (h *Handler) register(ctx context.Context, task sdk.TaskID, cfg *sdk.PushConfig) {
	if cfg == nil {
		return
	}
	cfg.TaskID, cfg.Tenant = task, ""
	if _, err := h.savePush(cfg); err != nil {
		h.log.ErrorContext(ctx, "push configuration not kept", "task", task, "err", err)
	}
}

// notices are what the receivers of a task's notifications are sent about
// events; none if it has no receiver.
func (h *Handler) notices(task sdk.TaskID, events ...sdk.Event) [][]byte {
	if !h.notifies(task) {
		return nil
	}
	var out [][]byte
	for _, e := range events {
		body, err := json.Marshal(sdk.StreamResponse{Event: e})
		if err != nil {
			h.log.Error("push notification", "task", task, "err", err)
			continue
		}
		if _, artifact := e.(*sdk.TaskArtifactUpdateEvent); !artifact || len(body) <= maxNotice {
			out = append(out, body)
		}
	}
	return out
}

func (h *Handler) notifies(task sdk.TaskID) bool {
	if h.push == nil {
		return false
	}
	all, err := h.store.Pushes(task)
	return err == nil && len(all) > 0
}

// shown is a configuration without its secrets.
func shown(cfg *sdk.PushConfig) *sdk.PushConfig {
	out := *cfg
	out.Token = ""
	if cfg.Auth != nil {
		out.Auth = &sdk.PushAuthInfo{Scheme: cfg.Auth.Scheme}
	}
	return &out
}

// validPushID reports whether a configuration may have this id. One that is a step in
// a path could not be named over HTTP+JSON.
func validPushID(id string) bool {
	return id != "" && id != "." && id != ".." && len(id) <= maxPushID && !strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// validHeader reports whether an HTTP header can hold the text.
func validHeader(s string) bool {
	return len(s) <= maxPushSecret && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// validToken reports whether s is a token of RFC 9110, such as the name of an
// authentication scheme.
func validToken(s string) bool {
	return s != "" && len(s) <= 64 && !slices.ContainsFunc([]byte(s), func(c byte) bool {
		return !strings.ContainsRune("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", rune(c))
	})
}
