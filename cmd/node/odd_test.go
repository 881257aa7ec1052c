package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/agenticraft/node/a2a"
)

// oddWait ends a request that hangs.
const oddWait = time.Minute

// oddDoors are the doors of a node as a client without manners uses them.
type oddDoors struct {
	t    *testing.T
	addr string // of the HTTP port
	grpc string // address of gRPC's own port
	key  string // an API key
	one  *http.Client
	two  *http.Client // HTTP/2 in the clear
}

func newOddDoors(t *testing.T, c *testCluster) *oddDoors {
	one := &http.Transport{}
	two := &http.Transport{Protocols: new(http.Protocols)}
	two.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(one.CloseIdleConnections)
	t.Cleanup(two.CloseIdleConnections)
	return &oddDoors{t: t, addr: strings.TrimPrefix(c.Nodes[0].HTTP, "http://"), key: c.APIKey, one: &http.Client{Transport: one}, two: &http.Client{Transport: two}}
}

type oddAnswer struct {
	status int
	header http.Header // with the trailer
	body   string
}

// ask sends a request. A header of several lines is sent as often.
func (d *oddDoors) ask(hc *http.Client, method, path, body string, header map[string]string) (oddAnswer, error) {
	ctx, cancel := context.WithTimeout(d.t.Context(), oddWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+d.addr, strings.NewReader(body))
	if err != nil {
		return oddAnswer{}, err
	}
	req.URL.Opaque = "//" + d.addr + path // as it is written
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("A2A-Version", a2a.Version)
	req.Header.Set("Authorization", "Bearer "+d.key)
	for name, value := range header {
		req.Header.Del(name)
		for line := range strings.SplitSeq(value, "\n") {
			if line != "" {
				req.Header.Add(name, line)
			}
		}
	}
	res, err := hc.Do(req)
	if err != nil {
		return oddAnswer{}, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	maps.Copy(res.Header, res.Trailer)
	return oddAnswer{res.StatusCode, res.Header, string(text)}, err
}

// goroutines counts those of a node, without what the count itself needs.
func (d *oddDoors) goroutines() int {
	d.t.Helper()
	d.one.CloseIdleConnections()
	d.two.CloseIdleConnections()
	got, err := d.ask(d.one, http.MethodGet, "/metrics", "", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	_, text, _ := strings.Cut(got.body, "\ngo_goroutines ")
	text, _, _ = strings.Cut(text, "\n")
	n, err := strconv.Atoi(text)
	if err != nil {
		d.t.Fatal(err)
	}
	return n
}

// Issue 5, bad input: whatever comes to a door is answered in the door's own form,
// at once, never as a fault of the node, and leaves nothing behind.
func TestOddRequests(t *testing.T) {
	broker := startBroker(t, false)
	port, err := devPorts(t.Context(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("AGENTICRAFT_GRPC_LISTEN", fmt.Sprintf("127.0.0.1:%d", port))
	c := startCluster(t, 1)
	d := newOddDoors(t, c)
	d.grpc = os.Getenv("AGENTICRAFT_GRPC_LISTEN")
	conn := broker.Connect(nats.UserInfo("client", clientPassword))
	awaitService(c, conn, 1)
	if rep, r := c.exec(0, "--lang", "starlark", "-c", "result = 1"); r.code != exitOK {
		t.Fatalf("a run before all that: %+v", rep)
	}
	before := d.goroutines()
	t.Run("JSON-RPC", func(t *testing.T) { d.oddRPC(t, conn) })
	t.Run("headers", d.oddHeaders)
	t.Run("HTTP+JSON", d.oddREST)
	t.Run("gRPC", d.oddGRPC)
	t.Run("frames", d.oddFrames)
	t.Run("gRPC's own port", func(t *testing.T) {
		own := *d
		own.addr = d.grpc
		t.Run("requests", own.oddGRPC)
		t.Run("frames", own.oddFrames)
		own.manySmall(t)
	})
	t.Run("v1", d.oddV1)
	t.Run("others' tasks", func(t *testing.T) { d.oddOthers(t, c, conn) })
	t.Run("connections", d.oddConnections)

	c.await("the goroutines of all that to end", func() bool { return d.goroutines() <= before+5 })
	for _, bad := range []string{"request failed", "panic", "level=ERROR"} {
		if logs := c.logs(); strings.Contains(logs, bad) {
			t.Errorf("the log says %q:\n%s", bad, logs)
		}
	}
	if rep, r := c.exec(0, "--lang", "starlark", "-c", "result = 1"); r.code != exitOK {
		t.Errorf("a run after all that: %+v", rep)
	}
}
