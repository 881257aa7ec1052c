package server

import (
	"context"
	"encoding/json"
	"maps"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
)

// Bounds of tasks that wait for their owner.
const (
	maxWaiting  = 100 // of one owner, beyond which he is asked nothing more
	waitAtMost  = 24 * time.Hour
	forgotten   = "nobody answered within a day"
	forgetEvery = time.Minute
)

// mayAsk says whether there may be one more task that waits for its owner.
func (h *Handler) mayAsk(owner string) error {
	ids, err := h.store.Waiting(owner)
	if err == nil && len(ids) >= maxWaiting {
		return &a2a.Error{Code: a2a.CodeBusy, Message: "too many of your tasks wait for an answer", Hint: "answer or cancel some of them", RetryAfter: time.Minute}
	}
	return err
}

// askedBefore is the task that the same request made before.
func (h *Handler) askedBefore(ctx context.Context, admitted Admitted, caller Caller, req *sdk.SendMessageRequest) (*sdk.Task, *reader, error) {
	task, err := h.stored(sdk.TaskID(admitted.Task), func(owner string) bool { return owner == admitted.Owner })
	if err != nil {
		return nil, nil, err
	}
	if len(task.History) == 0 || !sameContent(task.History[0], req.Message) {
		return nil, nil, a2a.Errorf(a2a.CodeConflict, "this request id was used before for another request")
	}
	return h.existing(ctx, admitted, caller, req)
}

// again reports whether a signed message is one that the task has taken: the same
// words under the same jti. One that is not signed never is.
func again(task *sdk.Task, m *sdk.Message) bool {
	jti := jtiOf(m)
	for _, had := range task.History {
		if had.Role == sdk.MessageRoleUser && jti != "" && jti == jtiOf(had) && sameContent(had, m) {
			return true
		}
	}
	return false
}

// jtiOf reads the jti that a message claims; whether it is signed, the path says.
func jtiOf(m *sdk.Message) string {
	carrier, _ := m.Metadata[a2a.SignedMessageURI].(map[string]any)
	claims, _ := carrier["claims"].(map[string]any)
	jti, _ := claims["jti"].(string)
	return jti
}

// sameContent compares messages but for their signatures, which differ when a
// request is signed again, and for what the task added to its copy.
func sameContent(a, b *sdk.Message) bool {
	text := func(m *sdk.Message) string {
		own := *m
		own.TaskID, own.ContextID = "", ""
		own.Metadata = maps.Clone(m.Metadata)
		delete(own.Metadata, a2a.SignedMessageURI)
		raw, err := json.Marshal(own)
		if err != nil {
			return ""
		}
		return string(raw)
	}
	return text(a) == text(b)
}

// runTurn ends the task by what was admitted: its run, or its end already.
func (h *Handler) runTurn(t *turn, admitted Admitted) {
	h.inProgress.Go(func() {
		defer t.end()
		defer context.AfterFunc(h.stop, t.end)()
		if admitted.Final != nil {
			t.finish(*admitted.Final)
			return
		}
		t.finish(admitted.Run(t.ctx, t.run))
	})
}

// finish makes the report the last word of a turn.
func (t *turn) finish(report a2a.Report) {
	if !report.Status.Terminal() {
		report.Status = a2a.Lost
	}
	ctx := context.WithoutCancel(t.ctx) // the end is owed to a cancelled turn too
	r := t.run
	r.word.Lock()
	defer r.word.Unlock()
	t.over = true
	last := t.h.endOf(ctx, r, report)
	words := lastWords(last)
	t.h.keepRun(ctx, r, last, words, false, words...)
	r.mu.Lock()
	r.task = last
	for _, e := range words {
		r.add(e)
	}
	r.mu.Unlock()
	t.h.mu.Lock()
	delete(t.h.runs, last.ID)
	t.h.mu.Unlock()
}

// endForgotten cancels the tasks that have waited for their owner too long. It
// looks once a minute.
func (h *Handler) endForgotten(now time.Time) {
	h.mu.Lock()
	due := now.Sub(h.looked) >= forgetEvery
	if due {
		h.looked = now
	}
	h.mu.Unlock()
	if !due {
		return
	}
	ids, err := h.store.Waiting("")
	if err != nil {
		h.log.Error("list waiting tasks", "err", err)
	}
	for _, id := range ids {
		record, err := h.store.Get(id)
		if err == nil && Interrupted(record.Task.Status.State) && now.Sub(record.Updated) >= waitAtMost {
			h.hush(context.Background(), record.Task, forgotten)
		}
	}
}
