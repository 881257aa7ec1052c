package server

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"strconv"
	"sync"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2asrv"
)

const (
	sendStream = "SendStreamingMessage"
	subscribe  = "SubscribeToTask"
)

// events are those of a request for a stream.
func (b *binding) events(ctx context.Context, in accepted) (iter.Seq2[sdk.Event, error], *rpcError) {
	handler := noting{b.cfg.Handler}
	if in.method == subscribe {
		var req sdk.SubscribeToTaskRequest
		if err := json.Unmarshal(in.params, &req); err != nil {
			return nil, badParameter(err.Error())
		}
		return handler.SubscribeToTask(ctx, &req), nil
	}
	var req sdk.SendMessageRequest
	if err := json.Unmarshal(in.params, &req); err != nil {
		return nil, badParameter(err.Error())
	}
	return handler.SendStreamingMessage(ctx, &req), nil
}

// stream is what the SDK's codec does with a request for a stream, on the request's
// own goroutine: a stream that waits has no other, nor a copy of its request.
func (b *binding) stream(ctx context.Context, out *reply, r *http.Request, in accepted) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ctx, _ = a2asrv.NewCallContext(ctx, a2asrv.NewServiceParams(r.Header))
	events, err := b.events(ctx, in)
	if err != nil {
		out.fail(err)
		return
	}
	h := out.Header()
	h.Set("Content-Type", eventStream)
	h.Set("Cache-Control", "no-cache")
	h.Set("Connection", "keep-alive")
	h.Set("X-Accel-Buffering", "no")
	out.WriteHeader(http.StatusOK)

	live := newLifeline(out, b.cfg.KeepAlive, cancel)
	defer live.end()
	for event, err := range events {
		var body []byte
		if err == nil {
			if body, err = marshalEvent(event); err != nil {
				note(ctx, err)
			}
		}
		if err != nil {
			live.write(func() error { out.fail(out.failure.err.Load()); return nil }) //nolint:errcheck // it has none
			return
		}
		if live.write(func() error { return out.event(body) }) != nil {
			return // the client has gone, or takes nothing
		}
	}
}

// marshalEvent is an event as the result of a JSON-RPC answer.
func marshalEvent(event sdk.Event) ([]byte, error) {
	if task, ok := event.(*sdk.Task); ok {
		return marshalResult(task)
	}
	return json.Marshal(sdk.StreamResponse{Event: event})
}

// lifeline writes signs of life on a stream while nothing else is written.
type lifeline struct {
	every time.Duration

	mu    sync.Mutex // held while something is written
	timer *time.Timer
	ended bool
}

var signOfLife = []byte(": keep-alive\n\n")

// newLifeline calls lost when a sign of life could not be written.
func newLifeline(out *reply, every time.Duration, lost func()) *lifeline {
	l := &lifeline{every: every}
	l.mu.Lock() // until the timer is there
	defer l.mu.Unlock()
	l.timer = time.AfterFunc(every, func() {
		err := l.write(func() error {
			if l.ended {
				return nil
			}
			if _, err := out.Write(signOfLife); err != nil {
				return err
			}
			out.Flush()
			return nil
		})
		if err != nil {
			lost()
		}
	})
	return l
}

// write does what writes to the stream, with nobody else, and puts off the next sign
// of life.
func (l *lifeline) write(do func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := do(); err != nil {
		return err
	}
	if !l.ended {
		l.timer.Reset(l.every)
	}
	return nil
}

// end returns when nothing more will be written.
func (l *lifeline) end() {
	l.mu.Lock()
	l.ended = true
	l.timer.Stop()
	l.mu.Unlock()
}

// event writes an event of a stream, the result of a JSON-RPC answer, with its id.
func (r *reply) event(result []byte) error {
	var frame []byte
	if n, ok := r.numbers.pop(); ok {
		frame = append(strconv.AppendUint(append(frame, frameID...), n, 10), '\n')
	}
	frame = append(r.appendAnswer(append(frame, frameData...), result), "\n\n"...)
	if _, err := r.write(frame); err != nil {
		return err
	}
	r.Flush()
	return nil
}
