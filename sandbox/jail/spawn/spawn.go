//go:build linux

// Package spawn is the spawner: a small process of its own that makes jails
// for a node, watches them and removes every trace of them. It outlives a
// killed node just long enough to do so.
//
// It is a process of its own because making a process with a new user
// namespace copies the page tables of the maker, which takes 40 ms and more in
// a node with a gigabyte of memory, and so that a fault in making jails cannot
// touch the memory of the node.
package spawn

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticraft/node/sandbox/jail/cgroup"
	"github.com/agenticraft/node/sandbox/jail/inside"
	"github.com/agenticraft/node/sandbox/jail/wire"
)

// nodeFD is the socket to the node.
const nodeFD = 3

const (
	// atOnce is how long the end of a jail takes that has little in it.
	atOnce = 3 * time.Millisecond
	// dying is how long the processes of a killed jail may take to vanish, on a
	// machine that has much else to do. The node gives up the spawner later.
	dying = 5 * time.Second
	// patience is how long its control groups may take after them.
	patience = 2 * time.Second
)

// server is the one spawner of this process.
type server struct {
	host     *cgroup.Host
	node     string
	root     bool // we are root and may use other user ids
	landlock bool
	forks    chan func() // run on the main thread, see Main
	sendMu   sync.Mutex
	wg       sync.WaitGroup // one for each jail

	mu    sync.Mutex // guards the rest
	slots *slots
	jails map[uint64]*jail
	count uint64
}

// Main runs the spawner until the node hangs up, on the main goroutine locked
// to the main thread, and returns its exit code.
func Main(args []string) int {
	if len(args) != 2 {
		return 2
	}
	n, err := strconv.Atoi(args[1])
	if err != nil || n < 1 {
		return 2
	}
	// The node's end is told by its socket; what reaches its terminal or its
	// log pipe must not end the one who cleans up after it.
	if err := ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE); err != nil {
		return 1
	}
	unix.CloseOnExec(nodeFD)
	s := &server{node: args[0], root: os.Geteuid() == 0, jails: map[uint64]*jail{}, forks: make(chan func())}
	if err := s.open(n); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	done := make(chan struct{})
	s.wg.Go(func() {
		defer close(done)
		s.serve()
	})
	// Every init is forked here: its death signal follows the thread that
	// forked it, and this one lives as long as the spawner.
	for {
		select {
		case f := <-s.forks:
			f()
			continue
		case <-done:
		}
		break
	}
	return s.finish()
}

// open finds out what the machine offers, sweeps and greets the node.
func (s *server) open(n int) error {
	s.host = cgroup.Detect(s.node)
	swept, err := s.host.Sweep(patience)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	features := s.host.Features()
	abi, err := inside.LandlockABI()
	if err != nil {
		features["landlock"] = err.Error()
	} else {
		s.landlock = abi >= 1
		features["landlock"] = fmt.Sprintf("ok (abi %d)", abi)
	}
	features["user_ids"] = "one, the node's own"
	var ids *idBlock
	uidMap, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return fmt.Errorf("read user ids: %w", err)
	}
	s.root = s.root && mapped(string(uidMap))
	if s.root {
		ids, err = claimIDs(s.node)
		if err != nil {
			return err
		}
		features["user_ids"] = "ok"
	}
	s.slots = newSlots(n, ids)
	return s.send(wire.Event{Kind: wire.EventHello, Hello: &wire.Hello{
		Features: features, Cgroup: s.host.Version(), Enforces: s.mechanisms(false), Swept: swept,
	}})
}

// serve handles requests until the node hangs up.
func (s *server) serve() {
	buf := make([]byte, wire.MaxPacket)
	oob := make([]byte, unix.CmsgSpace(8*4))
	for {
		n, on, _, _, err := unix.Recvmsg(nodeFD, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		fds := rights(oob[:on])
		var req wire.Request
		if err := json.Unmarshal(buf[:n], &req); err != nil {
			closeAll(fds)
			return
		}
		s.handle(req, fds)
	}
}

func (s *server) handle(req wire.Request, fds []int) {
	switch req.Op {
	case wire.OpStart:
		if req.Start == nil || len(fds) < 4 {
			closeAll(fds)
			return
		}
		j := &jail{server: s, id: req.ID, spec: *req.Start, fds: fds, killed: make(chan struct{})}
		j.limits.Store(&j.spec.Limits)
		s.mu.Lock()
		s.jails[req.ID] = j
		s.count++
		// Unique even if the node reuses a name.
		j.name = fmt.Sprintf("%s.%d", req.Start.Name, s.count)
		s.mu.Unlock()
		s.wg.Go(j.live)
	case wire.OpKill:
		closeAll(fds)
		s.mu.Lock()
		j := s.jails[req.ID]
		s.mu.Unlock()
		if j != nil {
			j.kill()
		}
	case wire.OpLimit:
		closeAll(fds)
		s.mu.Lock()
		j := s.jails[req.ID]
		s.mu.Unlock()
		ev := wire.Event{Kind: wire.EventLimited, ID: req.ID}
		switch {
		case req.Limits == nil:
			return
		case j == nil:
			ev.Failure = &wire.Failure{Step: "lower limits", Text: "the jail is gone"}
		default:
			if err := j.lower(*req.Limits); err != nil {
				ev.Failure = &wire.Failure{Step: "lower limits", Text: err.Error()}
			}
		}
		_ = s.send(ev) // the node may have gone
	default:
		closeAll(fds)
	}
}

// finish ends every jail after the node has gone.
func (s *server) finish() int {
	s.mu.Lock()
	for _, j := range s.jails {
		j.kill()
	}
	s.mu.Unlock()
	gone := make(chan struct{})
	go func() { // ends with the process at the latest
		s.wg.Wait()
		close(gone)
	}()
	for {
		select {
		case f := <-s.forks: // a start that was under way
			f()
		case <-gone:
			return 0
		case <-time.After(dying + 2*patience):
			return 1
		}
	}
}

// send tells the node something; that it has gone is noticed elsewhere.
func (s *server) send(ev wire.Event, fds ...int) error {
	b, err := json.Marshal(ev)
	if err != nil {
		return err
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	return unix.Sendmsg(nodeFD, b, oob, nil, unix.MSG_NOSIGNAL)
}

// fork runs f on the main thread and waits for it.
func (s *server) fork(f func()) {
	done := make(chan struct{})
	s.forks <- func() {
		defer close(done)
		f()
	}
	<-done
}

// rights returns the descriptors that came with a packet.
func rights(oob []byte) []int {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var fds []int
	for i := range msgs {
		got, err := unix.ParseUnixRights(&msgs[i])
		if err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd) // not ours to lose anything
	}
}

func ignore(sigs ...syscall.Signal) error {
	for _, sig := range sigs {
		if err := inside.IgnoreSignal(sig); err != nil {
			return err
		}
	}
	return nil
}
