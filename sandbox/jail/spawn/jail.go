//go:build linux

package spawn

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticraft/node/sandbox/jail/cgroup"
	"github.com/agenticraft/node/sandbox/jail/inside"
	"github.com/agenticraft/node/sandbox/jail/wire"
)

// jailWorker is the worker's user id inside a jail that has one to spare.
const jailWorker = 65534

// setupTimeout is how long the init of a jail may take to run the worker.
const setupTimeout = 10 * time.Second

// jail is one jail, from request to removal. Its goroutine is live.
type jail struct {
	server *server
	id     uint64
	name   string
	spec   wire.Start
	fds    []int // stdin, stdout, stderr, control, and files if there are any

	reported bool // of live alone

	once   sync.Once
	killed chan struct{} // closed by kill

	slot   int
	group  *cgroup.Group // nil if there are none
	pid    int           // of init
	pidfd  int
	sync   int // packets to and from init
	worker int // pid
	own    int // threads of init that count against the limit of processes

	running atomic.Bool                 // the worker runs under its limits, and worker and own are set
	limits  atomic.Pointer[wire.Limits] // in force; written by live, later by the spawner's loop alone

	overMemory atomic.Bool  // the watchdog found it so
	peak       atomic.Int64 // bytes
	cpu        atomic.Int64 // ns, as far as the watchdog has seen
}

// kill asks live to end the jail.
func (j *jail) kill() { j.once.Do(func() { close(j.killed) }) }

func (j *jail) wasKilled() bool {
	select {
	case <-j.killed:
		return true
	default:
		return false
	}
}

// live makes the jail, waits for its end, reports it and removes what is left.
func (j *jail) live() { j.report(j.run()) }

// report tells the node of the jail's end, once.
func (j *jail) report(ev wire.Event) {
	if j.reported {
		return
	}
	j.reported = true
	s := j.server
	s.mu.Lock()
	delete(s.jails, j.id)
	s.mu.Unlock()
	ev.ID = j.id
	_ = s.send(ev) // the node may have gone
}

func (j *jail) run() wire.Event {
	s := j.server
	defer func() { closeAll(j.fds) }()
	s.mu.Lock()
	slot, ok := s.slots.take()
	s.mu.Unlock()
	if !ok {
		return failed(&wire.Failure{Step: "take slot", Text: "every slot for a jail is taken", Busy: true})
	}
	j.slot = slot
	clean := true
	give := sync.OnceFunc(func() {
		s.mu.Lock()
		s.slots.give(slot, clean)
		s.mu.Unlock()
	})
	defer give()
	if limit := s.unenforceable(j.spec); limit != "" {
		return failed(&wire.Failure{Step: "check limits", Text: "this machine has no means to enforce it", Limit: limit})
	}
	if err := j.makeGroup(); err != nil {
		return failed(&wire.Failure{Step: "make control groups", Text: err.Error()})
	}
	err := j.spawn()
	if err != nil {
		f := &wire.Failure{Step: "make init", Text: err.Error()}
		return failed(j.removed(f))
	}
	defer func() { closeAll([]int{j.sync, j.pidfd}) }()
	closeAll(j.fds)
	j.fds = nil
	rep, fds, failure := j.setUp()
	if failure != nil {
		_, clean = j.end()
		return failed(j.removed(failure))
	}
	started := wire.Event{Kind: wire.EventStarted, ID: j.id, Enforced: s.enforced(j, rep)}
	_ = s.send(started, fds...) // the node may have gone, which ends us soon
	closeAll(fds)
	exit := j.watch()
	usage, ok := j.end()
	clean = ok
	if !ok {
		exit.Fault = "processes of the jail could not be killed"
	}
	j.account(&exit, usage)
	// Every process is gone and everything is counted: nobody need wait for the
	// empty control groups to be removed.
	give()
	ended := wire.Event{Kind: wire.EventEnded, Exit: &exit}
	j.report(ended)
	if f := j.removed(nil); f != nil {
		fmt.Fprintln(os.Stderr, f.Text)
	}
	return ended
}

func failed(f *wire.Failure) wire.Event { return wire.Event{Kind: wire.EventFailed, Failure: f} }

// removed removes the control groups and adds a fault of that to f.
func (j *jail) removed(f *wire.Failure) *wire.Failure {
	if j.group == nil {
		return f
	}
	err := j.group.Remove(patience)
	if err == nil {
		return f
	}
	if f == nil {
		return &wire.Failure{Step: "remove control groups", Text: err.Error()}
	}
	f.Text += "; " + err.Error()
	return f
}

