//go:build linux

package docker_test

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/docker"
	"github.com/agenticraft/node/sandbox/jail/jailtest"
)

// BenchmarkRun is from a program to its result, from a new container and from a
// waiting one, beside the engine's own command with the same image. Run it with
// -benchtime 20x: an engine is slow.
func BenchmarkRun(b *testing.B) {
	socket := os.Getenv(socketEnv)
	if socket == "" {
		socket = docker.DefaultSocket
	}
	if _, err := os.Stat(socket); err != nil {
		b.Skipf("no Docker engine on this machine: %v", err)
	}
	store, err := addRuntimes()
	if err != nil {
		b.Skipf("no Python: %v", err)
	}
	backend := func(b *testing.B, warm int) *docker.Backend {
		b.Helper()
		d, err := docker.New(docker.Config{Helper: jailtest.Helper(b), Node: "bench-" + time.Now().Format("150405.000000"), Dir: b.TempDir(), Socket: socket, Runtimes: store, Warm: warm})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = d.Close() })
		return d
	}
	run := func(b *testing.B, d *docker.Backend) sandbox.Result {
		b.Helper()
		r, err := d.Run(context.Background(), sandbox.Spec{ID: "b" + time.Now().Format("150405-000000000"), Owner: "b", Language: "python", Code: []byte("result = 1")}, nil)
		if err != nil || r.Status != sandbox.OK {
			b.Fatalf("Run = %+v, %v", r, err)
		}
		return r
	}
	var digest string
	b.Run("cold", func(b *testing.B) {
		d := backend(b, 0)
		digest = run(b, d).Runtime
		b.ReportAllocs()
		for b.Loop() {
			run(b, d)
		}
	})
	b.Run("warm", func(b *testing.B) {
		d := backend(b, 1)
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			if err := d.AwaitWarm(context.Background()); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			run(b, d)
		}
	})
	b.Run("docker run", func(b *testing.B) {
		command, err := exec.LookPath("docker")
		if err != nil || digest == "" {
			b.Skip("no docker command")
		}
		_, _, argv, err := store.Lookup("python")
		if err != nil {
			b.Fatal(err)
		}
		args := append([]string{"run", "--rm", "--network", "none", "--memory", "256m", "--pids-limit", "32", "agenticraft/runtime:" + digest}, argv...)
		args = append(args, "-I", "-S", "-c", "print(1)")
		for b.Loop() {
			cmd := exec.CommandContext(context.Background(), command, args...)
			cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+socket)
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Fatalf("docker run: %v\n%s", err, out)
			}
		}
	})
}
