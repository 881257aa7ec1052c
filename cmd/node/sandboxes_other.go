//go:build !linux

package main

import (
	"errors"
	"log/slog"

	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/egress"
	"github.com/agenticraft/node/sandbox/runtime"
)

// defaultDocker is the default of docker_socket.
const defaultDocker = dockerOff

const maxDockerWarm = 8

func openDocker(*config, identity.ID, *runtime.Store, *egress.Gateway, *slog.Logger) (sandbox.Backend, error) {
	return nil, errors.New("docker_socket: containers need Linux here; set it to off")
}
