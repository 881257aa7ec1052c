package main

import (
	"log/slog"
	"path/filepath"

	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/docker"
	"github.com/agenticraft/node/sandbox/egress"
	"github.com/agenticraft/node/sandbox/runtime"
)

// defaultDocker is the default of docker_socket.
const defaultDocker = docker.DefaultSocket

const maxDockerWarm = docker.MaxWarm

func openDocker(cfg *config, id identity.ID, runtimes *runtime.Store, way *egress.Gateway, log *slog.Logger) (sandbox.Backend, error) {
	return docker.New(docker.Config{
		Node: jailName(id), Dir: filepath.Join(cfg.Data, "containers"), Socket: cfg.Docker, Runtimes: runtimes, Egress: way, Log: log,
		Images: cfg.DockerImages, Warm: cfg.DockerWarm, WarmLimits: cfg.limits(),
	})
}
