// Package wire holds the messages between the node, the spawner and the init
// of a jail: JSON in packets of Unix sockets, file descriptors beside them.
//
// Node and helper come from one build, so the messages carry no version; the
// helper is embedded in the node.
package wire

import "time"

// MaxPacket bounds one message in bytes.
const MaxPacket = 128 << 10

// Operations of a [Request].
const (
	OpStart = "start" // fds: stdin, stdout, stderr, control, and files if Start.Files > 0
	OpKill  = "kill"
	OpLimit = "limit" // lowers the limits of a jail that runs; answered by EventLimited
)

// Request is what the node asks of the spawner.
type Request struct {
	Op    string `json:"op"`
	ID    uint64 `json:"id"` // chosen by the node, names the jail in every event
	Start *Start `json:"start,omitempty"`
	// Limits of OpLimit: none may exceed the one in force, and Files must be the same.
	Limits *Limits `json:"limits,omitempty"`
}

// Start describes one jail.
type Start struct {
	Name    string   `json:"name"` // in cgroup names
	Root    string   `json:"root"` // language tree on the host, becomes the jail's read-only root
	Argv    []string `json:"argv"`
	Env     []string `json:"env"`
	Limits  Limits   `json:"limits"`
	Worker  bool     `json:"worker"`  // a Go program: RLIMIT_DATA instead of RLIMIT_AS
	Tight   bool     `json:"tight"`   // the worker will restrict itself further, see package seccomp
	Proc    bool     `json:"proc"`    // mount a private /proc
	Network bool     `json:"network"` // TCP to a listener on the jail's loopback, which the node gets
	Files   int      `json:"files"`   // number of files that follow on the files descriptor
	Require []string `json:"require"` // limits that must be enforced
}

// Limits of one jail; all are set.
type Limits struct {
	Memory     int64         `json:"memory"`
	CPUPercent int           `json:"cpu_percent"`
	Wall       time.Duration `json:"wall"`
	FileSize   int64         `json:"file_size"`
	Files      int           `json:"files"`
	Processes  int           `json:"processes"`
}

// Kinds of an [Event].
const (
	EventHello   = "hello"   // once, before anything else
	EventStarted = "started" // fds: the jail's working folder, and the listener if Start.Network
	EventFailed  = "failed"  // the jail could not be made; nothing of it is left
	EventLimited = "limited" // the answer to OpLimit, with a Failure if not all of it was done
	EventEnded   = "ended"   // the jail is gone
)

// Event is what the spawner tells the node.
type Event struct {
	Kind     string            `json:"kind"`
	ID       uint64            `json:"id,omitempty"`
	Hello    *Hello            `json:"hello,omitempty"`
	Enforced map[string]string `json:"enforced,omitempty"`
	Failure  *Failure          `json:"failure,omitempty"`
	Exit     *Exit             `json:"exit,omitempty"`
}

// Hello says what the spawner found on the machine.
type Hello struct {
	Features map[string]string `json:"features"` // feature -> "ok" or the kernel's answer
	Cgroup   string            `json:"cgroup"`   // "v1", "v2", "hybrid" or "none"
	Enforces map[string]string `json:"enforces"` // limit -> mechanism
	Swept    int               `json:"swept"`    // cgroups of an earlier spawner of this node removed
}

// Failure is why a jail could not be made.
type Failure struct {
	Step  string `json:"step"`            // what was being done
	Text  string `json:"text"`            // the kernel's answer
	Limit string `json:"limit,omitempty"` // set when a required limit could not be enforced
	Busy  bool   `json:"busy,omitempty"`  // no free slot
}

// Exit is how a jail ended.
type Exit struct {
	Code     int           `json:"code"`   // of the worker; -1 if a signal ended it
	Signal   int           `json:"signal"` // that ended the worker, or 0
	OOM      bool          `json:"oom"`    // the memory limit killed something
	CPULimit bool          `json:"cpu_limit"`
	Killed   bool          `json:"killed"` // at the node's request
	Fault    string        `json:"fault"`  // the jail's own failure: the rest means nothing
	CPU      time.Duration `json:"cpu"`
	Peak     int64         `json:"peak"` // bytes
}

// Jail is what the spawner tells the init of a jail, once cgroups are in place.
type Jail struct {
	Start    Start `json:"start"`
	Tree     int   `json:"tree"`      // descriptor of the detached mount of Root, or -1
	FilesFD  int   `json:"files_fd"`  // descriptor the files come from, or -1
	Groups   []int `json:"groups"`    // descriptors of control groups to join, see cgroup.Group.Tasks
	WorkerID int   `json:"worker_id"` // uid and gid of the worker in the jail
	TmpBytes int64 `json:"tmp_bytes"` // size of /work and /tmp together
	Landlock bool  `json:"landlock"`  // the kernel has it
}

// Kinds of a [Report].
const (
	ReportStarted = "started" // fds: the working folder, and the listener if Start.Network
	ReportFailed  = "failed"
	ReportExited  = "exited"
)

// Report is what the init of a jail tells the spawner.
type Report struct {
	Kind     string   `json:"kind"`
	Failure  *Failure `json:"failure,omitempty"`
	Proc     bool     `json:"proc,omitempty"`
	Landlock int      `json:"landlock,omitempty"` // ABI in force, 0 for none
	Code     int      `json:"code,omitempty"`
	Signal   int      `json:"signal,omitempty"`
}

// File heads one file on the files descriptor: Size bytes of content follow.
// On the wire it is a big-endian uint16 length of the path, a uint64 size, the
// path, the content.
type File struct {
	Path string
	Size int64
}

// ProxyPort is where a jail with a network reaches its proxy, on its own
// loopback interface. Every jail has a network of its own, so one number does.
const ProxyPort = 3128

// CertificatesFrom and CertificatesAt are where the host keeps the certificates
// of public authorities and where a jail with a network finds them.
const (
	CertificatesFrom = "/etc/ssl/certs/ca-certificates.crt"
	CertificatesAt   = "/ca.pem"
)

// Descriptors of a worker beside stdin, stdout and stderr.
const ControlFD = 3
