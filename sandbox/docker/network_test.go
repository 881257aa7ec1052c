//go:build linux

package docker_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/egress"
)

// Containers are held to their destinations as jails are, and have no other way
// out.
func TestContainersReachWhatTheyMay(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives containers a way out")
	}
	g, err := egress.New(egress.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	if err != nil {
		t.Fatal(err)
	}
	b := engine(t, g)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "hello") }))
	t.Cleanup(server.Close)
	at := strings.TrimPrefix(server.URL, "http://")
	list, err := sandbox.ParseNetwork("allow=" + at)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var told []sandbox.Connection
	spec := sandbox.Spec{
		ID: "net", Owner: "tester", Language: "python", Network: list,
		Connected: func(c sandbox.Connection) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, c)
		},
		Code: []byte(`
import urllib.request, urllib.error, socket, os
def get(url):
    try:
        return urllib.request.urlopen(url, timeout=5).read().decode()
    except urllib.error.HTTPError as e:
        return e.headers.get("X-Agenticraft-Verdict", "")
def refused(*a):
    try:
        socket.socket(*a)
        return False
    except OSError:
        return True
def direct():
    try:
        socket.create_connection(("127.0.0.1", ` + at[strings.LastIndexByte(at, ':')+1:] + `), 2)
        return True
    except OSError:
        return False
ca = os.environ.get("SSL_CERT_FILE")
result = [get("http://` + at + `/"), get("http://example.org/"), refused(2, 2), refused(2, 3, 6), refused(10, 1), refused(1, 1), direct(), ca is None or os.path.getsize(ca) > 1000]
`),
	}
	r, err := b.Run(t.Context(), spec, nil)
	if want := `["hello","not_allowed",true,true,true,true,false,true]`; err != nil || strings.ReplaceAll(string(r.Value), " ", "") != want {
		t.Errorf("Run = %s, %v, want %s; stderr %s", r.Value, err, want, r.Stderr)
	}
	if r.Enforced[sandbox.LimitNetwork] != "netns+seccomp+proxy" || len(told) != 2 {
		t.Errorf("enforced %v, told of %+v", r.Enforced, told)
	}
}
