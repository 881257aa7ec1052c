package jail

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail/wire"
)

// Sets of system calls, see package seccomp.
const (
	SyscallsPython = "python" // what an interpreter and its threads need
	SyscallsWorker = "worker" // the same until the worker has started, then only what a Go worker needs
)

// Profile describes one jail.
type Profile struct {
	ID       string         // names the jail in cgroups and logs; [a-z0-9-]
	Root     string         // language tree on the host, the jail's read-only root; "" for one that holds only the helper at /jail
	Argv     []string       // program and arguments inside the jail
	Env      []string       // the whole environment
	Limits   sandbox.Limits // zero fields mean the defaults of [Normalize]
	Worker   bool           // a Go program: memory is RLIMIT_DATA, not RLIMIT_AS, where there is no cgroup
	Syscalls string         // [SyscallsPython] (default) or [SyscallsWorker]
	Files    []sandbox.File // placed in the working folder before the program starts
	Required []string       // limits without which Start must refuse
	Network  bool           // TCP to [Jail.Listener], which must then be served, and nowhere else
	Proc     bool           // mount a private /proc that shows only the jail's own processes
}

// ProxyAddress and Certificates are where a worker with a network finds its
// proxy, and the certificates of public authorities in PEM, if the host has them
// at CertificatesFrom.
const (
	ProxyPort        = wire.ProxyPort
	ProxyAddress     = "127.0.0.1:3128"
	Certificates     = wire.CertificatesAt
	CertificatesFrom = wire.CertificatesFrom
)

// Bounds of a profile.
const (
	maxID    = 64
	maxArgs  = 64 << 10 // bytes of arguments and environment together
	maxFiles = 10_000
)

var idPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)

// Normalize fills zero limits with modest defaults.
func Normalize(l sandbox.Limits) sandbox.Limits {
	set := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&l.Memory, 256<<20)
	set(&l.Output, 1<<20)
	set(&l.FileSize, 16<<20)
	set(&l.Result, 1<<20)
	if l.CPUPercent <= 0 {
		l.CPUPercent = 100
	}
	if l.Wall <= 0 {
		l.Wall = 30 * time.Second
	}
	if l.Files <= 0 {
		l.Files = 1024
	}
	if l.Processes <= 0 {
		l.Processes = 32
	}
	return l
}

// minimum memory with which a jail can start at all, in bytes.
const minMemory = 16 << 20

func (p Profile) start(minRoot string) (*wire.Start, error) {
	bad := func(format string, args ...any) (*wire.Start, error) {
		return nil, fmt.Errorf("%w: %s", sandbox.ErrSpec, fmt.Sprintf(format, args...))
	}
	if !idPattern.MatchString(p.ID) {
		return bad("id %.80q is not 1 to %d of a-z, 0-9 and -", p.ID, maxID)
	}
	if len(p.Argv) == 0 || !strings.HasPrefix(p.Argv[0], "/") {
		return bad("the program must be an absolute path")
	}
	size := 0
	for _, s := range append(append([]string(nil), p.Argv...), p.Env...) {
		if strings.ContainsRune(s, 0) {
			return bad("NUL in an argument")
		}
		size += len(s) + 1
	}
	if size > maxArgs {
		return bad("arguments and environment exceed %d bytes", maxArgs)
	}
	l := Normalize(p.Limits)
	if l.Memory < minMemory {
		return bad("memory limit of %d bytes is below %d", l.Memory, int64(minMemory))
	}
	if err := checkFiles(p.Files, l); err != nil {
		return nil, err
	}
	root := p.Root
	if root == "" {
		root = minRoot
	}
	if p.Network && p.Syscalls == SyscallsWorker {
		return bad("a worker has no network")
	}
	tight := false
	switch p.Syscalls {
	case "", SyscallsPython:
	case SyscallsWorker:
		tight = true
	default:
		return bad("unknown set of system calls %q", p.Syscalls)
	}
	return &wire.Start{
		Name: p.ID, Root: root, Argv: p.Argv, Env: p.Env,
		Limits: wireLimits(l),
		Worker: p.Worker, Tight: tight, Proc: p.Proc, Network: p.Network, Files: len(p.Files), Require: p.Required,
	}, nil
}

func wireLimits(l sandbox.Limits) wire.Limits {
	return wire.Limits{
		Memory: l.Memory, CPUPercent: l.CPUPercent, Wall: l.Wall,
		FileSize: l.FileSize, Files: l.Files, Processes: l.Processes,
	}
}

func checkFiles(files []sandbox.File, l sandbox.Limits) error {
	if len(files) > maxFiles || len(files) > l.Files {
		return fmt.Errorf("%w: %d files, more than %d", sandbox.ErrSpec, len(files), min(maxFiles, l.Files))
	}
	var total int64
	for _, f := range files {
		if !wire.ValidPath(f.Path) {
			return fmt.Errorf("%w: file path %.80q is not a clean relative path", sandbox.ErrSpec, f.Path)
		}
		if int64(len(f.Content)) > l.FileSize {
			return fmt.Errorf("%w: file %.80q is larger than %d bytes", sandbox.ErrSpec, f.Path, l.FileSize)
		}
		total += int64(len(f.Content))
	}
	if total > scratch(l.Memory) {
		return fmt.Errorf("%w: files hold %d bytes, more than the working folder of %d", sandbox.ErrSpec, total, scratch(l.Memory))
	}
	return nil
}

// scratch is the size of the working and temporary folders together, in bytes.
func scratch(memory int64) int64 { return memory / 2 }
