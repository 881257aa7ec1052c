//go:build !linux

package main

import (
	"context"
	"errors"
	"time"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/runtime"
)

// dockerBench are the sandboxes of a Docker engine, which need Linux here.
type dockerBench struct {
	cold  sandbox.Backend
	warm  warmer
	close func() error
}

func openDockerBench(context.Context, benchConfig, *runtime.Store) (*dockerBench, error) {
	return nil, errors.New("containers need Linux here")
}

func (*dockerBench) run(context.Context) (func(context.Context) (time.Duration, error), error) {
	return nil, errors.New("containers need Linux here")
}