func (j *jail) makeGroup() error {
	h := j.server.host
	if h.Version() == "none" {
		return nil
	}
	const headroom = 16 // for init's own threads until they are counted
	g, err := h.Make(j.name, cgroup.Limits{Memory: j.spec.Limits.Memory, Processes: j.spec.Limits.Processes + headroom})
	if err != nil {
		return err
	}
	j.group = g
	return nil
}

// spawn forks init into its namespaces and puts it into its control groups.
func (j *jail) spawn() error {
	s := j.server
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make socket to init: %w", err)
	}
	j.sync = pair[0]
	defer closeAll(pair[1:])
	attr := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET |
			unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig: unix.SIGKILL,
		PidFD:     &j.pidfd,
	}
	msg := wire.Jail{Start: j.spec, Tree: -1, FilesFD: -1, Landlock: s.landlock, TmpBytes: j.spec.Limits.Memory / 2}
	files := []uintptr{
		uintptr(j.fds[0]), uintptr(j.fds[1]), uintptr(j.fds[2]), uintptr(j.fds[3]),
		uintptr(pair[1]), ^uintptr(0), ^uintptr(0),
	}
	if j.spec.Files > 0 && len(j.fds) > 4 {
		files[inside.FilesFD] = uintptr(j.fds[4])
		msg.FilesFD = inside.FilesFD
	}
	if s.root {
		// The tree may lie where the jail's users cannot go, so the mount is
		// made here and handed over.
		tree, err := unix.OpenTree(unix.AT_FDCWD, j.spec.Root, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return errors.Join(fmt.Errorf("open %s: %w", j.spec.Root, err), unix.Close(j.sync))
		}
		defer closeAll([]int{tree})
		files[inside.TreeFD] = uintptr(tree)
		msg.Tree, msg.WorkerID = inside.TreeFD, jailWorker
		initID, workerID := s.slots.hostIDs(j.slot)
		maps := []syscall.SysProcIDMap{{ContainerID: 0, HostID: initID, Size: 1}, {ContainerID: jailWorker, HostID: workerID, Size: 1}}
		attr.UidMappings, attr.GidMappings = maps, maps
		attr.GidMappingsEnableSetgroups = true
		attr.Credential = &syscall.Credential{Uid: 0, Gid: 0}
	} else {
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	if j.group != nil {
		tasks, err := j.group.Tasks()
		if err != nil {
			return errors.Join(err, unix.Close(j.sync))
		}
		for i, f := range tasks {
			defer func() { _ = f.Close() }() // written to by init only
			files = append(files, f.Fd())
			msg.Groups = append(msg.Groups, inside.GroupFD+i)
		}
	}
	s.fork(func() {
		j.pid, err = syscall.ForkExec("/proc/self/exe", []string{"jail", "init"}, &syscall.ProcAttr{
			Env: []string{"GOMAXPROCS=1"}, Files: files, Sys: attr, Dir: "/",
		})
	})
	if err != nil {
		return errors.Join(fmt.Errorf("clone: %w", err), unix.Close(j.sync))
	}
	if j.group != nil {
		if err := j.group.Attach(j.pid); err != nil {
			j.end()
			return errors.Join(err, unix.Close(j.sync))
		}
	}
	b, err := json.Marshal(msg)
	if err == nil {
		err = unix.Sendmsg(j.sync, b, nil, nil, unix.MSG_NOSIGNAL)
	}
	if err != nil {
		j.end()
		return errors.Join(fmt.Errorf("instruct init: %w", err), unix.Close(j.sync))
	}
	return nil
}

// setUp waits until init has started the worker and sets the worker's limits.
func (j *jail) setUp() (wire.Report, []int, *wire.Failure) {
	rep, fds, err := j.receive(setupTimeout)
	if err != nil {
		return rep, nil, &wire.Failure{Step: "set up jail", Text: err.Error()}
	}
	if rep.Kind == wire.ReportFailed && rep.Failure != nil {
		closeAll(fds)
		return rep, nil, rep.Failure
	}
	want := 1
	if j.spec.Network {
		want = 2
	}
	if rep.Kind != wire.ReportStarted || len(fds) != want {
		closeAll(fds)
		return rep, nil, &wire.Failure{Step: "set up jail", Text: "init answered " + rep.Kind}
	}
	if err := j.limitWorker(); err != nil {
		closeAll(fds)
		return rep, nil, &wire.Failure{Step: "limit worker", Text: err.Error()}
	}
	return rep, fds, nil
}

