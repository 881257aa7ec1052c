package client

import (
	"context"
	"crypto/tls"
	"errors"
	"iter"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
)

const (
	defaultResume = 30 * time.Second
	firstPause    = 50 * time.Millisecond
	longestPause  = 2 * time.Second
)

// stream is a task's stream while it is being read, over as many connections
// as it takes.
type stream struct {
	c      *Client
	header http.Header
	after  uint64 // number of the last event that came, 0 if it had none
	task   string // "" until its first event
	done   bool   // nothing more is to come
	gone   bool   // the reader wants no more
	moved  bool   // an event came over this connection
}

// resumed yields the events that open gives and goes on where they were cut
// off: with open again while no event has come, if that is safe, then by
// subscribing to the task after the last event that came.
func (c *Client) resumed(ctx context.Context, header http.Header, task string, safe bool, open func(context.Context) iter.Seq2[sdk.Event, error]) iter.Seq2[sdk.Event, error] {
	return func(yield func(sdk.Event, error) bool) {
		s := &stream{c: c, header: header, task: task}
		known := task != ""
		var wait patience
		for first := true; ; first = false {
			var err error
			if first || s.task == "" {
				err = s.read(ctx, open, known, yield)
			} else {
				err = s.goOn(ctx, yield)
			}
			known = s.task != ""
			switch {
			case s.gone || s.done:
				return
			case err == nil:
				err = &Interrupted{Err: a2a.Errorf(a2a.CodeUnavailable, "%v", errCut), Cause: errCut}
			case first && !s.moved && (neverSent(err) || !wayBroke(err)), !mayPass(err), s.task == "" && !safe:
				yield(nil, err)
				return
			}
			if !wait.next(ctx, c.cfg.Resume, s.moved) {
				yield(nil, err)
				return
			}
		}
	}
}

// read yields events until they end. Where the task is known already, the
// first that only shows it at work is not news.
func (s *stream) read(ctx context.Context, open func(context.Context) iter.Seq2[sdk.Event, error], known bool, yield func(sdk.Event, error) bool) error {
	s.moved = false
	shown, seen := known && s.after != 0, new(numbers)
	for e, err := range open(context.WithValue(ctx, numbersKey{}, seen)) {
		if err != nil {
			return err
		}
		s.moved = true
		if n := seen.pop(); n != 0 {
			s.after = n
		}
		switch e := e.(type) {
		case *sdk.Task:
			s.task, s.done = string(e.ID), atRest(e.Status.State)
			if shown && !e.Status.State.Terminal() {
				shown = false
				continue
			}
		case *sdk.TaskStatusUpdateEvent:
			s.done = atRest(e.Status.State)
		case *sdk.Message:
			s.done = true
		}
		shown = false
		if !yield(e, nil) {
			s.gone = true
			return nil
		}
	}
	return nil
}

// atRest reports whether a stream may end in this state.
func atRest(state sdk.TaskState) bool {
	return state.Terminal() || state == sdk.TaskStateInputRequired || state == sdk.TaskStateAuthRequired
}

// goOn subscribes after the last event; a task that has ended meanwhile on a
// server that replays nothing is yielded whole.
func (s *stream) goOn(ctx context.Context, yield func(sdk.Event, error) bool) error {
	header := s.header.Clone()
	if header == nil {
		header = http.Header{}
	}
	if s.after != 0 {
		header.Set(lastEventID, strconv.FormatUint(s.after, 10))
	}
	subscribe := func(ctx context.Context) iter.Seq2[sdk.Event, error] { return s.c.subscribe(ctx, s.task, header) }
	err := s.read(ctx, subscribe, true, yield)
	if e, ok := errors.AsType[*a2a.Error](err); !ok || e.Code != a2a.CodeUnsupported || s.moved {
		return err
	}
	task, err := s.c.Get(ctx, s.task, s.header)
	if err != nil {
		return err
	}
	if task.Status.State.Terminal() {
		s.done = true
		s.gone = !yield(task, nil)
	}
	return nil
}

// again does what may be done twice until its answer came: what only reads, and
// what is signed, for that is the same task each time.
func again[T any](ctx context.Context, c *Client, safe bool, do func() (T, error)) (T, error) {
	var wait patience
	for first := true; ; first = false {
		v, err := do()
		err = wire(err)
		if err == nil || c.cfg.Resume < 0 || !safe || !mayPass(err) || first && (neverSent(err) || !wayBroke(err)) {
			return v, err
		}
		if !wait.next(ctx, c.cfg.Resume, false) {
			return v, err
		}
	}
}

// wayBroke reports whether the connection failed rather than the server.
func wayBroke(err error) bool {
	_, ok := errors.AsType[*Interrupted](err)
	return ok
}

// mayPass reports whether the same may go well in a moment. Whom the client does
// not trust it will not trust then, either.
func mayPass(err error) bool {
	e, ok := errors.AsType[*a2a.Error](err)
	return !distrusted(err) && (wayBroke(err) || ok && (e.Code == a2a.CodeUnavailable || e.Code == a2a.CodeBusy))
}

// distrusted reports whether the server's certificate is nobody's whom the client
// trusts.
func distrusted(err error) bool {
	_, ok := errors.AsType[*tls.CertificateVerificationError](err)
	return ok
}

// neverSent reports whether nobody was there to take the request.
func neverSent(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// patience is how long a failing connection is tried: pauses that double, with
// jitter, for a time that begins anew with each success.
type patience struct {
	since time.Time
	pause time.Duration
}

// next waits before the next try; false if there is to be none.
func (p *patience) next(ctx context.Context, most time.Duration, moved bool) bool {
	if p.since.IsZero() || moved {
		p.since, p.pause = time.Now(), firstPause
	}
	if time.Since(p.since) > most {
		return false
	}
	t := time.NewTimer(p.pause/2 + rand.N(p.pause)) //nolint:gosec // jitter
	defer t.Stop()
	p.pause = min(2*p.pause, longestPause)
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
