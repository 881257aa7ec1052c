package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/mesh"
)

// oddMember is a member of the cluster that went bad: its node is gone, and its key
// is in the hands of somebody without manners.
type oddMember struct {
	*mesh.Node
	to    identity.ID // whom it plagues
	links *links
	end   func()
}

func newOddMember(t *testing.T, c *testCluster, node, to int) *oddMember {
	t.Helper()
	meshOf := func(i int) (addrs []string) {
		text, err := os.ReadFile(filepath.Join(c.Nodes[i].Data, "config.yaml"))
		var config struct{ Mesh []string }
		if err == nil {
			err = yaml.Unmarshal(text, &config)
		}
		if err != nil || len(config.Mesh) == 0 {
			t.Fatalf("where node %d listens: %v, %v", i+1, config.Mesh, err)
		}
		for _, addr := range config.Mesh {
			addrs = append(addrs, addr+"/p2p/"+string(c.Nodes[i].ID))
		}
		return addrs
	}
	cluster := c.clusterName()
	c.kill(node)
	key, err := identity.Load(filepath.Join(c.Nodes[node].Data, "node.key"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := mesh.New(mesh.Config{Key: key, Cluster: cluster, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Allow: func(identity.ID) bool { return true }})
	if err != nil {
		t.Fatal(err)
	}
	m := &oddMember{Node: n, to: c.Nodes[to].ID, links: newLinks()}
	m.links.node = n
	n.SetPeers(map[identity.ID][]string{m.to: meshOf(to)})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = n.Run(ctx) }) // until it is closed
	m.end = sync.OnceFunc(func() {
		cancel()
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		running.Wait()
	})
	t.Cleanup(m.end)
	c.await("the odd member to be let in", func() bool {
		conn, err := n.Dial(ctx, m.to, protocolA2A)
		return err == nil && conn.Close() == nil
	})
	return m
}

// say opens a stream, says something, and reads what comes until the node hangs up.
func (m *oddMember) say(t *testing.T, protocol, say string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), oddWait)
	defer cancel()
	conn, err := m.Dial(ctx, m.to, protocol)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(oddWait)); err != nil {
		t.Fatal(err)
	}
	said := make(chan struct{})
	go func() { // the node may answer, and hang up, before it has read all
		defer close(said)
		_, _ = io.WriteString(conn, say)
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}()
	out, err := io.ReadAll(conn)
	_ = conn.Close()
	<-said
	return string(out), err
}

