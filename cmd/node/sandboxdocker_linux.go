package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/docker"
	"github.com/agenticraft/node/sandbox/process"
	"github.com/agenticraft/node/sandbox/runtime"
)

// dockerBench are the sandboxes of a Docker engine.
type dockerBench struct {
	cold   sandbox.Backend
	warm   warmer
	close  func() error
	socket string
	store  *runtime.Store
}

// openDockerBench runs one program, so that the image is there.
func openDockerBench(ctx context.Context, cfg benchConfig, store *runtime.Store) (*dockerBench, error) {
	if cfg.socket == dockerOff {
		return nil, errors.New("--docker-socket is off")
	}
	open := func(warm int) (*docker.Backend, error) {
		name := fmt.Sprintf("bench-%d-%d", os.Getpid(), warm)
		return docker.New(docker.Config{Node: name, Dir: filepath.Join(cfg.dir, name), Socket: cfg.socket, Runtimes: store, Warm: warm})
	}
	cold, err := open(0)
	if err != nil {
		return nil, err
	}
	spec := sandbox.Spec{ID: "bench", Owner: "bench", Language: process.Python, Code: []byte(benchProgram), Limits: sandbox.DefaultLimits()}
	if err := expect42(cold.Run(ctx, spec, nil)); err != nil {
		return nil, errors.Join(err, cold.Close())
	}
	warm, err := open(1)
	if err != nil {
		return nil, errors.Join(err, cold.Close())
	}
	return &dockerBench{
		cold: cold, warm: warm, socket: cfg.socket, store: store,
		close: func() error { return errors.Join(warm.Close(), cold.Close()) },
	}, nil
}

// run is the engine's own command with the image that the sandbox uses.
func (d *dockerBench) run(ctx context.Context) (func(context.Context) (time.Duration, error), error) {
	name, err := exec.LookPath("docker")
	if err != nil {
		return nil, errors.New("no docker command on this machine")
	}
	_, digest, argv, err := d.store.Lookup(process.Python)
	if err != nil {
		return nil, err
	}
	args := append([]string{"run", "--rm", "--network", "none", "--memory", "256m", "--pids-limit", "32", docker.ImageOf(digest)}, argv...)
	run := command([]string{"DOCKER_HOST=unix://" + d.socket}, name, append(args, "-I", "-S", "-c", "import json\nprint(json.dumps(6 * 7))")...)
	_, err = run(ctx)
	return run, err
}
