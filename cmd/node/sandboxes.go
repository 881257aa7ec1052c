package main

import (
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"

	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/egress"
	"github.com/agenticraft/node/sandbox/jail"
	"github.com/agenticraft/node/sandbox/process"
	"github.com/agenticraft/node/sandbox/restricted"
	"github.com/agenticraft/node/sandbox/runtime"
	"github.com/agenticraft/node/sandbox/wasm"
)

// dockerOff is the docker_socket that means no engine.
const dockerOff = "off"

// openSandboxes starts the jail's spawner and the backends on it.
func openSandboxes(cfg *config, id identity.ID, nodes func() []netip.Addr, log *slog.Logger) (*sandbox.Manager, error) {
	spawner, err := jail.Start(jail.Config{Node: jailName(id), Dir: filepath.Join(cfg.Data, "jails"), Log: log})
	if err != nil {
		return nil, err
	}
	runtimes, err := runtime.Open(cfg.Runtimes)
	if err != nil {
		return nil, errors.Join(err, spawner.Close())
	}
	way, err := egress.New(egress.Config{
		Allow: cfg.Egress, Nodes: nodes, Log: log, Connections: cfg.EgressConn, Open: cfg.EgressOpen, Bytes: int64(cfg.EgressMB) << 20,
	})
	if err != nil {
		return nil, errors.Join(err, spawner.Close())
	}
	warm := cfg.Warm
	if cfg.NoRun {
		warm = 0
	}
	python, err := process.New(process.Config{
		Spawner: spawner, Runtimes: runtimes, Log: log, Egress: way, Warm: warm, WarmLimits: cfg.limits(),
	})
	if err != nil {
		return nil, errors.Join(err, spawner.Close())
	}
	starlark, err := restricted.New(restricted.Config{Spawner: spawner, Log: log})
	if err != nil {
		return nil, errors.Join(err, python.Close(), spawner.Close())
	}
	modules, err := wasm.New(wasm.Config{Spawner: spawner, Dir: filepath.Join(cfg.Data, "modules"), Modules: runtimes, Log: log})
	if err != nil {
		return nil, errors.Join(err, starlark.Close(), python.Close(), spawner.Close())
	}
	backends := map[string]sandbox.Backend{"process": python, "restricted": starlark, "wasm": modules}
	if cfg.Docker != dockerOff {
		containers, err := openDocker(cfg, id, runtimes, way, log)
		if err != nil {
			return nil, errors.Join(err, modules.Close(), starlark.Close(), python.Close(), spawner.Close())
		}
		backends["docker"] = containers
	}
	return sandbox.NewManager(sandbox.ManagerConfig{
		Backends: backends,
		Default:  cfg.Sandbox,
		Order: map[string][]string{
			"python": {"process", "wasm"}, "javascript": {"process", "wasm"}, "sh": {"process"}, "starlark": {"restricted"}, "wasm": {"wasm"},
		},
		Defaults: cfg.limits(),
		Slots:    cfg.Slots,
		Log:      log,
	})
}

// jailName is enough of an ID to keep the jails of nodes on one machine apart.
func jailName(id identity.ID) string { return string(id)[len(id)-12:] }
