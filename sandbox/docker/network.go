//go:build linux

package docker

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"

	"github.com/docker/docker/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/egress"
	"github.com/agenticraft/node/sandbox/jail"
	"github.com/agenticraft/node/sandbox/jail/wire"
)

// maxCertificates bounds the file of certificate authorities, in bytes.
const maxCertificates = 4 << 20

// certificates copies the host's list of public authorities into the folder that
// the container sees, and returns its path there, or "" if the host has none.
func certificates(dir string) (string, error) {
	from, err := os.Open(jail.CertificatesFrom)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read certificates: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(from, maxCertificates))
	if err := errors.Join(err, from.Close()); err != nil {
		return "", fmt.Errorf("read certificates: %w", err)
	}
	const name = "ca.pem"
	if err := errors.Join(os.WriteFile(filepath.Join(dir, name), text, 0o600), os.Chmod(filepath.Join(dir, name), 0o444)); err != nil {
		return "", fmt.Errorf("give certificates to the container: %w", err)
	}
	return path.Join(wire.Pipes, name), nil
}

// connect gives the started container its way out: a listener on its own
// loopback interface, made inside its network and served by a proxy here.
func (c *contained) connect(network *os.File, spec sandbox.Spec) error {
	listener, err := listenIn(network)
	if err != nil {
		return fmt.Errorf("%w: %s: cannot enter the container's network: %w", sandbox.ErrUnenforceable, sandbox.LimitNetwork, err)
	}
	c.proxy, err = c.backend.cfg.Egress.OpenFile(listener, spec.ID, spec.Network, spec.Connected)
	if err == nil {
		c.enforced = maps.Clone(c.enforced)
		c.enforced[sandbox.LimitNetwork] += "+proxy"
	}
	return err
}

// listenIn makes a listener in a network. Only root may, and only where the
// engine runs on this very machine.
func listenIn(network *os.File) (*os.File, error) {
	type made struct {
		fd  int
		err error
	}
	done := make(chan made)
	go func() {
		// A thread that could not go back is never used again: it ends with this
		// goroutine, which keeps it locked.
		runtime.LockOSThread()
		back, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- made{-1, err}
			return
		}
		defer func() { _ = back.Close() }() // only named
		if err := unix.Setns(int(network.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- made{-1, err}
			return
		}
		fd, err := listen()
		if unix.Setns(int(back.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- made{fd, err}
	}()
	m := <-done
	if m.err != nil {
		return nil, m.err
	}
	return os.NewFile(uintptr(m.fd), "listener"), nil
}

func listen() (fd int, err error) {
	const backlog = 64
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	at := &unix.SockaddrInet4{Port: jail.ProxyPort, Addr: [4]byte{127, 0, 0, 1}}
	if err := errors.Join(unix.Bind(fd, at), unix.Listen(fd, backlog)); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// networked changes what describes a container into one with a way out.
func (b *Backend) networked(config *container.Config, host *container.HostConfig, certificates string) {
	config.Env = append(config.Env, egress.Environment(jail.ProxyAddress, certificates)...)
	host.SecurityOpt = []string{"no-new-privileges", "seccomp=" + b.profiles[true]}
}
