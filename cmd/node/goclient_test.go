package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/client"
	"github.com/agenticraft/node/audit"
)

// flaky passes TCP on to a node and cuts each connection after some bytes from
// there.
type flaky struct {
	at   string
	most int64 // bytes

	mu   sync.Mutex
	cuts int
}

func startFlaky(t *testing.T, node string, most int64) (*flaky, string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &flaky{at: strings.TrimPrefix(node, "http://"), most: most}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() { f.pass(in) })
		}
	})
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		work.Wait()
	})
	return f, "http://" + l.Addr().String()
}

func (f *flaky) pass(in net.Conn) {
	defer in.Close()
	out, err := new(net.Dialer).DialContext(context.Background(), "tcp", f.at)
	if err != nil {
		return
	}
	defer out.Close()
	var up sync.WaitGroup
	up.Go(func() {
		_, _ = io.Copy(out, in) // whose end is the connection's
		_ = out.Close()
	})
	if n, _ := io.Copy(in, io.LimitReader(out, f.most)); n == f.most {
		f.mu.Lock()
		f.cuts++
		f.mu.Unlock()
	}
	_ = in.Close()
	up.Wait()
}

// The Go client against a real node, over connections that break all the
// time: it gets every byte once, the program runs once, and its receipt holds.
func TestGoClient(t *testing.T) {
	needPython(t)
	c := startCluster(t, 1)
	w := newWire(t, c)
	node, err := client.Discover(t.Context(), c.Nodes[0].HTTP, client.Config{Key: w.key, Node: c.Nodes[0].ID})
	if err != nil {
		t.Fatal(err)
	}
	way, url := startFlaky(t, c.Nodes[0].HTTP, 30_000)
	hc := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(hc.CloseIdleConnections) // else the way lasts as long as they
	over, err := client.New(client.Config{URL: url + a2aPath, HTTPClient: hc, Key: w.key, Audience: w.audience})
	if err != nil {
		t.Fatal(err)
	}
	req, err := a2a.NewRequest(a2a.Execution{Language: "python", Code: "import time\nfor i in range(400):\n    print(i, 'x' * 20, flush=True)\n    time.sleep(0.002)\nresult = 'all'"})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	task, err := client.Follow(over.Stream(t.Context(), req, nil), client.Watcher{Output: func(_ string, at int64, data []byte) {
		if int(at) != out.Len() {
			t.Errorf("output at %d after %d bytes", at, out.Len())
		}
		out.Write(data)
	}})
	if err != nil {
		t.Fatal(err)
	}
	report, err := node.Wait(t.Context(), string(task.ID))
	if err != nil {
		t.Fatal(err)
	}
	rep, err := a2a.ReportOf(report)
	if err != nil || string(rep.Result) != `"all"` || out.String() != rep.Stdout || strings.Count(rep.Stdout, "\n") != 400 {
		t.Errorf("%d bytes of output, report %s of %d bytes, %v", out.Len(), rep.Result, len(rep.Stdout), err)
	}
	if way.mu.Lock(); way.cuts < 3 {
		t.Errorf("the connection was cut %d times only", way.cuts)
	}
	way.mu.Unlock()
	if n := w.intents(); n != 1 {
		t.Errorf("%d intents, want 1", n)
	}

	receipt, err := node.Receipt(t.Context(), string(task.ID))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(c.Trust)
	if err != nil {
		t.Fatal(err)
	}
	trust, err := audit.ParseTrust(text)
	if err != nil {
		t.Fatal(err)
	}
	if checks, err := audit.VerifyReceipt(receipt, trust, requestFacts); err != nil {
		t.Errorf("receipt: %v, %+v", err, checks)
	}
	if _, err := node.Receipt(t.Context(), strings.Repeat("0", 32)); a2a.FromWire(err).Code != a2a.CodeNotFound {
		t.Errorf("receipt of nothing: %v", err)
	}

	// Waiting for what still runs.
	slow, err := a2a.NewRequest(a2a.Execution{Language: "python", Code: "import time; time.sleep(1); result = 'waited'"})
	if err != nil {
		t.Fatal(err)
	}
	slow.Config = immediately()
	started, err := node.Send(t.Context(), slow, nil)
	if err != nil || started.Status.State.Terminal() {
		t.Fatalf("task %+v, %v", started, err)
	}
	if task, err = over.Wait(t.Context(), string(started.ID)); err != nil {
		t.Fatal(err)
	}
	if rep, err := a2a.ReportOf(task); err != nil || string(rep.Result) != `"waited"` {
		t.Errorf("report %+v, %v", rep, err)
	}
}
