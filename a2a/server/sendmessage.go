package server

import (
	"context"
	"encoding/json"
	"net/http"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2asrv"

	"github.com/agenticraft/node/a2a"
)

// sendMessage is what the SDK's codec does with a SendMessage that [a2a.ReadCall]
// has read: the same call of the same handler, and the same answer, for a third of
// the processor time.
func (b *binding) sendMessage(ctx context.Context, out *reply, r *http.Request, req *sdk.SendMessageRequest) {
	ctx, _ = a2asrv.NewCallContext(ctx, a2asrv.NewServiceParams(r.Header))
	result, err := noting{b.cfg.Handler}.SendMessage(ctx, req)
	if err == nil {
		var body []byte
		if body, err = marshalResult(result); err == nil {
			out.answer(body)
			return
		}
		note(ctx, err)
	}
	out.fail(out.failure.err.Load())
}

// marshalResult is the result of a SendMessage as JSON.
func marshalResult(result sdk.SendMessageResult) ([]byte, error) {
	task, ok := result.(*sdk.Task)
	if !ok {
		return json.Marshal(sdk.StreamResponse{Event: result})
	}
	body, err := a2a.MarshalTask(task)
	if err != nil {
		return nil, err
	}
	return append(append([]byte(`{"task":`), body...), '}'), nil
}
