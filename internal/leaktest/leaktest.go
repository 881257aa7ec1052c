// Package leaktest fails a package's tests when they leave goroutines behind.
package leaktest

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// grace is how long goroutines may take to end after the last test.
const grace = 30 * time.Second

// Run runs the tests and gives the exit code for os.Exit: that of the tests, or
// 1 if a goroutine stays whose stack mentions one of marks, such as "node/mesh"
// or "libp2p". It prints those. It is called from TestMain.
func Run(m *testing.M, marks ...string) int { return run(m, grace, marks) }

func run(m *testing.M, grace time.Duration, marks []string) int {
	code := m.Run()
	if f := flag.Lookup("test.fuzz"); code != 0 || f != nil && f.Value.String() != "" {
		return code // the fuzzer keeps goroutines of its own
	}
	http.DefaultClient.CloseIdleConnections()
	for end := time.Now().Add(grace); ; time.Sleep(10 * time.Millisecond) {
		left := lingering(marks)
		if len(left) == 0 {
			return code
		}
		if time.Now().After(end) {
			fmt.Fprintf(os.Stderr, "%d goroutines were left behind:\n%s\n", len(left), strings.Join(left, "\n\n"))
			return 1
		}
	}
}

// lingering are the stacks that mention one of marks, without the caller's.
func lingering(marks []string) []string {
	buf := make([]byte, 8<<20)
	buf = buf[:runtime.Stack(buf, true)]
	_, others, _ := strings.Cut(string(buf), "\n\n") // the first is this goroutine
	var left []string
	for stack := range strings.SplitSeq(others, "\n\n") {
		for _, mark := range marks {
			if strings.Contains(stack, mark) {
				left = append(left, stack)
				break
			}
		}
	}
	return left
}
