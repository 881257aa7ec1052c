package jail

import (
	"fmt"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// pipes are the channels of one jail: our ends as files that support
// deadlines, theirs as plain descriptors in the order of wire.OpStart.
type pipes struct {
	control, stdin, stdout, stderr, files *os.File
	theirs                                []int
}

func openPipes(files bool) (_ *pipes, err error) {
	p := &pipes{}
	defer func() {
		if err != nil {
			p.closeOurs()
			p.closeTheirs()
		}
	}()
	if p.stdin, err = p.pipe("stdin", true); err != nil {
		return nil, err
	}
	if p.stdout, err = p.pipe("stdout", false); err != nil {
		return nil, err
	}
	if p.stderr, err = p.pipe("stderr", false); err != nil {
		return nil, err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make control channel: %w", err)
	}
	if p.control, err = p.take("control", fds[0], fds[1]); err != nil {
		return nil, err
	}
	if files {
		if p.files, err = p.pipe("files", true); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// pipe makes a pipe of which we write or read our end.
func (p *pipes) pipe(name string, write bool) (*os.File, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make %s pipe: %w", name, err)
	}
	if write {
		return p.take(name, fds[1], fds[0])
	}
	return p.take(name, fds[0], fds[1])
}

func (p *pipes) take(name string, ours, theirs int) (*os.File, error) {
	p.theirs = append(p.theirs, theirs)
	// Non-blocking belongs to the end, so the worker's end stays blocking.
	if err := unix.SetNonblock(ours, true); err != nil {
		_ = unix.Close(ours) // never used
		return nil, fmt.Errorf("prepare %s pipe: %w", name, err)
	}
	return os.NewFile(uintptr(ours), name), nil
}

func (p *pipes) closeTheirs() {
	closeAll(p.theirs)
	p.theirs = nil
}

func (p *pipes) closeOurs() {
	for _, f := range []*os.File{p.control, p.stdin, p.stdout, p.stderr, p.files} {
		if f != nil {
			_ = f.Close() // nothing was written
		}
	}
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd) // ours alone and never written to
	}
}

// logWriter turns what the spawner prints into log lines.
type logWriter struct{ log *slog.Logger }

func (w *logWriter) Write(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		w.log.Warn("jail spawner says", "text", strings.TrimSpace(line))
	}
	return len(b), nil
}
