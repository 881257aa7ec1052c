//go:build linux

package spawn

import (
	"errors"
	"fmt"
	"hash/fnv"
	"strings"

	"golang.org/x/sys/unix"
)

// User ids of jails: blocks of idsPerBlock, above those that systemd and
// container engines hand out, below the kernel's last.
const (
	firstID     = 2_000_000_000
	idsPerBlock = 1024
	idBlocks    = 1024
)

// idBlock is a range of user ids that no other spawner on this machine uses.
type idBlock struct {
	first int
	lock  int // socket whose name is the lock; the kernel frees it with us
}

// mapped says whether this user namespace has the ids of all blocks. That of a
// container may have far fewer.
func mapped(uidMap string) bool {
	for line := range strings.Lines(uidMap) {
		var inside, outside, count int64
		if _, err := fmt.Sscan(line, &inside, &outside, &count); err != nil {
			continue
		}
		if inside <= firstID && inside+count >= firstID+idBlocks*idsPerBlock {
			return true
		}
	}
	return false
}

// claimIDs takes a block. It begins looking at one that depends on the node,
// so that a node mostly uses the same ids.
func claimIDs(node string) (*idBlock, error) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(node)) // never fails
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket that locks user ids: %w", err)
	}
	for i := range uint32(idBlocks) {
		n := (h.Sum32() + i) % idBlocks
		// An abstract name: nothing stays behind, whatever happens.
		err := unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("@agenticraft/jail-ids/%d", n)})
		if err == nil {
			return &idBlock{first: firstID + int(n)*idsPerBlock, lock: fd}, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return nil, errors.Join(fmt.Errorf("lock user ids: %w", err), unix.Close(fd))
		}
	}
	return nil, errors.Join(errors.New("every block of user ids is taken"), unix.Close(fd))
}

// slots are the places for jails; each has two user ids of its own if ids is
// not nil. Not safe for concurrent use.
type slots struct {
	ids      *idBlock
	free     []int
	poisoned int
}

func newSlots(n int, ids *idBlock) *slots {
	s := &slots{ids: ids}
	for i := n - 1; i >= 0; i-- {
		s.free = append(s.free, i)
	}
	return s
}

func (s *slots) take() (int, bool) {
	if len(s.free) == 0 {
		return 0, false
	}
	n := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	return n, true
}

// give returns a slot, unless something may still live in it.
func (s *slots) give(n int, clean bool) {
	if !clean {
		s.poisoned++
		return
	}
	s.free = append(s.free, n)
}

// init and worker ids of a slot on the host.
func (s *slots) hostIDs(n int) (initID, workerID int) {
	return s.ids.first + 2*n, s.ids.first + 2*n + 1
}
