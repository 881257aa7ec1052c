package main

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"gopkg.in/yaml.v3"
)

// The suite's data lies in testdata/acts as it was published; this file runs
// it. testdata/deviations.yaml names the tests that contradict the
// specification, each with the sentence that says so.

type suiteFile struct {
	Variables map[string]string
	Suites    []struct{ Tests []actsTest }
	Include   []string
}

type actsTest struct {
	ID, Name, Level string
	Transport       []string
	Preconditions   struct{ Capabilities map[string]bool }
	Steps           []step
}

type deviation struct {
	ID       string
	Bindings []string // empty: all
	Without  string   // what the agent must lack for the test to fail: "push" or nothing
	Reason   string
	Spec     string // the sentence of the specification
}

const testWait = 45 * time.Second

// stand is the agent that the suite talks to.
type stand struct {
	*service
	bindings map[string]caller
}

func newStand(t *testing.T, pushes bool) *stand {
	t.Helper()
	s, err := start(t.Context(), t.TempDir(), "127.0.0.1:0", "127.0.0.1:0", pushes, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	conn, err := grpc.NewClient(s.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &stand{s, map[string]caller{"jsonrpc": jsonrpc{s.url}, "rest": rest{s.url}, "grpc": rpc{conn}}}
}

// capability is what the stand's card says about what preconditions ask.
func (s *stand) capability(name string) (have, known bool) {
	have, known = map[string]bool{"streaming": true, "pushNotifications": s.pushes, "extendedAgentCard": false, "authentication": false}[name]
	return have, known
}

func TestACTS(t *testing.T) {
	// What the card says decides what a test expects: the same agent with push
	// notifications and without.
	with, without := newStand(t, true), newStand(t, false)
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(receiver.Close)
	var devs []deviation
	readYAML(t, "testdata/deviations.yaml", &devs)
	table := newTally()
	t.Cleanup(func() { table.log(t) })
	total := 0
	var suite suiteFile
	readYAML(t, "testdata/acts/suite.acts.yaml", &suite)
	for _, name := range suite.Include {
		var file suiteFile
		readYAML(t, filepath.Join("testdata/acts", name), &file)
		for _, group := range file.Suites {
			for _, test := range group.Tests {
				total++
				for _, binding := range slices.Sorted(maps.Keys(with.bindings)) {
					if len(test.Transport) > 0 && !slices.Contains(test.Transport, binding) {
						continue
					}
					if test.Steps[0].ClientResponse != nil && binding != "jsonrpc" {
						continue // the golden answers are JSON-RPC's
					}
					t.Run(test.ID+"/"+binding, func(t *testing.T) {
						t.Parallel()
						s := with
						if on, asked := test.Preconditions.Capabilities["pushNotifications"]; asked && !on {
							s = without
						}
						p := &play{stand: s, base: s.url, binding: binding, via: s.bindings[binding], vars: maps.Clone(file.Variables), answers: map[string]any{}}
						if p.vars == nil {
							p.vars = map[string]string{}
						}
						p.vars["webhookUrl"] = receiver.URL
						table.note(binding, judge(t, p, test, devs))
					})
				}
			}
		}
	}
	if total != 111 {
		t.Errorf("the suite has %d tests, expected 111", total)
	}
	for _, d := range devs {
		if d.ID == "" || d.Reason == "" || d.Spec == "" {
			t.Errorf("deviation %+v is not justified", d)
		}
	}
}

// judge runs a test and says how it went.
func judge(t *testing.T, p *play, test actsTest, devs []deviation) string {
	for name, want := range test.Preconditions.Capabilities {
		if have, known := p.stand.capability(name); !known {
			t.Errorf("unknown precondition %s", name)
		} else if have != want {
			return "not applicable"
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), testWait)
	defer cancel()
	err := p.run(ctx, test)
	expected := slices.ContainsFunc(devs, func(d deviation) bool {
		return d.ID == test.ID && (len(d.Bindings) == 0 || slices.Contains(d.Bindings, p.binding))
	})
	switch {
	case err == nil && expected:
		t.Errorf("%s passes and is listed as a deviation", test.ID)
		return "failed"
	case err == nil:
		return "passed"
	case expected:
		t.Logf("deviation: %v", err)
		return "deviation"
	}
	t.Errorf("%s (%s, %s): %v", test.ID, test.Level, test.Name, err)
	return "failed"
}

func readYAML(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// tally counts how tests went on each binding.
type tally struct {
	mu sync.Mutex
	of map[string]map[string]int
}

func newTally() *tally { return &tally{of: map[string]map[string]int{}} }

func (c *tally) note(binding, how string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of[binding] == nil {
		c.of[binding] = map[string]int{}
	}
	c.of[binding][how]++
}

func (c *tally) log(t *testing.T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, binding := range slices.Sorted(maps.Keys(c.of)) {
		n := c.of[binding]
		t.Logf("%-8s passed %3d  failed %d  deviations %2d  not applicable %2d", binding, n["passed"], n["failed"], n["deviation"], n["not applicable"])
	}
}