// Issue 5, bad input: a member's key buys nobody a way to harm another node. What
// comes on its streams is answered or hung up on, at once, and leaves nothing behind.
func TestOddStreams(t *testing.T) {
	c := startCluster(t, 3)
	d := newOddDoors(t, c)
	m := newOddMember(t, c, 2, 0)
	c.await("the two others to carry on", func() bool {
		_, r := c.exec(0, "--lang", "starlark", "-c", "result = 1")
		return r.code == exitOK
	})
	before := d.goroutines()

	hc := m.links.client(m.to, protocolA2A)
	for name, odd := range oddBodies() {
		got, err := d.ask(hc, http.MethodPost, "/", odd.body, map[string]string{"Authorization": ""})
		if err != nil || got.status != http.StatusOK {
			t.Errorf("%s: %d, %v", name, got.status, err)
			continue
		}
		if !strings.Contains(got.body, `"signature_missing"`) { // what else is wrong is not looked at between nodes
			d.wantRPC(t, name, got.body, odd.want)
		}
	}
	id := strings.Repeat("0", 32)
	for _, tc := range []struct {
		line   string
		status int
	}{
		{"POST /tasks", 400},
		{"POST /tasks \x00", 400},
		{"POST /tasks []", 400},
		{"POST /tasks " + strings.Repeat("[", 60_000), 400},
		{`POST /tasks {"limit":"x"}`, 400},
		{"POST /tasks " + strings.Repeat(" ", maxPeerQuery) + "{}", 400},
		{"PUT /tasks {}", 405},
		{"GET /", 405},
		{"GET /receipt/" + id, 404},
		{"GET /receipt/..%2f..%2fnode.key", 404},
		{"GET /receipt/%00", 404},
		{"GET /evidence/..%2f..%2fnode.key", 403},
		{"DELETE /evidence/" + id, 403},
		{"GET /evidence?sha256=" + id + id, 403},
		{"GET /evidence?sha256=../x", 403},
	} {
		method, rest, _ := strings.Cut(tc.line, " ")
		path, body, _ := strings.Cut(rest, " ")
		if got, err := d.ask(hc, method, path, body, nil); err != nil || got.status != tc.status || strings.Contains(got.body, "PRIVATE") {
			t.Errorf("%.60q: %d %.100q, %v, want %d", tc.line, got.status, got.body, err, tc.status)
		}
	}
	for name, header := range map[string]map[string]string{
		"a delegation that is none":   {"Agenticraft-Delegation": "!!!"},
		"a delegation of nobody":      {"Agenticraft-Delegation": "e30"},
		"a delegation of 100,000":     {"Agenticraft-Delegation": strings.Repeat("A", 100_000)},
		"a door that there is not":    {"Agenticraft-Door": "window"},
		"a version that there is not": {"A2A-Version": "\xff"},
	} {
		got, err := d.ask(hc, http.MethodPost, "/", oddMessage(`{"messageId":"m","role":"ROLE_USER","parts":[{"text":"x"}]}`), header)
		if err != nil || !strings.Contains(got.body, `"error"`) || strings.Contains(got.body, "internal") {
			t.Errorf("%s: %d %.200s, %v", name, got.status, got.body, err)
		}
	}

	post := "POST / HTTP/1.1\r\nHost: x\r\nA2A-Version: 1.0\r\nContent-Type: application/json\r\n"
	for name, tc := range map[string]struct{ say, want string }{
		"nothing":              {"", ""},
		"not HTTP":             {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "HTTP/1.1 400"},
		"NUL bytes":            {strings.Repeat("\x00", 5000) + "\r\n\r\n", "HTTP/1.1 400"},
		"HTTP/2":               {h2Preface + h2Frame(h2Settings, 0, 0, ""), "HTTP/1.1 "},
		"half a request":       {post[:20], ""},
		"half a body":          {post + "Content-Length: 100\r\n\r\n{", "HTTP/1.1 200"}, // did not arrive whole, in JSON-RPC's form
		"a length of 8 EiB":    {post + "Content-Length: 9223372036854775807\r\n\r\n", "HTTP/1.1 200"},
		"broken chunks":        {post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", "HTTP/1.1 200"},
		"headers of 200 KB":    {post + "X: " + strings.Repeat("y", 200<<10) + "\r\n\r\n", "HTTP/1.1 431"},
		"headers without end":  {post + "X: " + strings.Repeat("y", 2<<20), "HTTP/1.1 431"},
		"a tunnel":             {"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n", "HTTP/1.1 40"},
		"a body of 9 MiB":      {post + fmt.Sprintf("Content-Length: %d\r\n\r\n", 9<<20) + strings.Repeat(" ", 9<<20), "HTTP/1.1 200"}, // too_large
		"chunks of 9 MiB":      {post + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("100000\r\n"+strings.Repeat(" ", 1<<20)+"\r\n", 9) + "0\r\n\r\n", "HTTP/1.1 200"},
		"a header with no end": {"GET / HTTP/1.1\r\nHost: x\r\nX", ""},
	} {
		answer, err := m.say(t, protocolA2A, tc.say)
		if err != nil && tc.want == "" && !os.IsTimeout(err) {
			continue // hung up on
		}
		if err != nil && !strings.HasPrefix(answer, "HTTP/1.1 ") || !strings.HasPrefix(answer, tc.want) {
			t.Errorf("%s: %.200q, %v, want %s", name, answer, err, tc.want)
		}
	}
	garbage := []string{"\x00", strings.Repeat("\xff", 1<<20), "\x00\xff\xff\xff\xff", strings.Repeat("{", 100_000), "GET / HTTP/1.1\r\n\r\n"}
	for _, protocol := range []string{protocolLog, "raft", "presence", mesh.GuestProtocol, "bogus", "a2a/2", strings.Repeat("x", 500)} {
		for _, say := range garbage {
			if answer, err := m.say(t, protocol, say); os.IsTimeout(err) {
				t.Errorf("%.20s, %.10q: hangs (%.100q)", protocol, say, answer)
			}
		}
	}
	m.slowAndMany(t, d, hc)
	m.pipelined(t)
	m.byteByByte(t)

	m.end()
	c.await("the goroutines of all that to end", func() bool { return d.goroutines() <= before+20 })
	for _, bad := range []string{"request failed", "panic", "level=ERROR"} {
		text, err := os.ReadFile(filepath.Join(c.Nodes[0].Data, "node.log"))
		if err != nil || strings.Contains(string(text), bad) {
			t.Errorf("the log says %q (%v):\n%s", bad, err, c.logs())
		}
	}
	if rep, r := c.exec(0, "--lang", "starlark", "-c", "result = 1"); r.code != exitOK {
		t.Errorf("a run after all that: %+v", rep)
	}
	c.start(2) // for dev, which ends it
}

// slowAndMany holds up hundreds of requests beside thousands that are answered.
func (m *oddMember) slowAndMany(t *testing.T, d *oddDoors, hc *http.Client) {
	const slow, requests, together = 300, 10_000, 16
	get := oddCall("GetTask", `{"id":"x"}`)
	whole := fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nA2A-Version: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", a2a.Version, len(get), get)
	for i := range slow {
		conn, err := m.Dial(t.Context(), m.to, protocolA2A)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, whole[:1+i*(len(whole)-1)/slow]); err != nil {
			t.Fatal(err)
		}
	}
	var work sync.WaitGroup
	for range together {
		work.Go(func() {
			for range requests / together {
				got, err := d.ask(hc, http.MethodPost, "/", get, nil)
				if err != nil || !strings.Contains(got.body, "-32001") {
					t.Errorf("one of %d requests: %d %.100s, %v", requests, got.status, got.body, err)
					return
				}
			}
		})
	}
	work.Wait()
}

