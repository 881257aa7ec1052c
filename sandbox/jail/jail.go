// Package jail runs programs in jails made of namespaces, seccomp, Landlock,
// resource limits and, where they may be used, control groups.
//
// Nothing of a jail is made by the calling process itself. [Start] runs a
// small static helper as a spawner; the spawner runs the same helper as the
// init of every jail; init closes the jail and runs the program in it, the
// worker. The spawner outlives a killed caller just long enough to end every
// jail and remove every trace.
package jail

import (
	"context"
	"errors"
	"maps"
	"os"
	"sync"
	"time"

	"github.com/agenticraft/node/sandbox"
)

// ErrLost: the spawner died under a running jail. The jail is gone as well.
var ErrLost = errors.New("jail lost")

// Exit is how a jail ended.
type Exit struct {
	Code     int  // of the worker, -1 if a signal ended it
	Signal   int  // that ended the worker, or 0
	OOM      bool // the memory limit killed something in the jail
	CPULimit bool // the worker used up its CPU seconds
	Killed   bool // Kill was called before the worker ended by itself
	Usage    sandbox.Usage
}

// Jail is one complete jail whose worker has been started. Its methods may be
// called concurrently. [Jail.Release] must be called once it is of no more use.
type Jail struct {
	spawner *life
	id      uint64
	began   time.Time

	control, stdin, stdout, stderr *os.File

	started chan struct{} // closed when the worker runs or could not be made
	done    chan struct{} // closed when everything in the jail is dead

	mu       sync.Mutex // guards the rest
	work     *os.File
	listener *os.File
	enforced map[string]string
	err      error // of the start, or of the end
	exit     Exit
	settled  bool        // started is closed
	over     bool        // done is closed
	hang     *time.Timer // runs from Kill to the end
	limited  chan error  // takes the answer to a Lower under way, else nil
}

// Control is the private channel to the worker's descriptor 3: a stream that
// supports deadlines. All that comes from it is hostile.
func (j *Jail) Control() *os.File { return j.control }

// Stdin feeds the worker's standard input; closing it is its end of file.
func (j *Jail) Stdin() *os.File { return j.stdin }

// Stdout is what the worker and its children print. It ends when all of them
// are gone.
func (j *Jail) Stdout() *os.File { return j.stdout }

// Stderr is like [Jail.Stdout].
func (j *Jail) Stderr() *os.File { return j.stderr }

// WorkDir is the jail's working folder, open for as long as the jail is not
// released, even after everything in the jail is dead. Use [Jail.Collect] to
// read it: what lies in it is hostile.
func (j *Jail) WorkDir() *os.File {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.work
}

// Listener takes the connections that the jail with [Profile.Network] opens to
// [ProxyAddress]. It was made in the jail's own network, which nothing else can
// reach. The caller, who is given it once, closes it; until then that network
// lives. Without such a profile, and the second time, it is nil.
func (j *Jail) Listener() *os.File {
	j.mu.Lock()
	defer j.mu.Unlock()
	l := j.listener
	j.listener = nil
	return l
}

// Enforced says what holds each limit of this jail: limit to mechanism.
func (j *Jail) Enforced() map[string]string {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := make(map[string]string, len(j.enforced))
	maps.Copy(out, j.enforced)
	return out
}

// Done is closed when everything in the jail is dead.
func (j *Jail) Done() <-chan struct{} { return j.done }

// Kill ends everything in the jail. It returns at once; [Jail.Wait] tells when
// it is done. Calling it again, or after the end, does nothing.
func (j *Jail) Kill() { j.spawner.kill(j) }

// Wait returns when every process of the jail is dead, or when ctx is done. Its
// empty control groups are removed a moment later, at the latest when the
// spawner is closed. An error wrapping [ErrLost] or
// [sandbox.ErrUnavailable] means that how the worker ended is not known.
func (j *Jail) Wait(ctx context.Context) (Exit, error) {
	select {
	case <-j.done:
	case <-ctx.Done():
		return Exit{}, context.Cause(ctx)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.exit, j.err
}

// Release kills the jail if it still runs, and closes all descriptors. It does
// not wait. It may be called twice.
func (j *Jail) Release() {
	select {
	case <-j.done:
	default:
		j.Kill()
	}
	for _, f := range []*os.File{j.control, j.stdin, j.stdout, j.stderr} {
		if f != nil {
			_ = f.Close() // closing a pipe end that may be closed already
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.work != nil {
		_ = j.work.Close()
		j.work = nil
	}
	if j.listener != nil {
		_ = j.listener.Close() // nobody took it
		j.listener = nil
	}
	if j.settled {
		return
	}
	// The start is still under way: its folder is closed when it arrives.
	j.settled = true
	close(j.started)
}
