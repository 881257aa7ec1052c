package server

import (
	"context"
	"iter"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/identity"
)

// DoorHeader says through which door a message came that one node hands on to the
// node that holds its task. It counts on the mesh only.
const DoorHeader = "Agenticraft-Door"

// Relay is a [Path] that hands a message on to the node that holds its task, so
// that a client may answer through any door of the cluster.
type Relay interface {
	Mesh
	// Relay hands on a message to a task of the caller's that another node holds,
	// and yields what that node streams of it. The message goes as its sender
	// signed it, or signed by this node for a caller without a key; the other node
	// verifies and decides, as if it had come there.
	Relay(ctx context.Context, in Inbound, caller identity.Principal) iter.Seq2[Numbered, error]
}

// relayed is a message on its way to the node that holds its task.
type relayed struct {
	events iter.Seq2[Numbered, error]
	caller Caller // as the message proves him
}

// elsewhere is the message's way to the node that holds its task; nil if this node
// does, or if there is none to hand it to: then what is wrong is said here.
func (h *Handler) elsewhere(ctx context.Context, req *sdk.SendMessageRequest) (*relayed, error) {
	caller, _ := CallerFrom(ctx)
	path, ok := h.path.(Relay)
	if !ok || caller.Door == DoorMesh || checkRequest(req) != nil || req.Message.TaskID == "" || h.holds(req.Message.TaskID) || h.signedOnly && !a2a.IsSigned(req) {
		return nil, nil
	}
	req, push, err := h.inlinePush(req, false)
	if err != nil {
		return nil, err
	}
	in := Inbound{Request: req, Caller: caller}
	if prover, ok := h.path.(Prover); ok {
		if caller.Principal, err = prover.Prove(in); err != nil {
			return nil, err
		}
	}
	task, err := h.lookUp(ctx, req.Message.TaskID, caller)
	if err != nil {
		return nil, err
	}
	if caller.Principal.String() != a2a.OwnerOf(task) || !Interrupted(task.Status.State) && !again(task, req.Message) {
		return nil, nil
	}
	if push != nil && !a2a.IsSigned(req) { // it would tell nobody of what comes before it is there
		away, err := path.Pushes(ctx, string(task.ID), caller.Principal)
		if err != nil {
			return nil, err
		}
		if push.TaskID = task.ID; away != nil {
			_, err = away.CreatePush(ctx, push)
		}
		if err != nil {
			return nil, err
		}
	}
	return &relayed{path.Relay(ctx, in, caller.Principal), caller}, nil
}

// wait waits until the task has ended or waits for somebody; only until the other
// node has taken the message, if its sender wants that.
func (r *relayed) wait(ctx context.Context, h *Handler, req *sdk.SendMessageRequest) (*sdk.Task, error) {
	for e, err := range r.events {
		if err != nil {
			return nil, err
		}
		var state sdk.TaskState
		switch v := e.Event.(type) {
		case *sdk.Task:
			if req.Config != nil && req.Config.ReturnImmediately {
				return v, nil
			}
			state = v.Status.State
		case *sdk.TaskStatusUpdateEvent:
			state = v.Status.State
		}
		if state.Terminal() || Interrupted(state) { // a stream stays open where authority lacks
			break
		}
	}
	return h.lookUp(ctx, req.Message.TaskID, r.caller)
}

// stream yields what the other node streams.
func (r *relayed) stream(ctx context.Context, yield func(sdk.Event, error) bool) {
	for e, err := range r.events {
		if err == nil && e.Number > 0 {
			number(ctx, e.Number)
		}
		if !yield(e.Event, err) {
			return
		}
	}
}