// oddCallOn is a whole request on a stream, with an id of its own.
func oddCallOn(id int) string {
	body := strings.Replace(oddCall("GetTask", `{"id":"x"}`), `"id":7`, `"id":`+strconv.Itoa(id), 1)
	return fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nA2A-Version: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", a2a.Version, len(body), body)
}

// ask opens a stream for say, which writes requests to it, and reads the answers to
// those of oddCallOn(0) to oddCallOn(n-1), in that order.
func (m *oddMember) ask(t *testing.T, n int, say func(to io.Writer) error) {
	t.Helper()
	conn, err := m.Dial(t.Context(), m.to, protocolA2A)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(conditionMet)); err != nil {
		t.Fatal(err)
	}
	if err := say(conn); err != nil {
		t.Fatal(err)
	}
	from := bufio.NewReader(conn)
	for id := range n {
		res, err := http.ReadResponse(from, nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if want := fmt.Sprintf(`"id":%d,"error":{"code":-32001`, id); err != nil || !strings.Contains(string(text), want) {
			t.Fatalf("%.200q, %v, want %s", text, err, want)
		}
	}
}

// pipelined: fifty requests in one breath get fifty answers, in their order.
func (m *oddMember) pipelined(t *testing.T) {
	t.Helper()
	const n = 50
	m.ask(t, n, func(to io.Writer) error {
		var all strings.Builder
		for id := range n {
			all.WriteString(oddCallOn(id))
		}
		_, err := io.WriteString(to, all.String())
		return err
	})
}

// byteByByte: a request that comes in pieces of one byte is a request.
func (m *oddMember) byteByByte(t *testing.T) {
	t.Helper()
	m.ask(t, 1, func(to io.Writer) error {
		for _, b := range []byte(oddCallOn(0)) {
			if _, err := to.Write([]byte{b}); err != nil {
				return err
			}
		}
		return nil
	})
}
