package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	httpdoor "github.com/agenticraft/node/bridges/http"
)

// oddConnections speaks to the port as no HTTP library would: each is answered, or
// hung up on, while it waits.
func (d *oddDoors) oddConnections(t *testing.T) {
	list := oddCall("ListTasks", `{"pageSize":1}`)
	head := "Host: x\r\nA2A-Version: 1.0\r\nContent-Type: application/json\r\nAuthorization: Bearer " + d.key + "\r\n"
	post := "POST " + httpdoor.JSONRPCPath + " HTTP/1.1\r\n" + head
	whole := post + "Content-Length: " + strconv.Itoa(len(list)) + "\r\n\r\n" + list
	for name, tc := range map[string]struct {
		say  string
		want string // begins the last line of status; "": hung up on without a word
	}{
		"not HTTP":                {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "HTTP/1.1 400"},
		"NUL bytes":               {strings.Repeat("\x00", 5000) + "\r\n\r\n", "HTTP/1.1 400"},
		"no host":                 {"GET /healthz HTTP/1.1\r\n\r\n", "HTTP/1.1 400"},
		"two hosts":               {"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "HTTP/1.1 400"},
		"HTTP/1.0":                {"GET /healthz HTTP/1.0\r\n\r\n", "HTTP/1.0 200"},
		"HTTP/3.0":                {"GET /healthz HTTP/3.0\r\nHost: x\r\n\r\n", "HTTP/1.1 505"},
		"a URL":                   {"GET http://elsewhere/healthz HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200"},
		"a tunnel":                {"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n", "HTTP/1.1 404"},
		"a star":                  {"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200"},
		"a long URL":              {"GET /" + strings.Repeat("x", 200<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 431"},
		"many headers":            {"GET /healthz HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: y\r\n", 50_000) + "\r\n", "HTTP/1.1 431"},
		"a header without end":    {"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("y", 200<<10) + "\r\n\r\n", "HTTP/1.1 431"},
		"two lengths":             {post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", "HTTP/1.1 400"},
		"a negative length":       {post + "Content-Length: -5\r\n\r\n", "HTTP/1.1 400"},
		"a length of 2^63":        {post + "Content-Length: 9223372036854775808\r\n\r\n", "HTTP/1.1 400"},
		"a length of 8 EiB":       {post + "Content-Length: 9223372036854775807\r\n\r\n", "HTTP/1.1 200"}, // too_large, in JSON-RPC's form
		"broken chunks":           {post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", "HTTP/1.1 200"},
		"chunks of chunks":        {post + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 501"},
		"a length and chunks":     {post + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 200"},
		"what is not expected":    {post + "Expect: the-unexpected\r\nContent-Length: 2\r\n\r\n{}", "HTTP/1.1 417"},
		"an upgrade to HTTP/2":    {"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n", "HTTP/1.1 200"},
		"an upgrade to WebSocket": {"GET " + httpdoor.JSONRPCPath + " HTTP/1.1\r\n" + head + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", "HTTP/1.1 405"},
		"a folded header":         {"GET /healthz HTTP/1.1\r\nHost: x\r\n X: y\r\n\r\n", "HTTP/1.1 400"},
		"a space before a colon":  {"GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n", "HTTP/1.1 400"},
		"HTTP/2 with bad frames":  {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\xff", 100), ""},
		"HTTP/2 half a preface":   {"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", ""},
	} {
		answers := d.converse(t, name, tc.say)
		if tc.want == "" && strings.Contains(answers, " 200 ") || !strings.HasPrefix(answers, tc.want) {
			t.Errorf("%s: %.200q, want %s", name, answers, tc.want)
		}
		if strings.Contains(answers, "HTTP/1.1 500") || strings.Contains(answers, "101 Switching") {
			t.Errorf("%s: %.200q", name, answers)
		}
	}
	// Over HTTP/1.1 there is no gRPC, and a document that says so.
	if got, err := d.ask(d.one, http.MethodPost, "/lf.a2a.v1.A2AService/GetTask", "\x00\x00\x00\x00\x00", map[string]string{"Content-Type": "application/grpc"}); err != nil || got.status != http.StatusNotFound {
		t.Errorf("gRPC over HTTP/1.1: %d %.100s, %v", got.status, got.body, err)
	}
	// Fifty requests in one breath get fifty answers, in their order.
	var all strings.Builder
	for i := range 50 {
		body := strings.Replace(list, `"id":7`, `"id":`+strconv.Itoa(i), 1)
		fmt.Fprintf(&all, "%sContent-Length: %d\r\n\r\n%s", post, len(body), body)
	}
	rest := d.converse(t, "a pipeline", all.String()+"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	for i := range 50 {
		_, after, found := strings.Cut(rest, `{"jsonrpc":"2.0","id":`+strconv.Itoa(i)+`,"result"`)
		if !found {
			t.Fatalf("a pipeline: no answer %d in %.300q", i, rest)
		}
		rest = after
	}
	// Who is slow holds up nobody, and who hangs up in the middle leaves nothing.
	for i := range 100 {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", d.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.WriteString(conn, whole[:len(whole)*i/100])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	if got, err := d.ask(d.one, http.MethodPost, httpdoor.JSONRPCPath, list, nil); err != nil || got.status != http.StatusOK {
		t.Errorf("beside a hundred slow clients: %d, %v", got.status, err)
	}
}

// converse says something to the port, no more, and gives what comes until the node
// hangs up.
func (d *oddDoors) converse(t *testing.T, name, say string) string {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", d.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(oddWait)); err != nil {
		t.Fatal(err)
	}
	go func() { // the node may answer, and hang up, before it has read all
		_, _ = io.WriteString(conn, say)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	var out bytes.Buffer
	if _, err := io.Copy(&out, bufio.NewReader(conn)); err != nil && out.Len() == 0 && !strings.Contains(err.Error(), "reset") {
		t.Errorf("%s: %v", name, err)
	}
	return out.String()
}
