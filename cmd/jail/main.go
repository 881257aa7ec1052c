//go:build linux

// Command jail is the helper that makes, guards and fills jails. It is
// embedded in the node, which runs it as the spawner; the spawner runs it as
// the init of every jail; a container's engine runs it as process 1; and a jail
// may run it as one of its workers.
package main

import (
	"fmt"
	"os"
	"runtime"

	"github.com/agenticraft/node/sandbox/jail/inside"
	"github.com/agenticraft/node/sandbox/jail/seccomp"
	"github.com/agenticraft/node/sandbox/jail/spawn"
)

// The main goroutine keeps the main thread: a child's death signal follows
// the thread that made it, and init hands credentials on by thread.
func init() { runtime.LockOSThread() }

func main() {
	mode := ""
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	switch mode {
	case "spawner":
		os.Exit(spawn.Main(os.Args[2:]))
	case "init":
		os.Exit(inside.Main())
	case "container":
		os.Exit(inside.Contained(os.Args[2:]))
	}
	worker, ok := workers[mode]
	if !ok {
		fmt.Fprintln(os.Stderr, "jail: this is a helper of agenticraft and not for use by hand")
		os.Exit(2)
	}
	if err := worker(os.Args[2:], seccomp.Tighten); err != nil {
		fmt.Fprintf(os.Stderr, "jail: %s: %v\n", mode, err)
		os.Exit(4)
	}
}