// receive waits for a report of init, or for a kill or the end of init.
func (j *jail) receive(timeout time.Duration) (rep wire.Report, fds []int, err error) {
	tv := unix.NsecToTimeval(timeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(j.sync, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return rep, nil, fmt.Errorf("set timeout: %w", err)
	}
	stop := make(chan struct{})
	var waker sync.WaitGroup
	waker.Go(func() {
		select {
		case <-j.killed:
			_ = unix.Shutdown(j.sync, unix.SHUT_RD) // wakes the read
		case <-stop:
		}
	})
	defer waker.Wait()
	defer close(stop)
	buf := make([]byte, 16<<10)
	oob := make([]byte, unix.CmsgSpace(2*4))
	for {
		n, on, _, _, err := unix.Recvmsg(j.sync, buf, oob, unix.MSG_CMSG_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return rep, nil, errors.New("init takes too long")
		case err != nil:
			return rep, nil, fmt.Errorf("listen to init: %w", err)
		case n == 0 && j.wasKilled():
			return rep, nil, errors.New("killed")
		case n == 0:
			return rep, nil, errors.New("init ended without a word")
		}
		fds = rights(oob[:on])
		return rep, fds, json.Unmarshal(buf[:n], &rep)
	}
}

// watch waits until the worker has ended or must end.
func (j *jail) watch() wire.Exit {
	stop := make(chan struct{})
	var wd sync.WaitGroup
	if j.needsWatchdog() {
		wd.Go(func() { j.watchdog(stop) })
	}
	rep, fds, err := j.receive(0)
	close(stop)
	wd.Wait()
	closeAll(fds)
	if err != nil || rep.Kind != wire.ReportExited {
		// Killed, by us or by the kernel for want of memory: init with all.
		return wire.Exit{Code: -1, Signal: int(unix.SIGKILL), Killed: j.wasKilled()}
	}
	return wire.Exit{Code: rep.Code, Signal: rep.Signal}
}

// end kills everything in the jail and waits for it. It reports false if
// something would not die.
func (j *jail) end() (*unix.Rusage, bool) {
	// The kernel kills the rest of the namespace with its first process, and
	// lets that be waited for only when all of them are gone.
	_ = unix.PidfdSendSignal(j.pidfd, unix.SIGKILL, nil, 0) // gone already: as well
	if !j.gone(atOnce) {
		if j.group != nil {
			_ = j.group.Hurry() // dying must not be throttled; if it is, it is only slow
		}
		if !j.gone(dying) {
			if j.group != nil {
				_ = j.group.Kill() // the last means; the slot is given up
			}
			return nil, false
		}
	}
	var ru unix.Rusage
	for {
		_, err := unix.Wait4(j.pid, nil, 0, &ru)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return &ru, err == nil
	}
}

// gone waits for the end of every process, for at most that long.
func (j *jail) gone(most time.Duration) bool {
	end := time.Now().Add(most)
	for {
		p := []unix.PollFd{{Fd: int32(j.pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, max(int(time.Until(end).Milliseconds()), 0)+1)
		if n > 0 {
			return true
		}
		if err != nil && !errors.Is(err, unix.EINTR) || !time.Now().Before(end) {
			return false
		}
	}
}

// account fills in what the jail consumed and whether memory ended it.
func (j *jail) account(exit *wire.Exit, ru *unix.Rusage) {
	if ru != nil {
		// Processes that were killed with init are in no one's account.
		exit.CPU = max(time.Duration(ru.Utime.Nano()+ru.Stime.Nano()), time.Duration(j.cpu.Load()))
		exit.Peak = max(ru.Maxrss<<10, j.peak.Load())
	}
	if j.group != nil {
		u := j.group.Usage()
		if u.CPU > 0 {
			exit.CPU = u.CPU
		}
		if u.Peak > 0 {
			exit.Peak = u.Peak
		}
		// Only a kill that ended the worker, or init with it, is the end of the
		// run; a child's is the worker's to handle.
		exit.OOM = u.OOM && exit.Signal == int(unix.SIGKILL) && !exit.Killed
	}
	if j.overMemory.Load() {
		exit.OOM, exit.Killed = true, false
	}
	exit.CPULimit = exit.Signal == int(unix.SIGXCPU)
}
