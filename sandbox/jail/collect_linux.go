package jail

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail/wire"
)

// Why what was collected is not all that the program left.
var (
	// ErrCollect: the working folder holds more than the limits allow. What was read
	// until then is returned with it.
	ErrCollect = errors.New("too many output files, or too large ones")
	// ErrOmitted: of some files nobody could be sure what they are, or they cannot be
	// read. All others are returned with it.
	ErrOmitted = errors.New("a file with an unsafe name, several names or holes, or one that its owner may not read, is not kept")
)

// visitFactor bounds how many names are looked at, whatever they are.
const visitFactor = 16

// Collect reads the regular files of the working folder. It may be called only
// after the jail is done, for nothing in it may move meanwhile. Links, devices,
// pipes and sockets are no files, and are left out; so are files with several
// names, with unsafe names (not UTF-8, control characters), and files that take less
// room than they claim, which gives [ErrOmitted], and what the limits leave no room
// for, which gives [ErrCollect].
func (j *Jail) Collect(l CollectLimits) ([]sandbox.File, error) {
	select {
	case <-j.done:
	default:
		return nil, errors.New("collect files: the jail is still alive")
	}
	j.mu.Lock()
	defer j.mu.Unlock() // Release must not close the folder meanwhile
	if j.work == nil {
		return nil, errors.New("collect files: the jail is released")
	}
	return CollectFrom(j.work, l)
}

// CollectFrom is [Jail.Collect] for another folder in which nothing moves.
func CollectFrom(work *os.File, l CollectLimits) ([]sandbox.File, error) {
	fd, err := unix.Openat(int(work.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open working folder: %w", err)
	}
	c := collector{left: l, visits: visitFactor * (l.Files + 1)}
	err = c.folder(os.NewFile(uintptr(fd), "work"), "", 0)
	if err == nil && c.omitted {
		err = ErrOmitted
	}
	slices.SortFunc(c.files, func(a, b sandbox.File) int { return strings.Compare(a.Path, b.Path) })
	return c.files, err
}

type collector struct {
	left   CollectLimits
	visits int
	files  []sandbox.File
	// omitted: there is a file that is not in files.
	omitted bool
}

// folder walks dir, which it closes. Each step opens one name below an open
// folder and follows no link, so nothing outside can be reached.
func (c *collector) folder(dir *os.File, prefix string, depth int) error {
	defer func() { _ = dir.Close() }() // only read
	for {
		entries, err := dir.ReadDir(256)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list output files: %w", err)
		}
		for _, e := range entries {
			if c.visits--; c.visits < 0 {
				return ErrCollect
			}
			if !wire.SafeName(e.Name()) || len(prefix)+len(e.Name()) > wire.MaxPath {
				c.omitted = c.omitted || e.IsDir() || e.Type().IsRegular()
				continue
			}
			if err := c.entry(dir, e, prefix, depth); err != nil {
				return err
			}
		}
	}
}

func (c *collector) entry(dir *os.File, e os.DirEntry, prefix string, depth int) error {
	switch {
	case e.IsDir():
		if depth >= c.left.Depth {
			return ErrCollect
		}
		fd, err := unix.Openat(int(dir.Fd()), e.Name(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			c.omitted = true // a folder that its owner closed to itself
			return nil
		}
		return c.folder(os.NewFile(uintptr(fd), e.Name()), prefix+e.Name()+"/", depth+1)
	case e.Type().IsRegular():
		return c.file(dir, e.Name(), prefix)
	}
	return nil
}

func (c *collector) file(dir *os.File, name, prefix string) error {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		c.omitted = true // not readable even for its owner
		return nil
	}
	f := os.NewFile(uintptr(fd), name)
	defer func() { _ = f.Close() }() // only read
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("look at output file: %w", err)
	}
	const block = 512 // bytes, the unit of st.Blocks
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 || st.Size > st.Blocks*block {
		c.omitted = true
		return nil
	}
	if c.left.Files == 0 || st.Size > c.left.Bytes {
		return ErrCollect
	}
	content := make([]byte, st.Size)
	if _, err := io.ReadFull(f, content); err != nil {
		return fmt.Errorf("read output file: %w", err)
	}
	c.left.Files--
	c.left.Bytes -= st.Size
	c.files = append(c.files, sandbox.File{Path: prefix + name, Content: content})
	return nil
}
