//go:build long

package server_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/server"
)

const (
	openStreams = 10_000
	streamsRole = "AGENTICRAFT_TEST_STREAM_SERVER"
)

// Issue 5: ten thousand open streams, server and client in two processes, do not
// fall over: each gets the end of its task, the program runs on meanwhile, and
// nothing of them is left. It prints the memory of an idle stream.
func TestTenThousandStreams(t *testing.T) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < openStreams+200 {
		fail := t.Skipf
		if os.Getenv("CI") != "" {
			fail = t.Fatalf
		}
		fail("the test needs %d open files, the limit is %d (%v): ulimit -n 20000", openStreams+200, limit.Cur, err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestStreamServer$", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), streamsRole+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	says := func() string {
		if !lines.Scan() {
			t.Fatalf("the server ended: %v", lines.Err())
		}
		return lines.Text()
	}
	url, id := says(), says()
	before := resident(t, cmd.Process.Pid)

	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var ready, ended atomic.Int64
	var streams sync.WaitGroup
	gate := make(chan struct{}, 64) // so many connect at a time
	for range openStreams {
		streams.Go(func() {
			gate <- struct{}{}
			body := `{"jsonrpc":"2.0","id":1,"method":"SubscribeToTask","params":{"id":"` + id + `"}}`
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header = http.Header{"A2a-Version": {a2a.Version}, "Content-Type": {"application/json"}, "Authorization": {"Bearer operator"}}
			res, err := hc.Do(req)
			if err != nil {
				<-gate
				t.Error(err)
				return
			}
			defer res.Body.Close()
			first := true
			read := bufio.NewReaderSize(res.Body, 512)
			for {
				line, err := read.ReadString('\n')
				if strings.HasPrefix(line, "data:") && first {
					first = false
					ready.Add(1)
					<-gate
				}
				if strings.Contains(line, "TASK_STATE_COMPLETED") {
					ended.Add(1)
				}
				if err != nil {
					return
				}
			}
		})
	}
	for deadline := time.Now().Add(5 * time.Minute); ready.Load() < openStreams; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d streams are open", ready.Load(), openStreams)
		}
	}
	fmt.Fprintln(in, "measure")
	says()
	after := resident(t, cmd.Process.Pid)
	t.Logf("%d idle streams: %.1f KiB each, server at %.0f MiB, before at %.0f MiB", openStreams, float64(after-before)/openStreams/1024, float64(after)/(1<<20), float64(before)/(1<<20))
	fmt.Fprintln(in, "end")
	streams.Wait()
	if ended.Load() != openStreams {
		t.Errorf("%d of %d streams saw the end of their task", ended.Load(), openStreams)
	}
	if left := says(); left != "0" {
		t.Errorf("%s goroutines of streams are left", left)
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	for lines.Scan() { // to its end
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the server: %v", err)
	}
}

// TestStreamServer is the other process of the test above.
func TestStreamServer(t *testing.T) {
	if os.Getenv(streamsRole) == "" {
		t.Skip("it is the server process of TestTenThousandStreams")
	}
	end := make(chan struct{})
	started := make(chan struct{}, 1)
	w := open(t, &fakePath{run: func(_ context.Context, _ a2a.Execution, _ server.Updates) a2a.Report {
		started <- struct{}{}
		<-end
		return a2a.Report{Status: a2a.Succeeded}
	}})
	id := begin(t, w.client(t, newKey(t)), started)
	// With a node's own deadlines, not the short ones of the other tests: here
	// ten thousand writes are due at once.
	binding := server.HTTP(server.HTTPConfig{Handler: w.Handler})
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		binding.ServeHTTP(rw, r.WithContext(server.WithCaller(r.Context(), w.caller(r))))
	}))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	fmt.Println(s.URL)
	fmt.Println(id)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch in.Text() {
		case "measure":
			runtime.GC()
			debug.FreeOSMemory()
			fmt.Println("measured")
		case "end":
			before := runtime.NumGoroutine()
			close(end)
			// Reading the stacks of so many stops them all: not before most have gone.
			for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
				if runtime.NumGoroutine() < before/10 && streamGoroutines() == 0 {
					break
				}
			}
			fmt.Println(streamGoroutines())
		}
	}
}

// streamGoroutines counts the goroutines that serve streams.
func streamGoroutines() int {
	buf := make([]byte, 64<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), "(*reader).follow(")
}

// resident is the memory of a process, in bytes.
func resident(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
