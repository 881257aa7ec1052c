package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// engineSocket is where a Docker engine usually listens.
const engineSocket = "/var/run/docker.sock"

// sandboxFigures is what `agenticraft sandbox bench --json` answers.
type sandboxFigures struct {
	Figures []struct {
		Name      string  `json:"name"`
		Runs      int     `json:"runs"`
		P50       float64 `json:"p50_ms"`
		P95       float64 `json:"p95_ms"`
		PerSecond float64 `json:"runs_per_second"`
		Note      string  `json:"note"`
	} `json:"figures"`
	Goals []struct {
		Name  string  `json:"name"`
		Unit  string  `json:"unit"`
		Most  float64 `json:"most"`
		Least float64 `json:"least"`
		Got   float64 `json:"got"`
	} `json:"goals"`
	Missing []string `json:"missing"`
}

// measureSandboxes takes the figures of the sandboxes alone, without a node,
// from the command that an operator has for that.
func (l *lab) measureSandboxes(ctx context.Context, t *Table, each time.Duration) (err error) {
	socket, stop, err := l.engine(ctx)
	if err != nil {
		t.Problems = append(t.Problems, "docker: "+err.Error())
		socket, stop = "off", func() error { return nil }
	}
	defer func() { err = errors.Join(err, stop()) }()
	runs := max(int(each/(50*time.Millisecond)), 1)
	cmd := l.command("sandbox", "bench", "--json", "--runs", strconv.Itoa(runs), "--docker-socket", socket)
	var out bytes.Buffer
	cmd.Stdout = &out
	p, err := startProcess(ctx, cmd)
	if err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return errors.Join(ctx.Err(), p.stop())
	}
	if p.err != nil {
		return fmt.Errorf("%w\n%s", p.err, p.out.String())
	}
	var got sandboxFigures
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		return fmt.Errorf("read figures: %w", err)
	}
	g := Group{Name: "sandboxes alone; p99 is p95 here"}
	for _, f := range got.Figures {
		g.Rows = append(g.Rows, Row{Name: f.Name, Unit: "ms", N: f.Runs, P50: f.P50, P99: f.P95, Rate: f.PerSecond, Note: f.Note})
	}
	t.Sections = append(t.Sections, g)
	for _, goal := range got.Goals {
		t.Targets = append(t.Targets, Target{Name: "sandbox: " + goal.Name, Unit: goal.Unit, Most: goal.Most, Least: goal.Least, Got: goal.Got})
	}
	t.Problems = append(t.Problems, got.Missing...)
	return nil
}

// engine is the machine's Docker engine, or one of our own without a network,
// which stop ends.
func (l *lab) engine(ctx context.Context) (socket string, stop func() error, err error) {
	if _, err := os.Stat(engineSocket); err == nil {
		return engineSocket, func() error { return nil }, nil
	}
	name, err := exec.LookPath("dockerd")
	if err != nil {
		return "", nil, errors.New("no engine runs and there is no dockerd on this machine; run: apt-get install docker.io")
	}
	if os.Geteuid() != 0 {
		return "", nil, errors.New("no engine runs, and only root can start one")
	}
	dir := filepath.Join(l.dir, "engine")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", nil, err
	}
	socket = filepath.Join(dir, "docker.sock")
	// Stopped one way only, by process.stop.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), name, "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"), "--host", "unix://"+socket, "--bridge", "none", "--iptables=false")
	p, err := startProcess(ctx, cmd)
	if err != nil {
		return "", nil, err
	}
	up := func(context.Context) bool { _, err := os.Stat(socket); return err == nil }
	if err := p.until(ctx, "it listened", up); err != nil {
		return "", nil, errors.Join(err, p.stop())
	}
	return socket, p.stop, nil
}
