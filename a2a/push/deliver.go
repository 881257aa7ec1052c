package push

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/taskstore"
)

// deliver sends the first notice of a queue, once.
func (p *Pusher) deliver(ctx context.Context, q taskstore.Queue, tries int) next {
	notice, err := p.cfg.Store.NextNotice(q)
	if errors.Is(err, taskstore.ErrNotFound) {
		return next{empty: true}
	}
	if err != nil {
		return p.storeFailed(ctx, q, err)
	}
	cfg, err := p.cfg.Store.Push(q)
	if errors.Is(err, taskstore.ErrNotFound) {
		return next{empty: true}
	}
	if err != nil {
		return p.storeFailed(ctx, q, err)
	}
	log := p.log.With("task", q.Task, "host", hostOf(cfg.URL)) // of the URL no more: it may hold a secret
	signature, err := a2a.SignNotification(p.cfg.Key, a2a.Notification{URL: cfg.URL, Task: string(q.Task), JTI: noticeID(q, notice.Number)}, notice.Body, time.Time{})
	if err != nil {
		return p.storeFailed(ctx, q, err)
	}
	answer := p.send.post(ctx, cfg, notice.Body, signature)
	if ctx.Err() != nil && answer.err != nil {
		return next{retry: true} // the node stops; it was no fault of the receiver
	}
	switch {
	case answer.err == nil:
		p.metrics.sent("delivered")
	case answer.gone:
		p.metrics.sent("gone")
		log.InfoContext(ctx, "push receiver is gone, its configuration with it", "err", answer.err)
		if err := p.cfg.Store.DeletePush(q); err != nil {
			return p.storeFailed(ctx, q, err)
		}
		return next{empty: true}
	case time.Since(notice.Since) > p.cfg.MaxAge:
		p.metrics.sent("given_up")
		log.WarnContext(ctx, "push notification given up", "tries", tries+1, "err", answer.err)
	default:
		p.metrics.sent("failed")
		log.DebugContext(ctx, "push notification not delivered yet", "tries", tries+1, "err", answer.err)
		return next{retry: true, after: max(p.pause(tries), min(answer.after, time.Hour))}
	}
	if err := p.cfg.Store.Delivered(q, notice.Number); err != nil {
		return p.storeFailed(ctx, q, err)
	}
	return next{}
}

func (p *Pusher) storeFailed(ctx context.Context, q taskstore.Queue, err error) next {
	p.log.ErrorContext(ctx, "push queue", "task", q.Task, "err", err)
	return next{retry: true, after: p.cfg.Most}
}

// pause grows with each try, and is drawn from its upper half, so that
// receivers who were away are not called by all at once.
func (p *Pusher) pause(tries int) time.Duration {
	d := p.cfg.Most
	if tries < 30 {
		d = min(d, p.cfg.First<<tries)
	}
	return d/2 + rand.N(d/2+1)
}

// noticeID names a notice: the same each time it is sent.
func noticeID(q taskstore.Queue, number uint64) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "agenticraft notice v1\x00%s\x00%s\x00%d", q.Task, q.ID, number))
	return hex.EncodeToString(sum[:16])
}
