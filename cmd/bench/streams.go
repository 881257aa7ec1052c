package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
)

// idleStreams are held open at the same time: as many as the open files that a
// process may have by default leave room for. A test of the handler's, which is
// not run by default, holds ten thousand.
const idleStreams = 800

// measureStreams measures the memory of streams on which nothing happens.
func (l *lab) measureStreams(ctx context.Context, t *Table) (err error) {
	served, err := l.startTasks(ctx, ourTasks)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, served.stop()) }()
	task, err := served.begin(ctx)
	if err != nil {
		return err
	}
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	// The first ones are for what every process of the kind needs once.
	var streams streams
	defer streams.close()
	if err := streams.open(ctx, hc, served.url, task, idleStreams/8); err != nil {
		return err
	}
	before, err := served.settle()
	if err != nil {
		return err
	}
	if err := streams.open(ctx, hc, served.url, task, idleStreams); err != nil {
		return err
	}
	after, err := served.settle()
	if err != nil {
		return err
	}
	row := Row{Name: "an idle stream, resident", Unit: "KiB", N: idleStreams, P50: (after - before) / idleStreams / 1024}
	t.Sections = append(t.Sections, Group{Name: fmt.Sprintf("A2A streams, %d at the same time", idleStreams), Rows: []Row{row}})
	return nil
}

// begin begins a task that does not end, and gives its id.
func (t *taskServer) begin(ctx context.Context) (string, error) {
	res, err := call(ctx, http.DefaultClient, t.url, `{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"configuration":{"returnImmediately":true},"message":{"messageId":"`+waitingMessage+`","role":"ROLE_USER","parts":[{"text":"hello"}]}}}`)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return "", err
	}
	_, id, _ := strings.Cut(string(text), `"id":"`)
	id, _, _ = strings.Cut(id, `"`)
	if !a2a.ValidTaskID(id) {
		return "", fmt.Errorf("no task in %.200q", text)
	}
	return id, nil
}

// call posts a request of A2A over JSON-RPC. The caller closes the answer's body.
func call(ctx context.Context, hc *http.Client, url, body string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(sdk.SvcParamVersion, a2a.Version)
	return hc.Do(req)
}

// streams are open ones.
type streams struct{ bodies []io.Closer }

// open opens n more and waits until each has had its first event.
func (s *streams) open(ctx context.Context, hc *http.Client, url, task string, n int) error {
	var mu sync.Mutex // guards bodies and faults
	var faults []error
	var work sync.WaitGroup
	gate := make(chan struct{}, taskClients)
	for range n {
		work.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			res, err := call(ctx, hc, url, `{"jsonrpc":"2.0","id":1,"method":"SubscribeToTask","params":{"id":"`+task+`"}}`) //nolint:bodyclose // close closes it
			if err == nil {
				err = firstEvent(res.Body)
			}
			mu.Lock()
			defer mu.Unlock()
			if res != nil {
				s.bodies = append(s.bodies, res.Body)
			}
			if err != nil {
				faults = append(faults, err)
			}
		})
	}
	work.Wait()
	return errors.Join(faults...)
}

func (s *streams) close() {
	for _, b := range s.bodies {
		_ = b.Close() // the stream is cut off
	}
}

// firstEvent reads until a stream has said something.
func firstEvent(r io.Reader) error {
	lines := bufio.NewReaderSize(r, 512)
	for begun := time.Now(); time.Since(begun) < startWait; {
		line, err := lines.ReadString('\n')
		if err != nil {
			return fmt.Errorf("a stream ended before its first event: %w", err)
		}
		if strings.HasPrefix(line, "data:") {
			return nil
		}
	}
	return errors.New("a stream had no event")
}
