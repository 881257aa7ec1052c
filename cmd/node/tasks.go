package main

import (
	"context"
	"log/slog"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a/push"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/a2a/taskstore"
	"github.com/agenticraft/node/identity"
)

// openHandler puts the one handler in front of a path, with the pusher that
// tells receivers about its tasks; none if the configuration wants none.
func openHandler(cfg *config, path server.Path, tasks *taskstore.Store, key *identity.Key, card cardFor, log *slog.Logger) (*server.Handler, *push.Pusher, error) {
	own := server.Config{Path: path, Store: tasks, Card: card, SignedOnly: cfg.SignedOnly, Log: log}
	var pusher *push.Pusher
	if cfg.Push {
		guard, err := push.ParseGuard(cfg.PushAllow)
		if err != nil {
			return nil, nil, usage("push_allow: %v", err)
		}
		if pusher, err = push.New(push.Config{Store: tasks, Key: key, Guard: guard, Log: log}); err != nil {
			return nil, nil, err
		}
		own.Push = pusher
	}
	handler, err := server.New(own)
	return handler, pusher, err
}

// cardFor gives the agent card as a caller may see it.
type cardFor = func(ctx context.Context, caller server.Caller) (*sdk.AgentCard, error)

const pruneEvery = time.Minute

// pruneTasks forgets ended tasks when they are too old or too many.
func pruneTasks(ctx context.Context, tasks *taskstore.Store, cfg *config, log *slog.Logger) error {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		n, err := tasks.Prune(time.Now().Add(-cfg.TaskRetention), cfg.TaskLimit)
		switch {
		case err != nil:
			log.ErrorContext(ctx, "old tasks not forgotten", "err", err)
		case n > 0:
			log.InfoContext(ctx, "old tasks forgotten", "tasks", n)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
