package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const (
	startWait = 60 * time.Second
	stopWait  = 15 * time.Second
	pollEvery = 2 * time.Millisecond
)

// process is one of ours, in a group of its own: an interrupt at the terminal
// is ours to pass on.
type process struct {
	cmd  *exec.Cmd
	out  bytes.Buffer
	done chan struct{} // closed when it was waited for
	err  error         // valid after done
}

// startProcess starts a program that is asked to stop when ctx ends. Whoever
// starts it calls stop.
func startProcess(ctx context.Context, cmd *exec.Cmd) (*process, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = &p.out
	}
	cmd.Stderr = &p.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	go func() { // stop waits for it
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// stop interrupts the process, waits for it, and kills it if it does not go.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.cmd.Path, err)
	}
	return p.wait()
}

func (p *process) wait() error {
	select {
	case <-p.done:
	case <-time.After(stopWait):
		err := p.cmd.Process.Kill()
		<-p.done
		return errors.Join(fmt.Errorf("%s did not stop in %v and was killed", p.cmd.Path, stopWait), err)
	}
	if p.err != nil {
		return fmt.Errorf("%v: %w\n%s", p.cmd.Args, p.err, p.out.String())
	}
	return nil
}

// until polls until ok, the process's end, the end of ctx, or too long.
func (p *process) until(ctx context.Context, what string, ok func(context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	for !ok(ctx) {
		select {
		case <-p.done:
			return fmt.Errorf("%v ended before %s: %w\n%s", p.cmd.Args, what, errors.Join(p.err), p.out.String())
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, ctx.Err())
		case <-time.After(pollEvery):
		}
	}
	return nil
}

// answersReady reports whether a node says that it can take requests.
func answersReady(ctx context.Context, base string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/readyz", nil)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	return res.StatusCode == http.StatusOK
}
