package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/agenticraft/node/a2a"
)

// The most that is read of a file that somebody named, in bytes.
const (
	maxSettingsFile = 1 << 20
	maxAPIKeyFile   = 4 << 10
	maxConfigFile   = 1 << 20
)

// readSmall reads a file that somebody named, at most limit bytes of it: the
// name may stand for a device without an end. A pipe is read as the shell's
// <(command) gives it; one that nobody writes to reads as empty instead of
// waiting for ever.
func readSmall(name string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readCapped(f, name, limit)
}

// readCapped reads r to its end; more than limit bytes are an error.
func readCapped(r io.Reader, name string, limit int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, limit+1))
	switch {
	case errors.As(err, new(*fs.PathError)):
		return nil, err // names the file
	case err != nil:
		return nil, failed("%s cannot be read: %v", name, err)
	}
	if int64(len(text)) > limit {
		return nil, &a2a.Error{Code: a2a.CodeTooLarge, Message: fmt.Sprintf("%s has more than %d bytes", name, limit)}
	}
	return text, nil
}
