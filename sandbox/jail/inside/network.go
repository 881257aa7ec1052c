//go:build linux

package inside

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/agenticraft/node/sandbox/jail/wire"
)

// backlog is how many connections wait until the node takes them.
const backlog = 64

// listen brings up the loopback interface, all that this network has, and makes
// the listener on it that the node takes connections from: a socket stays in the
// network it was made in, whoever holds it.
func listen() (fd int, err error) {
	if err := loopback(); err != nil {
		return -1, err
	}
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("make socket: %w", err)
	}
	at := &unix.SockaddrInet4{Port: wire.ProxyPort, Addr: [4]byte{127, 0, 0, 1}}
	if err := errors.Join(unix.Bind(fd, at), unix.Listen(fd, backlog)); err != nil {
		return -1, errors.Join(fmt.Errorf("listen: %w", err), unix.Close(fd))
	}
	return fd, nil
}

func loopback() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make socket: %w", err)
	}
	lo, err := unix.NewIfreq("lo")
	if err == nil {
		err = unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, lo)
	}
	if err == nil {
		lo.SetUint16(lo.Uint16() | unix.IFF_UP)
		err = unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo)
	}
	if err != nil {
		err = fmt.Errorf("bring up the loopback interface: %w", err)
	}
	return errors.Join(err, unix.Close(s))
}
