package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
)

// visits asks the proxy for the URLs that it is given, and says what came back.
const visits = `
import sys, urllib.error, urllib.request
result = []
for url in sys.argv[1:]:
    try:
        result.append("read %d" % len(urllib.request.urlopen(url, timeout=20).read()))
    except urllib.error.HTTPError as e:
        result.append("%d %s" % (e.code, e.headers.get("X-Agenticraft-Verdict", "")))
    except Exception as e:
        result.append("broken off")
`

// A program reaches what its request names, policy grants and the operator's
// settings leave open, within the operator's caps; each connection is an entry of
// the log, whatever became of it.
func TestEgressSettings(t *testing.T) {
	needPython(t)
	// An address of this machine of its own, which only the settings open.
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	site := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := "hello"
		if r.URL.Path == "/large" {
			body = strings.Repeat("x", 3<<20)
		}
		_, _ = w.Write([]byte(body)) // the caller may have gone
	}))
	_ = site.Listener.Close()
	site.Listener = l
	site.Start()
	t.Cleanup(site.Close)
	at := l.Addr().String()
	_, port, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}

	t.Setenv("AGENTICRAFT_EGRESS_ALLOW", "127.0.0.2/32")
	t.Setenv("AGENTICRAFT_EGRESS_CONNECTIONS", "4")
	t.Setenv("AGENTICRAFT_EGRESS_MAX_MB", "1")
	c := startCluster(t, 1)
	c.try(exitOK, "", "tenant", "set", defaultTenant, "--network", "*:*")
	local, node := "127.0.0.1:"+port, strings.TrimPrefix(c.Nodes[0].HTTP, "http://")
	run := func(allow []string, urls ...string) (a2a.Report, []string) {
		t.Helper()
		args := []string{"--network", "allow=" + strings.Join(allow, ","), "-c", visits, "--"}
		rep, r := c.exec(0, append(args, urls...)...)
		var got []string
		if err := json.Unmarshal(rep.Result, &got); err != nil {
			t.Fatalf("%v: %+v %s", urls, rep, r.stderr)
		}
		return rep, got
	}
	// The connections of a task, "host:port verdict", as its story tells them.
	onRecord := func(rep a2a.Report) []string {
		t.Helper()
		var story audit.Story
		c.json(&story, "audit", "show", rep.Task)
		var out []string
		for _, a := range story.Attempts {
			for _, one := range a.Connections {
				out = append(out, fmt.Sprintf("%s:%d %s", one.Host, one.Port, one.Verdict))
			}
		}
		slices.Sort(out)
		return out
	}

	// What stands for itself is open, and nothing else is, whatever policy grants.
	refused := []string{local, node, "10.1.2.3:80", "169.254.169.254:80"}
	for part := range slices.Chunk(refused, 3) { // 4 connections are one run's
		urls, want, record := []string{"http://" + at + "/"}, []string{"read 5"}, []string{at + " ok"}
		for _, one := range part {
			urls, want, record = append(urls, "http://"+one+"/"), append(want, "403 address_refused"), append(record, one+" address_refused")
		}
		rep, got := run(append([]string{at}, part...), urls...)
		if !slices.Equal(got, want) {
			t.Errorf("of %q a program got %q, want %q", urls, got, want)
		}
		slices.Sort(record)
		if got := onRecord(rep); !slices.Equal(got, record) {
			t.Errorf("on record is %q, want %q", got, record)
		}
		if how := rep.Enforced["network"]; !strings.HasSuffix(how, "+proxy") {
			t.Errorf("the network is held by %q", how)
		}
	}

	// What the request does not name is refused even where all else would allow it; the
	// log does not repeat names that a program made up.
	rep, got := run([]string{"example.org:443"}, "http://"+at+"/")
	if want := []string{"403 not_allowed"}; !slices.Equal(got, want) || !slices.Equal(onRecord(rep), []string{":0 not_allowed"}) {
		t.Errorf("what was not named: %q, on record %q", got, onRecord(rep))
	}

	// The operator's caps: connections of one run, and bytes.
	one := "http://" + at + "/"
	rep, got = run([]string{at}, one, one, one, one, one)
	if want := []string{"read 5", "read 5", "read 5", "read 5", "429 too_many"}; !slices.Equal(got, want) {
		t.Errorf("five connections: %q, want %q", got, want)
	}
	if record, want := onRecord(rep), append(slices.Repeat([]string{at + " ok"}, 4), ":0 too_many"); !slices.Equal(record, want) {
		t.Errorf("on record is %q, want %q", record, want)
	}
	rep, got = run([]string{at}, one+"large")
	if want := []string{"broken off"}; !slices.Equal(got, want) || !slices.Equal(onRecord(rep), []string{at + " byte_limit"}) {
		t.Errorf("more than the bytes of a run: %q, on record %q", got, onRecord(rep))
	}

	// Settings that mean nothing are refused, by their names.
	for key, value := range map[string]string{
		"AGENTICRAFT_EGRESS_ALLOW": "127.0.0.2", "AGENTICRAFT_EGRESS_CONNECTIONS": "0", "AGENTICRAFT_EGRESS_OPEN": "-1", "AGENTICRAFT_EGRESS_MAX_MB": "much",
	} {
		setting := strings.ToLower(strings.TrimPrefix(key, "AGENTICRAFT_"))
		r := c.runWith([]string{key + "=" + value}, "", "serve", "--data", t.TempDir())
		if r.code != exitUsage || !strings.Contains(r.stderr, setting) && !strings.Contains(r.stderr, key) {
			t.Errorf("%s=%s: exit %d, %s", key, value, r.code, r.stderr)
		}
	}
}
